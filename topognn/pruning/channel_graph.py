"""A network's channels as nodes: which weights lead from one to another."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from topognn.tracing.layout import Connection, Layout

FIRM = -1  # the "weight" of an edge that no weight makes: a shortcut's


class ChannelGraph(NamedTuple):
    """Edges between channels, one a weight and pair of channels that it joins.

    Attributes:
        source, target: int64 ``(edges,)``, channels; those of a partition are consecutive.
        weight: int64 ``(edges,)``, the place of the edge's weight among all weights laid end to end; ``FIRM`` for none.
        inputs, outputs: int64, the channels of the network's input, and of its output.
        num_channels: The number of channels of all partitions.
    """

    source: Tensor
    target: Tensor
    weight: Tensor
    inputs: Tensor
    outputs: Tensor
    num_channels: int


def channel_graph(layout: Layout, offsets: Mapping[str, int]) -> ChannelGraph:
    """Return the channels of a layout and how weights join them.

    A weight of a convolution joins two channels once, however often it is used. A linear layer's inputs stand for the
    channels that they come from, and so do pooled elements.

    Args:
        layout: The layout, on any device.
        offsets: Weight name -> place of its first weight among all weights laid end to end.

    >>> import topognn
    >>> model, _ = topognn.example_model()  # a 2x2 convolution with two channels, and a linear layer from 8 to 2
    >>> graph = channel_graph(topognn.trace(model, (1, 3, 3)), {"0.weight": 0, "2.weight": 8})
    >>> graph.num_channels, graph.source.tolist()[:8], graph.source.bincount()
    (5, [0, 0, 0, 0, 0, 0, 0, 0], tensor([8, 8, 8]))
    """
    channels, starts = _number_channels(layout)
    parts = [_join(c, channels, offsets) for c in layout.connections]
    source, target, weight = (torch.cat(column) for column in zip(*parts, strict=True))
    ends = [torch.arange(starts[n], starts[n + 1], device=source.device) for n in (0, *layout.outputs)]
    return ChannelGraph(source, target, weight, ends[0], torch.cat(ends[1:]), starts[-1])


def _number_channels(layout: Layout) -> tuple[Tensor, list[int]]:
    """Return each node's channel, and each partition's first channel."""
    device = layout.connections[0].source_y.device
    makers = {c.target: c for c in layout.connections if c.weight is not None}
    channels = torch.empty(layout.num_nodes, dtype=torch.int64, device=device)
    starts = [0]
    for number, part in enumerate(layout.partitions):
        elements = torch.arange(part.size, device=device)
        if (maker := makers.get(number)) is not None:
            nodes = elements + part.offset if maker.target_map is None else maker.target_map
            found, count = elements // maker.target_channel_stride % maker.kernel[0], maker.kernel[0]
        else:  # the input, or a sum with nodes of its own: images are channels first, tokens channels last
            nodes = elements + part.offset
            shape = part.shape
            count = shape[1] if len(shape) == 2 else shape[0]
            found = elements % count if len(shape) == 2 else elements // math.prod(shape[1:])
        channels[nodes] = found + starts[-1]
        starts.append(starts[-1] + count)
    return channels, starts


def _join(c: Connection, channels: Tensor, offsets: Mapping[str, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Return source channel, target channel and weight of every edge that a connection makes."""
    elements = torch.arange(c.num_elements, device=channels.device)
    targets = torch.arange(c.num_targets, device=channels.device)
    nodes = targets + c.target_first if c.target_map is None else c.target_map
    held = (elements + c.source)[None] if c.support is None else c.support
    read = held >= 0
    sources, elements = channels[held[read]], elements.expand(held.shape)[read]
    if c.weight is None:  # each element is joined to the node of the same place
        pairs = torch.unique(torch.stack([sources, channels[nodes[elements]]]), dim=1)
        return pairs[0], pairs[1], torch.full_like(pairs[0], FIRM)
    pairs = torch.unique(torch.stack([sources, elements // c.channel_stride % c.in_channels]), dim=1)
    outputs, inner = c.kernel[0] // c.groups, c.kernel[1]
    group, within = pairs[1] // inner, pairs[1] % inner
    taps = c.kernel[2] * c.kernel[3]
    first = torch.arange(c.kernel[0], device=channels.device) * c.target_channel_stride  # each channel's first element
    made = channels[nodes[first]].view(c.groups, outputs)
    numbers = torch.arange(c.num_weights, device=channels.device) if c.weight_map is None else c.weight_map
    numbers = numbers.view(-1, c.groups, outputs, inner, taps).movedim(0, -1).flatten(3)
    weight = offsets[c.weight] + numbers[group, :, within]  # (pairs, outputs, taps and terms)
    source = pairs[0][:, None, None].expand_as(weight)
    target = made[group][:, :, None].expand_as(weight)
    real = weight.reshape(-1) >= offsets[c.weight]
    return source.reshape(-1)[real], target.reshape(-1)[real], weight.reshape(-1)[real]
