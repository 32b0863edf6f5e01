"""Which files a checkpoint is, and which of them holds each tensor."""

from __future__ import annotations

import glob
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from topognn.checkpoints import SUFFIXES
from topognn.errors import CheckpointError
from topognn.shards.headers import Stored, read_header

INDEX = ".index.json"


def list_tensors(checkpoint: str) -> dict[str, Stored]:
    """Return every tensor of a checkpoint by name, from the headers of its files.

    Args:
        checkpoint: A file of tensors, a pattern such as ``shards/*.safetensors`` (``**`` for any folders), or an
            index, ``*.index.json``, as Hugging Face writes beside shards.

    Where an index lies beside the shards of a pattern, what it says of them must be so.

    Raises:
        CheckpointError: No file is meant, a file is not whole (see :func:`read_header`), two files have a tensor of
            one name, or an index names a tensor that its shard has not.
    """
    if checkpoint.endswith(INDEX):
        indices = [Path(checkpoint)]
        files = sorted({file for index in indices for file in _read_index(index).values()})
    else:
        files = find_shards(checkpoint)
        indices = sorted({index for file in files for index in file.parent.glob(f"*{INDEX}")})
    found: dict[str, Stored] = {}
    for file in files:
        for stored in read_header(file):
            if stored.name in found:
                raise CheckpointError(
                    f"tensor {stored.name!r} is in two files, {str(found[stored.name].file)!r} and {str(file)!r}: "
                    "give a pattern that matches the shards of one checkpoint."
                )
            found[stored.name] = stored
    for index in indices:
        _check_index(index, found, files)
    return found


def find_shards(checkpoint: str) -> list[Path]:
    """Return the files that a path or a pattern means, sorted.

    Raises:
        CheckpointError: There is none, or none that can hold tensors.
    """
    if not glob.has_magic(checkpoint) or Path(checkpoint).is_file():
        files = [Path(checkpoint)]
        if files[0].is_dir():
            raise CheckpointError(f"{checkpoint!r} is a folder: give a pattern, such as '{checkpoint}/*.safetensors'.")
    else:
        files = sorted(path for path in map(Path, glob.glob(checkpoint, recursive=True)) if path.is_file())
        if not files:
            raise CheckpointError(f"no file matches {checkpoint!r}: check the folder, and put the pattern in quotes.")
    known = [file for file in files if file.suffix in SUFFIXES]
    if not known:
        raise CheckpointError(f"cannot read {str(files[0])!r}: give files that end in {', '.join(SUFFIXES)}.")
    return known


def _read_index(index: Path) -> dict[str, Path]:
    """Return tensor name -> file, as an index says."""
    if not index.is_file():
        raise CheckpointError(f"there is no file {str(index)!r}: check the path.")
    try:
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return {str(name): index.parent / file for name, file in names.items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CheckpointError(
            f"{str(index)!r} is no index of shards: it needs a dict 'weight_map' of tensor names to file names."
        ) from error


def _check_index(index: Path, found: Mapping[str, Stored], files: Iterable[Path]) -> None:
    """Refuse an index that says of the files at hand what is not so."""
    here = {file.resolve() for file in files}
    for name, file in _read_index(index).items():
        if file.resolve() in here and (name not in found or found[name].file.resolve() != file.resolve()):
            where = f"it is in {str(found[name].file)!r}" if name in found else "which it has not"
            raise CheckpointError(
                f"the index {str(index)!r} names tensor {name!r} in {str(file)!r}, {where}: copy shards and index "
                "anew, or remove an index that is not theirs."
            )
