"""Sums over paths: values carried from the input to the output, or back, one partition after another.

Numbers of paths grow by a factor a layer and pass every float in deep networks, so each partition carries an exponent
of its own: a node's value is ``values[node] * 2 ** exponent`` of its partition. Powers of two change no digit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from graphlib import TopologicalSorter
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from topognn.encoding.kept import DenseWeights
from topognn.graph import MultipartiteGraph
from topognn.kernels.products import multiply_row
from topognn.operators.products import exact_convolutions, pull, push
from topognn.operators.row_products import spread
from topognn.operators.sparse import LayerWeights, SparseWeights, prefers_sparse
from topognn.tracing.layout import Connection, Layout

# From here on a partition's values are scaled down: a layer more, or a product of two, still fits.
_LARGE = {torch.float32: 2.0**32, torch.float64: 2.0**256}


class Scaled(NamedTuple):
    """Values of nodes with an exponent a partition: ``values * 2**exponent``.

    Attributes:
        values: One tensor a partition, ``(size,)``.
        exponents: One scalar tensor a partition, float64 (whole numbers).
    """

    values: list[Tensor]
    exponents: list[Tensor]

    def total(self, partitions: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the sum over some partitions' nodes as (value, exponent)."""
        return add_scaled([(self.values[n].sum(), self.exponents[n]) for n in partitions])

    def log2(self) -> Tensor:
        """Return the binary logarithm of each node's value, -inf where it is 0; ``(nodes,)``."""
        return torch.cat([v.log2() + e for v, e in zip(self.values, self.exponents, strict=True)])

    def plain(self) -> Tensor:
        """Return each node's value, infinite where float64 ends; ``(nodes,)``."""
        return torch.cat([v * e.exp2() for v, e in zip(self.values, self.exponents, strict=True)])

    def is_same(self, other: Scaled, number: int) -> bool:
        """Tell whether a partition has its very tensors from another result."""
        return self.values[number] is other.values[number] and self.exponents[number] is other.exponents[number]


class Before(NamedTuple):
    """An earlier sweep of the same layout, of which partitions are taken over where nothing has changed.

    Attributes:
        found: Its result.
        same: For each connection, whether its weights are the same.
    """

    found: Scaled
    same: Sequence[bool]


def sweep_graph(graph: MultipartiteGraph, name: str, run: Callable[[Before | None], Scaled]) -> Scaled:
    """Return the sweep that ``run`` makes; in a series of graphs it is remembered, and begins from the one before."""
    if graph.remembered is None:
        return run(None)
    if name not in graph.remembered:
        earlier = graph.earlier
        known = earlier is not None and name in earlier.remembered
        graph.remembered[name] = run(Before(earlier.remembered[name], earlier.same) if earlier and known else None)
    found: Scaled = graph.remembered[name]
    return found


def find_patterns(graph: MultipartiteGraph, dtype: torch.dtype) -> Sequence[Tensor | SparseWeights]:
    """Return, for each connection, 1 where a weight is kept; sparse in a series of graphs, whose forms are remembered.

    Once used, a sparse form costs more than it saves.
    """
    dense = DenseWeights(graph.kept, dtype, weighted=False)
    if graph.remembered is None:
        return dense
    name = f"patterns, {dtype}"
    if name not in graph.remembered:
        sparse: list[SparseWeights | None] = [
            SparseWeights(c, kept, dtype, weighted=False) if prefers_sparse(c, kept) else None
            for c, kept in zip(graph.connections, graph.kept, strict=True)
        ]
        if graph.earlier is not None and name in graph.earlier.remembered:
            before = zip(graph.earlier.remembered[name], graph.earlier.same, sparse, strict=True)
            sparse = [then if is_same else now for then, is_same, now in before]
        graph.remembered[name] = sparse
    return LayerWeights(dense, graph.remembered[name])


