"""How much weight passes through a node.

Source: Cunegatti et al., TMLR 2024, section 4.1 (strength connectivity).
"""

from __future__ import annotations

from torch import Tensor

from topognn.graph import MultipartiteGraph


def get_strengths(graph: MultipartiteGraph) -> Tensor:
    """Return for each node the sum of the weights of all its edges; float64 ``(nodes,)``."""
    return graph.in_strengths + graph.out_strengths


def strength(graph: MultipartiteGraph) -> Tensor:
    """Return the mean over nodes of the sum of the weights of all incident edges; float64 scalar.

    Builds no matrix: weights are summed over connections.

    >>> from topognn import example_graph
    >>> strength(example_graph())
    tensor(0.8947, dtype=torch.float64)
    """
    return 2 * graph.in_strengths.sum() / graph.num_nodes
