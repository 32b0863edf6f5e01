"""Where masks come from: every source ends in the same bool tensors, and every misfit in a clear error."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.ao.pruning import FakeSparsity
from torch.nn.utils import parametrizations, parametrize, prune

from topognn.errors import MaskError
from topognn.masks import check_masks, get_masks, prunable_weights


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 4, 3)
        self.bn1 = nn.BatchNorm2d(4)
        self.block = nn.Sequential(nn.ConvTranspose1d(4, 3, 2), nn.Linear(5, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn1(self.conv1(x))


NAMES = ["conv1.weight", "block.0.weight", "block.1.weight"]
TRUTH = {
    name: torch.rand(weight.shape, generator=torch.Generator().manual_seed(1)) < 0.5
    for name, weight in prunable_weights(Net()).items()
}
FLOATS = {name: mask.float() for name, mask in TRUTH.items()}


def with_zeros() -> Net:
    net = Net()
    with torch.no_grad():
        for name, mask in TRUTH.items():
            net.get_parameter(name).mul_(mask)
    return net


def with_prune() -> Net:
    net = Net()
    for name, mask in TRUTH.items():
        prune.custom_from_mask(net.get_submodule(name.removesuffix(".weight")), "weight", mask)
    return net


def with_fake_sparsity() -> Net:
    net = Net()
    for name, mask in TRUTH.items():
        module = net.get_submodule(name.removesuffix(".weight"))
        parametrize.register_parametrization(module, "weight", FakeSparsity(mask.float()))
    return net


def assert_truth(masks: dict[str, torch.Tensor], truth: dict[str, torch.Tensor] = TRUTH) -> None:
    assert list(masks) == NAMES
    assert all(mask.dtype is torch.bool and torch.equal(mask, truth[name]) for name, mask in masks.items())


def old_names(pattern: str) -> dict[str, torch.Tensor]:
    return {pattern.format(name.removesuffix(".weight")): mask for name, mask in FLOATS.items()}


SOURCES: dict[str, Any] = {
    "bool": TRUTH,
    "int": {name: mask.int() for name, mask in TRUTH.items()},
    "reversed": dict(reversed(FLOATS.items())),
    "module names": old_names("{}"),
    "torch prune": old_names("{}.weight_mask"),
    "prune state_dict": with_prune().state_dict(),
    "mask suffix": old_names("{}.mask"),
    "DataParallel": old_names("module.{}.weight"),
    "torch.compile": old_names("_orig_mod.{}.weight_mask"),
    "both": old_names("module._orig_mod.{}"),
    "Synaptic-Flow": {**Net().state_dict(), **old_names("{}.weight_mask"), "bn1.weight_mask": torch.ones(4)},
    "PrunedModel of open_lth": {f"mask_{n.replace('.', '___')}": mask for n, mask in FLOATS.items()},
    "PrunedModel of open_lth with its weights": {
        **{f"model.{name}": value for name, value in Net().state_dict().items()},
        **{f"mask_{name.replace('.', '___')}": mask for name, mask in FLOATS.items()},
    },
    "prune state_dict of a Lightning module": {
        "state_dict": {f"net.{name}": value for name, value in with_prune().state_dict().items()}
    },
    "path of two modules": old_names("task.net.{}.weight_mask"),
    "list": list(FLOATS.values()),
    "tuple": tuple(TRUTH.values()),
    "nested masks": {"epoch": 3, "model": Net().state_dict(), "masks": FLOATS},
    "rigl": {"object_dict": {"step": 7, "backward_masks": list(FLOATS.values())}},
    "rigl-torch": {"model": Net().state_dict(), "pruner": {"step": 7, "backward_masks": list(FLOATS.values())}},
    "with biases": {**FLOATS, "conv1.bias": torch.ones(4), "bn1.running_mean": torch.ones(4)},
}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("suffix", ["memory", ".pt", ".bin"])
def test_every_source_gives_the_same_masks(source: str, suffix: str, tmp_path: Path) -> None:
    masks = SOURCES[source]
    if suffix != "memory":
        torch.save(masks, tmp_path / f"masks{suffix}")
        masks = str(tmp_path / f"masks{suffix}")
    assert_truth(get_masks(Net(), masks))


@pytest.mark.parametrize("make", [with_zeros, with_prune, with_fake_sparsity])
def test_masks_in_the_model_and_in_its_file(make: Any, tmp_path: Path) -> None:
    assert_truth(get_masks(make()))
    prunable = prunable_weights(make())
    assert list(prunable) == NAMES
    assert all(torch.equal(weight != 0, TRUTH[name]) for name, weight in prunable.items())
    if make is not with_fake_sparsity:  # whose state_dict leaves the mask out
        torch.save({"state_dict": make().state_dict(), "epoch": 1}, tmp_path / "net.pth")
        assert_truth(get_masks(Net(), tmp_path / "net.pth"))
        safetensors.torch.save_file(make().state_dict(), tmp_path / "net.safetensors")
        assert_truth(get_masks(Net(), tmp_path / "net.safetensors"))


def test_zeros_of_a_model_that_was_saved_in_a_module(tmp_path: Path) -> None:
    inside = {f"net.{name}": value for name, value in with_zeros().state_dict().items()}
    for number, content in enumerate(({"state_dict": inside, "epoch": 3}, {**inside, "metric.total": torch.ones(1)})):
        torch.save(content, tmp_path / f"{number}.ckpt.pt")
        assert_truth(get_masks(Net(), tmp_path / f"{number}.ckpt.pt"))


def test_a_path_is_left_out_only_where_it_explains_every_weight(tmp_path: Path) -> None:
    some = {f"net.{name}": mask for name, mask in list(FLOATS.items())[:2]}
    strange = {**{f"net.{name}": mask for name, mask in FLOATS.items()}, "head.weight": torch.ones(2, 2)}
    mixed = {**FLOATS, "net.conv1.weight": FLOATS["conv1.weight"]}
    for number, (masks, name) in enumerate(((some, "net.conv1"), (strange, "net.conv1"), (mixed, "net.conv1"))):
        torch.save(masks, tmp_path / f"{number}.pt")
        for source in (masks, tmp_path / f"{number}.pt"):
            with pytest.raises(MaskError, match=f"unknown mask '{name}"):
                get_masks(Net(), source)
    # One that is the model's own stays: it has a layer of that name, which is meant.
    inner = nn.ModuleDict({"net": Net()})
    assert list(get_masks(inner, {f"net.{name}": mask for name, mask in TRUTH.items()})) == [f"net.{n}" for n in NAMES]


def test_a_kept_weight_may_be_zero() -> None:
    net = with_prune()
    with torch.no_grad():
        net.conv1.weight_orig.zero_()
    assert_truth(get_masks(net))


def test_wrapped_model_takes_plain_names() -> None:
    masks = get_masks(nn.DataParallel(Net()), TRUTH)
    assert list(masks) == [f"module.{name}" for name in NAMES]
    assert all(torch.equal(masks[f"module.{name}"], TRUTH[name]) for name in NAMES)


def test_weights_not_named_and_none_are_dense() -> None:
    masks = get_masks(Net(), {"conv1.weight": TRUTH["conv1.weight"], "block.0": None})
    assert torch.equal(masks["conv1.weight"], TRUTH["conv1.weight"])
    assert masks["block.0.weight"].all() and masks["block.1.weight"].all()
    assert_truth(get_masks(Net(), [None, *list(TRUTH.values())[1:]]), TRUTH | {NAMES[0]: torch.ones(4, 2, 3, 3) > 0})


def test_dense_network_warns_and_sparse_does_not(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"no weight is zero .* taken as dense"):
        assert all(mask.all() for mask in get_masks(Net()).values())
    torch.save(Net().state_dict(), tmp_path / "dense.pt")
    with pytest.warns(UserWarning, match="taken as dense"):
        get_masks(Net(), tmp_path / "dense.pt")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        get_masks(with_zeros())
        get_masks(Net(), [None, None, None])
        assert get_masks(nn.ReLU()) == {}


def test_parametrized_weights_are_those_of_eval_mode() -> None:
    net = parametrizations.spectral_norm(nn.Linear(9, 9))  # in training each evaluation moves its buffers
    assert torch.equal(prunable_weights(net)["weight"], net.eval().weight)


def test_tied_weights_appear_once() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    net[2].weight = net[0].weight
    assert list(prunable_weights(net)) == ["0.weight", "1.weight"]
    mask = torch.eye(3)
    assert torch.equal(get_masks(net, {"2.weight": mask})["0.weight"], mask.bool())


@pytest.mark.parametrize("make", [with_prune, with_fake_sparsity, with_zeros, Net])
def test_nothing_in_the_model_changes(make: Any) -> None:
    net = make()
    parametrizations.spectral_norm(net.block[1]) if make is Net else None
    net.bn1.eval()
    state, random = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    modes = [module.training for module in net.modules()]
    hooks = [len(module._forward_pre_hooks) for module in net.modules()]
    get_masks(net, TRUTH)
    prunable_weights(net)
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert modes == [module.training for module in net.modules()]
    assert hooks == [len(module._forward_pre_hooks) for module in net.modules()]
    assert all(parameter.grad is None for parameter in net.parameters())


WRONG: list[tuple[Any, str]] = [
    ({"conv2.weight": torch.ones(4, 2, 3, 3)}, r"unknown mask 'conv2.weight': did you mean 'conv1.weight'"),
    (
        {"conv1.weight": torch.ones(4, 2, 3)},
        r"'conv1.weight' has shape \(4, 2, 3\), its weight \(4, 2, 3, 3\)",
    ),
    ({"conv1.weight": torch.full((4, 2, 3, 3), 0.5)}, r"'conv1.weight' holds the value 0.5: use 0 .* and 1"),
    ({"conv1.weight": torch.full((4, 2, 3, 3), float("nan"))}, r"'conv1.weight' holds the value nan"),
    ({"conv1.weight": torch.full((4, 2, 3, 3), 2)}, r"'conv1.weight' holds the value 2"),
    ({"conv1": [1, 0]}, r"'conv1.weight' is of type list: pass a dense torch tensor"),
    ({"conv1": torch.ones(4, 2, 3, 3).to_sparse()}, r"is a torch.sparse_coo tensor: pass a dense"),
    (TRUTH | {"bn2.weight": torch.ones(4)}, r"unknown mask 'bn2.weight'"),
    ({"bn1.weight": torch.ones(4)}, r"no mask names a weight .*given: 'bn1.weight'.*Known: block.0.weight"),
    ({}, r"no mask names a weight of the model \(given: nothing\)"),
    ([TRUTH["conv1.weight"]], r"1 masks for 3 weights: give one a layer"),
    (torch.ones(3), r"masks is of type Tensor: pass a dict"),
]


@pytest.mark.parametrize(("masks", "message"), WRONG)
def test_masks_that_do_not_fit(masks: Any, message: str) -> None:
    with pytest.raises(MaskError, match=message):
        get_masks(Net(), masks)


def test_other_misfits(tmp_path: Path) -> None:
    torch.save({**with_zeros().state_dict(), "head.weight": torch.ones(2, 2)}, tmp_path / "other.pt")
    with pytest.raises(MaskError, match=r"unknown mask 'head\.weight'"):
        get_masks(Net(), tmp_path / "other.pt")
    with pytest.raises(MaskError, match=r"unknown mask 'a.weigth': did you mean 'a.weight'"):
        check_masks({"a.weigth": torch.ones(2)}, {"a.weight": (2,)})
    with pytest.raises(MaskError, match=r"weight '0.weight' has no shape yet"):
        prunable_weights(nn.Sequential(nn.LazyLinear(3)))


@given(st.lists(st.integers(0, 1), min_size=1), st.sampled_from([torch.float16, torch.int8, torch.bool]))
@settings(max_examples=30, deadline=None)
def test_check_masks_keeps_every_value(values: list[int], dtype: torch.dtype) -> None:
    checked = check_masks({"w": torch.tensor(values).to(dtype)}, {"w": (len(values),), "other": (1,)})
    assert list(checked) == ["w"] and checked["w"].tolist() == [value == 1 for value in values]


def test_bool_masks_on_a_device_need_no_wait() -> None:
    with FakeTensorMode(), torch.device("cuda"):  # reading a value of a fake tensor raises
        net = Net()
        given_masks = {name: torch.ones(weight.shape) > 0 for name, weight in prunable_weights(net).items()}
        masks = get_masks(net, given_masks)
    assert all(mask.device.type == "cuda" and mask.dtype is torch.bool for mask in masks.values())
