"""What a file of tensors holds, by its header alone: names, dtypes and shapes, checked against the file's own size.

Source of the format: https://github.com/huggingface/safetensors (Format): 8 bytes of a little-endian length, so many
bytes of JSON, then the tensors, one after the other.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import torch
from torch import Tensor

from topognn.checkpoints import load_mapped, unwrap
from topognn.errors import CheckpointError

DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "I32": torch.int32,
    "I64": torch.int64,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2": torch.float8_e5m2,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz,
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_LONGEST = 100_000_000  # bytes that a header may have, by the format


class Stored(NamedTuple):
    """A tensor in a file.

    Attributes:
        name: Its name there.
        file: The file.
        dtype: As safetensors spells it, such as ``"BF16"``.
        shape: As it is stored.
        bits: The shape of the mask that it holds in packed bits (:func:`topognn.checkpoints.pack_bits`), if it does.
    """

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    bits: tuple[int, ...] | None = None


def read_header(file: Path) -> list[Stored]:
    """Return the tensors that a file holds, without reading them.

    Args:
        file: ``.safetensors``, or what ``torch.save`` wrote (``.pt``, ``.pth``, ``.bin``), which is mapped.

    Raises:
        CheckpointError: The file is missing, truncated, contradicts itself, holds a dtype that is not known here, or
            code instead of tensors.
    """
    if not file.is_file():
        raise CheckpointError(f"there is no file {str(file)!r}: check the path.")
    return _read_safetensors(file) if file.suffix == ".safetensors" else _read_torch(file)


def _read_safetensors(file: Path) -> list[Stored]:
    header, start = _parse(file)
    metadata = header.pop("__metadata__", None) or {}
    if not isinstance(metadata, dict):
        raise CheckpointError(f"{str(file)!r} has __metadata__ {metadata!r}, which is no dict: save it again.")
    room = file.stat().st_size - start
    shapes = _packed_shapes(file, metadata)
    found, spans = [], []
    for name, entry in header.items():
        one, (first, end) = _check(file, name, entry)
        if end > room:
            raise CheckpointError(
                f"{str(file)!r} is truncated: tensor {name!r} ends at byte {start + end:,}, the file at "
                f"{start + room:,}. Copy or save it again."
            )
        spans.append((first, end, name))
        found.append(_with_bits(one, shapes[name]) if name in shapes else one)
    spans.sort()
    for (_, end, name), (first, _, other) in itertools.pairwise(spans):
        if first < end:
            raise CheckpointError(f"{str(file)!r} says that tensors {name!r} and {other!r} share bytes: save it again.")
    place = 0
    ends = [(first, end, f"before tensor {name!r}") for first, end, name in spans]
    for first, end, where in [*ends, (room, room, "after the last tensor")]:
        if first > place:
            raise CheckpointError(
                f"{str(file)!r} has {first - place:,} bytes {where} that are no tensor's, which safetensors does not "
                "allow: copy or save it again."
            )
        place = end
    return found


def _parse(file: Path) -> tuple[dict[str, Any], int]:
    """Return a safetensors file's header, and where its tensors start."""
    size = file.stat().st_size
    with file.open("rb") as opened:
        head = opened.read(8)
        if head[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
            raise CheckpointError(
                f"{str(file)!r} is a pickle with the name of a safetensors file: it may hold code, and is not read. "
                "Save its tensors with safetensors."
            )
        length = int.from_bytes(head, "little")
        if len(head) < 8 or length > min(size - 8, _LONGEST):
            raise CheckpointError(
                f"{str(file)!r} is truncated or no safetensors file: its header should have {length:,} bytes, and the "
                f"file has {size:,}. Copy or save it again."
            )
        text = opened.read(length)
    try:
        header = json.loads(text, object_pairs_hook=_to_dict)
    except ValueError as error:
        raise CheckpointError(f"{str(file)!r} is no safetensors file: its header is no JSON ({error}).") from error
    if not isinstance(header, dict):
        raise CheckpointError(f"{str(file)!r} is no safetensors file: its header is no dict of tensors.")
    return header, 8 + length


def _to_dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands there twice")
    return found


def _check(file: Path, name: str, entry: Any) -> tuple[Stored, tuple[int, int]]:
    """Return a header's entry and its bytes' place, if dtype, shape and place agree."""
    try:
        dtype, shape, (first, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        is_sound = all(type(n) is int and n >= 0 for n in (*shape, first, end)) and first <= end
        is_sound = is_sound and isinstance(dtype, str) and isinstance(shape, list)
    except (TypeError, KeyError, ValueError):
        is_sound = False
    if not is_sound:
        raise CheckpointError(f"{str(file)!r} describes tensor {name!r} as {entry!r}, which has no meaning.")
    if dtype not in DTYPES:
        raise CheckpointError(
            f"tensor {name!r} in {str(file)!r} has dtype {dtype!r}, of which it is not known here which values are "
            f"zero. Known: {', '.join(DTYPES)}."
        )
    needed = math.prod(shape) * DTYPES[dtype].itemsize
    if end - first != needed:
        raise CheckpointError(
            f"{str(file)!r} lies about tensor {name!r}: shape {tuple(shape)} of {dtype} takes {needed:,} bytes, and "
            f"{end - first:,} are there. Save it again."
        )
    return Stored(name, file, dtype, tuple(shape)), (first, end)


def _packed_shapes(file: Path, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return name -> shape of the masks in packed bits, which the metadata of such a file has as JSON."""
    try:
        shapes = json.loads(metadata.get("shapes", "{}"))
    except (TypeError, ValueError):
        shapes = None
    if not isinstance(shapes, dict):
        raise CheckpointError(f"the metadata 'shapes' of {str(file)!r} are no JSON dict of names to shapes.")
    return shapes


def _with_bits(one: Stored, shape: Any) -> Stored:
    """Return a tensor that holds packed bits, if it can hold as many as its mask has weights."""
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise CheckpointError(f"the metadata of {str(one.file)!r} give {one.name!r} the shape {shape!r}: none.")
    size = -(-math.prod(shape) // 8)
    if (one.dtype, one.shape) != ("U8", (size,)):
        raise CheckpointError(
            f"mask {one.name!r} in {str(one.file)!r} is {one.dtype} of shape {one.shape}: packed bits of shape "
            f"{tuple(shape)} take U8 of shape {(size,)}."
        )
    return one._replace(bits=tuple(shape))


def _read_torch(file: Path) -> list[Stored]:
    found = []
    for name, tensor in _open_torch(file).items():
        if tensor.dtype not in _NAMES:
            raise CheckpointError(
                f"tensor {name!r} in {str(file)!r} has dtype {tensor.dtype}, of which it is not known here which "
                f"values are zero. Known: {', '.join(DTYPES)}."
            )
        found.append(Stored(name, file, _NAMES[tensor.dtype], tuple(tensor.shape)))
    return found


def _open_torch(file: Path) -> dict[str, Tensor]:
    """Return the named tensors that ``torch.save`` wrote, mapped: only what is used of them is read."""
    content = unwrap(load_mapped(file))[0]
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{str(file)!r} is a list without names: save a dict of tensors.")
    return {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}


def read_tensor(stored: Stored) -> Tensor:
    """Return one tensor, as it is stored, in memory of its own: the file is closed again.

    Raises:
        CheckpointError: The file has changed since its header was read.
    """
    try:
        if stored.file.suffix == ".safetensors":
            with safetensors.safe_open(stored.file, "pt") as opened:
                tensor: Tensor = opened.get_tensor(stored.name)
                return tensor.clone()
        return _open_torch(stored.file)[stored.name].to_dense().clone()
    except (safetensors.SafetensorError, OSError, KeyError) as error:
        raise CheckpointError(
            f"cannot read {stored.name!r} of {str(stored.file)!r} any more, or its header contradicts the format: "
            f"{' '.join(str(error).split())[:120]}. Copy or save it again."
        ) from error
