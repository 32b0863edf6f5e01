"""How far a node reaches in one and in two steps.

Source: Cunegatti et al., TMLR 2024, section 4.1 (neighbour connectivity).
"""

from __future__ import annotations

import torch
from torch import Tensor

from topognn.graph import MultipartiteGraph
from topognn.kernels.launch import get_num_threads
from topognn.kernels.two_hop import count_two_hop

_SCRATCH = 2**28  # bytes of bitmaps at most on a GPU, where many workers run at once


def one_hop(graph: MultipartiteGraph) -> Tensor:
    """Return the mean over nodes of how many nodes are at directed distance <= 1, itself included; float64 scalar.

    Builds no matrix: it is 1 + edges / nodes.

    >>> from topognn import example_graph
    >>> one_hop(example_graph())
    tensor(1.6842, dtype=torch.float64)
    """
    return graph.out_degrees.double().mean() + 1


def two_hop(graph: MultipartiteGraph) -> Tensor:
    """Return the mean over nodes of how many nodes are at directed distance <= 2, itself included; float64 scalar.

    Exact: distinct nodes are counted by enumeration over the CSR, in time proportional to the walks of length
    two.

    >>> from topognn import example_graph
    >>> two_hop(example_graph())
    tensor(2.1053, dtype=torch.float64)
    """
    return get_two_hop_sizes(graph).double().mean()


def get_two_hop_sizes(graph: MultipartiteGraph) -> Tensor:
    """Return for each node how many nodes are at directed distance <= 2, itself included; int64 ``(nodes,)``."""
    rows = graph.rows("out")
    words = -(-graph.num_nodes // 32)
    workers = 8 * get_num_threads() if graph.device.type == "cpu" else max(32, _SCRATCH // (4 * words))
    workers = min(workers, graph.num_nodes)
    seen = torch.zeros(workers, words, dtype=torch.int32, device=graph.device)
    counts = torch.ones(graph.num_nodes, dtype=torch.int64, device=graph.device)
    degree = rows.num_entries / graph.num_nodes
    walks = degree * degree * graph.num_nodes / workers  # only roughly: it decides how many threads share a node
    count_two_hop.launch(workers, workers, rows.indptr, rows.indices, seen, counts, work=min(walks, degree * 1000))
    return counts
