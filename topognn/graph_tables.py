"""Tables of a graph: one row a layer with what it keeps, one row a partition with where the trouble sits."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from topognn.encoding.degrees import sum_in
from topognn.graph import MultipartiteGraph
from topognn.kernels.host import read
from topognn.metrics import local
from topognn.metrics.components import find_outside_giant
from topognn.metrics.cuts import biconnectivity
from topognn.metrics.effective import find_effective
from topognn.metrics.layers import find_layer_expansion
from topognn.metrics.paths import find_paths
from topognn.report import check_room


class LayerRow(NamedTuple):
    """One layer of a graph, for tables.

    Attributes:
        kept, density: Number of kept weights; its share of all.
        edges: Number of uses of kept weights.
        effective: Number of kept weights with an edge on a path from the input to the output.
        log10_paths: Decimal logarithm of the mean number of paths that a kept weight lies on; -inf if that is 0.
        expansion: Normalised second singular value; see :func:`topognn.metrics.find_layer_expansion`.
    """

    layer: str
    shape: tuple[int, ...]
    kept: int
    density: float
    edges: int
    effective: int
    log10_paths: float
    expansion: float


def layer_table(graph: MultipartiteGraph) -> list[LayerRow]:
    """Return one row a parametric layer; see :class:`LayerRow`.

    One host sync, and those of :func:`topognn.metrics.find_layer_expansion`.

    Raises:
        ConvergenceError: A layer's expansion was not found to 1e-6.

    >>> from topognn import example_graph
    >>> row = layer_table(example_graph())[0]
    >>> row.layer, row.shape, row.kept, row.density, row.edges, row.effective, round(row.log10_paths, 3)
    ('0', (2, 1, 2, 2), 2, 0.25, 8, 2, 0.602)
    """
    numbers = [n for n, c in enumerate(graph.connections) if c.weight is not None and not c.is_pooled]
    layers = [(graph.connections[n], graph.kept[n]) for n in numbers]
    used = find_effective(graph).masks
    columns = (
        torch.stack([_count_edges(graph, n) for n in numbers]),
        torch.stack([c.to_kernel(used[c.weight]).sum() for c, _ in layers if c.weight is not None]),
        find_paths(graph).log2_through[numbers],
        find_layer_expansion(graph),
    )
    found = iter(read(torch.cat([column.double() for column in columns])))
    edges, effective, paths, expansion = ([next(found) for _ in layers] for _ in columns)
    return [
        LayerRow(
            *(c.layer, c.weight_shape, k.count, k.count / c.num_weights, int(edges[i]), int(effective[i])),
            (paths[i] - math.log2(k.count)) * math.log10(2) if k.count else -math.inf,
            expansion[i],
        )
        for i, (c, k) in enumerate(layers)
    ]


def _count_edges(graph: MultipartiteGraph, number: int) -> Tensor:
    """Return the uses of a connection's weights, and of sums of them, which follow it."""
    total = sum_in(graph.connections[number], graph.kept[number].mask).sum()
    for c, k in zip(graph.connections[number + 1 :], graph.kept[number + 1 :], strict=True):
        if not c.is_pooled:
            break
        total += sum_in(c, k.mask).sum()
    return total


class TroubleRow(NamedTuple):
    """Where a graph's trouble sits: counts of one partition's nodes, and of the bridges that end in it."""

    partition: str
    nodes: int
    sinks: int
    sources: int
    bridges: int
    cut_nodes: int
    outside_giant: int


def trouble_table(graph: MultipartiteGraph) -> list[TroubleRow]:
    """Return one row a partition: its sinks, sources, bridges into it, articulation points, nodes outside the giant.

    Raises:
        GraphMemoryError: The rows that bridges need do not fit in memory.

    >>> from topognn import example_graph
    >>> trouble_table(example_graph())[1]
    TroubleRow(partition='0', nodes=8, sinks=1, sources=1, bridges=8, cut_nodes=4, outside_giant=3)
    """
    check_room(graph, ["cut_nodes"])
    found = biconnectivity(graph)
    into = torch.zeros(graph.num_nodes, dtype=torch.int64, device=graph.device)
    ends = found.bridges[:, 1]
    into.scatter_add_(0, ends, torch.ones_like(ends))
    columns = [local.find_sinks(graph), local.find_sources(graph), into, found.is_cut_node, find_outside_giant(graph)]
    sums = [column[p.offset : p.end].sum() for p in graph.partitions for column in columns]
    counts = iter(map(int, read(torch.stack(sums))))
    return [TroubleRow(p.name, p.size, *(next(counts) for _ in columns)) for p in graph.partitions]
