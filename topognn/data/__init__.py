"""Images to train on, by name: CIFAR-10, CIFAR-100, Tiny-ImageNet at 32x32, Fashion-MNIST, and a synthetic set."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from topognn.data import cifar, fashion_mnist, synthetic, tiny_imagenet
from topognn.data.images import Dataset, Images
from topognn.data.loading import Loader
from topognn.errors import unknown_name

__all__ = ["DATASETS", "Dataset", "Images", "Loader", "Source", "default_root", "download", "get_data"]


class Source(NamedTuple):
    """Where a dataset comes from.

    Attributes:
        classes, channels: Numbers of both.
        train, test: Numbers of images.
        read: Returns the dataset from a folder.
        download: Puts it into a folder; None where it is made on the spot.
        is_there: Tells whether a folder has its files, whole or not.
        what: In a few words.
    """

    classes: int
    channels: int
    train: int
    test: int
    read: Callable[[Path], Dataset]
    download: Callable[[Path], None] | None
    is_there: Callable[[Path], bool]
    what: str


DATASETS: dict[str, Source] = {
    "cifar10": Source(
        *(10, 3, 50_000, 10_000, cifar.read_cifar10, cifar.download_cifar10),
        is_there=lambda root: (root / "cifar-10-batches-py").is_dir(),
        what="CIFAR-10",
    ),
    "cifar100": Source(
        *(100, 3, 50_000, 10_000, cifar.read_cifar100, cifar.download_cifar100),
        is_there=lambda root: (root / "cifar-100-python").is_dir(),
        what="CIFAR-100",
    ),
    "tiny-imagenet": Source(
        *(200, 3, 100_000, 10_000, tiny_imagenet.read, tiny_imagenet.download, tiny_imagenet.is_there),
        what="Tiny-ImageNet at 32x32",
    ),
    "fashion-mnist": Source(
        *(10, 1, 60_000, 10_000, fashion_mnist.read, fashion_mnist.download),
        is_there=lambda root: fashion_mnist.find_folder(root) is not None,
        what="Fashion-MNIST, padded to 32x32",
    ),
    "synthetic": Source(10, 3, 2_000, 500, synthetic.make, None, lambda root: True, "stripes and noise, for tests"),
}


def default_root() -> Path:
    """Return the folder of datasets: ``TOPOGNN_DATA`` of the environment, or one in the user's cache."""
    given = os.environ.get("TOPOGNN_DATA")
    return Path(given) if given else Path.home() / ".cache" / "topognn" / "data"


def get_data(name: str, root: str | os.PathLike[str] | None = None) -> Dataset:
    """Return a dataset, on the CPU, after checking that its files are whole.

    Args:
        name: A key of :data:`DATASETS`.
        root: The folder of datasets; :func:`default_root` by default.

    Raises:
        UnknownNameError: There is no such dataset.
        DataError: Its files are not there, truncated or others; the message says what to run.

    >>> data = get_data("synthetic")
    >>> data.train.images.shape, data.train.images.dtype, data.num_classes
    (torch.Size([2000, 3, 32, 32]), torch.uint8, 10)
    """
    return _find(name).read(default_root() if root is None else Path(root))


def download(name: str, root: str | os.PathLike[str] | None = None) -> Path:
    """Put a dataset's files into a folder, unless they are there; return the folder.

    Raises:
        UnknownNameError: There is no such dataset.
        DataError: They cannot be downloaded.
    """
    folder = default_root() if root is None else Path(root)
    source = _find(name)
    if source.download is not None:
        source.download(folder)
    return folder


def _find(name: str) -> Source:
    if name not in DATASETS:
        raise unknown_name("dataset", name, DATASETS)
    return DATASETS[name]
