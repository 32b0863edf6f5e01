"""Products and sweep cuts through their CUDA launch in Numba's simulator, against the CPU launch.

Runs where ``NUMBA_ENABLE_CUDASIM=1``, as :mod:`tests.test_simulator`. Lanes add up in another order than one thread
does, so floats agree to rounding.
"""

from __future__ import annotations

import numba
import pytest
import torch

import topognn
from tests.architectures import NAMED
from tests.test_simulator import simulated
from topognn.kernels.gathers import LINE
from topognn.metrics.expansion import Expansion
from topognn.operators.matrix import get_weighted_degrees
from topognn.operators.products import get_window, pull, push
from topognn.operators.sparse import SparseWeights, is_shifted

pytestmark = pytest.mark.skipif(
    not numba.config.ENABLE_CUDASIM, reason="needs NUMBA_ENABLE_CUDASIM=1: set it to run the CUDA simulator"
)


def results(graph: topognn.MultipartiteGraph) -> list[torch.Tensor]:
    """Return everything that these kernels make of a graph."""
    x = torch.linspace(-1, 2, 3 * graph.num_nodes, dtype=torch.float64).view(3, -1)
    found = [topognn.linear_operator(graph, weighted=weighted, route="rows")(x) for weighted in (True, False)]
    found.append(topognn.linear_operator(graph, "out", route="rows", dtype=torch.float32)(x.float()))
    found.append(topognn.linear_operator(graph, "out", route="connections")(x))
    for c, kept in zip(graph.connections, graph.kept, strict=True):
        for dtype in (torch.float32, torch.float64):
            if is_shifted(c):
                weights = SparseWeights(c, kept, dtype, weighted=dtype == torch.float32)
                first, end = get_window(graph.layout, c)
                found.append(push(c, weights, x[:, first:end].to(dtype), first))
                found.append(pull(c, weights, found[-1]))
    for weighted in (True, False):
        degrees = get_weighted_degrees(graph, weighted)
        found.append(Expansion(x.sum(), x[1].sin(), graph, degrees, weighted).conductance)
    return found


@pytest.mark.parametrize("width", [1, 4])
@pytest.mark.parametrize("name", ["pooled conv plus identity", "single node"])
def test_simulator_equals_cpu(name: str, width: int) -> None:
    architecture = NAMED[name]
    graph = topognn.encode(architecture.build(), architecture.input_shape, architecture.masks(), shortcuts="all")
    topognn.set_num_threads(1)
    want = results(graph)
    seen: set[str] = set()
    with simulated(width, seen):
        got = results(graph)
    for a, b in zip(got, want, strict=True):
        assert torch.allclose(a, b, rtol=1e-6 if a.dtype == torch.float32 else 1e-12, atol=1e-12, equal_nan=True)
    assert {"multiply_row", "multiply_row_pair", "weigh_crossing", "add_shifted"} <= seen
    assert ({"add_holders", "add_support"} <= seen) == (name == "pooled conv plus identity")


@pytest.mark.parametrize("width", [1, 4])
def test_simulator_equals_cpu_in_long_rows(width: int) -> None:
    """A line of entries for each lane, and all but one of another, which the last lane must not take whole."""
    inputs = 2 * LINE * width - 1
    masks = {"weight": torch.ones(2, inputs, dtype=torch.bool)}
    graph = topognn.encode(torch.nn.Linear(inputs, 2), (inputs,), masks)
    x = torch.linspace(-1, 2, 3 * graph.num_nodes, dtype=torch.float64).view(3, -1)
    operators = [topognn.linear_operator(graph, weighted=weighted, route="rows") for weighted in (True, False)]
    want = [operator(x) for operator in operators]
    seen: set[str] = set()
    with simulated(width, seen):
        got = [operator(x) for operator in operators]
    for a, b in zip(got, want, strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-12)
    assert {"multiply_row", "multiply_row_pair"} <= seen
