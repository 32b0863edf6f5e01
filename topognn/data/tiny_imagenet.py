"""Tiny-ImageNet, made 32x32: from its folder once, and then from one file."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from topognn.data.images import Dataset, Images, make_images
from topognn.errors import DataError
from topognn.files import replacing

URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
ARCHIVE_MD5 = "90528d7ca1a48142e341f4ef8d21d0de"
FOLDER = "tiny-imagenet-200"
PREPARED = "tiny-imagenet-32.safetensors"
CLASSES, TRAIN_A_CLASS, TEST = 200, 500, 10_000
MEAN, STD = (0.4802, 0.4481, 0.3975), (0.2770, 0.2691, 0.2821)

COMMAND = "run `topognn data get tiny-imagenet`"


def read(root: Path) -> Dataset:
    """Return Tiny-ImageNet, each image averaged down from 64x64 to 32x32.

    The images of its folder ``tiny-imagenet-200`` are counted and made small at the first call, which takes minutes;
    the result is kept beside it in one file with its SHA-256. Its validation part is what is tested with: labels of its
    test part are not public.

    Raises:
        DataError: The folder is missing or not whole, or the file is truncated or changed.

    Source: Le, Yang, *Tiny ImageNet Visual Recognition Challenge*, Stanford CS 231N, 2015; at 32x32 as in Cunegatti et
    al., TMLR 2024, section 5.
    """
    prepared = root / PREPARED
    if not prepared.is_file():
        prepare(root)
    try:
        tensors = safetensors.torch.load_file(prepared)
        with safetensors.safe_open(prepared, "pt") as file:
            promised = (file.metadata() or {}).get("sha256")
    except (safetensors.SafetensorError, OSError) as error:
        raise DataError(f"{str(prepared)!r} is truncated: delete it, and it is made anew ({error}).") from error
    if promised != digest(tensors):
        raise DataError(f"{str(prepared)!r} has changed since it was made (SHA-256 differs): delete it.")
    train, test = (Images(tensors[f"{part}_images"], tensors[f"{part}_labels"]) for part in ("train", "test"))
    return Dataset("tiny-imagenet", train, test, CLASSES, MEAN, STD)


def is_there(root: Path) -> bool:
    """Tell whether there are files to read, whole or not."""
    return (root / FOLDER).is_dir() or (root / PREPARED).is_file()


def download(root: Path) -> None:
    """Download and unpack Tiny-ImageNet into ``root``, unless it is there.

    Raises:
        DataError: It cannot be downloaded, or is not what was published (MD5).
    """
    if is_there(root):
        return
    from torchvision.datasets.utils import download_and_extract_archive

    try:
        download_and_extract_archive(URL, str(root), md5=ARCHIVE_MD5)
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"Tiny-ImageNet cannot be downloaded from {URL} ({error}): try again, or unpack the archive in "
            f"{str(root)!r}."
        ) from error


def prepare(root: Path) -> None:
    """Make one file of 32x32 images of the folder ``tiny-imagenet-200`` in ``root``, whole or not at all.

    Raises:
        DataError: The folder is missing or not whole.
    """
    folder = root / FOLDER
    if not folder.is_dir():
        raise DataError(f"Tiny-ImageNet is not in {str(root)!r}: {COMMAND}, or unpack {URL} there.")
    names = _read_lines(folder / "wnids.txt")
    if len(names) != CLASSES:
        raise DataError(f"{str(folder / 'wnids.txt')!r} names {len(names)} classes, not {CLASSES}: {COMMAND}.")
    paths, labels = [], []
    for label, name in enumerate(names):
        found = sorted((folder / "train" / name / "images").glob("*.JPEG"))
        if len(found) != TRAIN_A_CLASS:
            raise DataError(f"class {name} in {str(folder)!r} has {len(found)} images, not {TRAIN_A_CLASS}: {COMMAND}.")
        paths += found
        labels += [label] * len(found)
    lines = [line.split("\t")[:2] for line in _read_lines(folder / "val" / "val_annotations.txt")]
    if len(lines) != TEST:
        raise DataError(f"{str(folder / 'val')!r} has labels of {len(lines)} images, not {TEST}: {COMMAND}.")
    number = {name: label for label, name in enumerate(names)}
    tests = [folder / "val" / "images" / file for file, _ in lines]
    train = make_images(_shrink(paths), torch.tensor(labels), CLASSES, str(folder))
    test = make_images(_shrink(tests), torch.tensor([number[name] for _, name in lines]), CLASSES, str(folder))
    tensors = {
        **{"train_images": train.images, "train_labels": train.labels},
        **{"test_images": test.images, "test_labels": test.labels},
    }
    with replacing(root / PREPARED) as temporary:
        safetensors.torch.save_file(tensors, temporary, {"sha256": digest(tensors)})


def digest(tensors: dict[str, Tensor]) -> str:
    """Return the SHA-256 of tensors by name."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        total.update(np.ascontiguousarray(tensors[name]).tobytes())
    return total.hexdigest()


def _read_lines(path: Path) -> list[str]:
    if not path.is_file():
        raise DataError(f"there is no file {str(path)!r}: {COMMAND}.")
    return path.read_text(encoding="utf-8").split("\n")[:-1] if path.stat().st_size else []


def _shrink(paths: Sequence[Path]) -> Tensor:
    from PIL import Image, UnidentifiedImageError

    images = torch.empty(len(paths), 3, 32, 32, dtype=torch.uint8)
    for place, path in enumerate(paths):
        try:
            with Image.open(path) as image:
                pixels = np.asarray(image.convert("RGB").resize((32, 32), Image.Resampling.BOX))
        except (OSError, UnidentifiedImageError) as error:
            raise DataError(f"{str(path)!r} is truncated or no image: {COMMAND} with an empty folder.") from error
        images[place] = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    return images
