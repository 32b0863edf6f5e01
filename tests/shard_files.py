"""Checkpoints for tests: written byte by byte where a library would refuse, and their weights by NumPy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor


def write_raw(path: Path, header: Mapping[str, Any], data: bytes) -> Path:
    """Write a safetensors file whose header says what it likes."""
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def write_index(path: Path, names: Mapping[str, str]) -> Path:
    path.write_text(json.dumps({"metadata": {}, "weight_map": names}))
    return path


def sparse(*shape: int, keep: float = 0.5, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """A random tensor of small whole numbers, which every dtype has, with zeros."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(1, 7, shape, generator=generator) * (1 - 2 * torch.randint(0, 2, shape, generator=generator))
    return (values * (torch.rand(shape, generator=generator) < keep)).to(dtype)


def two_of_four(rows: int, columns: int, seed: int = 0, span: int = 4) -> Tensor:
    """A random matrix of which half of every ``span`` numbers in a row are kept at most."""
    dense = sparse(rows, columns // span, span, keep=0.9, seed=seed)
    order = torch.rand(dense.shape, generator=torch.Generator().manual_seed(seed + 1)).argsort(2)
    return (dense * (order < span // 2)).view(rows, columns)


def naive_cutlass(dense: Any) -> tuple[Any, Any]:
    """Values and metadata of a 2:4 matrix of 16-bit numbers, word by word as CUTLASS's host_reorder.h moves them."""
    rows, columns = dense.shape
    values = np.zeros((rows, columns // 2), dense.dtype)
    words = np.zeros((rows, columns // 16), np.uint16)
    for r in range(rows):
        for quad in range(columns // 4):
            four = dense[r, 4 * quad : 4 * quad + 4]
            places = [p for p in range(4) if four[p] != 0]
            for spare in (0, 1, 2, 3):  # two places are always named, of zeros if need be
                if len(places) < 2 and spare not in places:
                    places = sorted((*places, spare))
            values[r, 2 * quad : 2 * quad + 2] = four[places]
            words[r, quad // 4] |= (places[0] | places[1] << 2) << 4 * (quad % 4)
    flat = np.zeros(words.size, np.uint16)
    for r in range(rows):
        for c in range(words.shape[1]):
            to_r = r // 32 * 32 + r % 8 * 4 + r % 32 // 8
            to_c = c
            if to_r % 2 == 0 and to_c % 2 == 1:
                to_r, to_c = to_r + 1, to_c - 1
            elif to_r % 2 == 1 and to_c % 2 == 0:
                to_r, to_c = to_r - 1, to_c + 1
            flat[to_c // 2 * rows * 2 + to_r * 2 + to_c % 2] = words[r, c]  # two columns, interleaved
    return values, flat.view(np.int16).reshape(words.shape)


def naive_packed(numbers: Any, bits: int, axis: int = 1) -> Any:
    """Signed integers in int32 words, one after the other from the lowest bits."""
    numbers = np.moveaxis(np.asarray(numbers, np.int64) + 2 ** (bits - 1), axis, 1)
    a_word = 32 // bits
    words = np.zeros((numbers.shape[0], -(-numbers.shape[1] // a_word)), np.int64)
    for r, c in np.ndindex(*numbers.shape):
        words[r, c // a_word] += int(numbers[r, c]) << bits * (c % a_word)
    return np.moveaxis(words.astype(np.uint32).view(np.int32), 1, axis).copy()


def save(path: Path, tensors: Mapping[str, Any], metadata: dict[str, str] | None = None) -> Path:
    made = {n: t if isinstance(t, Tensor) else torch.as_tensor(np.asarray(t)) for n, t in tensors.items()}
    apart = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in made.items()}
    save_file(apart, path, metadata)
    return path
