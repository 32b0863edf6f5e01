"""CIFAR-10 and CIFAR-100, by torchvision, which checks their files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from topognn.data.images import Dataset, make_images
from topognn.errors import DataError


def read_cifar10(root: Path) -> Dataset:
    """Return CIFAR-10.

    Raises:
        DataError: A file is missing, truncated or another.

    Source: Krizhevsky, *Learning Multiple Layers of Features from Tiny Images*, 2009.
    """
    from torchvision.datasets import CIFAR10

    return _read(CIFAR10, root, "cifar10", 10, (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))


def read_cifar100(root: Path) -> Dataset:
    """Return CIFAR-100 with its fine labels; see :func:`read_cifar10`."""
    from torchvision.datasets import CIFAR100

    return _read(CIFAR100, root, "cifar100", 100, (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))


def download_cifar10(root: Path) -> None:
    """Download CIFAR-10 into ``root``, unless it is there.

    Raises:
        DataError: It cannot be downloaded.
    """
    from torchvision.datasets import CIFAR10

    _download(CIFAR10, root, "cifar10")


def download_cifar100(root: Path) -> None:
    """Download CIFAR-100 into ``root``, unless it is there; see :func:`download_cifar10`."""
    from torchvision.datasets import CIFAR100

    _download(CIFAR100, root, "cifar100")


def _read(kind: Any, root: Path, name: str, classes: int, mean: tuple[float, ...], std: tuple[float, ...]) -> Dataset:
    folder = root / kind.base_folder
    parts = []
    for train in (True, False):
        try:
            found = kind(str(root), train=train)
        except RuntimeError as error:  # torchvision's checksums
            what = "is missing, truncated or changed" if folder.is_dir() else "is not there"
            raise DataError(f"{name} in {str(folder)!r} {what}: run `topognn data get {name}`.") from error
        images = torch.from_numpy(found.data).permute(0, 3, 1, 2)
        parts.append(make_images(images, torch.tensor(found.targets), classes, str(folder)))
    return Dataset(name, parts[0], parts[1], classes, mean, std)


def _download(kind: Any, root: Path, name: str) -> None:
    try:
        kind(str(root), download=True)
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"{name} cannot be downloaded from {kind.url} ({error}): try again, or put {kind.filename} into "
            f"{str(root)!r}."
        ) from error
