"""What a walk through a model's operations writes down, before nodes have their final ids."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from torch import Tensor


class Value(NamedTuple):
    """A tensor in flight: ids ``(K, *shape)``, and the block whose fresh output it is (None: not fresh).

    Fresh: reached from one layer's output, or from a sum that ends in one, through transparent operations
    that nothing else reads.
    """

    ids: Tensor
    fresh: int | None


@dataclasses.dataclass
class Block:
    """A provisional partition. ``merged`` says which node of a later block each of its nodes became."""

    name: str
    shape: tuple[int, ...]
    first: int
    merged: Tensor | None = None


class LayerUse(NamedTuple):
    """A use of a layer's weights, before renumbering.

    ``ids`` is ``(K, *input shape)``; ``depth`` is stride, padding and dilation along a third axis.
    """

    layer: str
    weight: str
    weight_shape: tuple[int, ...]
    is_linear: bool
    ids: Tensor
    block: int
    output_shape: tuple[int, ...]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    depth: tuple[int, int, int] | None = None


class Shortcut(NamedTuple):
    """Edges of weight 1 from the nodes of each element of one tensor to those of another; same shape but K."""

    name: str
    ids: Tensor
    target_ids: Tensor
    block: int
