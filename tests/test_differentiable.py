"""Gradients with respect to weights and soft masks, against finite differences."""

from __future__ import annotations

import pytest
import torch

import topognn
from tests.architectures import NAMED
from tests.conftest import edges_of

NAMES = [
    *("grouped", "dilated", "overlapping pool before conv", "residual projection", "dense concat", "tokens"),
    *("shared conv", "repvgg", "permuted sum", "sum of identities"),
]


def soft_weights(layout: topognn.Layout) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        name: (torch.rand(shape, generator=generator, dtype=torch.float64) + 0.1).requires_grad_()
        for name, shape in layout.weight_shapes.items()
    }


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("function", [topognn.log_path_sum, topognn.leading_eigenvalue])
def test_gradients_are_finite_differences(function, name: str) -> None:
    architecture = NAMED[name]
    layout = topognn.trace(architecture.build(), architecture.input_shape, shortcuts="all")
    weights = soft_weights(layout)
    options = {"tolerance": 1e-10} if function is topognn.leading_eigenvalue else {}
    value = function(layout, weights, **options)
    gradients = torch.autograd.grad(value, list(weights.values()), allow_unused=True, materialize_grads=True)
    assert any(g.abs().max() > 1e-3 for g in gradients)
    step = 1e-5
    for (key, weight), gradient in zip(weights.items(), gradients, strict=True):
        for index in [0, weight.numel() // 2, weight.numel() - 1]:
            ends = []
            for sign in (1, -1):
                moved = weight.detach().clone()
                moved.view(-1)[index] += sign * step
                ends.append(float(function(layout, {**weights, key: moved}, **options).detach()))
            assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(float(gradient.reshape(-1)[index]), abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_values_are_those_of_the_graph(name: str) -> None:
    architecture = NAMED[name]
    layout = topognn.trace(architecture.build(), architecture.input_shape)
    weights = {key: weight.detach() for key, weight in soft_weights(layout).items()}
    assert layout.weights is not None
    layout.weights.model.load_state_dict({key: w.float() for key, w in weights.items()}, strict=False)
    graph = topognn.encode(layout, masks={key: torch.ones_like(w) for key, w in weights.items()})
    dense = torch.zeros(graph.num_nodes, graph.num_nodes, dtype=torch.float64)
    for (u, v), w in edges_of(graph, "out").items():
        dense[u, v] = dense[v, u] = w
    largest = float(torch.linalg.eigvalsh(dense).max())
    assert float(topognn.leading_eigenvalue(layout, weights)) == pytest.approx(largest, rel=1e-5)
    paths = topognn.topometrics(graph, ["log10_path_norm"])["log10_path_norm"]
    assert float(topognn.log_path_sum(layout, weights)) == pytest.approx(paths * 2.302585093, rel=1e-5)


def test_bad_weights() -> None:
    layout = topognn.trace(topognn.example_model()[0], (1, 3, 3))
    good = {name: torch.ones(shape) for name, shape in layout.weight_shapes.items()}
    with pytest.raises(topognn.MaskError, match=r"did you mean '2\.weight'"):
        topognn.log_path_sum(layout, {**good, "3.weight": torch.ones(1)})
    with pytest.raises(topognn.MaskError, match=r"'0.weight' is missing: give a tensor of shape \(2, 1, 2, 2\)"):
        topognn.leading_eigenvalue(layout, {"2.weight": good["2.weight"]})
    with pytest.raises(topognn.MaskError, match=r"'0.weight' is torch.int64 of shape \(2, 1, 2, 2\)"):
        topognn.log_path_sum(layout, {**good, "0.weight": good["0.weight"].long()})
