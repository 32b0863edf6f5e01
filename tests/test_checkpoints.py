"""Files of tensors: whole ones come back as they were, others end in one clear line."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from topognn.checkpoints import load_tensors, save_masks, split_role
from topognn.errors import CheckpointError

MASKS = {"conv1.weight": torch.rand(4, 2, 3, 3) < 0.5, "fc.weight": torch.rand(6, 5) < 0.5}


@given(st.from_regex(r"[a-z]{1,4}(\.[a-z0-9]{1,3}){0,2}", fullmatch=True))
def test_roles(path: str) -> None:
    assert split_role(f"{path}.weight_mask") == (f"{path}.weight", "mask")
    assert split_role(f"{path}.parametrizations.weight.original0") == (f"{path}.weight", "original")
    assert split_role(f"{path}.weight") == (f"{path}.weight", "plain")


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".bin", ".safetensors"])
def test_save_and_load(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"masks{suffix}"
    save_masks(path, MASKS)
    save_masks(path, MASKS)  # replaces the former
    loaded = load_tensors(path)
    assert list(loaded) == list(MASKS)
    assert all(torch.equal(loaded[name], mask) for name, mask in MASKS.items())
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_what_torch_says_is_quoted_in_whole_words(tmp_path: Path) -> None:
    torch.save({"weight": torch.ones(99)}, tmp_path / "half.pt")
    whole = (tmp_path / "half.pt").read_bytes()
    (tmp_path / "half.pt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.pt").write_text("no tensor")
    for name in ("half", "text"):
        with pytest.raises(CheckpointError) as caught:
            load_tensors(tmp_path / f"{name}.pt")
        quoted = str(caught.value).rpartition("save it again (")[2].removesuffix(").")
        words = re.findall(r"\w+", str(caught.value.__cause__))
        assert quoted and len(quoted) <= 120 and "weights_only" not in quoted
        assert [word for word in re.findall(r"\w+", quoted) if word not in words] == []


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    def fails(name: str, message: str) -> None:
        with pytest.raises(CheckpointError, match=message) as caught:
            load_tensors(tmp_path / name)
        assert "\n" not in str(caught.value)

    fails("none.pt", r"there is no file '.*none.pt'")
    fails("masks.csv", r"cannot read '.*masks.csv': give a file that ends in .pt, .pth, .bin, .safetensors")
    torch.save(nn.Linear(2, 2), tmp_path / "code.pt")
    fails("code.pt", r"holds Python objects \(\S*Linear\).*torch.save\(model.state_dict\(\), path\)")
    (tmp_path / "pickle.pt").write_bytes(pickle.dumps({"conv1": print}, protocol=2))
    fails("pickle.pt", r"holds Python objects|not written by torch.save")
    for suffix in (".pt", ".safetensors"):
        save_masks(tmp_path / f"whole{suffix}", MASKS)
        whole = (tmp_path / f"whole{suffix}").read_bytes()
        for cut in (0, 5, len(whole) // 2, len(whole) - 10):
            (tmp_path / f"cut{suffix}").write_bytes(whole[:cut])
            fails(f"cut{suffix}", r"is truncated or")
    torch.save({"epoch": 3}, tmp_path / "empty.pt")
    fails("empty.pt", r"holds no named tensors")
    with pytest.raises(CheckpointError, match=r"there is no folder"):
        save_masks(tmp_path / "away" / "masks.pt", MASKS)
    with pytest.raises(CheckpointError, match=r"cannot write '.*masks.txt'"):
        save_masks(tmp_path / "masks.txt", MASKS)
