"""The networks of the study: names, shapes, sizes, and the node counts of the released tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from topognn.errors import UnknownNameError
from topognn.masks import PRUNABLE, get_masks, prunable_weights
from topognn.models import MODELS, get_model

SHARED = Path(__file__).parents[2] / "shared"

# Networks with published sizes: total parameters and, for 10 classes, nodes in the released table, which
# counts the zero-padding ring of the input too.
PARAMETERS = {"conv6": 2_264_522, "resnet20": 272_474, "resnet32": 466_906, "mobilenet_v2": 2_296_922}
NODES = {
    "conv6": 233_366,
    "resnet20": 191_894,
    "resnet32": 306_582,
    "wide_resnet28_2": 478_614,
    "mobilenet_v2": 1_676_182,
}


def count_nodes(model: nn.Module, shortcut: str) -> int:
    """Elements of the padded input and of all layer outputs, but a projection's, which are the sum's."""
    nodes = 3 * 34 * 34

    def add(name: str) -> object:
        def hook(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
            nonlocal nodes
            nodes += 0 if shortcut in name else output.numel()

        return hook

    for name, module in model.named_modules():
        if isinstance(module, PRUNABLE):
            module.register_forward_hook(add(name))
    model.eval()(torch.zeros(1, 3, 32, 32))
    return nodes


@pytest.mark.parametrize("name", MODELS)
def test_node_counts_are_those_of_the_released_tables(name: str) -> None:
    shortcut = "convShortcut" if name == "wide_resnet28_2" else "shortcut"
    assert count_nodes(get_model(name), shortcut) == NODES[name]
    assert count_nodes(get_model(name, num_classes=200), shortcut) == NODES[name] + 190


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts(name: str) -> None:
    assert sum(parameter.numel() for parameter in get_model(name).parameters()) == PARAMETERS[name]


def test_wide_resnet_has_the_published_number_of_parameters() -> None:
    # 1.5 M in the paper's terms; 1,467,610 in the code that most others use.
    assert sum(parameter.numel() for parameter in get_model("wide_resnet28_2").parameters()) == 1_467_610


@pytest.mark.parametrize("name", MODELS)
def test_channels_classes_and_gradients(name: str) -> None:
    model = get_model(name, num_classes=7, in_channels=1)
    scores = model(torch.randn(2, 1, 32, 32))
    assert scores.shape == (2, 7)
    scores.square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("name", [name for name in MODELS if name != "conv6"])
def test_other_image_sizes(name: str) -> None:
    assert get_model(name).eval()(torch.zeros(1, 3, 28, 40)).shape == (1, 10)


@pytest.mark.parametrize("name", MODELS)
def test_initial_weights_are_kaiming_normal(name: str) -> None:
    torch.manual_seed(0)
    for weight in prunable_weights(get_model(name)).values():
        if weight.numel() > 2000:
            fan_in = weight[0].numel()
            assert weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.1)


def test_same_seed_same_weights() -> None:
    torch.manual_seed(3)
    first = prunable_weights(get_model("resnet20"))
    torch.manual_seed(3)
    second = prunable_weights(get_model("resnet20"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_wide_resnet_names() -> None:
    names = list(prunable_weights(get_model("wide_resnet28_2")))
    assert len(names) == 29  # the first, 12 blocks of two, 3 projections, the last
    assert names[0] == "conv1.weight" and names[-1] == "fc.weight"
    assert [name for name in names if "convShortcut" in name] == [
        f"block{stage}.layer.0.convShortcut.weight" for stage in (1, 2, 3)
    ]


def test_mobilenet_is_depthwise() -> None:
    weights = prunable_weights(get_model("mobilenet_v2"))
    assert weights["layers.3.conv2.weight"].shape == (144, 1, 3, 3)
    assert sum("shortcut" in name for name in weights) == 4


def test_unknown_model_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown model 'resnet-20'.*'resnet20'.*Known: conv6, mobilenet"):
        get_model("resnet-20")


@pytest.mark.parametrize(("name", "file"), [("conv6", "conv6_98"), ("resnet20", "resnet20_95")])
def test_golden_masks_fit_the_models(name: str, file: str) -> None:
    path = SHARED / "golden" / f"golden_{file}.npz"
    if not path.exists():
        pytest.skip("the golden files are not on this machine")
    with np.load(path) as golden:
        names = [key.removesuffix(".shape") for key in golden.files if key.endswith(".shape")]
        masks = {}
        for key in names:
            mask = torch.zeros(golden[f"{key}.shape"].tolist())
            mask.view(-1)[torch.as_tensor(golden[f"{key}.index"], dtype=torch.int64)] = 1
            masks[key] = mask
    model = get_model(name)
    assert set(prunable_weights(model)) == set(names)
    found = get_masks(model, masks)
    assert list(found) == list(prunable_weights(model))
    assert all(torch.equal(found[key], masks[key].bool()) for key in names)
