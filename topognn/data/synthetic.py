"""A small set of images that are made on the spot and can be learnt: for tests."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from topognn.data.images import Dataset, Images, make_images

CLASSES, TRAIN, TEST = 10, 2_000, 500


def make(root: Path | None = None) -> Dataset:
    """Return 10 classes of 32x32 images: stripes as wide as the class says, anywhere, in any colours, under noise.

    The same each time; ``root`` is not looked at.

    >>> make().test.labels[:12]
    tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1])
    """
    generator = torch.Generator().manual_seed(20_24)
    train, test = (_draw(count, generator) for count in (TRAIN, TEST))
    return Dataset("synthetic", train, test, CLASSES, (0.5,) * 3, (0.25,) * 3)


def _draw(count: int, generator: torch.Generator) -> Images:
    labels = torch.arange(count) % CLASSES
    waves = 2 + 1.2 * labels[:, None]  # to an image
    phase = torch.rand(count, 1, generator=generator)
    stripes = (2 * math.pi * (waves * torch.arange(32.0) / 32 + phase)).sin().view(count, 1, 32, 1)
    colour = 0.5 + torch.rand(count, 3, 1, 1, generator=generator)
    images = 128 + 48 * colour * stripes + 24 * torch.randn(count, 3, 32, 32, generator=generator)
    return make_images(images.clamp(0, 255).to(torch.uint8), labels, CLASSES, "the synthetic set")
