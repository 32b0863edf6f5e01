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

pytestmark = pytest.mark.skipif(
    not numba.config.ENABLE_CUDASIM, reason="needs NUMBA_ENABLE_CUDASIM=1: set it to run the CUDA simulator"
)


@pytest.mark.parametrize(("name", "width"), [("pooled conv plus identity", 4), ("permuted sum", 2), ("single node", 1)])
def test_simulator_equals_cpu(name: str, width: int) -> None:
    architecture = NAMED[name]
    graph = topognn.encode(architecture.build(), architecture.input_shape, architecture.masks(), shortcuts="all")
    topognn.set_num_threads(1)
    want = connected_components(graph).labels
    seen: set[str] = set()
    with simulated(width, seen):
        assert torch.equal(connected_components(graph).labels, want)
    assert "hook_taps" in seen
