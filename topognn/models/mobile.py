"""MobileNetV2 for 32x32 images."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from topognn.models.initial import kaiming_init

# (expansion, channels, blocks, stride of the first block): table 2 of the paper, with the first stride of 2
# made 1.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
    """1x1 expansion, 3x3 depthwise, 1x1 linear projection, and a shortcut where the stride is 1."""

    def __init__(self, in_channels: int, channels: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = expansion * in_channels
        self.conv1 = nn.Conv2d(in_channels, hidden, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, stride, padding=1, groups=hidden, bias=False)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.conv3 = nn.Conv2d(hidden, channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.has_shortcut = stride == 1
        self.shortcut = nn.Sequential()
        if self.has_shortcut and in_channels != channels:
            self.shortcut = nn.Sequential(nn.Conv2d(in_channels, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, which is not activated."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return out + self.shortcut(x) if self.has_shortcut else out  # type: ignore[no-any-return]


class MobileNetV2(nn.Module):
    """A 3x3 stem of 32 channels, the stages of inverted residuals, a 1x1 convolution to 1280 channels."""

    def __init__(self, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 32, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        blocks = []
        width = 32
        for expansion, channels, repeats, stride in STAGES:
            for repeat in range(repeats):
                blocks.append(InvertedResidual(width, channels, expansion, stride if repeat == 0 else 1))
                width = channels
        self.layers = nn.Sequential(*blocks)
        self.conv2 = nn.Conv2d(width, 1280, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(1280)
        self.linear = nn.Linear(1280, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return class scores of images."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(self.layers(x))))
        return self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))  # type: ignore[no-any-return]


def mobilenet_v2(num_classes: int = 10, in_channels: int = 3) -> MobileNetV2:
    """Return a MobileNetV2 for small images: float32 ``(N, in_channels, H, W)`` to ``(N, num_classes)``.

    The paper's network with what is usual for 32x32 images: stride 1 in the stem and in the second stage, a
    1x1 expansion in the first stage too, a 1x1 projection shortcut where a block of stride 1 changes the
    channels, ReLU for ReLU6. The released tables of Cunegatti et al., TMLR 2024, fit this variant and no
    other: their node counts need the first stage's expansion, their edge counts the projection shortcuts.

    Source: Sandler, Howard, Zhu, Zhmoginov, Chen, *MobileNetV2: Inverted Residuals and Linear Bottlenecks*,
    CVPR 2018, table 2.

    >>> import torch
    >>> mobilenet_v2().eval()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    model = MobileNetV2(num_classes, in_channels)
    kaiming_init(model)
    return model
