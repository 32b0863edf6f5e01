"""Residual networks for 32x32 images: ResNet-20, ResNet-32, WideResNet-28-2."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from topognn.models.initial import kaiming_init


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: identity, or a 1x1 projection where the shape changes."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != channels:
            projection = nn.Conv2d(in_channels, channels, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, after its last ReLU."""
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class ResNet(nn.Module):
    """Three stages of 16, 32, 64 channels with ``blocks`` basic blocks each; 6 * blocks + 2 layers deep."""

    def __init__(self, blocks: int, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(blocks, 16, 16, 1)
        self.layer2 = _stage(blocks, 16, 32, 2)
        self.layer3 = _stage(blocks, 32, 64, 2)
        self.linear = nn.Linear(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return class scores of images."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))  # type: ignore[no-any-return]


def _stage(blocks: int, in_channels: int, channels: int, stride: int) -> nn.Sequential:
    rest = [BasicBlock(channels, channels, 1) for _ in range(blocks - 1)]
    return nn.Sequential(BasicBlock(in_channels, channels, stride), *rest)


class PreActivationBlock(nn.Module):
    """Batch norm and ReLU before each of two 3x3 convolutions; the projection reads the activated input."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.convShortcut = nn.Conv2d(in_channels, channels, 1, stride, bias=False) if in_channels != channels else None

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum, not yet activated."""
        active = F.relu(self.bn1(x))
        out = self.conv2(F.relu(self.bn2(self.conv1(active))))
        return out + (x if self.convShortcut is None else self.convShortcut(active))  # type: ignore[no-any-return]


class PreActivationStage(nn.Module):
    """A row of blocks of one width, of which the first may halve the image."""

    def __init__(self, blocks: int, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        first = PreActivationBlock(in_channels, channels, stride)
        rest = [PreActivationBlock(channels, channels, 1) for _ in range(blocks - 1)]
        self.layer = nn.Sequential(first, *rest)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output of the last block."""
        return self.layer(x)  # type: ignore[no-any-return]


class WideResNet(nn.Module):
    """Three pre-activation stages of 16, 32, 64 times ``width`` channels; 6 * blocks + 4 layers deep."""

    def __init__(self, blocks: int, width: int, num_classes: int, in_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.block1 = PreActivationStage(blocks, 16, 16 * width, 1)
        self.block2 = PreActivationStage(blocks, 16 * width, 32 * width, 2)
        self.block3 = PreActivationStage(blocks, 32 * width, 64 * width, 2)
        self.bn1 = nn.BatchNorm2d(64 * width)
        self.fc = nn.Linear(64 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return class scores of images."""
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        x = F.relu(self.bn1(x))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))  # type: ignore[no-any-return]


def resnet20(num_classes: int = 10, in_channels: int = 3) -> ResNet:
    """Return a ResNet-20, projection shortcuts: float32 ``(N, in_channels, H, W)`` to ``(N, num_classes)``.

    Source: He, Zhang, Ren, Sun, *Deep Residual Learning for Image Recognition*, CVPR 2016, section 4.2, with
    the shortcuts of option B.

    >>> import torch
    >>> resnet20().eval()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    model = ResNet(3, num_classes, in_channels)
    kaiming_init(model)
    return model


def resnet32(num_classes: int = 10, in_channels: int = 3) -> ResNet:
    """Return a ResNet-32, projection shortcuts: float32 ``(N, in_channels, H, W)`` to ``(N, num_classes)``.

    Source: He, Zhang, Ren, Sun, *Deep Residual Learning for Image Recognition*, CVPR 2016, section 4.2, with
    the shortcuts of option B.

    >>> import torch
    >>> resnet32(num_classes=100).eval()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 100])
    """
    model = ResNet(5, num_classes, in_channels)
    kaiming_init(model)
    return model


def wide_resnet28_2(num_classes: int = 10, in_channels: int = 3) -> WideResNet:
    """Return a WideResNet-28-2 without dropout: float32 ``(N, in_channels, H, W)`` to ``(N, num_classes)``.

    Source: Zagoruyko, Komodakis, *Wide Residual Networks*, BMVC 2016, table 1.

    >>> import torch
    >>> wide_resnet28_2().eval()(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 10])
    """
    model = WideResNet(4, 2, num_classes, in_channels)
    kaiming_init(model)
    return model
