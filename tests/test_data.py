"""Datasets are what was published or a clear error; batches follow their seed; test images are left as they are."""

from __future__ import annotations

import gzip
import hashlib
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

from topognn.cli import main as cli
from topognn.data import DATASETS, Dataset, Images, Loader, default_root, fashion_mnist, get_data, tiny_imagenet
from topognn.data.images import make_images
from topognn.data.loading import shift_and_flip
from topognn.errors import DataError, UnknownNameError


def tiny(train: int = 50, channels: int = 2) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (train, channels, 8, 8), dtype=torch.uint8, generator=generator)
    part = Images(images, torch.arange(train) % 4)
    return Dataset("tiny", part, part, 4, (0.5, 0.25)[:channels], (0.2, 0.1)[:channels])


# -- loaders ------------------------------------------------------------------------------------------------


def test_test_images_come_as_they_are_and_in_order() -> None:
    data = tiny()
    loader = Loader(data.test, 16, data.mean, data.std)
    batches = list(loader)
    assert [len(y) for _, y in batches] == [16, 16, 16, 2] and len(loader) == 4
    expected = (data.test.images.double() / 255 - torch.tensor([0.5, 0.25]).view(1, 2, 1, 1)) / torch.tensor(
        [0.2, 0.1]
    ).view(1, 2, 1, 1)
    torch.testing.assert_close(torch.cat([x for x, _ in batches]).double(), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(torch.cat([y for _, y in batches]), data.test.labels)
    again = list(loader)
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(batches, again, strict=True))
    assert batches[0][0].is_contiguous(memory_format=torch.channels_last)


def test_training_batches_follow_seed_epoch_and_number() -> None:
    data = tiny()

    def epoch(seed: int, number: int, first: int = 0) -> list[tuple[Tensor, Tensor]]:
        return list(Loader(data.train, 16, data.mean, data.std, train=True, seed=seed).epoch(number, first))

    def same(a: list[tuple[Tensor, Tensor]], b: list[tuple[Tensor, Tensor]]) -> bool:
        pairs = zip(a, b, strict=True)
        return all(torch.equal(x, u) and torch.equal(y, v) for (x, y), (u, v) in pairs)

    assert same(epoch(1, 3), epoch(1, 3)) and same(epoch(1, 3)[2:], epoch(1, 3, first=2))
    assert not same(epoch(1, 3), epoch(1, 4)) and not same(epoch(1, 3), epoch(2, 3))
    loader = Loader(data.train, 16, data.mean, data.std, train=True, seed=1)
    assert same(list(loader), epoch(1, 0)) and same(list(loader), epoch(1, 1))
    labels = torch.cat([y for _, y in epoch(1, 3)])
    assert labels.bincount().tolist() == data.train.labels.bincount().tolist()
    random = torch.get_rng_state()
    epoch(1, 0)
    assert torch.equal(torch.get_rng_state(), random)


