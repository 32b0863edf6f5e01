"""Memory: what docstrings and the encoder promise, measured in the allocator."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import topognn
from tests.memory import peak_bytes


def test_the_measure_sees_what_operations_copy() -> None:
    mask = torch.ones(1000, 1000, dtype=torch.bool)
    most, _ = peak_bytes(lambda: mask.clone())
    assert most == 1_000_000
    most, _ = peak_bytes(lambda: mask.sum(1))  # which makes an int64 of every bool
    assert most >= 8_000_000


@pytest.mark.parametrize(("name", "sparsity"), [("conv6", 0.995), ("resnet20", 0.95), ("mobilenet_v2", 0.97)])
@pytest.mark.parametrize("direction", ["out", "in"])
def test_encoding_takes_at_most_twice_the_rows(name: str, sparsity: float, direction: str) -> None:
    model = topognn.get_model(name)
    layout, masks = topognn.trace(model, (3, 32, 32)), topognn.prune(model, "erk", sparsity)
    most, rows = peak_bytes(lambda: topognn.encode(layout, masks=masks).rows(direction, weighted=True))
    own = sum(t.numel() * t.element_size() for t in (rows.indptr, rows.indices, rows.weights))
    assert own < most <= 2 * own


def test_a_sparse_layer_is_never_copied_in_full() -> None:
    """A linear layer has one edge a kept weight: no float32 copy of all weights may be made."""
    model = nn.Sequential(nn.Linear(2000, 2000, bias=False))
    layout, mask = topognn.trace(model, (2000,)), torch.rand(2000, 2000) < 0.01
    most, rows = peak_bytes(lambda: topognn.encode(layout, masks={"0.weight": mask}).csr)
    assert rows.num_entries == int(mask.sum())
    assert most < 2 * mask.numel()


def test_magnitudes_are_made_when_asked_for() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 6, 3, groups=2, bias=False))
    weight = model[0].weight.detach()
    mask = torch.rand_like(weight) < 0.5
    (kept,) = topognn.encode(model, (4, 5, 5), {"0.weight": mask}).kept
    assert torch.equal(kept.magnitude, torch.where(mask, weight.abs(), 0.0))
    assert torch.equal(kept.values, weight[mask].abs())
    with torch.no_grad():
        model[0].weight.zero_()
    assert bool((kept.magnitude[mask] > 0).all())  # the graph is of the weights that it was made of
