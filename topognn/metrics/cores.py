"""Core numbers: how deep in its densest surroundings a node sits.

Source: Cunegatti et al., TMLR 2024, section 4.1 (strength connectivity).
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from topognn.encoding.rows import Rows
from topognn.kernels.cores import TOTAL, peel, peel_alone
from topognn.kernels.host import read
from topognn.plain_graph import Graph, get_simple_rows

_ROUNDS = 32  # between two looks at whether all nodes are taken
_LANES = 32  # that share a node: few nodes a round have a row to go through


def core_numbers(graph: Graph) -> Tensor:
    """Return the core number of each node of the undirected simple graph; int32 ``(nodes,)``.

    A node has core number k if it is in the largest subgraph whose nodes all have at least k neighbours there, and
    not in that of k + 1. Directions, self-loops and parallel edges are forgotten.

    On CUDA one host sync every 32 rounds, of which a core number that occurs takes a few to a dozen; one more the first
    time a :class:`PlainGraph` is made simple. Takes at most 12 bytes a node beyond the rows (16 if indices are int64).

    >>> from topognn.plain import from_edge_index
    >>> from topognn.metrics.cores import core_numbers
    >>> core_numbers(from_edge_index([[0, 1, 2, 2], [1, 2, 0, 3]], num_nodes=5))
    tensor([2, 2, 2, 1, 0], dtype=torch.int32)
    """
    rows = get_simple_rows(graph)
    return _peel_alone(rows) if graph.device.type == "cpu" else _peel_in_rounds(rows)


def _peel_alone(rows: Rows) -> Tensor:
    """Return core numbers by one thread."""
    degrees = rows.indptr.diff().to(torch.int32)
    peel_alone.launch(1, rows.indptr, rows.indices, degrees, torch.empty_like(degrees, dtype=rows.indices.dtype))
    return degrees


def _peel_in_rounds(rows: Rows) -> Tensor:
    """Return core numbers by a launch a round."""
    degrees = rows.indptr.diff().to(torch.int32)
    nodes, device = degrees.numel(), degrees.device
    taken = torch.zeros(nodes, dtype=torch.int32, device=device)
    state = torch.zeros(TOTAL + 1, dtype=torch.int64, device=device)
    state[2] = nodes  # round 0 begins at level 0, as round -1 says
    turns, done = itertools.count(), 0
    while done < nodes:
        for turn in itertools.islice(turns, _ROUNDS):
            peel.launch(nodes, turn, rows.indptr, rows.indices, degrees, taken, state, work=_LANES)
        (done,) = map(int, read(state[TOTAL:]))
    return degrees


def k_core(graph: Graph) -> Tensor:
    """Return the mean core number; float64 scalar, NaN without nodes.

    >>> from topognn.plain import from_edge_index
    >>> from topognn.metrics.cores import k_core
    >>> k_core(from_edge_index([[0, 1, 2, 2], [1, 2, 0, 3]], num_nodes=5))
    tensor(1.4000, dtype=torch.float64)
    """
    return core_numbers(graph).double().mean()
