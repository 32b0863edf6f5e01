"""Bridges, articulation points and biconnected components: where one failure cuts a network.

Source: Cunegatti et al., TMLR 2024, section 4.1 (global connectivity: cut edges and cut nodes). Algorithms:
Dong, Wang, Gu and Sun, *Provably Fast and Space-Efficient Parallel Biconnectivity* (FAST-BCC), PPoPP 2023;
and one depth-first search (Tarjan, SIAM Journal on Computing, 1972).
"""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from topognn.encoding.rows import Rows
from topognn.kernels.biconnectivity import (
    count_bridges,
    find_first,
    label_entries,
    list_bridges,
    mark_bridges,
    mark_heads,
)
from topognn.kernels.host import read
from topognn.kernels.launch import get_num_threads
from topognn.metrics.spanning import Forest, grow_forest, search_depth_first
from topognn.plain_graph import Graph


@dataclasses.dataclass(frozen=True, eq=False)
class Biconnectivity:
    """The biconnected components of a graph, directions forgotten.

    Attributes:
        is_cut_node: Which nodes are articulation points: without one, what was connected falls apart; bool
            ``(nodes,)``.
        num_bridges: The number of edges that are bridges; int64 scalar.
    """

    is_cut_node: Tensor
    num_bridges: Tensor
    _rows: Rows
    _forest: Forest
    _is_bridge: Tensor

    @property
    def num_cut_nodes(self) -> Tensor:
        """The number of articulation points; int64 scalar."""
        return self.is_cut_node.count_nonzero()

    @cached_property
    def bridges(self) -> Tensor:
        """The bridges as pairs of nodes, the lesser first, in ascending order; int64 ``(bridges, 2)``.

        Makes one host sync, for their number. Takes two indices a node beside the list.
        """
        number, node_at, parent, _ = self._forest
        nodes, rows = number.numel(), self._rows
        pairs = torch.empty(int(read(self.num_bridges.reshape(1))[0]), 2, dtype=torch.int64, device=number.device)
        counts = torch.zeros_like(number)
        count_bridges.launch(nodes, node_at, parent, self._is_bridge, counts)
        ends = counts.cumsum(0, dtype=counts.dtype)
        list_bridges.launch(nodes, rows.indptr, rows.indices, number, parent, self._is_bridge, ends, pairs)
        return pairs

    @cached_property
    def labels(self) -> Tensor:
        """The biconnected component of each entry of the rows ``"both"``; in their dtype, ``(entries,)``.

        Components are numbered from 0 in the order of their first entries. A self-loop has -1. Takes at most 32
        bytes a node before the labels are made.
        """
        number, _, _, group = self._forest
        rows = self._rows
        nodes = number.numel()
        work = rows.num_entries / max(1, nodes)
        none = torch.iinfo(torch.int64).max
        first = torch.full((nodes,), none, dtype=torch.int64, device=number.device)
        find_first.launch(nodes, rows.indptr, rows.indices, number, group, first, work=work)
        order = first.argsort()
        del first
        places = torch.arange(nodes, dtype=number.dtype, device=number.device)
        names = torch.empty_like(number).scatter_(0, order, places)
        del order, places
        labels = torch.empty_like(rows.indices)
        label_entries.launch(nodes, rows.indptr, rows.indices, number, group, names, labels, work=work)
        return labels


def biconnectivity(graph: Graph, algorithm: Literal["serial", "parallel"] | None = None) -> Biconnectivity:
    """Find a graph's bridges, articulation points and biconnected components, directions forgotten.

    A parallel edge is no bridge, a self-loop is nothing. Results are the same for either algorithm and any
    number of threads. No host sync until the bridges are listed. Beyond the rows it takes at most 40 bytes a node
    in parallel and 28 in serial (80 and 52 if indices are int64), of which 18 (34) stay with the result.

    Args:
        graph: The graph.
        algorithm: One depth-first search in ``serial``, linear in the edges; or union-find, an Euler tour and
            range minima in ``parallel``, in a number of launches that grows with the logarithm of the nodes,
            however long the paths. By default the second, but the first on one CPU thread.

    >>> from topognn.plain import from_edge_index
    >>> found = biconnectivity(from_edge_index([[0, 1, 2, 2], [1, 2, 0, 3]]))
    >>> found.bridges, found.is_cut_node, found.labels
    (tensor([[2, 3]]), tensor([False, False,  True, False]), tensor([0, 0, 0, 0, 0, 0, 1, 1]))
    """
    rows, nodes = graph.rows("both"), graph.num_nodes
    if algorithm is None:
        alone = graph.device.type == "cpu" and get_num_threads() == 1
        algorithm = "serial" if alone else "parallel"
    forest = (search_depth_first if algorithm == "serial" else grow_forest)(rows, nodes)
    is_cut_node = torch.zeros(nodes, dtype=torch.bool, device=graph.device)
    is_alone = torch.ones_like(is_cut_node)
    is_bridge = torch.zeros_like(is_cut_node)
    mark_heads.launch(nodes, *forest[1:], is_cut_node, is_alone)
    mark_bridges.launch(nodes, rows.indptr, rows.indices, *forest[1:3], is_alone, is_bridge)
    return Biconnectivity(is_cut_node, is_bridge.count_nonzero(), rows, forest, is_bridge)


def cut_edges(graph: Graph) -> Tensor:
    """Return the number of bridges, edges whose loss would cut what is connected; int64 scalar.

    >>> from topognn import example_graph
    >>> cut_edges(example_graph())
    tensor(13)
    """
    return biconnectivity(graph).num_bridges


def cut_nodes(graph: Graph) -> Tensor:
    """Return the number of articulation points, whose loss would cut what is connected; int64 scalar.

    >>> from topognn import example_graph
    >>> cut_nodes(example_graph())
    tensor(7)
    """
    return biconnectivity(graph).num_cut_nodes
