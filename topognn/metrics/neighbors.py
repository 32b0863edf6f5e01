"""How far a node reaches in one and in two steps.

Source: Cunegatti et al., TMLR 2024, section 4.1 (neighbour connectivity).
"""

from __future__ import annotations

import torch
from torch import Tensor

from topognn.graph import MultipartiteGraph
from topognn.kernels.classes import check_row, check_steps, hash_row, hash_steps
from topognn.kernels.launch import get_num_threads
from topognn.kernels.two_hop import count_two_hop
from topognn.plain_graph import Graph
from topognn.positions.counting import count_all
from topognn.positions.grids import add_over_nodes, spread_over_nodes
from topognn.positions.walks import find_walks

_SCRATCH = 2**28  # bytes of bitmaps at most on a GPU, where many workers run at once


def one_hop(graph: Graph) -> Tensor:
    """Return the mean over nodes of how many nodes are at directed distance <= 1, itself included; float64 scalar.

    Builds no matrix: it is 1 + edges / nodes.

    >>> from topognn import example_graph
    >>> one_hop(example_graph())
    tensor(1.6842, dtype=torch.float64)
    """
    return graph.out_degrees.sum().double() / graph.num_nodes + 1


def two_hop(graph: Graph) -> Tensor:
    """Return the mean over nodes of how many nodes are at directed distance <= 2, itself included; float64 scalar.

    Exact, and without a matrix where the network's edges are products of channels, rows and columns: see
    :func:`get_two_hop_sizes`.

    >>> from topognn import example_graph
    >>> two_hop(example_graph())
    tensor(2.1053, dtype=torch.float64)
    """
    if isinstance(graph, MultipartiteGraph) and graph.is_counted_by_channels(undirected=False):
        total = torch.full((), graph.num_nodes, dtype=torch.int64, device=graph.device)
        for walks in find_walks(graph.channels.found, undirected=False):
            total += add_over_nodes(count_all(graph.channels, walks).reached, walks.y.counts, walks.x.counts)
        return total.double() / graph.num_nodes
    return count_two_hop_by_rows(graph).double().mean()


def get_two_hop_sizes(graph: Graph) -> Tensor:
    """Return for each node how many nodes are at directed distance <= 2, itself included; int64 ``(nodes,)``.

    In a network whose edges are products of channels, rows and columns (all but those that turn an image, or mix
    channels in one layer and tokens in another) walks of two steps are counted by channels (see
    :mod:`topognn.positions.walks`), unless rows are cheaper: without a matrix, at a cost that hardly depends on the
    input's resolution. Otherwise distinct nodes are counted over the CSR, for one node of every class of nodes that
    look alike (see :func:`find_two_hop_classes`).
    """
    if isinstance(graph, MultipartiteGraph) and graph.is_counted_by_channels(undirected=False):
        return count_two_hop_by_channels(graph)
    return count_two_hop_by_rows(graph)


def count_two_hop_by_channels(graph: MultipartiteGraph) -> Tensor:
    """Return :func:`get_two_hop_sizes` without a matrix. Makes no host sync."""
    channels = graph.channels
    sizes = torch.ones(graph.num_nodes, dtype=torch.int64, device=graph.device)
    for walks in find_walks(channels.found, undirected=False):
        reached = count_all(channels, walks).reached
        piece = channels.found.pieces[walks.source]
        sizes[piece.nodes] += spread_over_nodes(piece.grid, reached, walks.y.counts, walks.x.counts)
    return sizes


def count_two_hop_by_rows(graph: Graph) -> Tensor:
    """Return :func:`get_two_hop_sizes` from the CSR."""
    rows = graph.rows("out")
    if graph.num_nodes == 0:
        return rows.indptr[:0]
    like = find_two_hop_classes(graph)
    words = -(-graph.num_nodes // 32)
    workers = 8 * get_num_threads() if graph.device.type == "cpu" else max(32, _SCRATCH // (4 * words))
    workers = min(workers, graph.num_nodes)
    seen = torch.zeros(workers, words, dtype=torch.int32, device=graph.device)
    counts = torch.zeros(graph.num_nodes, dtype=torch.int64, device=graph.device)
    work = 1000 * rows.num_entries / graph.num_nodes  # roughly: it decides how many threads share a node
    count_two_hop.launch(workers, workers, rows.indptr, rows.indices, like, seen, counts, work=work)
    return counts[like.long()]


def find_two_hop_classes(graph: Graph) -> Tensor:
    """Return for each node the first node that looks the same within two steps; in the indices' dtype, ``(nodes,)``.

    Two rows are alike if one is the other shifted: ``row(v) = row(u) + c``. Two nodes are alike if their neighbours'
    rows are alike one by one and lie in the same way to each other: then the nodes reached in two steps are the
    other's, shifted, and as many. Where neighbours can also be reached in two steps (shortcuts, concatenation), they
    must lie in the same way to those, too. So in a convolution a few border positions and one interior position
    of a channel stand for all of it, whatever the strides; no geometry is needed to find them. Makes no host sync.
    """
    rows = graph.rows("out")
    nodes, work = graph.num_nodes, rows.num_entries / graph.num_nodes
    fingerprints = torch.zeros(nodes, dtype=torch.int64, device=graph.device)
    hash_row.launch(nodes, rows.indptr, rows.indices, fingerprints, work=work)
    like = _first_of_each(fingerprints).to(rows.indices.dtype)
    same = like.clone()
    check_row.launch(nodes, rows.indptr, rows.indices, like, same, work=work)
    firsts = rows.indices.new_full((nodes,), -1)
    if rows.num_entries:
        begins = rows.indptr[:-1].clamp(max=rows.num_entries - 1)  # an empty last row begins behind the end
        firsts = torch.where(rows.indptr.diff() > 0, rows.indices[begins], firsts)
    tied = _find_tied(graph)
    hash_steps.launch(nodes, rows.indptr, rows.indices, same, firsts, tied, fingerprints.zero_(), work=work)
    like = _first_of_each(fingerprints).to(rows.indices.dtype)
    alike = like.clone()
    check_steps.launch(nodes, rows.indptr, rows.indices, same, firsts, tied, like, alike, work=work)
    return alike


def _first_of_each(values: Tensor) -> Tensor:
    """Return for each entry the number of the first entry that is equal to it."""
    ordered, order = torch.sort(values, stable=True)
    places = torch.arange(values.numel(), device=values.device)
    begins = torch.ones_like(places, dtype=torch.bool)
    begins[1:] = ordered[1:] != ordered[:-1]
    starts = torch.where(begins, places, 0).cummax(0).values
    return torch.empty_like(order).scatter_(0, order, order[starts])


def _find_tied(graph: Graph) -> Tensor:
    """Return which nodes may reach a partition both in one step and in two."""
    if not isinstance(graph, MultipartiteGraph):  # without partitions: any may
        return torch.ones(graph.num_nodes, dtype=torch.bool, device=graph.device)
    targets: dict[int, set[int]] = {}
    for connection in graph.connections:
        for source in connection.sources:
            targets.setdefault(source, set()).add(connection.target)
    tied = torch.zeros(graph.num_nodes, dtype=torch.bool, device=graph.device)
    for number, reached in targets.items():
        if any(reached & targets.get(target, set()) for target in reached):
            tied[graph.partitions[number].offset : graph.partitions[number].end] = True
    return tied
