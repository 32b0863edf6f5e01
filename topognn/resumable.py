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
    ends in whatever way. ``settings.json`` says what the files were made with. Finished are ``rows/*.parquet``.
    """

    failure: type[TopognnError]  # that is raised where the folder cannot serve
    parts: Sequence[str]

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    @contextlib.contextmanager
    def claimed(self, settings: Mapping[str, Any]) -> Iterator[None]:
        """Have the folder, made where it is missing, for work with these settings, beside others with the same.

        Where nothing is finished and nobody is at work, settings may be corrected: they replace those that are there.
        Whoever writes a row does it in here, so that settings never change under one who is at work.

        Raises:
            TopognnError: It was made with other settings, or cannot be made; ``failure`` is of which kind.
        """
        with contextlib.ExitStack() as stack:
            with self.watching():
                self._make_parts()
                with self.lock("settings"):  # nobody begins to work meanwhile
                    self._settle(settings)
                    stack.enter_context(self.lock("users", shared=True))
            yield

    def _make_parts(self) -> None:
        try:
            for name in (*self.parts, "locks"):
                (self.path / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if error.errno in FULL:
                raise
            raise self.failure(f"cannot make the folder {str(self.path)!r}: {error.strerror}. Give another.") from error

    def _settle(self, settings: Mapping[str, Any]) -> None:
        """Write the settings, or check that they are those of the folder."""
        file = self.path / "settings.json"
        wanted = json.loads(json.dumps(settings))
        found = json.loads(file.read_text()) if file.is_file() else None
        if found == wanted:
            return
        if found is not None:
            with self.lock("users", wait=False) as alone:
                finished = any((self.path / "rows").glob("*.parquet"))
            if finished or not alone:
                differ = [
                    f"{name} {found.get(name)} there, {wanted[name]} here"
                    for name in wanted
                    if found.get(name) != wanted[name]
                ]
                why = "its rows would not compare. Give" if finished else "others are at work with them. Wait, or give"
                raise self.failure(
                    f"{str(self.path)!r} was made with other settings ({'; '.join(differ)}): {why} another folder."
                )
        write_text(file, json.dumps(settings, indent=1) + "\n")

    @contextlib.contextmanager
    def lock(self, name: str, wait: bool = True, shared: bool = False) -> Iterator[bool]:
        """Hold a lock of the folder's, alone or ``shared``; yields whether it is held, which is sure where it waits."""
        import fcntl

        with open(self.path / "locks" / name, "w+") as file:
            try:
                fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
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
