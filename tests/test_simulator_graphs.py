"""Kernels on any graph, through their CUDA launch in Numba's simulator, against the CPU launch.

Runs where ``NUMBA_ENABLE_CUDASIM=1``, as :mod:`tests.test_simulator`.
"""

from __future__ import annotations

import numba
import numpy as np
import pytest
import torch

import topognn
from tests.plain_graphs import Edges, random_graphs
from tests.test_components import naive_labels
from tests.test_cores import naive_cores
from tests.test_simulator import simulated
from topognn.metrics import components, cores
from topognn.metrics.components import connected_components
from topognn.metrics.cores import core_numbers
from topognn.plain import from_csr, from_edge_index

pytestmark = pytest.mark.skipif(
    not numba.config.ENABLE_CUDASIM, reason="needs NUMBA_ENABLE_CUDASIM=1: set it to run the CUDA simulator"
)


def results(n: int, edges: Edges, dtype: torch.dtype) -> list[torch.Tensor]:
    """Return everything that kernels make of a graph."""
    graph = from_edge_index(torch.from_numpy(edges.T.copy()).to(dtype), n, np.arange(len(edges)))
    both, simple = graph.undirected, graph.simple
    mirrored = from_csr(both.indptr, both.indices, both.weights, directed=False)
    found = [both.indptr, both.indices, both.weights, simple.indptr, simple.indices]
    peeled = [core_numbers(graph), cores._peel_in_rounds(simple) if n <= 16 else core_numbers(graph)]
    return [*found, mirrored.simple.indices, connected_components(graph).labels, *peeled]


@pytest.mark.parametrize("width", [1, 2, 4, 8])
def test_simulator_equals_cpu(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "_ROUNDS", 4)
    monkeypatch.setattr(components, "_SAMPLES", 4)
    topognn.set_num_threads(1)
    seen: set[str] = set()
    for number, (n, edges) in enumerate(random_graphs(50, 100 + width)):
        edges = edges[:80]  # a simulated thread is slow
        dtype = (torch.int32, torch.int64)[number % 2]
        want = results(n, edges, dtype)
        with simulated(width, seen):
            got = results(n, edges, dtype)
        assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
        assert got[-3].tolist() == naive_labels(n, edges)
        assert got[-2].tolist() == got[-1].tolist() == naive_cores(n, edges)
    assert {"begin", "hook", "compress", "peel", "peel_alone", "inspect_row", "merge_row", "repeat_row"} <= seen
