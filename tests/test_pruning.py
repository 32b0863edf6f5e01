"""Pruning algorithms reach their sparsity by their own rule, and applied masks hold through training."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune as torch_prune

from topognn.errors import MaskError, SparsityError, TraceError, UnknownNameError
from topognn.masks import get_masks, prunable_weights
from topognn.models import get_model
from topognn.pruning import PRUNERS, apply_masks, er, erk, magnitude, prune, synflow, uniform
from topognn.pruning.selection import allocate, keep_highest


def small_net() -> nn.Sequential:
    torch.manual_seed(0)
    first = (nn.Conv2d(2, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    # Leaky, because a weight behind a dead unit would stay zero without any mask.
    return nn.Sequential(*first, nn.Conv2d(8, 30, 3), nn.LeakyReLU(), nn.Flatten(), nn.Linear(30 * 4, 5))


INPUT_SHAPE = (2, 6, 6)
GIVEN: dict[str, Any] = {
    "input_shape": INPUT_SHAPE,
    "batches": [(torch.randn(60, *INPUT_SHAPE, generator=torch.Generator().manual_seed(1)), torch.arange(60) % 5)],
}


@pytest.mark.parametrize("name", PRUNERS)
@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.9, 0.98])
def test_sparsity_is_reached_and_the_model_untouched(name: str, sparsity: float) -> None:
    net = small_net()
    net[1].train()
    net[4].eval()
    weights = prunable_weights(net)
    before, random = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    modes = [module.training for module in net.modules()]
    masks = prune(net, name, sparsity, seed=5, **GIVEN)
    assert {name: (mask.shape, mask.dtype) for name, mask in masks.items()} == {
        name: (weight.shape, torch.bool) for name, weight in weights.items()
    }
    total = sum(weight.numel() for weight in weights.values())
    assert sum(int(mask.sum()) for mask in masks.values()) == round((1 - sparsity) * total)
    again = prune(net, name, sparsity, seed=5, **GIVEN)
    assert all(torch.equal(masks[name], again[name]) for name in masks)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert modes == [module.training for module in net.modules()]
    assert all(parameter.grad is None and not parameter._backward_hooks for parameter in net.parameters())


@pytest.mark.parametrize("pruner", [uniform, er, erk])
def test_random_masks_follow_the_seed_and_are_nested(pruner: Callable[..., dict[str, torch.Tensor]]) -> None:
    net = small_net()
    first, other = pruner(net, 0.5, seed=1), pruner(net, 0.5, seed=2)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    sparser = uniform(net, 0.8, seed=1) if pruner is uniform else first
    assert all((first[name] | ~sparser[name]).all() for name in first)


def test_layer_densities() -> None:
    net = nn.Sequential(nn.Conv2d(16, 32, 3), nn.Conv2d(32, 64, 1), nn.Conv2d(64, 64, 3), nn.Linear(100, 200))
    shapes = {name: tuple(weight.shape) for name, weight in prunable_weights(net).items()}
    total = sum(map(math.prod, shapes.values()))

    def densities(masks: dict[str, torch.Tensor]) -> dict[str, float]:
        assert sum(int(mask.sum()) for mask in masks.values()) == round(0.05 * total)
        return {name: mask.double().mean().item() for name, mask in masks.items()}

    assert list(densities(uniform(net, 0.95)).values()) == pytest.approx([0.05] * 4, abs=1e-3)
    for masks, length in ((er(net, 0.95), 2), (erk(net, 0.95), 4)):
        found = densities(masks)
        raw = {name: sum(shape[:length]) / math.prod(shape[:length]) for name, shape in shapes.items()}
        scale = 0.05 * total / sum(raw[name] * math.prod(shape) for name, shape in shapes.items())
        assert found == pytest.approx({name: scale * ratio for name, ratio in raw.items()}, abs=1e-3)


def test_erk_keeps_small_layers_dense() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 64, 3), nn.Conv2d(64, 64, 3))
    masks = erk(net, 0.5)
    assert masks["0.weight"].all() and not masks["2.weight"].all()
    assert sum(int(mask.sum()) for mask in masks.values()) == round(0.5 * (4 + 4 * 64 * 9 + 64 * 64 * 9))


@given(
    st.lists(st.tuples(st.integers(1, 5000), st.floats(1e-4, 5.0)), min_size=1, max_size=12),
    st.floats(0, 1, exclude_max=True),
)
@settings(max_examples=200, deadline=None)
def test_allocation_is_exact_and_proportional(layers: list[tuple[int, float]], sparsity: float) -> None:
    sizes, ratios = [size for size, _ in layers], [ratio for _, ratio in layers]
    total = round((1 - sparsity) * sum(sizes))
    kept = allocate(sizes, ratios, total)
    assert sum(kept) == total and all(0 <= count <= size for count, size in zip(kept, sizes, strict=True))
    # Layers that are not full share one scale, but for rounding to whole weights.
    open_layers = [k for k in range(len(layers)) if kept[k] < sizes[k]]
    low = max(((kept[k] - 1.0001) / (sizes[k] * ratios[k]) for k in open_layers), default=0.0)
    high = min(((kept[k] + 1.0001) / (sizes[k] * ratios[k]) for k in open_layers), default=0.0)
    assert low <= high


def test_what_has_no_room_gets_nothing() -> None:
    """Though the one layer that has room is found to pass density 1 by rounding."""
    ratio = 0.0006745066559105589
    assert 3 / math.fsum([3 * ratio]) * ratio > 1
    assert allocate([0, 3, 0], [0.0, ratio, 0.0], 3) == [0, 3, 0]


@given(st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=9), min_size=1, max_size=4), st.data())
@settings(max_examples=60, deadline=None)
def test_keep_highest_is_a_stable_sort(values: list[list[int]], data: Any) -> None:
    scores = {str(k): torch.tensor(row, dtype=torch.float32) for k, row in enumerate(values)}
    flat = [value for row in values for value in row]
    count = data.draw(st.integers(0, len(flat)))
    chosen = set(sorted(range(len(flat)), key=lambda k: (-flat[k], k))[:count])
    found = torch.cat(list(keep_highest(scores, count).values())).tolist()
    assert found == [k in chosen for k in range(len(flat))]


def test_magnitude_compares_across_layers() -> None:
    masks, weights = magnitude(small_net(), 0.7), prunable_weights(small_net())
    kept = torch.cat([weights[name][mask].abs() for name, mask in masks.items()])
    pruned = torch.cat([weights[name][~mask].abs() for name, mask in masks.items()])
    assert kept.min() >= pruned.max()


def test_synflow_by_hand() -> None:
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[2.0, -2.0], [3.0, 0.5]]))
        net[1].weight.copy_(torch.tensor([[-4.0, 1.0]]))
    # Flow of first-layer weight (o, i) is |w_oi v_o|, of second-layer weight o the sum of the former over i.
    masks = synflow(net, 0.5, input_shape=(2,), iterations=1)  # flows 8, 8, 3, 0.5 and 16, 3.5
    assert masks["0.weight"].tolist() == [[True, True], [False, False]]
    assert masks["1.weight"].tolist() == [[True, False]]


def test_synflow_keeps_every_layer_alive_where_magnitude_does_not() -> None:
    net = nn.Sequential(*(nn.Linear(50, 50, bias=False) for _ in range(6)))
    with torch.no_grad():
        net[3].weight.mul_(1e-3)
    assert not magnitude(net, 0.98)["3.weight"].any()
    masks = synflow(net, 0.98, input_shape=(50,))
    assert all(mask.any() for mask in masks.values())


def test_synflow_on_a_residual_network_and_tied_weights() -> None:
    masks = synflow(get_model("resnet20"), 0.9, input_shape=(3, 32, 32), iterations=10)
    assert sum(int(mask.sum()) for mask in masks.values()) == round(0.1 * 270_896)
    tied = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    tied[2].weight = tied[0].weight
    assert synflow(tied, 0.5, input_shape=(4,))["0.weight"].sum() == 8


def test_synflow_misuse() -> None:
    net = small_net()
    with pytest.raises(TraceError, match=r"synflow runs the model: pass input_shape=..., such as \(3, 32"):
        prune(net, "synflow", 0.5)
    with pytest.raises(TraceError, match=r"does not run on an input of shape \(1, 3, 6, 6\): "):
        synflow(net, 0.5, input_shape=(3, 6, 6))
    with pytest.raises(SparsityError, match="iterations=0 prunes nothing"):
        synflow(net, 0.5, input_shape=INPUT_SHAPE, iterations=0)
    assert net.training
    with torch.no_grad():
        net[3].weight[0, 0, 0, 0] = float("inf")
    with pytest.raises(SparsityError, match=r"scores of '\d.weight' are NaN or infinite"):
        synflow(net, 0.5, input_shape=INPUT_SHAPE)
    with pytest.raises(SparsityError, match=r"scores of '3.weight' are NaN or infinite"):
        magnitude(net, 0.5)


@pytest.mark.parametrize("name", PRUNERS)
@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5, float("nan")])
def test_impossible_sparsities(name: str, sparsity: float) -> None:
    with pytest.raises(SparsityError, match=r"sparsity \S+ is outside \[0, 1\): give the fraction"):
        prune(small_net(), name, sparsity, **GIVEN)


def test_sparsities_too_high_for_a_layer_or_for_all() -> None:
    net = small_net()
    for pruner in (uniform, er, erk):
        with pytest.raises(SparsityError, match=r"at sparsity 0\.999 '0\.weight' would keep none of its 144 weights"):
            pruner(net, 0.999)
    for name in PRUNERS:
        with pytest.raises(SparsityError, match=r"sparsity 0.9999 leaves none of 2904 weights: give a lower one"):
            prune(net, name, 0.9999, **GIVEN)


def test_unknown_pruner_and_nothing_to_prune() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown pruner 'synflo': did you mean 'synflow'"):
        prune(small_net(), "synflo", 0.5)
    for name in PRUNERS:
        with pytest.raises(SparsityError, match="no convolution and no linear layer"):
            prune(nn.Sequential(nn.ReLU()), name, 0.5, **GIVEN)


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-2, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, lr=0.1, weight_decay=1e-2),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=1e-2),
    "muon": lambda p: torch.optim.Muon([w for w in p if w.ndim == 2], lr=0.1),  # mixes a whole matrix
}


def train(net: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 5) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        net(torch.randn(4, *INPUT_SHAPE)).square().sum().backward()
        optimizer.step()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_pruned_weights_stay_zero_and_new_masks_replace_old(name: str) -> None:
    net = small_net()
    optimizer = OPTIMIZERS[name](list(net.parameters()))
    train(net, optimizer)  # leaves momentum on all weights
    for seed in (1, 2):
        masks = uniform(net, 0.8, seed=seed)
        apply_masks(net, masks)
        train(net, optimizer)
        for key, mask in masks.items():
            weight = net.get_parameter(key)
            assert (weight[~mask] == 0).all() and (weight.grad[~mask] == 0).all()
        # Those that only the first masks pruned have grown again, so the old masks are gone.
        assert torch.equal(get_masks(net)["6.weight"], masks["6.weight"])


def test_masks_can_be_lifted() -> None:
    net = small_net()
    names = list(net.state_dict())
    first = apply_masks(net, uniform(net, 0.9, seed=1))
    second = apply_masks(net, uniform(net, 0.9, seed=2))
    optimizer = OPTIMIZERS["sgd"](list(net.parameters()))
    first()  # no longer in force, so nothing happens
    train(net, optimizer)
    assert (net[6].weight == 0).float().mean() == pytest.approx(0.9, abs=0.01)
    second()
    train(net, optimizer)
    assert (net[6].weight != 0).all()
    assert list(net.state_dict()) == names


def test_tied_weights_share_a_mask_and_bad_masks_change_nothing() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].weight = net[0].weight
    before = net[0].weight.clone()
    with pytest.raises(MaskError, match=r"unknown mask '2\.weight'"):
        apply_masks(net, {"0.weight": torch.eye(4), "2.weight": torch.eye(4)})
    assert torch.equal(net[0].weight, before)
    apply_masks(net, {"0.weight": torch.eye(4)})
    optimizer = OPTIMIZERS["sgd"](net.parameters())
    net(torch.randn(3, 4)).sum().backward()
    optimizer.step()
    assert torch.equal(net[1].weight != 0, torch.eye(4).bool())


def test_computed_weights_are_refused() -> None:
    net = small_net()
    torch_prune.l1_unstructured(net[3], "weight", 0.5)
    with pytest.raises(MaskError, match=r"weight '3.weight' is computed by torch.nn.utils.prune .* make it"):
        apply_masks(net, uniform(net, 0.5))
