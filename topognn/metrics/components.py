"""Weakly connected components.

Source: Cunegatti et al., TMLR 2024, section 4.1 (global connectivity). Algorithm: Sutton, Ben-Nun and Barak,
*Optimizing Parallel Graph Connectivity Computation via Subgraph Sampling* (Afforest), IPDPS 2018.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property

import torch
from torch import Tensor

from topognn.encoding.neighbors import find_both, find_neighbors
from topognn.encoding.rows import Rows
from topognn.graph import MultipartiteGraph
from topognn.kernels.components import ALL, LAST, begin, compress, hook, hook_taps
from topognn.plain_graph import Graph

_SAMPLES = 1024  # nodes that are asked which component is the giant
_DRAWS = 2  # neighbours in each connection by which most of the giant is found


@dataclasses.dataclass(frozen=True, eq=False)
class Components:
    """The connected components of a graph.

    Attributes:
        labels: The smallest node of each node's component; in the dtype of the graph's indices, ``(nodes,)``.
        count: The number of components; int64 scalar.
    """

    labels: Tensor
    count: Tensor

    @cached_property
    def sizes(self) -> Tensor:
        """The number of nodes of the component whose smallest node this is, 0 elsewhere; int64 ``(nodes,)``.

        So ``sizes[labels]`` is the size of each node's component.
        """
        labels = self.labels.long()
        return torch.zeros_like(labels).scatter_add_(0, labels, torch.ones_like(labels))

    @property
    def mean_size(self) -> Tensor:
        """The mean number of nodes of a component; float64 scalar."""
        return self.labels.numel() / self.count.double()

    @property
    def largest(self) -> Tensor:
        """The number of nodes of the largest component; int64 scalar."""
        return self.sizes.max() if self.sizes.numel() else self.sizes.sum()


def connected_components(graph: Graph) -> Components:
    """Return the connected components of a graph, directions forgotten.

    Labels do not depend on the number of threads. No host sync. By the rows ``"both"`` of a graph that has them, or
    that has no layers; otherwise connection by connection, whose edges are found and forgotten one by one. Beside the
    rows it takes two indices and a byte a node; without, 12 bytes a kept weight of the largest layer more.
    :attr:`Components.sizes` takes 24 bytes a node.

    >>> from topognn.plain import from_edge_index
    >>> from topognn.metrics.components import connected_components
    >>> found = connected_components(from_edge_index([[0, 3], [2, 1]], num_nodes=5))
    >>> found.labels.tolist(), int(found.count), found.sizes.tolist()
    ([0, 1, 0, 1, 4], 3, [2, 2, 0, 0, 1])
    """
    nodes = graph.num_nodes
    if isinstance(graph, MultipartiteGraph) and not graph.has_rows("both"):
        labels = _join_connections(graph)
    else:
        labels = _join_rows(graph.rows("both"), nodes)
    is_root = labels == torch.arange(nodes, dtype=labels.dtype, device=labels.device)
    return Components(labels, is_root.count_nonzero())


def _join_rows(rows: Rows, nodes: int) -> Tensor:
    """Return the smallest node of each node's component, by the rows ``"both"``."""
    indptr, indices = rows.indptr, rows.indices
    labels = torch.empty(nodes, dtype=indices.dtype, device=indices.device)
    if nodes:
        giant = torch.full_like(labels[:1], -1)
        begin.launch(nodes, labels, indptr, indices)
        hook.launch(nodes, LAST, giant, labels, indptr, indices)
        compress.launch(nodes, labels)
        giant = _find_giant(labels)
        hook.launch(nodes, ALL, giant, labels, indptr, indices, work=rows.num_entries / nodes)
        compress.launch(nodes, labels)
    return labels


def _join_connections(graph: MultipartiteGraph) -> Tensor:
    """Return the smallest node of each node's component, with no edge in memory.

    A few in-edges of every node join most of the giant component, whose nodes are passed over afterwards: an edge of
    which one end is outside is found from there, whether by its target or by its source.
    """
    labels = torch.arange(graph.num_nodes, dtype=graph.layout.index_dtype, device=graph.device)
    giant = torch.full_like(labels[:1], -1)
    layers = list(zip(graph.connections, graph.kept, strict=True))
    for connection, kept in layers:
        into = find_neighbors(connection, kept, "in", labels.dtype)
        for draw in range(1, _DRAWS + 1):
            hook_taps.launch(into.items, draw, *into.taps, *into.ends, giant, labels)
    compress.launch(graph.num_nodes, labels)
    giant = _find_giant(labels)
    for connection, kept in layers:
        for found in find_both(connection, kept, labels.dtype):
            hook_taps.launch(found.items, 0, *found.taps, *found.ends, giant, labels, work=found.work)
    compress.launch(graph.num_nodes, labels)
    return labels


def _find_giant(labels: Tensor) -> Tensor:
    """Return the label that most of a sample have, ``(1,)``."""
    return labels[:: max(1, labels.numel() // _SAMPLES)].contiguous().mode().values.reshape(1)


def components(graph: Graph) -> Tensor:
    """Return the number of weakly connected components; int64 scalar.

    >>> from topognn.plain import from_edge_index
    >>> from topognn.metrics.components import components
    >>> components(from_edge_index([[0, 3], [2, 1]], num_nodes=5))
    tensor(3)
    """
    return connected_components(graph).count


def mean_component(graph: Graph) -> Tensor:
    """Return the mean number of nodes of a weakly connected component; float64 scalar, NaN without nodes.

    >>> from topognn.plain import from_edge_index
    >>> from topognn.metrics.components import mean_component
    >>> mean_component(from_edge_index([[0, 3], [2, 1]], num_nodes=5))
    tensor(1.6667, dtype=torch.float64)
    """
    return connected_components(graph).mean_size


def largest_component(graph: Graph) -> Tensor:
    """Return the number of nodes of the largest weakly connected component; int64 scalar.

    >>> from topognn.plain import from_edge_index
    >>> from topognn.metrics.components import largest_component
    >>> largest_component(from_edge_index([[0, 3], [2, 1]], num_nodes=5))
    tensor(2)
    """
    return connected_components(graph).largest


def find_outside_giant(graph: Graph) -> Tensor:
    """Return which nodes are outside the largest component; bool ``(nodes,)``.

    Of equally large ones it is that of the lowest node. No host sync.

    >>> from topognn.plain import from_edge_index
    >>> from topognn.metrics.components import find_outside_giant
    >>> find_outside_giant(from_edge_index([[0, 3], [2, 1]], num_nodes=5)).tolist()
    [False, True, False, True, True]
    """
    found = connected_components(graph)
    if not found.labels.numel():
        return found.labels.bool()
    largest = torch.where(found.sizes == found.sizes.max(), found.labels, graph.num_nodes).min()
    return found.labels != largest