def test_every_shift_and_flip_is_one_of_the_possible_and_all_occur() -> None:
    image = torch.arange(1, 37, dtype=torch.uint8).view(1, 1, 6, 6)
    found = shift_and_flip(image.repeat(3000, 1, 1, 1), 4, torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(image[0, 0], [4] * 4)
    possible = {}
    for dy in range(9):
        for dx in range(9):
            crop = padded[dy : dy + 6, dx : dx + 6]
            possible[crop.numpy().tobytes()] = (dy, dx, False)
            possible[crop.flip(1).numpy().tobytes()] = (dy, dx, True)
    kinds = {possible[picture[0].numpy().tobytes()] for picture in found}
    assert len(kinds) == 162


# -- datasets -----------------------------------------------------------------------------------------------


def test_synthetic_is_the_same_each_time_and_has_all_classes() -> None:
    data, again = get_data("synthetic"), get_data("synthetic")
    assert torch.equal(data.train.images, again.train.images)
    assert data.train.labels.bincount().tolist() == [200] * 10 and data.test.labels.bincount().tolist() == [50] * 10
    assert data.image_shape == (3, 32, 32)
    assert not torch.equal(data.train.images[:500], data.test.images)


def write_fashion(folder: Path, monkeypatch: pytest.MonkeyPatch, packed: bool) -> None:
    """Write files of the published form with other content, and make that the content to be expected."""
    folder.mkdir(parents=True)
    contents = {}
    for part, count in (("train", 30), ("t10k", 10)):
        images = struct.pack(">IIII", 2051, count, 28, 28) + bytes(k % 251 for k in range(count * 784))
        labels = struct.pack(">II", 2049, count) + bytes(k % 10 for k in range(count))
        for kind, content in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            contents[kind] = hashlib.sha256(content).hexdigest()
            path = folder / (kind + ".gz" if packed else kind)
            path.write_bytes(gzip.compress(content) if packed else content)
    monkeypatch.setattr(fashion_mnist, "CONTENTS", contents)


@pytest.mark.parametrize("packed", [True, False])
def test_fashion_mnist_is_padded_and_checked_by_content(
    packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "FashionMNIST" / "raw"
    write_fashion(folder, monkeypatch, packed)
    data = get_data("fashion-mnist", tmp_path)
    assert data.image_shape == (1, 32, 32) and len(data.train.labels) == 30 and len(data.test.labels) == 10
    assert data.test.labels.tolist() == list(range(10))
    inside = data.train.images[:, :, 2:-2, 2:-2]
    assert inside.reshape(-1).tolist() == [k % 251 for k in range(30 * 784)]
    assert int(data.train.images.sum()) == int(inside.sum())
    path = next(folder.glob("train-images*"))
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(DataError, match=r"is truncated or no gzip file|SHA-256 differs"):
        get_data("fashion-mnist", tmp_path)
    path.unlink()
    with pytest.raises(DataError, match=r"lacks train-images-idx3-ubyte: run `topognn data get"):
        get_data("fashion-mnist", tmp_path)


def test_fashion_mnist_of_debian() -> None:
    if not fashion_mnist.DEBIAN.is_dir():
        pytest.skip("Debian's package dataset-fashion-mnist is not installed")
    data = get_data("fashion-mnist", "nowhere")
    assert data.train.labels.bincount().tolist() == [6000] * 10 and data.test.labels.bincount().tolist() == [1000] * 10
    pixels = data.train.images.double() / 255
    assert pixels.mean().item() == pytest.approx(data.mean[0], abs=1e-4)
    assert pixels.std().item() == pytest.approx(data.std[0], abs=1e-4)


def test_missing_data_say_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "none")
    for name in ("cifar10", "cifar100", "tiny-imagenet", "fashion-mnist"):
        with pytest.raises(DataError, match=rf"run `topognn data get {name}`"):
            get_data(name, tmp_path)
    with pytest.raises(UnknownNameError, match="unknown dataset 'cifar': did you mean 'cifar10'"):
        get_data("cifar", tmp_path)


def write_cifar(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from torchvision.datasets import CIFAR10

    folder = root / CIFAR10.base_folder
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3072), dtype=np.uint8)
    lists: dict[str, list[list[str]]] = {"train_list": [], "test_list": []}
    for kind, file in (("train_list", "data_batch_1"), ("train_list", "data_batch_2"), ("test_list", "test_batch")):
        content = pickle.dumps({"data": pixels, "labels": [0, 9, 2, 3, 4, 5]})
        (folder / file).write_bytes(content)
        lists[kind].append([file, hashlib.md5(content).hexdigest()])
    content = pickle.dumps({"label_names": list("abcdefghij")})
    (folder / "batches.meta").write_bytes(content)
    meta = {"filename": "batches.meta", "key": "label_names", "md5": hashlib.md5(content).hexdigest()}
    for name, value in (*lists.items(), ("meta", meta)):
        monkeypatch.setattr(CIFAR10, name, value)
    return folder


def test_cifar_is_read_by_torchvision_and_truncated_files_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_cifar(tmp_path, monkeypatch)
    data = get_data("cifar10", tmp_path)
    assert data.train.images.shape == (12, 3, 32, 32) and data.train.labels.tolist() == [0, 9, 2, 3, 4, 5] * 2
    pixels = np.random.default_rng(0).integers(0, 256, (6, 3072), dtype=np.uint8)
    assert data.test.images.numpy().reshape(6, -1).tolist() == pixels.tolist()
    batch = folder / "data_batch_2"
    batch.write_bytes(batch.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"is missing, truncated or changed: run `topognn data get cifar10`"):
        get_data("cifar10", tmp_path)


