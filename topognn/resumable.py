"""Folders of results that a killed process leaves whole: what is finished is there, and is not made again."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from topognn.errors import TopognnError
from topognn.files import write_text

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # nothing else could be written either


class ResumableFolder:
    """A folder of parts, each a folder of files that are whole or not there, and of locks beside them.

    ``locks/NAME`` is held by the process that makes what is called so, and let go by the system when that process
    ends in whatever way. ``settings.json`` says what the files were made with.
    """

    failure: type[TopognnError]  # that is raised where the folder cannot serve
    parts: Sequence[str]

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def claim(self, settings: Mapping[str, Any]) -> None:
        """Make the folder, or check that it was made with the same settings.

        Raises:
            TopognnError: It was not, or it cannot be made; ``failure`` is of which kind.
        """
        with self.watching():
            try:
                for name in (*self.parts, "locks"):
                    (self.path / name).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                if error.errno in FULL:
                    raise
                raise self.failure(
                    f"cannot make the folder {str(self.path)!r}: {error.strerror}. Give another."
                ) from error
            with self.lock("settings"):
                file = self.path / "settings.json"
                if not file.is_file():
                    write_text(file, json.dumps(settings, indent=1) + "\n")
        found = json.loads(file.read_text())
        wanted = json.loads(json.dumps(settings))
        if found != wanted:
            differ = [
                f"{name} {found.get(name)} there, {wanted[name]} here"
                for name in wanted
                if found.get(name) != wanted[name]
            ]
            raise self.failure(
                f"{str(self.path)!r} was made with other settings ({'; '.join(differ)}): its rows would not compare. "
                "Give another folder."
            )

    @contextlib.contextmanager
    def lock(self, name: str, wait: bool = True) -> Iterator[bool]:
        """Hold a lock of the folder's; yields whether it is held, which is sure where it waits."""
        import fcntl

        with open(self.path / "locks" / name, "w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
            else:
                yield True

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Turn a full or read-only disk into an error that stops the work.

        Raises:
            TopognnError: Instead of the system's error.
        """
        try:
            yield
        except OSError as error:
            if error.errno in FULL:
                raise self.failure(
                    f"cannot write to {str(self.path)!r}: {os.strerror(error.errno)}. What is finished is safe: make "
                    "room and run the same command again."
                ) from error
            raise

    def write(self, path: Path, write: Callable[[Path], Any]) -> None:
        """Let ``write`` make a temporary file that is named ``path`` when it is complete, and on the disk."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            write(temporary)
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
