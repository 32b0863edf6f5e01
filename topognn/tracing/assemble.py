"""Give nodes their final ids and turn what a walk wrote down into a :class:`Layout`."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from topognn.errors import TraceError
from topognn.tracing.draft import Draft, LayerUse, Shortcut
from topognn.tracing.layout import Connection, Layout, Partition, Weights
from topognn.tracing.shared_channels import split_shared
from topognn.tracing.windows import transposed_table, window_table


def assemble(draft: Draft, shortcuts: str, weights: Weights) -> Layout:
    """Return the layout of a finished draft. Merged blocks stand where the later one stood."""
    if not any(isinstance(use, LayerUse) for use in draft.uses):
        raise TraceError("the model has no convolution or linear layer that its input reaches: no graph")
    final = torch.full((draft.blocks[-1].first + math.prod(draft.blocks[-1].shape) + 1,), -1)
    partitions: list[Partition] = []
    for block in draft.blocks:
        if block.merged is not None:
            continue
        offset = partitions[-1].end if partitions else 0
        partitions.append(Partition(block.name, block.shape, offset))
        final[block.first : block.first + partitions[-1].size] = torch.arange(offset, partitions[-1].end)
    for block in reversed(draft.blocks):  # a block is merged into a later one, whose ids are final by then
        if block.merged is not None:
            final[block.first : block.first + block.merged.numel()] = final[block.merged]
    bounds = torch.tensor([p.offset for p in partitions[1:]], dtype=torch.int64)

    def finish(ids: Tensor) -> Tensor:
        return final[ids]  # the last entry is -1, which is where -1 points

    def owners(ids: Tensor) -> tuple[int, ...]:
        real = ids if int(ids.min()) >= 0 else ids[ids >= 0]
        if real.numel() == 0:
            return ()
        first, last = torch.bucketize(torch.stack([real.min(), real.max()]), bounds, right=True).tolist()
        if first == last:  # as nearly everywhere
            return (first,)
        return tuple(torch.bincount(torch.bucketize(real.flatten(), bounds, right=True)).nonzero().flatten().tolist())

    connections = []
    for use in draft.uses:
        if isinstance(use, Shortcut):
            target_ids = finish(use.target_ids).flatten(1)
            ends = owners(target_ids)
            if not ends:  # the sum keeps nothing of its fresh operand but padding
                continue
            (number,) = ends
            ids = _sources_of_targets(finish(use.ids).flatten(1), target_ids, partitions[number])
            connections.append(_shortcut(use, ids, number, partitions[number], owners(ids)))
        else:
            block = draft.blocks[use.block]
            nodes = final[block.first : block.first + math.prod(block.shape)]
            nodes = nodes if use.order is None else final[use.order.flatten()]
            (number,) = owners(nodes)
            for part in split_shared(use._replace(ids=finish(use.ids))):
                connections.append(_layer(part, part.ids, nodes, number, partitions[number], owners(part.ids)))
    inputs = tuple(owners(final[draft.blocks[n].first].view(1))[0] for n in draft.inputs)
    outputs = sorted({owner for ids in draft.output for owner in owners(finish(ids))})
    return Layout(tuple(partitions), tuple(connections), tuple(outputs), shortcuts, weights, inputs)


def _layer(
    use: LayerUse, ids: Tensor, nodes: Tensor, target: int, partition: Partition, sources: tuple[int, ...]
) -> Connection:
    groups, rows = use.groups, None
    stride, padding, dilation = use.stride, use.padding, use.dilation
    out, in_group = use.weight_shape[0], use.weight_shape[1]
    table = transposed_table if use.transposed else window_table
    if use.is_linear:
        positions = input_positions = (1, math.prod(use.output_shape) // out)
        kernel = (out, in_group, 1, 1)
    else:
        positions = _last_two(use.output_shape[1:])
        input_positions = _last_two(ids.shape[3 if ids.dim() - 1 == len(use.weight_shape) else 2 :])
        kernel = (out, in_group, *_last_two(use.weight_shape[2:]))
    if use.depth is not None:  # depth and height become one axis of rows, which follows a table and no stride
        depths = (ids.shape[-3], use.output_shape[1], use.weight_shape[2])
        heights = (input_positions[0], positions[0], kernel[2])
        deep = table(*depths, *use.depth)
        high = table(*heights, stride[0], padding[0], dilation[0])
        rows = _merge(deep, high, heights[0])
        stride, padding, dilation = (0, stride[1]), (0, padding[1]), (1, dilation[1])
        input_positions, positions = (depths[0] * heights[0], input_positions[1]), (rows.shape[0], positions[1])
        kernel = (out, in_group, rows.shape[1], kernel[3])
    return _connection(
        layer=use.layer,
        weight=use.weight,
        weight_shape=use.weight_shape if use.parameter_shape is None else use.parameter_shape,
        kernel=kernel,
        groups=groups,
        weight_map=None if use.entries is None else use.entries.reshape(-1, *kernel),
        positions=positions,
        input_positions=input_positions,
        channels_last=use.is_linear,
        stride=stride,
        padding=padding,
        dilation=dilation,
        rows=rows,
        ids=ids.flatten(1),
        target=target,
        target_first=partition.offset,
        nodes=nodes,
        sources=sources,
        transposed=use.transposed,
    )


def _shortcut(use: Shortcut, ids: Tensor, target: int, partition: Partition, sources: tuple[int, ...]) -> Connection:
    one = (1, 1)
    places = (1, partition.size)
    return _connection(
        layer=use.name,
        weight=None,
        weight_shape=(1, 1, 1, 1),
        kernel=(1, 1, 1, 1),
        groups=1,
        positions=places,
        input_positions=places,
        channels_last=False,
        stride=one,
        padding=(0, 0),
        dilation=one,
        rows=None,
        ids=ids,
        target=target,
        target_first=partition.offset,
        nodes=torch.arange(partition.offset, partition.end),
        sources=sources,
    )


def _connection(
    *,
    layer: str,
    weight: str | None,
    weight_shape: tuple[int, ...],
    kernel: tuple[int, int, int, int],
    groups: int,
    positions: tuple[int, int],
    input_positions: tuple[int, int],
    channels_last: bool,
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    rows: Tensor | None,
    ids: Tensor,
    target: int,
    target_first: int,
    nodes: Tensor,
    sources: tuple[int, ...],
    weight_map: Tensor | None = None,
    transposed: bool = False,
) -> Connection:
    (h, w), (oh, ow) = input_positions, positions
    channels = kernel[1] * groups
    step = channels if channels_last else 1
    target_step = kernel[0] if channels_last else 1
    table = transposed_table if transposed else window_table
    y = [table(h, oh, kernel[2], stride[0], padding[0], dilation[0]) if rows is None else rows]
    x = [table(w, ow, kernel[3], stride[1], padding[1], dilation[1])]
    y.append(_inverse(y[0], h))
    x.append(_inverse(x[0], w))
    source, support, holders_indptr, holders = _describe(ids)
    straight = torch.equal(nodes, torch.arange(target_first, target_first + nodes.numel()))
    is_single = ids.shape[0] == 1
    held_once = bool((holders_indptr.diff() <= 1).all())
    repeats = not held_once
    if repeats and kernel[2:] == (1, 1):  # an output reads one position: repeats matter within a position only
        repeats = _repeats_at_a_position(ids, channels, channels_last, groups)
    return Connection(
        layer=layer,
        weight=weight,
        weight_shape=weight_shape,
        kernel=kernel,
        groups=groups,
        positions=positions,
        input_positions=input_positions,
        stride=stride,
        padding=padding,
        dilation=dilation,
        channel_stride=1 if channels_last else h * w,
        place_stride=step,
        target_channel_stride=1 if channels_last else oh * ow,
        target_place_stride=target_step,
        source_y=_scaled(y[0], w * step),
        source_x=_scaled(x[0], step),
        target_y=_scaled(y[1], ow * target_step),
        target_x=_scaled(x[1], target_step),
        num_elements=ids.shape[1],
        source=source,
        support=support,
        num_sources=ids.shape[1] if support is None else holders_indptr.numel() - 1,
        holders_indptr=holders_indptr if support is not None else None,
        holders=holders if support is not None else None,
        multiplicity=None if support is None else _multiplicity(support, channels, channels_last),
        target=target,
        target_first=target_first,
        target_map=None if straight else nodes,
        sources=sources,
        ascends_in=support is None or (is_single and not repeats and _ascends(support)),
        ascends_out=straight and held_once,
        may_repeat=repeats,
        weight_map=weight_map,
        transposed=transposed,
    )


def _last_two(sizes: Sequence[int]) -> tuple[int, int]:
    """Return ``(height, width)``; one-dimensional tensors have height 1."""
    height, width = (1, *sizes)[-2:]
    return height, width


def _merge(depths: Tensor, heights: Tensor, height: int) -> Tensor:
    """Return the table of rows, a depth's heights one after the other; -1 where either is outside."""
    merged = depths[:, None, :, None] * height + heights[None, :, None, :]
    merged[((depths < 0)[:, None, :, None] | (heights < 0)[None, :, None, :])] = -1
    return merged.reshape(depths.shape[0] * heights.shape[0], -1)


