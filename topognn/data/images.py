"""Images with labels, whole in memory."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from topognn.errors import DataError


class Images(NamedTuple):
    """Images with labels.

    Attributes:
        images: uint8 ``(count, channels, height, width)``.
        labels: int64 ``(count,)``, class numbers.
    """

    images: Tensor
    labels: Tensor


class Dataset(NamedTuple):
    """A dataset's two parts, and what its images are normalised with.

    Attributes:
        name: Its name.
        train, test: Images to learn from, and to be tested with.
        num_classes: Labels are 0 to this - 1.
        mean, std: Of each channel of the training images, in units of 255.
        shift: Pixels by which a training image may be moved at most.
    """

    name: str
    train: Images
    test: Images
    num_classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    shift: int = 4

    @property
    def image_shape(self) -> tuple[int, ...]:
        """``(channels, height, width)``."""
        return tuple(self.train.images.shape[1:])


def make_images(images: Tensor, labels: Tensor, num_classes: int, where: str) -> Images:
    """Return images with labels after checking that they belong together.

    Raises:
        DataError: Numbers of both differ, the images are none, or a label is out of range.

    >>> make_images(torch.zeros(2, 1, 32, 32, dtype=torch.uint8), torch.tensor([0, 3]), 3, "here")
    Traceback (most recent call last):
    topognn.errors.DataError: label 3 in here is out of range: there are 3 classes, 0 to 2.
    """
    if images.dtype is not torch.uint8 or images.ndim != 4 or not len(images):
        raise DataError(
            f"images in {where} are {images.dtype} of shape {tuple(images.shape)}: uint8 (N, C, H, W) needed."
        )
    if labels.shape != images.shape[:1]:
        raise DataError(f"{where} has {len(images)} images and {tuple(labels.shape)} labels: one an image needed.")
    low, high = (int(edge) for edge in labels.aminmax())
    if low < 0 or high >= num_classes:
        bad = low if low < 0 else high
        raise DataError(
            f"label {bad} in {where} is out of range: there are {num_classes} classes, 0 to {num_classes - 1}."
        )
    return Images(images.contiguous(), labels.to(torch.int64))
