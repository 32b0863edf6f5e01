"""Encode a network again after some of its masks have changed, at the cost of the layers that did."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from topognn.encoding.degrees import put_in, put_out, sum_in, sum_out
from topognn.encoding.kept import KeptWeights, find_mask, take_values, take_weight
from topognn.graph import Earlier, MultipartiteGraph
from topognn.kernels.host import read


def start_series(graph: MultipartiteGraph) -> MultipartiteGraph:
    """Make a graph remember its analyses, for :func:`encode_again` to begin from; return it.

    That takes some values a node, and an index a kept weight, for as long as the graph lives.
    """
    graph.remembered = {}
    return graph


def encode_again(
    graph: MultipartiteGraph,
    masks: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    changed: Collection[str],
    *,
    values: bool = True,
) -> MultipartiteGraph:
    """Return the graph of the same layout with some new masks; what of ``graph`` has not changed is used again.

    Degrees move by what the changed layers add and take away, and analyses by convolution are made anew from where a
    change is felt. Afterwards ``graph`` has neither rows nor a memory any more: there is one series, and it goes on.

    Args:
        graph: One on which :func:`start_series` was called, or that this function returned.
        masks: Weight name -> bool tensor on the graph's device; at least those in ``changed``.
        weights: Weight name -> the model's weights now.
        changed: Names of the weights whose masks are others than in ``graph``.
        values: Whether edges get today's weights in all layers. If not, only in changed ones: for metrics of masks.

    One host sync if anything has changed, none otherwise.

    >>> import topognn
    >>> model, masks = topognn.example_model()
    >>> layout = topognn.trace(model, (1, 3, 3))
    >>> graph = start_series(topognn.encode(layout, masks=masks))
    >>> dense = {**masks, "2.weight": torch.ones(2, 8, dtype=torch.bool)}
    >>> encode_again(graph, dense, layout.weights(), {"2.weight"})
    MultipartiteGraph(19 nodes, 24 edges, 3 partitions, cpu)
    """
    layout, device = graph.layout, graph.device
    parts: list[tuple[int, Tensor, Tensor]] = []  # connection, new mask, what is added to it (1) and taken away (-1)
    for number, c in enumerate(layout.connections):
        if c.weight is not None and c.weight in changed:
            mask = c.to_kernel(masks[c.weight].to(device)).contiguous()
            parts.append((number, mask, mask.float() - graph.kept[number].mask.float()))
    in_degrees, num_uses, counts = graph.raw_in_degrees, graph.num_uses, {}
    out_degrees = graph.__dict__.get("out_degrees")
    if parts:
        in_degrees, sizes = in_degrees.clone(), [mask.count_nonzero() for _, mask, _ in parts]
        out_degrees = None if out_degrees is None else out_degrees.clone()
        for number, _, delta in parts:
            c = layout.connections[number]
            moved = sum_in(c, delta).to(torch.int64)
            put_in(c, moved, in_degrees)
            sizes.append(moved.sum())
            if out_degrees is not None:
                put_out(c, sum_out(c, delta).to(torch.int64), out_degrees)
        found = list(map(int, read(torch.stack(sizes))))
        num_uses += sum(found[len(parts) :])
        counts = {number: (mask, count) for (number, mask, _), count in zip(parts, found[: len(parts)], strict=True)}
    kept = list(graph.kept)
    for number, c in enumerate(layout.connections):
        mask, count = counts.get(number, (kept[number].mask, kept[number].count))
        if c.weight is not None and (number in counts or values):
            whole = weights[c.weight].to(device, torch.float32)
            if c.is_pooled:
                whole_mask = masks[c.weight].to(device) if number in counts else find_mask(layout, kept, c.weight)
                now = take_weight(c, whole, whole_mask)
            else:
                now = c.to_kernel(whole)
            kept[number] = KeptWeights(mask, take_values(mask, now, count), count)
    new = MultipartiteGraph(layout, kept, in_degrees, num_uses)
    for name in ("has_parallel_edges", "is_input", "is_output"):  # the layout's alone
        if name in graph.__dict__:
            new.__dict__[name] = graph.__dict__[name]
    if out_degrees is not None and not new.has_parallel_edges:
        new.__dict__["out_degrees"] = out_degrees
    assert graph.remembered is not None
    new.remembered, new.earlier = graph.remembered, graph.earlier
    if parts:
        new.remembered, new.earlier = {}, Earlier(graph.remembered, tuple(n not in counts for n in range(len(kept))))
    graph.remembered = graph.earlier = None
    return new
