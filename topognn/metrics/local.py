"""Nodes that lead nowhere or come from nowhere, and the edges that they make removable.

Source of all: Cunegatti et al., TMLR 2024, section 4.1 (local connectivity). None builds a matrix or makes a
host sync, except on graphs with parallel edges, whose degrees take one sync.
"""

from __future__ import annotations

import torch
from torch import Tensor

from topognn.graph import MultipartiteGraph


def find_sinks(graph: MultipartiteGraph) -> Tensor:
    """Return which nodes outside the output partitions have in-edges but no out-edges; bool ``(nodes,)``."""
    return graph.has_in_edges & ~(graph.has_out_edges | graph.is_output)


def find_sources(graph: MultipartiteGraph) -> Tensor:
    """Return which nodes outside the input partition have out-edges but no in-edges; bool ``(nodes,)``."""
    return graph.has_out_edges & ~(graph.has_in_edges | graph.is_input)


def find_disconnected(graph: MultipartiteGraph) -> Tensor:
    """Return which nodes have no edges at all; bool ``(nodes,)``."""
    return ~(graph.has_in_edges | graph.has_out_edges)


def sink_nodes(graph: MultipartiteGraph) -> Tensor:
    """Return the number of nodes outside the output partitions that have in-edges but no out-edges; int64 scalar.

    >>> from topognn import example_graph
    >>> sink_nodes(example_graph())
    tensor(1)
    """
    return find_sinks(graph).count_nonzero()


def source_nodes(graph: MultipartiteGraph) -> Tensor:
    """Return the number of nodes outside the input partition that have out-edges but no in-edges; int64 scalar.

    >>> from topognn import example_graph
    >>> source_nodes(example_graph())
    tensor(1)
    """
    return find_sources(graph).count_nonzero()


def disconnected_nodes(graph: MultipartiteGraph) -> Tensor:
    """Return the number of nodes without any edge; int64 scalar.

    >>> from topognn import example_graph
    >>> disconnected_nodes(example_graph())
    tensor(5)
    """
    return find_disconnected(graph).count_nonzero()


def removable_out_edges(graph: MultipartiteGraph) -> Tensor:
    """Return the number of edges into sinks: they lead to a node that leads nowhere; int64 scalar.

    >>> from topognn import example_graph
    >>> removable_out_edges(example_graph())
    tensor(2)
    """
    return torch.where(find_sinks(graph), graph.in_degrees, 0).sum()


def removable_in_edges(graph: MultipartiteGraph) -> Tensor:
    """Return the number of edges out of sources: they come from a node that is always zero; int64 scalar.

    >>> from topognn import example_graph
    >>> removable_in_edges(example_graph())
    tensor(1)
    """
    return torch.where(find_sources(graph), graph.out_degrees, 0).sum()