def add_scaled(terms: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Return the sum of ``value * 2**exponent`` as one value with the largest exponent that occurs."""
    if len(terms) == 1:
        return terms[0]
    top = torch.stack([exponent for _, exponent in terms]).max()
    values = [value * (exponent - top).exp2().to(value.dtype) for value, exponent in terms]
    return sum(values[1:], values[0]), top


def order_partitions(layout: Layout) -> list[int]:
    """Return the partitions' numbers such that every edge leads from an earlier to a later one.

    Execution order is not always that: with ``shortcuts="all"`` an identity may come from a later layer than the
    one whose nodes the sum has.
    """
    if "order" not in layout.found:
        sorter: TopologicalSorter[int] = TopologicalSorter({number: () for number in range(len(layout.partitions))})
        for connection in layout.connections:
            sorter.add(connection.target, *connection.sources)
        layout.found["order"] = list(sorter.static_order())
    order: list[int] = layout.found["order"]
    return order


def sweep_forward(
    layout: Layout, weights: Sequence[Tensor | SparseWeights], *, saturate: bool = False, before: Before | None = None
) -> Scaled:
    """Return, for each node, the sum over all paths from the input to it of the product of their edges' weights.

    Args:
        layout: The layout.
        weights: One tensor a connection in kernel form, not negative; differentiable unless sparse.
            Their dtype is that of the work.
        saturate: Replace every value by 1 where it is above 1/2: with 0/1 weights, whether there is a path at all.
        before: An earlier result to begin from.
    """
    found = _nothing(layout, weights[0])
    entering = _entering(layout)
    with exact_convolutions():
        for number in order_partitions(layout):
            sources = [(k, layout.connections[k].sources) for k in entering[number]]
            if _take_over(found, number, sources, before):
                continue
            terms = [_push(layout, layout.connections[k], weights[k], found) for k in entering[number]]
            if number in layout.inputs:
                terms.append((torch.ones_like(found.values[number]), torch.zeros_like(found.exponents[number])))
            _settle(found, number, terms, saturate, before)
    return found


def sweep_backward(
    layout: Layout, weights: Sequence[Tensor | SparseWeights], *, saturate: bool = False, before: Before | None = None
) -> Scaled:
    """Return, for each node, the sum over all paths from it to the output: see :func:`sweep_forward`."""
    found = _nothing(layout, weights[0])
    leaving: list[list[int]] = [[] for _ in layout.partitions]
    for k, connection in enumerate(layout.connections):
        for number in connection.sources:
            leaving[number].append(k)
    pulled: dict[int, Tensor] = {}
    waiting = [set(connection.sources) for connection in layout.connections]
    with exact_convolutions():
        for number in reversed(order_partitions(layout)):
            targets = [(k, (layout.connections[k].target,)) for k in leaving[number]]
            if _take_over(found, number, targets, before):
                continue
            terms = []
            if number in layout.outputs:
                terms.append((torch.ones_like(found.values[number]), torch.zeros_like(found.exponents[number])))
            for k in leaving[number]:
                c = layout.connections[k]
                if k not in pulled:
                    pulled[k] = pull(c, weights[k], found.values[c.target][None])[0]
                terms.append((_cut(layout, c, pulled[k], number), found.exponents[c.target]))
                waiting[k].discard(number)
                if not waiting[k]:
                    del pulled[k]
            _settle(found, number, terms, saturate, before)
    return found


def sweep_rows(graph: MultipartiteGraph, direction: Literal["in", "out"]) -> Scaled:
    """Return the numbers of paths from the input to each node (``"in"``), or from it to the output, by rows.

    For graphs with parallel edges, which are one edge in their rows and several in their connections.
    """
    layout, rows = graph.layout, graph.rows(direction)
    found = _nothing(layout, rows.indptr.new_empty(0, dtype=torch.float64))
    order = order_partitions(layout)
    for number in order if direction == "in" else reversed(order):
        part = layout.partitions[number]
        top = torch.stack(found.exponents).max()
        x = torch.cat([v * (e - top).exp2() for v, e in zip(found.values, found.exponents, strict=True)])[None]
        y = torch.zeros_like(x)
        work = rows.num_entries / max(1, graph.num_nodes)
        multiply_row.launch(
            part.size, part.offset, rows.indptr, rows.indices, rows.weights[:0], *spread(x), y, work=work
        )
        terms = [(y[0, part.offset : part.end], top)]
        if number in (layout.inputs if direction == "in" else layout.outputs):
            terms.append((torch.ones_like(found.values[number]), torch.zeros_like(top)))
        _settle(found, number, terms, False)
    return found


def _nothing(layout: Layout, like: Tensor | SparseWeights) -> Scaled:
    """Return zero for every node, in memory that all partitions share: values are replaced, never written to."""
    sizes = [part.size for part in layout.partitions]
    zeros = torch.zeros(max(sizes), dtype=like.dtype, device=like.device)
    exponent = torch.zeros((), dtype=torch.float64, device=like.device)
    return Scaled([zeros[:size] for size in sizes], [exponent] * len(sizes))


def _take_over(
    found: Scaled, number: int, neighbours: Sequence[tuple[int, Sequence[int]]], before: Before | None
) -> bool:
    """Take a partition's values from an earlier sweep, if all that they are made of is the same; say whether it is.

    ``neighbours`` are connections with the numbers of the partitions whose values they carry here.
    """
    if before is None:
        return False
    for connection, numbers in neighbours:
        if not before.same[connection] or not all(found.is_same(before.found, n) for n in numbers):
            return False
    found.values[number], found.exponents[number] = before.found.values[number], before.found.exponents[number]
    return True


def _settle(
    found: Scaled, number: int, terms: Sequence[tuple[Tensor, Tensor]], saturate: bool, before: Before | None = None
) -> None:
    """Make the sum of ``terms`` a partition's values; where they are large, scale them to below 1."""
    if not terms:
        return
    value, exponent = add_scaled(terms)
    on_cpu = value.device.type == "cpu"  # where to look at a value does not wait for the device
    if saturate:
        value = (value > 0.5).to(value.dtype)
    elif value.numel():
        largest = value.detach().max()
        is_large = largest > _LARGE[value.dtype]
        if not on_cpu or is_large:
            shift = torch.where(is_large, torch.frexp(largest).exponent.to(exponent.dtype), 0)
            value, exponent = value * (-shift).exp2().to(value.dtype), exponent + shift
    if before is not None and on_cpu:
        value_then, exponent_then = before.found.values[number], before.found.exponents[number]
        if torch.equal(value, value_then) and torch.equal(exponent, exponent_then):
            value, exponent = value_then, exponent_then
    found.values[number], found.exponents[number] = value, exponent


def _push(layout: Layout, c: Connection, weight: Tensor | SparseWeights, found: Scaled) -> tuple[Tensor, Tensor]:
    """Return what a connection brings to its target partition."""
    if len(c.sources) == 1:
        (n,) = c.sources
        return push(c, weight, found.values[n][None], layout.partitions[n].offset)[0], found.exponents[n]
    top = torch.stack([found.exponents[n] for n in c.sources]).max()
    window = range(min(c.sources), max(c.sources) + 1)
    parts = [
        found.values[n] * (found.exponents[n] - top).exp2() if n in c.sources else torch.zeros_like(found.values[n])
        for n in window
    ]
    x = torch.cat(parts)[None]
    return push(c, weight, x, layout.partitions[window[0]].offset)[0], top


def _cut(layout: Layout, c: Connection, back: Tensor, number: int) -> Tensor:
    """Return the part of what a connection brings back that is a partition's."""
    part = layout.partitions[number]
    first, end = max(part.offset, c.source), min(part.end, c.source + back.numel())
    values = back[first - c.source : end - c.source]
    return F.pad(values, (first - part.offset, part.end - end)) if values.numel() < part.size else values


def _entering(layout: Layout) -> list[list[int]]:
    """Return, for each partition, the numbers of the connections that end in it."""
    entering: list[list[int]] = [[] for _ in layout.partitions]
    for k, connection in enumerate(layout.connections):
        if connection.sources:
            entering[connection.target].append(k)
    return entering
