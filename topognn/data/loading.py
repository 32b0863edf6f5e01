"""Batches of images, in an order and with crops and flips that follow a seed."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from topognn.data.images import Images
from topognn.errors import DataError


class Loader:
    """Batches of normalised images with their labels.

    For training, images come in another order in each epoch, shifted by some pixels and mirrored at random, as is
    standard for CIFAR; **images to test with come as they are, in their own order**. All is drawn from ``seed`` and the
    numbers of epoch and batch, so that any batch of any epoch can be made again.

    Iterating gives the next epoch, from number 0 on; :meth:`epoch` gives any.

    Args:
        images: What to take batches from; moved to ``device`` at once.
        batch_size: Number of images in all batches but the last.
        mean, std: Of each channel, in units of 255.
        train: Whether to shuffle, shift and flip.
        seed: Of all that is random.
        shift: By how many pixels at most.
        device: Where batches are made.

    Raises:
        DataError: ``batch_size`` is none.

    Source: augmentation of He et al., CVPR 2016, section 4.2.

    >>> from topognn.data import get_data
    >>> data = get_data("synthetic")
    >>> loader = Loader(data.test, 128, data.mean, data.std)
    >>> len(loader), [x.shape[0] for x, _ in loader]
    (4, [128, 128, 128, 116])
    """

    def __init__(
        self,
        images: Images,
        batch_size: int,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        *,
        train: bool = False,
        seed: int = 0,
        shift: int = 4,
        device: torch.device | str = "cpu",
    ) -> None:
        if batch_size < 1:
            raise DataError(f"batch_size={batch_size} makes no batch: give at least 1.")
        self.batch_size, self.train, self.seed, self.shift = batch_size, train, seed, shift
        self._images, self._labels = images.images.to(device), images.labels.to(device)
        self._mean = 255 * torch.tensor(mean, device=device).view(1, -1, 1, 1)
        self._scale = 1 / (255 * torch.tensor(std, device=device).view(1, -1, 1, 1))
        self._next = 0

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return -(-len(self._labels) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over the next epoch."""
        self._next += 1
        return self.epoch(self._next - 1)

    def epoch(self, number: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over an epoch's batches from number ``first`` on.

        Yields:
            float32 ``(batch, channels, height, width)``, channels last in memory, and int64 ``(batch,)``.
        """
        order = torch.arange(len(self._labels))
        if self.train:
            order = torch.randperm(len(self._labels), generator=self._generator(number, 0))
        order = order.to(self._labels.device)
        for batch in range(first, len(self)):
            chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            images = self._images[chosen]
            if self.train:
                images = shift_and_flip(images, self.shift, self._generator(number, 1 + batch))
            yield self.normalize(images), self._labels[chosen]

    def normalize(self, images: Tensor) -> Tensor:
        """Return uint8 images as float32 ones of mean 0 and deviation 1, channels last in memory."""
        images = images.contiguous(memory_format=torch.channels_last)
        return (images.float() - self._mean) * self._scale

    def _generator(self, epoch: int, stream: int) -> torch.Generator:
        # On the CPU, because generators of other devices draw other numbers. The prime keeps streams apart.
        return torch.Generator().manual_seed(((self.seed * 1_000_003 + epoch) * 1_000_003 + stream) % 2**63)


def shift_and_flip(images: Tensor, shift: int, generator: torch.Generator) -> Tensor:
    """Return each image shifted by up to ``shift`` pixels, black coming in, and every second one or so mirrored."""
    count, _, height, width = images.shape
    draws = torch.randint(0, 2 * shift + 1, (2, count), generator=generator).to(images.device)
    flips = torch.randint(0, 2, (count, 1), generator=generator).to(images.device).bool()
    padded = F.pad(images, [shift] * 4)
    rows = draws[0, :, None] + torch.arange(height, device=images.device)
    columns = draws[1, :, None] + torch.arange(width, device=images.device)
    columns = torch.where(flips, columns.flip(1), columns)
    which = torch.arange(count, device=images.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[which, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
