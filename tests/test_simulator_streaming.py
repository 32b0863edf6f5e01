"""Kernels that find edges anew, through their CUDA launch in Numba's simulator, against the CPU launch.

Runs where ``NUMBA_ENABLE_CUDASIM=1``, as :mod:`tests.test_simulator`.
"""

from __future__ import annotations

import numba
import pytest
import torch

import topognn
from tests.architectures import NAMED
from tests.test_simulator import simulated
from topognn.metrics.components import connected_components
from topognn.metrics.expansion import Expansion
from topognn.operators.matrix import get_weighted_degrees

pytestmark = pytest.mark.skipif(
    not numba.config.ENABLE_CUDASIM, reason="needs NUMBA_ENABLE_CUDASIM=1: set it to run the CUDA simulator"
)


@pytest.mark.parametrize(("name", "width"), [("pooled conv plus identity", 4), ("permuted sum", 2), ("single node", 1)])
def test_simulator_equals_cpu(name: str, width: int) -> None:
    architecture = NAMED[name]
    graph = topognn.encode(architecture.build(), architecture.input_shape, architecture.masks(), shortcuts="all")
    topognn.set_num_threads(1)
    want = results(graph)
    seen: set[str] = set()
    with simulated(width, seen):
        got = results(graph)
    assert torch.equal(got[0], want[0])
    assert torch.allclose(got[1], want[1], rtol=1e-12, atol=1e-12, equal_nan=True)
    assert {"hook_taps", "weigh_taps"} <= seen


def results(graph: topognn.MultipartiteGraph) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what these kernels make of a graph without rows."""
    vector = torch.linspace(-1, 2, graph.num_nodes, dtype=torch.float64).sin()
    crossing = Expansion(vector.sum(), vector, graph, get_weighted_degrees(graph), True).conductance
    return connected_components(graph).labels, crossing
