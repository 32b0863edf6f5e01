"""Fashion-MNIST: Debian's files where they are installed, or torchvision's."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from topognn.data.images import Dataset, Images, make_images
from topognn.errors import DataError

DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # of Debian's package dataset-fashion-mnist

MARGIN = 2  # what padding adds on each side, and how far training images may be moved: nothing is cut off

# SHA-256 of what the files hold, for the same content is packed in more than one way.
CONTENTS = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


def read(root: Path) -> Dataset:
    """Return Fashion-MNIST, padded with black from 28x28 to 32x32, from ``root`` or Debian's package.

    Raises:
        DataError: A file is missing, truncated or another.

    Source: Xiao, Rasul, Vollgraf, *Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms*,
    2017 (arXiv 1708.07747).
    """
    folder = find_folder(root)
    if folder is None:
        raise DataError(
            f"Fashion-MNIST is neither in {str(root)!r} nor in {str(DEBIAN)!r}: run `topognn data get fashion-mnist`, "
            "or install Debian's package (apt-get install dataset-fashion-mnist)."
        )
    train, test = (_read_part(folder, part) for part in ("train", "t10k"))
    return Dataset("fashion-mnist", train, test, 10, (0.2190,), (0.3318,), shift=MARGIN)


def download(root: Path) -> None:
    """Download Fashion-MNIST into ``root`` with torchvision, unless it or Debian's package is there.

    Raises:
        DataError: It cannot be downloaded.
    """
    if find_folder(root) is not None:
        return
    from torchvision.datasets import FashionMNIST

    try:
        FashionMNIST(str(root), download=True)
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"Fashion-MNIST cannot be downloaded ({error}): try again, or install Debian's package "
            "(apt-get install dataset-fashion-mnist)."
        ) from error


def find_folder(root: Path) -> Path | None:
    """Return the folder that holds the files: torchvision's in ``root``, or Debian's; None if there is neither."""
    for folder in (root / "FashionMNIST" / "raw", DEBIAN):
        if folder.is_dir():
            return folder
    return None


def _read_part(folder: Path, part: str) -> Images:
    images = _read_file(folder, f"{part}-images-idx3-ubyte", 16).view(-1, 1, 28, 28)
    labels = _read_file(folder, f"{part}-labels-idx1-ubyte", 8)
    return make_images(F.pad(images, [MARGIN] * 4), labels, 10, str(folder))


def _read_file(folder: Path, name: str, header: int) -> Tensor:
    plain, packed = folder / name, folder / f"{name}.gz"
    path = plain if plain.is_file() else packed
    try:
        content = plain.read_bytes() if path is plain else gzip.decompress(packed.read_bytes())
    except FileNotFoundError:
        raise DataError(
            f"{str(folder)!r} lacks {name}: run `topognn data get fashion-mnist` with an empty folder."
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{str(path)!r} is truncated or no gzip file ({error}): delete it and get it again.") from error
    if hashlib.sha256(content).hexdigest() != CONTENTS[name]:
        raise DataError(f"{str(path)!r} is not what was published (SHA-256 differs): delete it and get it again.")
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=header).copy())