def _scaled(table: Tensor, step: int) -> Tensor:
    return torch.where(table >= 0, table * step, -1).contiguous()


def _inverse(table: Tensor, size: int) -> Tensor:
    """Return ``(input size, kernel)``: the output coordinate that each input coordinate and tap leads to, or -1."""
    inverse = torch.full((size + 1, table.shape[1]), -1, dtype=torch.int64)
    taps = torch.arange(table.shape[1]).expand_as(table)
    inverse[table, taps] = torch.arange(table.shape[0])[:, None].expand_as(table)  # -1 lands in the last row
    return inverse[:size]


def _ascends(support: Tensor) -> bool:
    kept = support[0][support[0] >= 0]
    return bool((kept.diff() > 0).all())


def _describe(ids: Tensor) -> tuple[int, Tensor | None, Tensor, Tensor]:
    """Return (first node, support or None where element ``e`` is node ``first + e``, holders' pointers, holders)."""
    first = int(ids[0, 0])
    if ids.shape[0] == 1 and first >= 0 and torch.equal(ids[0], torch.arange(first, first + ids.shape[1])):
        return first, None, torch.zeros(1, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
    valid = ids >= 0
    nodes = ids[valid]
    elements = torch.arange(ids.shape[1]).expand_as(ids)[valid]
    low, high = (int(nodes.min()), int(nodes.max()) + 1) if nodes.numel() else (0, 0)
    order = torch.argsort(nodes, stable=True)
    indptr = torch.zeros(high - low + 1, dtype=torch.int64)
    indptr[1:] = torch.bincount(nodes - low, minlength=high - low).cumsum(0)
    return low, ids.contiguous(), indptr, elements[order].contiguous()


def _multiplicity(support: Tensor, channels: int, channels_last: bool) -> Tensor:
    held = (support >= 0).sum(0).double()
    held = held.view(-1, channels).T if channels_last else held.view(channels, -1)
    even = bool((held == held[:, :1]).all())
    return held[:, :1].contiguous() if even else held.contiguous()


def _repeats_at_a_position(ids: Tensor, channels: int, channels_last: bool, groups: int) -> bool:
    shape = (ids.shape[0], -1, channels) if channels_last else (ids.shape[0], channels, -1)
    at = ids.view(shape)
    if channels_last:
        at = at.transpose(1, 2)
    at = (
        at.reshape(at.shape[0], groups, -1, at.shape[2]).permute(1, 3, 0, 2).flatten(2)
    )  # (groups, positions, K * channels a group)
    at = at.sort(-1).values
    return bool(((at[..., 1:] == at[..., :-1]) & (at[..., 1:] >= 0)).any())


def _sources_of_targets(ids: Tensor, target_ids: Tensor, partition: Partition) -> Tensor:
    """Return ``(K, partition size)``: the sources of a shortcut's edges, listed by the node they end in."""
    depth, width = ids.shape[0], target_ids.shape[0]
    sources = ids[:, None].expand(depth, width, -1).flatten()
    targets = target_ids[None].expand(depth, width, -1).flatten()
    real = (sources >= 0) & (targets >= 0)
    sources, targets = sources[real], targets[real] - partition.offset
    order = torch.argsort(targets * (int(sources.max()) + 1 if sources.numel() else 1) + sources)
    sources, targets = sources[order], targets[order]
    counts = torch.bincount(targets, minlength=partition.size)
    starts = counts.cumsum(0) - counts
    table = torch.full((max(1, int(counts.max())), partition.size), -1, dtype=torch.int64)
    table[torch.arange(targets.numel()) - starts[targets], targets] = sources
    return table
