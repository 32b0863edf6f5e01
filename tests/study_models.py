"""A network small enough to be trained in a test."""

from __future__ import annotations

from torch import nn


def tiny() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(4, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32, 10)),
    )


def broken() -> nn.Module:
    raise RuntimeError("no such luck")
