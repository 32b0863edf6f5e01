"""Files of tensors: read them safely, write masks, and make sense of the names inside."""

from __future__ import annotations

import math
import os
import pickle
import re
import textwrap
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from topognn.errors import CheckpointError

TORCH_SUFFIXES = (".pt", ".pth", ".bin")
SUFFIXES = (*TORCH_SUFFIXES, ".safetensors")

# Wrappers around masks come first: a checkpoint that has both masks and weights means its masks.
MASK_WRAPPERS = ("masks", "backward_masks")
WRAPPERS = (*MASK_WRAPPERS, "object_dict", "state_dict", "model_state_dict", "model")

_OLD_MAGIC = 0x1950A86A20F9469CFC6C

# Each pattern turns a stored name into (path of the module, name of its tensor).
MASK_NAMES = (
    re.compile(
        r"(?P<path>.*\.|)(?P<tensor>(?:in_proj_|[qkv]_proj_)?(?:weight|bias))_mask"
    ),  # torch.nn.utils.prune, Synaptic-Flow
    re.compile(r"(?P<path>.*\.|)parametrizations\.(?P<tensor>\w+)\.\d+\.mask"),
    re.compile(r"(?P<path>.*\.|)(?P<tensor>weight)\.mask"),
    re.compile(r"(?P<path>.*\.|)mask"),
)
ORIGINAL_NAMES = (
    re.compile(r"(?P<path>.*\.|)(?P<tensor>(?:in_proj_|[qkv]_proj_)?(?:weight|bias))_orig"),
    re.compile(r"(?P<path>.*\.|)parametrizations\.(?P<tensor>\w+)\.original\d*"),
)


