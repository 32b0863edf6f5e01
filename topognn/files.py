"""Files that are whole or not there at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from topognn.errors import CheckpointError


def check_writable(path: str | os.PathLike[str]) -> Path:
    """Return ``path`` if a file can be put there; meant for before the long work whose result it will hold.

    Raises:
        CheckpointError: Its folder does not exist, or it is a folder itself.

    >>> check_writable("report.json").name
    'report.json'
    """
    path = Path(path)
    if path.is_dir():
        raise CheckpointError(f"cannot write {str(path)!r}: it is a folder, give the name of a file.")
    if not path.parent.is_dir():
        raise CheckpointError(f"cannot write {str(path)!r}: there is no folder {str(path.parent)!r}, make it first.")
    return path


def check_folder(path: str | os.PathLike[str]) -> Path:
    """Return ``path`` if it is a folder or one can be made there; meant for before the long work that will fill it.

    Raises:
        CheckpointError: It, or what should hold it, is a file.

    >>> check_folder("runs/first").name
    'first'
    """
    path = Path(path)
    there = next((part for part in (path, *path.parents) if part.exists()), None)
    if there is not None and not there.is_dir():
        raise CheckpointError(f"{str(there)!r} is a file, and cannot be a folder too: give another one.")
    return path


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` as UTF-8: a temporary file beside ``path`` is renamed when it is complete.

    Raises:
        CheckpointError: See :func:`check_writable`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_text(f"{folder}/a.txt", "whole")
    ...     [p.name for p in Path(folder).iterdir()], Path(folder, "a.txt").read_text()
    (['a.txt'], 'whole')
    """
    with replacing(check_writable(path)) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the path of a temporary file beside ``path``, which takes its name once it is complete.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replacing(Path(folder, "a.bin")) as temporary:
    ...         _ = temporary.write_bytes(b"whole")
    ...     [p.name for p in Path(folder).iterdir()]
    ['a.bin']
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
