"""Spanning forests whose tree edges are grouped by biconnected component: two ways to make one."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from topognn.encoding.rows import Rows
from topognn.kernels import biconnectivity, depth_first, spanning, tour

_SAMPLES = 1024  # nodes that are asked which component is the giant
_Pair = tuple[Tensor, Tensor]


class Forest(NamedTuple):
    """A spanning forest in preorder, its edges grouped; in an integer dtype, ``(nodes,)`` each."""

    number: Tensor  # of each node
    node_at: Tensor  # the node that has each number
    parent: Tensor  # the number of its parent; its own for a root
    group: Tensor  # the least number whose tree edge is in one biconnected component with its own


def search_depth_first(rows: Rows, nodes: int) -> Forest:
    """Return a depth-first forest and its groups, made by one thread in time linear in the entries."""
    cursor = torch.empty(nodes, dtype=torch.int64, device=rows.indptr.device)
    number = torch.full((nodes,), -1, dtype=rows.indices.dtype, device=cursor.device)
    node_at, parent, low, group = (torch.empty_like(number) for _ in range(4))
    depth_first.search_depth_first.launch(1, rows.indptr, rows.indices, cursor, number, node_at, parent, low, group)
    return Forest(number, node_at, parent, group)


def grow_forest(rows: Rows, nodes: int) -> Forest:
    """Return a forest and its groups, made in parallel in 16 + 2 log2(nodes) launches.

    Takes at most 40 bytes a node where indices are int32 and nodes fewer than 2**30, 80 otherwise.
    """
    dtype = torch.int32 if rows.indices.dtype == torch.int32 and nodes < 2**30 else torch.int64
    number, node_at, parent, last = _number(rows, nodes, dtype)
    group = torch.arange(nodes, dtype=dtype, device=number.device)
    low = group.repeat(2)
    high = low.clone()
    work = rows.num_entries / max(1, nodes)
    biconnectivity.join_across.launch(nodes, rows.indptr, rows.indices, number, last, low, high, group, work=work)
    for level in reversed(range(max(0, nodes - 1).bit_length())):
        biconnectivity.fold.launch(min(2**level, nodes - 2**level), 2**level, low, high)
    biconnectivity.join_above.launch(nodes, parent, last, low, high, group)
    spanning.find_root.launch(nodes, group)
    return Forest(number, node_at, parent, group)


def _number(rows: Rows, nodes: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Grow a forest; return each node's number, and the node, parent and last descendant of each number."""
    ends, arcs, starts, following = _tour(rows, nodes, dtype)
    ranks = _rank(starts, following)
    down = torch.zeros(2 * nodes, dtype=torch.int8, device=starts.device)
    tour.mark_down.launch(nodes, *arcs, ranks, down)
    del starts, following, ranks
    before = down.cumsum(0, dtype=dtype)
    del down
    number, node_at, above, last = (torch.empty_like(before[:nodes]) for _ in range(4))
    tour.number_nodes.launch(nodes, *ends, *arcs, before, number, node_at, above, last)
    del ends, arcs, before
    return number, node_at, number.index_select(0, above), last


def _tour(rows: Rows, nodes: int, dtype: torch.dtype) -> tuple[_Pair, _Pair, Tensor, Tensor]:
    """Return the ends of each node's edge, its two arcs, where each node's arcs start, and what follows them."""
    parent = torch.arange(nodes, dtype=dtype, device=rows.indptr.device)
    one_end, other_end, one_arc, other_arc = (torch.empty_like(parent) for _ in range(4))
    ends, arcs = (one_end, other_end), (one_arc, other_arc)
    if nodes:
        matrix = (rows.indptr, rows.indices)
        for k in range(2):
            spanning.hook_tree.launch(nodes, k, k + 1, parent[:0], *matrix, parent, *ends)
        spanning.find_root.launch(nodes, parent)
        giant = parent[:: max(1, nodes // _SAMPLES)].mode().values.reshape(1)
        work = rows.num_entries / nodes
        spanning.hook_tree.launch(nodes, 2, 2**62, giant, *matrix, parent, *ends, work=work)
    starts = torch.zeros(nodes + 2, dtype=dtype, device=parent.device)
    tour.count_arcs.launch(nodes, parent, *ends, starts[1:])
    starts = starts.cumsum(0, dtype=dtype)
    tour.place_arcs.launch(nodes, *ends, starts[:-1].clone(), *arcs)
    following = torch.empty(2 * nodes, dtype=dtype, device=parent.device)
    tour.link_arcs.launch(nodes, *ends, starts, *arcs, following)
    return ends, arcs, starts, following


def _rank(starts: Tensor, following: Tensor) -> Tensor:
    """Return the place of each arc in the tour."""
    ranks = torch.empty_like(following)
    if not ranks.numel():
        return ranks
    count = -(-ranks.numel() // tour.SPACING) + 1
    work = tour.SPACING if ranks.device.type == "cpu" else 1  # no lanes: a walk is one after the other
    heads = torch.empty(count, dtype=ranks.dtype, device=ranks.device)
    steps = torch.empty_like(heads)
    tour.walk_arcs.launch(count, starts, following, heads, steps, work=work)
    spare = torch.empty_like(heads), torch.empty_like(heads)
    for _ in range(count.bit_length()):
        tour.jump.launch(count, heads, steps, *spare)
        (heads, steps), spare = spare, (heads, steps)
    tour.rank_arcs.launch(count, starts, following, steps, ranks, work=work)
    return ranks
