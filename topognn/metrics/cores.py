"""Core numbers: how deep in its densest surroundings a node sits.

Source: Cunegatti et al., TMLR 2024, section 4.1 (strength connectivity). Algorithm: Kabir and Madduri,
*Parallel k-core Decomposition on Multicore Platforms* (PKC), IPDPS workshops 2017.
"""

from __future__ import annotations

import torch
from torch import Tensor

from topognn.encoding.rows import Rows
from topognn.kernels.cores import peel, peel_alone
from topognn.kernels.host import read
from topognn.kernels.launch import get_num_threads
from topognn.plain_graph import Graph, get_simple_rows

_WORKERS = {"cpu": 256, "cuda": 8192}
_ALONE_BELOW = 5  # CPU threads: fewer are no faster together than one without atomics


def core_numbers(graph: Graph) -> Tensor:
    """Return the core number of each node of the undirected simple graph; int32 ``(nodes,)``.

    A node has core number k if it is in the largest subgraph whose nodes all have at least k neighbours there, and
    not in that of k + 1. Directions, self-loops and parallel edges are forgotten.

    On CUDA one host sync a level tried (at most two for each core number that occurs); one more the first time a
    :class:`PlainGraph` is made simple. Takes at most 12 bytes a node beyond the rows
    (16 if indices are int64).

    >>> from topognn.plain import from_edge_index
    >>> from topognn.metrics.cores import core_numbers
    >>> core_numbers(from_edge_index([[0, 1, 2, 2], [1, 2, 0, 3]], num_nodes=5))
    tensor([2, 2, 2, 1, 0], dtype=torch.int32)
    """
    rows = get_simple_rows(graph)
    if graph.device.type == "cpu" and get_num_threads() < _ALONE_BELOW:
        degrees = rows.indptr.diff().to(torch.int32)
        queue = torch.empty(graph.num_nodes, dtype=rows.indices.dtype)
        peel_alone.launch(1, rows.indptr, rows.indices, degrees, queue)
        return degrees
    return _peel_together(rows)


def _peel_together(rows: Rows) -> Tensor:
    """Return core numbers by a launch and a host sync a level."""
    degrees = rows.indptr.diff().to(torch.int32)
    nodes, device = degrees.numel(), degrees.device
    if not nodes:
        return degrees
    chunk = -(-nodes // _WORKERS[device.type])
    workers = -(-nodes // chunk)
    following = torch.full((nodes,), -1, dtype=rows.indices.dtype, device=device)
    top = torch.full((workers,), -1, dtype=rows.indices.dtype, device=device)
    fresh = torch.zeros(2, dtype=torch.int64, device=device)
    fresh[1] = nodes
    left, level = nodes, 0
    while left > 0:
        state = fresh.clone()
        peel.launch(
            *(workers, level, chunk, rows.indptr, rows.indices, degrees, following, top, state),
            work=(nodes + rows.num_entries) / workers,
        )
        taken, least = map(int, read(state))
        left -= taken
        # Nodes that were met above the level may have come down since, unless none was taken.
        level = level + 1 if taken else least
    return degrees


def k_core(graph: Graph) -> Tensor:
    """Return the mean core number; float64 scalar, NaN without nodes.

    >>> from topognn.plain import from_edge_index
    >>> from topognn.metrics.cores import k_core
    >>> k_core(from_edge_index([[0, 1, 2, 2], [1, 2, 0, 3]], num_nodes=5))
    tensor(1.4000, dtype=torch.float64)
    """
    return core_numbers(graph).double().mean()
