"""Layer by layer: expansion, effective weights, paths."""

from __future__ import annotations

import math

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import nn

import topognn
from tests.architectures import NAMED, Architecture, architectures
from topognn.metrics import find_layer_expansion


def dense_out(graph: topognn.MultipartiteGraph) -> np.ndarray:
    return topognn.to_scipy(graph).toarray().astype(float)


def second_singular_value(matrix: np.ndarray) -> float:
    """By a dense decomposition of what is left of a layer's matrix without its empty rows and columns."""
    matrix = matrix[matrix.any(1)][:, matrix.any(0)]
    if not matrix.size:
        return math.nan
    values = np.linalg.svd(matrix / np.sqrt(np.outer(matrix.sum(1), matrix.sum(0))), compute_uv=False)
    return float(values[1]) if len(values) > 1 else 0.0


def check_layers(architecture: Architecture) -> None:
    layout = topognn.trace(architecture.build(), architecture.input_shape)
    masks = architecture.masks()
    graph = topognn.encode(layout, masks=masks)
    found = find_layer_expansion(graph).tolist()
    empty = {name: torch.zeros_like(mask) for name, mask in masks.items()}
    shortcuts = dense_out(topognn.encode(layout, masks=empty))
    layers = [c for c in graph.connections if c.weight is not None and not c.is_pooled]
    names = [c.weight for c in graph.connections]
    for c, value in zip(layers, found, strict=True):
        assert c.weight is not None
        if names.count(c.weight) == 1:  # the graph of this layer alone
            alone = topognn.encode(layout, masks={**empty, c.weight: masks[c.weight]})
            assert value == pytest.approx(second_singular_value(dense_out(alone) - shortcuts), abs=1e-5, nan_ok=True)


@pytest.mark.parametrize("name", sorted(NAMED))
def test_expansion_of_named_architectures(name: str) -> None:
    check_layers(NAMED[name])


@given(architectures())
@settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=60)
def test_expansion_of_random_architectures(architecture: Architecture) -> None:
    check_layers(architecture)


@pytest.mark.parametrize(("outputs", "inputs"), [(4, 6), (1, 5), (5, 1), (1, 1)])
def test_a_layer_that_joins_all_alike_has_no_second_value(outputs: int, inputs: int) -> None:
    model = nn.Linear(inputs, outputs, bias=False)
    nn.init.constant_(model.weight, 0.5)
    masks = {"weight": torch.ones(outputs, inputs, dtype=torch.bool)}
    value = float(find_layer_expansion(topognn.encode(model, (inputs,), masks=masks)))
    assert value == pytest.approx(0, abs=1e-6)


def test_a_cycle_has_the_cosine() -> None:
    """A circulant layer's graph is a cycle of 2 n nodes, whose second singular value is cos(pi / n)."""
    n = 9
    mask = torch.eye(n, dtype=torch.bool) | torch.eye(n, dtype=torch.bool).roll(1, 1)
    graph = topognn.encode(nn.Linear(n, n, bias=False), (n,), masks={"weight": mask})
    assert nx.cycle_basis(topognn.to_networkx(graph).to_undirected())
    assert float(find_layer_expansion(graph, weighted=False)) == pytest.approx(math.cos(math.pi / n), rel=1e-6)


def test_layers_of_a_table() -> None:
    """The middle layer has one weight that leads nowhere, and the last is fully pruned."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 2))
    masks = {
        "0.weight": torch.ones(3, 3, dtype=torch.bool),
        "2.weight": torch.tensor([[1, 1, 0], [0, 0, 1]]),
        "4.weight": torch.tensor([[1, 0], [1, 0]]),
    }
    rows = topognn.layer_table(topognn.encode(model, (3,), masks=masks))
    assert [row.effective for row in rows] == [6, 2, 2]
    # 12 paths in all: 3 inputs, 2 of 3 middle units, 2 outputs; each layer's weights share them.
    assert [row.log10_paths for row in rows] == pytest.approx([math.log10(12 / kept) for kept in (9, 3, 2)])
    assert rows[1].expansion == 1  # it falls apart
    rows = topognn.layer_table(topognn.encode(model, (3,), masks={**masks, "4.weight": torch.zeros(2, 2)}))
    assert [row.effective for row in rows] == [0, 0, 0] and rows[2].log10_paths == -math.inf
    assert math.isnan(rows[2].expansion) and rows[0].log10_paths == -math.inf
