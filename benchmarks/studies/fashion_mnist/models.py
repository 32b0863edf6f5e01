"""Two networks for 16x16 grey images that train in seconds on two cores."""

from __future__ import annotations

from torch import nn

from topognn.models.residual import ResNet

WIDTHS = (16, 16, 32, 32)


def conv4() -> nn.Module:
    """Return four 3x3 convolutions, a pooling after every second, and two linear layers (20,762 weights)."""
    layers: list[nn.Module] = []
    width = 1
    for number, channels in enumerate(WIDTHS):
        layers += [nn.Conv2d(width, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
        if number % 2:
            layers.append(nn.MaxPool2d(2))
        width = channels
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * 16, 64), nn.ReLU(), nn.Linear(64, 10))


def resnet8() -> nn.Module:
    """Return a residual network of three blocks: 16, 32 and 64 channels."""
    return ResNet(1, 10, 1)
