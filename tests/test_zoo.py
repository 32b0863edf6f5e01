"""Small members of torchvision's families against an oracle that knows nothing of graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.convnext import CNBlockConfig
from torchvision.models.efficientnet import FusedMBConvConfig, MBConvConfig
from torchvision.models.googlenet import Inception
from torchvision.models.inception import InceptionA, InceptionB
from torchvision.models.maxvit import MaxVit
from torchvision.models.regnet import BlockParams, RegNet
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformerBlockV2
from torchvision.models.vgg import make_layers

import topognn
from tests.sums_of_paths import compare

SMALL: dict[str, Any] = {"num_classes": 10}
WIDTHS = (4, 4, 8, 2, 4, 4)  # of the branches of one Inception module, 20 channels together
POOL = nn.MaxPool2d(3, 2, ceil_mode=True)
WINDOWS: dict[str, Any] = {"patch_size": [4, 4], "embed_dim": 8, "depths": [2, 1], "num_heads": [2, 4]}


def headed(*features: nn.Module) -> nn.Module:
    """Features and a classifier without hidden layers."""
    return nn.Sequential(*features, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LazyLinear(10))


NETWORKS: dict[str, tuple[int, Callable[[], nn.Module]]] = {  # name: (side of the input, maker)
    "alexnet": (64, lambda: headed(models.alexnet(**SMALL).features)),
    "convnext": (32, lambda: models.ConvNeXt([CNBlockConfig(8, 16, 1), CNBlockConfig(16, None, 2)], **SMALL)),
    "densenet": (32, lambda: models.DenseNet(8, (2, 3), 8, **SMALL)),
    "efficientnet": (
        32,
        lambda: models.EfficientNet(
            [FusedMBConvConfig(2, 3, 2, 8, 8, 1), MBConvConfig(4, 5, 2, 8, 12, 2)], 0.0, last_channel=16, **SMALL
        ),
    ),
    "googlenet": (32, lambda: headed(nn.Conv2d(3, 8, 3), POOL, Inception(8, *WIDTHS), Inception(20, *WIDTHS), POOL)),
    "inception": (24, lambda: headed(nn.Conv2d(3, 8, 3), InceptionA(8, 4), InceptionB(228))),
    "maxvit": (32, lambda: MaxVit((32, 32), 8, 2, [8, 16], [1, 1], 4, 0.0, **SMALL)),
    "mnasnet": (32, lambda: models.mnasnet0_5(**SMALL)),
    "mobilenet v2": (32, lambda: models.MobileNetV2(inverted_residual_setting=[[1, 8, 1, 1], [4, 12, 2, 2]], **SMALL)),
    "mobilenet v3": (32, lambda: models.mobilenet_v3_small(**SMALL)),
    "regnet": (32, lambda: RegNet(BlockParams.from_init_params(5, 16, 16, 2.0, 8, 0.25), **SMALL)),
    "resnet": (32, lambda: models.ResNet(BasicBlock, [2, 1, 1, 1], **SMALL)),
    "resnext": (32, lambda: models.ResNet(Bottleneck, [1, 1, 1, 1], groups=8, width_per_group=4, **SMALL)),
    "shufflenet": (32, lambda: models.ShuffleNetV2([2, 2, 2], [8, 16, 16, 32, 32], **SMALL)),
    "squeezenet": (32, lambda: models.squeezenet1_1(**SMALL)),
    "swin": (32, lambda: models.SwinTransformer(window_size=[2, 2], **WINDOWS, **SMALL)),
    "swin v2": (
        32,
        lambda: models.SwinTransformer(
            window_size=[2, 2], block=SwinTransformerBlockV2, downsample_layer=PatchMergingV2, **WINDOWS, **SMALL
        ),
    ),
    "vgg": (32, lambda: headed(make_layers([8, "M", 16, "M", 16, 16, "M"], batch_norm=True))),
    "vit": (16, lambda: models.VisionTransformer(16, 4, 2, 2, 16, 24, **SMALL)),
}


def build(name: str) -> tuple[nn.Module, dict[str, Tensor], tuple[int, ...]]:
    side, make = NETWORKS[name]
    torch.manual_seed(0)
    model = make().eval()
    model(torch.zeros(1, 3, side, side))
    return model, topognn.prune(model, "erk", 0.95), (3, side, side)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", NETWORKS)
def test_edges_and_effective_weights(name: str) -> None:
    found = compare(*build(name))
    assert found.edges == found.effective == []
    assert found.direct >= found.layers / 3
    assert found.ineffective > 0 or name in ("alexnet", "inception")  # else nothing could differ


def test_the_oracle_sees_a_wrong_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a network with another padding: fewer edges, and weights that only meet padding."""
    model, masks, shape = build("resnet")
    traced = topognn.trace(model, shape, shortcuts="all")
    model.get_submodule("conv1").padding = (6, 6)  # which keeps the later shapes no secret: they grow
    wrong = topognn.encode(traced, masks=masks)
    monkeypatch.setattr(topognn, "encode", lambda *args, **options: wrong)
    found = compare(model, masks, shape)
    assert "conv1.weight" in found.edges[0]