def write_tiny_imagenet(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a folder of the published form with 3 classes of 2 images."""
    for name, value in (("CLASSES", 3), ("TRAIN_A_CLASS", 2), ("TEST", 4)):
        monkeypatch.setattr(tiny_imagenet, name, value)
    folder = root / tiny_imagenet.FOLDER
    names = ["n03", "n01", "n02"]
    (folder / "val" / "images").mkdir(parents=True)
    (folder / "wnids.txt").write_text("".join(f"{name}\n" for name in names))
    for shade, name in enumerate(names):
        images = folder / "train" / name / "images"
        images.mkdir(parents=True)
        for k in range(2):
            mode = "L" if k else "RGB"  # some of the real ones are grey
            Image.new(mode, (64, 64), 40 * shade if k else (40 * shade,) * 3).save(images / f"{name}_{k}.JPEG")
    lines = []
    for k, name in enumerate(["n02", "n03", "n03", "n01"]):
        Image.new("RGB", (64, 64), (200, 0, 0)).save(folder / "val" / "images" / f"val_{k}.JPEG")
        lines.append(f"val_{k}.JPEG\t{name}\t0\t0\t63\t63\n")
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    return folder


def test_tiny_imagenet_is_made_small_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_tiny_imagenet(tmp_path, monkeypatch)
    data = get_data("tiny-imagenet", tmp_path)
    assert data.image_shape == (3, 32, 32) and data.train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert data.test.labels.tolist() == [2, 0, 0, 1]
    assert [int(image.float().mean().round()) for image in data.train.images] == [0, 0, 40, 40, 80, 80]
    (folder / "wnids.txt").unlink()  # it is not read again
    again = get_data("tiny-imagenet", tmp_path)
    assert torch.equal(data.test.images, again.test.images)
    prepared = tmp_path / tiny_imagenet.PREPARED
    whole = prepared.read_bytes()
    prepared.write_bytes(whole[:-3])
    with pytest.raises(DataError, match=r"tiny-imagenet-32.safetensors' is truncated: delete it"):
        get_data("tiny-imagenet", tmp_path)
    prepared.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
    with pytest.raises(DataError, match=r"has changed since it was made \(SHA-256 differs\)"):
        get_data("tiny-imagenet", tmp_path)


def test_a_tiny_imagenet_that_is_not_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_tiny_imagenet(tmp_path, monkeypatch)
    image = folder / "train" / "n01" / "images" / "n01_0.JPEG"
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 3])
    with pytest.raises(DataError, match=r"n01_0.JPEG' is truncated or no image"):
        get_data("tiny-imagenet", tmp_path)
    image.unlink()
    with pytest.raises(DataError, match=r"class n01 in .* has 1 images, not 2"):
        get_data("tiny-imagenet", tmp_path)
    image.write_bytes(whole)
    (folder / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn02\n")
    with pytest.raises(DataError, match=r"has labels of 1 images, not 4"):
        get_data("tiny-imagenet", tmp_path)
    (folder / "wnids.txt").write_text("n01\n")
    with pytest.raises(DataError, match=r"names 1 classes, not 3"):
        get_data("tiny-imagenet", tmp_path)


def test_images_and_labels_that_do_not_fit() -> None:
    images, labels = torch.zeros(3, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 1, 2])
    for bad, message in (
        ((images, labels, 2), r"label 2 in here is out of range: there are 2 classes, 0 to 1"),
        ((images, labels - 1, 3), r"label -1 in here is out of range"),
        ((images, labels[:2], 3), r"here has 3 images and \(2,\) labels"),
        ((images.float(), labels, 3), r"images in here are torch.float32 of shape"),
        ((images[:0], labels[:0], 3), r"images in here are torch.uint8 of shape \(0, 1, 4, 4\)"),
    ):
        with pytest.raises(DataError, match=message):
            make_images(*bad, "here")
    with pytest.raises(DataError, match="batch_size=0 makes no batch"):
        Loader(Images(images, labels), 0, (0.5,), (0.5,))


# -- the command line ---------------------------------------------------------------------------------------


def invoke(*args: object) -> Any:
    return CliRunner().invoke(cli.app, ["data", *map(str, args)])


def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOPOGNN_DATA", str(tmp_path))
    assert default_root() == tmp_path
    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "none")
    listed = invoke("list")
    assert listed.exit_code == 0 and f"folder: {tmp_path}" in listed.stdout
    lines = {line.split()[0]: line for line in listed.stdout.splitlines() if line.strip()}
    assert all("no: topognn data get " + name in lines[name] for name in DATASETS if name != "synthetic")
    assert lines["synthetic"].rstrip().endswith("yes")
    checked = invoke("check", "synthetic")
    assert checked.exit_code == 0
    assert checked.stdout == "synthetic: 2,000 images to train with, 500 to test with, 3x32x32, 10 classes\n"
    assert invoke("get", "synthetic").stdout == checked.stdout
    missing = invoke("check", "cifar10")
    assert missing.exit_code == 2 and "run `topognn data get cifar10`" in missing.stderr
    assert "check" in invoke().stdout


def test_a_download_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import utils

    def refuse(url: str, *args: object, **more: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(fashion_mnist, "DEBIAN", tmp_path / "none")
    for module in ("cifar", "mnist"):
        monkeypatch.setattr(f"torchvision.datasets.{module}.download_and_extract_archive", refuse)
    monkeypatch.setattr(utils, "download_and_extract_archive", refuse)
    for name in ("cifar10", "cifar100", "tiny-imagenet", "fashion-mnist"):
        result = invoke("get", name, "--root", tmp_path / "data")
        assert result.exit_code == 2 and "cannot be downloaded" in result.stderr and "no network" in result.stderr
        assert len(result.stderr.splitlines()) == 1