def load_tensors(path: str | os.PathLike[str]) -> dict[str, Any] | list[Any] | tuple[Any, ...]:
    """Read the tensors of a file, on the CPU and without running any code that it holds.

    Args:
        path: ``.pt``, ``.pth`` or ``.bin`` (``torch.save``), or ``.safetensors``.

    Returns:
        What was saved: a dict of names to tensors or to further dicts, or a list or tuple of tensors and
        ``None``.

    Raises:
        CheckpointError: the file is missing, truncated, holds code or no tensors, or has another suffix.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     torch.save({"conv.weight": torch.ones(2)}, f"{folder}/net.pt")
    ...     load_tensors(f"{folder}/net.pt")
    {'conv.weight': tensor([1., 1.])}
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise CheckpointError(f"cannot read {str(path)!r}: give a file that ends in {', '.join(SUFFIXES)}.")
    if not path.is_file():
        raise CheckpointError(f"there is no file {str(path)!r}: check the path.")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
    if not isinstance(content, dict | list | tuple) or not _holds_tensors(content):
        raise CheckpointError(f"{str(path)!r} holds no named tensors: save a state_dict or a dict of masks.")
    return content


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{str(path)!r} is truncated or no safetensors file: copy or save it again ({_first_line(error)})."
        ) from error


def load_mapped(path: Path) -> Any:
    """Return what ``torch.save`` wrote to a file, mapped: the bytes of a tensor are read when it is used.

    Raises:
        CheckpointError: The file is truncated, holds code, or is in torch's old format, which cannot be mapped.
    """
    content = _read_torch(path, mmap=True)
    if not _holds_tensors(content):
        raise CheckpointError(f"{str(path)!r} holds no named tensors: save a state_dict or a dict of masks.")
    return content


def _read_torch(path: Path, mmap: bool = False) -> Any:
    if mmap and _is_old(path):
        raise CheckpointError(
            f"{str(path)!r} is in the format of torch before 1.6, which cannot be read a tensor at a time: load it "
            "and save it again."
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # damaged pickles raise whatever their bytes happen to spell
        refused = re.search(r"GLOBAL (\S+)", str(error))
        if isinstance(error, pickle.UnpicklingError) and refused:
            raise CheckpointError(
                f"{str(path)!r} holds Python objects ({refused[1]}), which weights_only=True refuses to run: "
                "where you trust it, load it and save it again with torch.save(model.state_dict(), path)."
            ) from error
        raise CheckpointError(
            f"{str(path)!r} is truncated or was not written by torch.save: copy or save it again "
            f"({_first_line(error)})."
        ) from error


def _is_old(path: Path) -> bool:
    """Return whether a file begins as torch.save began before it wrote zip files: with a pickled magic number."""
    with path.open("rb") as file:
        return pickle.dumps(_OLD_MAGIC, protocol=2)[2:-1] in file.read(32)


def _first_line(error: Exception) -> str:
    line = next(iter(str(error).splitlines()), type(error).__name__)
    return textwrap.shorten(line.split(". ")[0], 120, placeholder=" ...").rstrip(".")


def _holds_tensors(content: Any) -> bool:
    if isinstance(content, Mapping):
        content = list(content.values())
    if isinstance(content, list | tuple):
        return any(map(_holds_tensors, content))
    return isinstance(content, Tensor)


def save_masks(path: str | os.PathLike[str], masks: Mapping[str, Tensor]) -> None:
    """Write masks to a file, whole or not at all: a temporary file beside it is renamed when complete.

    Args:
        path: ends in ``.safetensors``, ``.pt``, ``.pth`` or ``.bin``, which picks the format.
        masks: weight name -> bool tensor of the weight's shape, on any device.

    Raises:
        CheckpointError: another suffix, or a folder that does not exist.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_masks(f"{folder}/masks.safetensors", {"conv.weight": torch.tensor([True, False])})
    ...     load_tensors(f"{folder}/masks.safetensors")
    {'conv.weight': tensor([ True, False])}
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise CheckpointError(f"cannot write {str(path)!r}: give a file that ends in {', '.join(SUFFIXES)}.")
    if not path.parent.is_dir():
        raise CheckpointError(f"there is no folder {str(path.parent)!r}: make it first.")
    # Clones, because safetensors refuses tensors that share memory.
    tensors = {name: mask.detach().cpu().contiguous().clone() for name, mask in masks.items()}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        if path.suffix == ".safetensors":
            safetensors.torch.save_file(tensors, temporary)
        else:
            torch.save(tensors, temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def pack_bits(mask: Tensor) -> Tensor:
    """Return a bool tensor as uint8 ``(ceil(weights / 8),)``, the first weight in the lowest bit.

    >>> pack_bits(torch.tensor([[True, False, True], [True, True, True]]))
    tensor([61], dtype=torch.uint8)
    """
    flat = mask.flatten().to("cpu", torch.uint8)
    flat = torch.cat([flat, flat.new_zeros(-len(flat) % 8)]).view(-1, 8)
    return (flat << torch.arange(8, dtype=torch.uint8)).sum(1, dtype=torch.uint8)


def unpack_bits(packed: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the bool tensor that :func:`pack_bits` packed.

    >>> unpack_bits(torch.tensor([61], dtype=torch.uint8), [2, 3])
    tensor([[ True, False,  True],
            [ True,  True,  True]])
    """
    bits = (packed[:, None] >> torch.arange(8, dtype=torch.uint8, device=packed.device)) & 1
    return bits.flatten()[: math.prod(shape)].bool().view(tuple(shape))


def pick_masks(content: Any) -> Any:
    """Return the part of a file's content that has masks in it, one level down at most; all of it if none has.

    >>> pick_masks({"model": {"conv.weight": 1}, "pruner": {"step": 9, "backward_masks": [None]}})  # rigl-torch
    {'step': 9, 'backward_masks': [None]}
    """
    if isinstance(content, Mapping):
        for part in (content, *content.values()):
            inside = part if isinstance(part, Mapping) else {}
            if any(isinstance(inside.get(key), Mapping | list | tuple) for key in MASK_WRAPPERS):
                return part
    return content


def unwrap(content: Any) -> tuple[Any, bool]:
    """Return what wrappings such as ``{"state_dict": ...}`` hold, and whether one of them says "masks".

    >>> unwrap({"epoch": 3, "model": {"state_dict": {"conv.weight": 1}}})
    ({'conv.weight': 1}, False)
    >>> unwrap({"backward_masks": [None]})  # RigL
    ([None], True)
    """
    says_masks = False
    while isinstance(content, Mapping):
        inside = (key for key in WRAPPERS if isinstance(content.get(key), Mapping | list | tuple))
        key = next(inside, None)
        if key is None:
            break
        content, says_masks = content[key], says_masks or key in MASK_WRAPPERS
    return content, says_masks


def strip_wrappers(name: str) -> str:
    """Return ``name`` without what DataParallel and torch.compile put into it.

    >>> strip_wrappers("module._orig_mod.layer1.0.conv1.weight")
    'layer1.0.conv1.weight'
    """
    name = name.replace("_orig_mod.", "")
    while name.startswith("module."):
        name = name.removeprefix("module.")
    return name


def split_role(name: str) -> tuple[str, str]:
    """Return the name of the tensor that an entry is about, and what the entry is: mask, original or plain.

    >>> split_role("conv1.weight_mask"), split_role("conv1.weight_orig"), split_role("conv1.weight")
    (('conv1.weight', 'mask'), ('conv1.weight', 'original'), ('conv1.weight', 'plain'))
    >>> split_role("mask_blocks___0___conv1___weight")  # open_lth's PrunedModel
    ('blocks.0.conv1.weight', 'mask')
    """
    if name.startswith("mask_") and "___" in name:
        return name.removeprefix("mask_").replace("___", "."), "mask"
    for role, patterns in (("mask", MASK_NAMES), ("original", ORIGINAL_NAMES)):
        for pattern in patterns:
            if found := pattern.fullmatch(name):
                return found["path"] + found.groupdict().get("tensor", "weight"), role
    return name, "plain"


def resolve_name(key: str, known: Container[str]) -> tuple[str, str]:
    """Return the weight name and role of an entry: one of the ``known`` names wherever the key can mean one.

    >>> resolve_name("module.conv1", {"conv1.weight"})
    ('conv1.weight', 'plain')
    """
    for candidate in (key, strip_wrappers(key)):
        for guess in ((candidate, "plain"), split_role(candidate), (f"{candidate}.weight", "plain")):
            if guess[0] in known:
                return guess
    return split_role(strip_wrappers(key))


def find_prefix(keys: Iterable[str], known: Mapping[str, str], others: Container[str] = ()) -> str:
    """Return the path of the module that a whole model was in when it was saved; ``""`` if there is no such path.

    Every weight must have it, be one of the model's or of ``others`` without it, and no weight of the model be
    missing, lest a layer's wrong name be taken for another layer. Masks may be named without it.

    Args:
        keys: Names of a file's matrices and kernels, and of masks of such.
        known: Every name of a weight of the model -> the one that it goes by.
        others: Names of what else is in the model.

    >>> find_prefix(["net.0.weight", "net.2.weight"], {"0.weight": "0.weight", "2.weight": "2.weight"})  # Lightning
    'net.'
    >>> find_prefix(["model.0.weight", "mask_0___weight"], {"0.weight": "0.weight"})  # open_lth's PrunedModel
    'model.'
    >>> find_prefix(["net.0.weight", "head.weight"], {"0.weight": "0.weight"})
    ''
    """
    weights = []
    for key in keys:
        name, role = resolve_name(key, known)
        if name not in known:
            weights.append(strip_wrappers(key))
        elif role != "mask":
            return ""
    parts = weights[0].split(".") if weights else []
    for count in range(1, len(parts)):
        prefix = "".join(f"{part}." for part in parts[:count])
        if all(name.startswith(prefix) for name in weights):
            names = [resolve_name(name.removeprefix(prefix), known)[0] for name in weights]
            found = {known[name] for name in names if name in known}
            if found == set(known.values()) and all(name in known or name in others for name in names):
                return prefix
    return ""
