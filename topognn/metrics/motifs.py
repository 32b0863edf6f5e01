"""Exact counts of the connected induced subgraphs on four nodes, by type.

Source: Cunegatti et al., TMLR 2024, section 4.1 (neighbour connectivity) samples them; here each is counted.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from topognn.encoding.rows import Rows, allocate_rows
from topognn.graph import MultipartiteGraph
from topognn.kernels.launch import get_num_threads
from topognn.kernels.motifs import count_wedges, sum_shared
from topognn.kernels.ranking import RANK_BITS, count_neighbors, rank_row
from topognn.plain_graph import Graph
from topognn.positions.subgraphs import count_subgraphs

_SCRATCH = 2**31  # bytes of counters at most on a GPU, where many workers run at once
_LIMIT = 2**31 - 1  # of a counter
_BLOCK = {"cpu": 256, "cuda": 1}  # nodes: neighbouring ones have neighbours in common, which a CPU has in its cache


@dataclasses.dataclass(frozen=True, eq=False)
class Motifs:
    """How many connected induced subgraphs on four nodes a graph has; int64 scalars on its device.

    Attributes:
        path: Four nodes in a row.
        claw: One node with three neighbours.
        cycle: Four nodes in a ring.
        paw: A triangle with a tail.
        diamond: Two triangles with a common edge.
        clique: All six edges.
        total: The sum of the six.
        triangles: Triangles in the graph.
        triangles_at: Triangles that each node is in; int64 ``(nodes,)``, None unless asked for.
        cycles_at: Cycles of length four, with or without chords, through each node; likewise.
    """

    path: Tensor
    claw: Tensor
    cycle: Tensor
    paw: Tensor
    diamond: Tensor
    clique: Tensor
    total: Tensor
    triangles: Tensor
    triangles_at: Tensor | None = None
    cycles_at: Tensor | None = None


def motifs(graph: Graph) -> Tensor:
    """Return the number of connected induced subgraphs on four nodes, directions forgotten; int64 scalar.

    >>> from topognn import example_graph
    >>> motifs(example_graph())
    tensor(25)
    """
    return motifs4(graph).total


def motifs4(graph: Graph, per_node: bool = False) -> Motifs:
    """Count the connected induced subgraphs on four nodes by type, exactly, directions forgotten.

    Parallel edges count once and self-loops not at all. In a network whose edges are products of channels, rows and
    columns (all but those that turn an image, or mix channels in one layer and tokens in another) walks of two steps
    are counted by channels (see :mod:`topognn.positions.walks`), unless rows are cheaper, or four of its partitions are
    joined in pairs, as where layers read several concatenated ones: without a matrix, at a cost that hardly depends on
    the input's resolution.

    Otherwise counts wedges over the graph's rows under an order of the nodes by degree, so time grows with the sum over
    edges of the smaller degree, and with triangles times degree. Takes 64 bytes a node, 16 bytes an edge, and 4 bytes a
    node for each worker: 8 a thread on a CPU, as many as fit in 2 GiB (and at least 32) on a GPU. Neither makes a host
    sync.

    Exact as long as degrees are below 2**30 and no count, the sums from which they are subtracted included,
    reaches 2**63; of the sums, claws get there first, with a node of degree 2.6 million.

    Args:
        graph: The graph; its rows must ascend.
        per_node: Whether to count triangles and 4-cycles at each node too: by rows, in up to three times the time.

    Source:
        Wang et al., *Vertex priority based butterfly counting*, VLDB 2019 (4-cycles); induced counts by
        inclusion and exclusion.

    >>> from topognn import example_graph
    >>> found = motifs4(example_graph())
    >>> int(found.path), int(found.claw), int(found.cycle), int(found.total)
    (18, 7, 0, 25)
    """
    if isinstance(graph, MultipartiteGraph) and not per_node and prefers_channels(graph):
        return count_by_channels(graph)
    return count_by_rows(graph, per_node)


def can_count_by_channels(graph: MultipartiteGraph) -> bool:
    """Tell whether all edges are products of channels, rows and columns, and no four nodes can be a clique."""
    found = graph.channels.found
    return found.are_whole and not found.may_have_cliques


def prefers_channels(graph: MultipartiteGraph) -> bool:
    """Tell whether motifs are counted by channels, not by rows."""
    return can_count_by_channels(graph) and graph.is_counted_by_channels(undirected=True)


def count_by_channels(graph: MultipartiteGraph) -> Motifs:
    """Return :func:`motifs4` without a matrix."""
    degrees = graph.in_degrees + graph.out_degrees
    found = count_subgraphs(graph.channels, degrees)
    none = torch.zeros_like(found.cycles)
    parts = (found.cycles, found.triangles // 3 * 2, none, found.edges, found.pairs, found.ends)
    return Motifs(*_combine(degrees, *parts))


def count_by_rows(graph: Graph, per_node: bool = False) -> Motifs:
    """Return :func:`motifs4` from the rows of neighbours."""
    nodes, device = graph.num_nodes, graph.device
    order, ranked, splits = _rank(graph.rows("both"), nodes)
    on_cpu = device.type == "cpu"
    workers = min(nodes, 8 * get_num_threads() if on_cpu else max(32, _SCRATCH // (4 * nodes + 1)))
    seen = torch.zeros(workers, nodes, dtype=torch.int32, device=device)
    shared = torch.zeros(ranked.num_entries, dtype=torch.int32, device=device)
    totals = torch.zeros(6, dtype=torch.int64, device=device)
    triangles_at = torch.zeros(nodes, dtype=torch.int64, device=device)
    cycles_at = torch.zeros(nodes if per_node else 0, dtype=torch.int64, device=device)
    degree = ranked.num_entries / max(1, nodes)
    work = degree * degree * nodes / max(1, workers) if on_cpu else degree
    sizes = (workers, _BLOCK[device.type], _LIMIT)
    count_wedges.launch(
        workers, *sizes, ranked.indptr, splits, ranked.indices, seen, shared, cycles_at, totals, work=work
    )
    sum_shared.launch(nodes, ranked.indptr, splits, ranked.indices, shared, triangles_at, totals, work=degree)
    counts = _combine(ranked.indptr.diff(), *totals.unbind())
    if not per_node:
        return Motifs(*counts)
    return Motifs(*counts, *(torch.empty_like(at).scatter_(0, order, at // 2) for at in (triangles_at, cycles_at)))


def _rank(rows: Rows, nodes: int) -> tuple[Tensor, Rows, Tensor]:
    """Return (the node of each rank, the rows in ranks, where each row passes its own rank)."""
    degrees = torch.empty(nodes, dtype=torch.int64, device=rows.indptr.device)
    count_neighbors.launch(nodes, rows.indptr, rows.indices, degrees)
    group = torch.frexp(degrees.double()).exponent.long()
    order = group.sort(stable=True).indices
    ranks = torch.arange(nodes, device=degrees.device)
    keys = torch.empty_like(order).scatter_(0, order, ranks) + (group << RANK_BITS)
    indptr = torch.cat([degrees.new_zeros(1), degrees[order].cumsum(0)])
    ranked = allocate_rows(indptr, rows.num_entries, rows.indices.dtype, False)
    splits = torch.empty_like(order)
    rank_row.launch(nodes, rows.indptr, rows.indices, order, keys, indptr, ranked.indices, splits)
    return order, ranked, splits


def _combine(
    degrees: Tensor,
    cycles: Tensor,
    triangles: Tensor,
    cliques: Tensor,
    edges: Tensor,
    pairs: Tensor,
    ends: Tensor,
) -> tuple[Tensor, ...]:
    """Return the induced counts, their total and the triangles from what the kernels add up."""
    triangles = triangles // 2
    claws = (degrees * (degrees - 1) // 2 * (degrees - 2) // 3).sum()
    paws = ends // 2 - 6 * triangles
    diamond = pairs - 6 * cliques
    cycle = cycles - diamond - 3 * cliques
    paw = paws - 4 * diamond - 12 * cliques
    claw = claws - paw - 2 * diamond - 4 * cliques
    path = edges - 3 * triangles - 2 * paw - 4 * cycle - 6 * diamond - 12 * cliques
    return path, claw, cycle, paw, diamond, cliques, path + claw + cycle + paw + diamond + cliques, triangles
