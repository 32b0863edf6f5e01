"""The neighbours of a connection's nodes, for kernels that find each edge anew instead of reading it from memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from topognn.encoding.kept import KeptWeights
from topognn.tracing.layout import Connection


class Neighbors(NamedTuple):
    """What a kernel needs to find the neighbours of a connection's nodes, in the order of its arguments.

    A kernel's item is a target, or a source, of the connection. It stands in some elements of the layer's output, or
    input; a kept weight leads from each, wherever it does not leave the image, to an element of the other tensor, and
    so to the nodes which that one stands for.

    Attributes:
        items: Number of targets, or of sources.
        work: Mean number of kept weights at an item.
        taps: Geometry of the items' elements and the kept weights by channel, without their values.
        weight: float32 ``|w|`` of those; empty unless asked for.
        ends: Node of item 0; the items' nodes, if they are no range; pointers and elements that items stand in, if
            not in the one of their own number; node of the other tensor's element 0; its elements' nodes,
            ``(K, elements)``, -1 = none, if they are no range.
    """

    items: int
    work: float
    taps: tuple[int | Tensor, ...]
    weight: Tensor
    ends: tuple[int | Tensor, ...]


def find_neighbors(
    connection: Connection,
    kept: KeptWeights,
    direction: Literal["in", "out"],
    dtype: torch.dtype,
    weighted: bool = False,
) -> Neighbors:
    """Return how to find the in-edges of a connection's targets, or the out-edges of its sources.

    Takes 8 bytes a kept weight, one index in ``dtype`` and, for out-edges with weights, 4 bytes more; no edge.
    """
    c = connection
    none = torch.empty(0, dtype=torch.int64, device=kept.mask.device)
    if direction == "in":
        taps = kept.by_output(c, dtype, weighted)
        return Neighbors(
            c.num_targets,
            kept.count / c.kernel[0],
            (
                *(c.kernel[0], c.target_channel_stride, c.positions[0] * c.positions[1]),
                *(c.target_place_stride, c.positions[1], c.source_y, c.source_x, *taps[:4]),
            ),
            taps.weight,
            (
                *(c.target_first, _or(c.target_map, none), none, none),
                *(c.source, _or(c.support, none.view(0, 0))),
            ),
        )
    taps = kept.by_input(c, dtype, weighted)
    nodes = none.view(0, 0) if c.target_map is None else c.target_map[None]
    return Neighbors(
        c.num_sources,
        kept.count / c.in_channels,
        (
            *(c.in_channels, c.channel_stride, c.input_positions[0] * c.input_positions[1]),
            *(c.place_stride, c.input_positions[1], c.target_y, c.target_x, *taps[:4]),
        ),
        taps.weight,
        (c.source, none, _or(c.holders_indptr, none), _or(c.holders, none), c.target_first, nodes),
    )


def find_both(
    connection: Connection, kept: KeptWeights, dtype: torch.dtype, weighted: bool = False
) -> Iterator[Neighbors]:
    """Return how to find the in-edges of a connection's targets, then the out-edges of its sources, one at a time."""
    yield find_neighbors(connection, kept, "in", dtype, weighted)
    yield find_neighbors(connection, kept, "out", dtype, weighted)


def _or(tensor: Tensor | None, none: Tensor) -> Tensor:
    return none if tensor is None else tensor
