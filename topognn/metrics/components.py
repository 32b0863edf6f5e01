"""Weakly connected components.

Source: Cunegatti et al., TMLR 2024, section 4.1 (global connectivity). Algorithm: Sutton, Ben-Nun and Barak,
*Optimizing Parallel Graph Connectivity Computation via Subgraph Sampling* (Afforest), IPDPS 2018.
"""

from __future__ import annotations

import dataclasses
from functools import cached_property

import torch
from torch import Tensor

from topognn.kernels.components import ALL, LAST, begin, compress, hook
from topognn.plain_graph import Graph

_SAMPLES = 1024  # nodes that are asked which component is the giant


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

    Labels do not depend on the number of threads. No host sync. Takes the rows ``"both"``, two
    indices and a byte a node; :attr:`Components.sizes` 24 bytes a node.

    >>> from topognn.plain import from_edge_index
    >>> from topognn.metrics.components import connected_components
    >>> found = connected_components(from_edge_index([[0, 3], [2, 1]], num_nodes=5))
    >>> found.labels.tolist(), int(found.count), found.sizes.tolist()
    ([0, 1, 0, 1, 4], 3, [2, 2, 0, 0, 1])
    """
    rows = graph.rows("both")
    indptr, indices, nodes = rows.indptr, rows.indices, graph.num_nodes
    labels = torch.empty(nodes, dtype=indices.dtype, device=graph.device)
    if nodes:
        giant = torch.full_like(labels[:1], -1)
        begin.launch(nodes, labels, indptr, indices)
        hook.launch(nodes, LAST, giant, labels, indptr, indices)
        compress.launch(nodes, labels)
        giant = labels[:: max(1, nodes // _SAMPLES)].contiguous().mode().values.reshape(1)
        hook.launch(nodes, ALL, giant, labels, indptr, indices, work=rows.num_entries / nodes)
        compress.launch(nodes, labels)
    is_root = labels == torch.arange(nodes, dtype=labels.dtype, device=labels.device)
    return Components(labels, is_root.count_nonzero())


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
