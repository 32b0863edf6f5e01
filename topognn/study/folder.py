"""The folder of a sweep: a row, masks, and a lock or an error for each network, every file whole or not there."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from topognn.errors import SweepError
from topognn.files import write_text
from topognn.study.grid import Settings, Task

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # no other task could write either


class SweepFolder:
    """Where a sweep puts what it makes.

    ``rows/NAME.parquet`` is a finished network's row, ``masks/NAME.safetensors`` its masks in packed bits,
    ``errors/NAME.json`` why it failed; ``locks/NAME`` is held by the process that makes it, and let go by the system
    when that process ends in whatever way.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def prepare(self, settings: Settings) -> None:
        """Make the folder, or check that it was made with the same settings.

        Raises:
            SweepError: It was not, or it cannot be made.
        """
        with self.watching():
            for name in ("rows", "masks", "errors", "locks"):
                (self.path / name).mkdir(parents=True, exist_ok=True)
            with self.lock("settings"):
                file, wanted = self.path / "settings.json", settings.fixed()
                if not file.is_file():
                    write_text(file, json.dumps(wanted, indent=1) + "\n")
        found = json.loads(file.read_text())
        if found != json.loads(json.dumps(wanted)):
            differ = [
                f"{name} {found.get(name)} there, {wanted[name]} here"
                for name in wanted
                if found.get(name) != wanted[name]
            ]
            raise SweepError(
                f"{str(self.path)!r} was made with other settings ({'; '.join(differ)}): its rows would not compare. "
                "Give another folder."
            )

    def row(self, task: Task) -> Path:
        """Return the file of a network's row."""
        return self.path / "rows" / f"{task.name}.parquet"

    def error(self, task: Task) -> Path:
        """Return the file that says why a network failed."""
        return self.path / "errors" / f"{task.name}.json"

    def masks(self, task: Task) -> Path:
        """Return the file of a network's masks."""
        return self.path / "masks" / f"{task.name}.safetensors"

    def write_row(self, task: Task, row: Mapping[str, Any]) -> None:
        """Write a finished network's row."""
        table = pd.DataFrame([{**task.key, **row}])
        self._write(self.row(task), lambda path: table.to_parquet(path, index=False))
        self.error(task).unlink(missing_ok=True)

    def read_row(self, task: Task) -> dict[str, Any]:
        """Return a finished network's row."""
        row: dict[str, Any] = pd.read_parquet(self.row(task)).iloc[0].to_dict()
        return row

    def write_masks(self, task: Task, masks: Mapping[str, Tensor]) -> None:
        """Write masks, eight weights a byte."""
        from safetensors.torch import save

        packed = {name: pack_bits(mask) for name, mask in masks.items()}
        shapes = json.dumps({name: list(mask.shape) for name, mask in masks.items()})
        self._write(self.masks(task), lambda path: path.write_bytes(save(packed, {"shapes": shapes})))

    def read_masks(self, task: Task) -> dict[str, Tensor]:
        """Return a network's masks.

        Raises:
            SweepError: They are not there.
        """
        from safetensors import safe_open

        file = self.masks(task)
        if not file.is_file():
            raise SweepError(f"there are no masks {str(file)!r}: remove the row to make the network anew.")
        with safe_open(file, "pt") as content:
            shapes = json.loads(content.metadata()["shapes"])
            return {name: unpack_bits(content.get_tensor(name), shape) for name, shape in shapes.items()}

    def clean(self, task: Task) -> None:
        """Remove what a killed process left half written; to be called under the task's lock."""
        for name in ("rows", "masks"):
            for file in (self.path / name).glob(f".{task.name}.*.tmp"):
                file.unlink()

    def record_error(self, task: Task, error: BaseException) -> str:
        """Write why a network failed; return it in a line."""
        text = " ".join(f"{type(error).__name__}: {error}".split())
        trace = "".join(traceback.format_exception(error))
        content = {**task.key, "error": text, "traceback": trace}
        write_text(self.error(task), json.dumps(content, indent=1) + "\n")
        return text

    def gather(self) -> Any:
        """Put all rows there are into ``networks.parquet`` and return them."""
        files = sorted((self.path / "rows").glob("*.parquet"))
        table = pd.concat([pd.read_parquet(file) for file in files], ignore_index=True) if files else pd.DataFrame()
        if files:
            self._write(self.path / "networks.parquet", lambda path: table.to_parquet(path, index=False))
        return table

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
        """Turn a full or read-only disk into an error that stops the sweep.

        Raises:
            SweepError: Instead of the system's error.
        """
        try:
            yield
        except OSError as error:
            if error.errno in FULL:
                raise SweepError(
                    f"cannot write to {str(self.path)!r}: {os.strerror(error.errno)}. What is finished is safe: make "
                    "room and run the same command again."
                ) from error
            raise

    def _write(self, path: Path, write: Callable[[Path], Any]) -> None:
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            write(temporary)
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
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


def unpack_bits(packed: Tensor, shape: list[int]) -> Tensor:
    """Return the bool tensor that :func:`pack_bits` packed.

    >>> unpack_bits(torch.tensor([61], dtype=torch.uint8), [2, 3])
    tensor([[ True, False,  True],
            [ True,  True,  True]])
    """
    bits = (packed[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1
    size = int(torch.Size(shape).numel())
    return bits.flatten()[:size].bool().view(shape)
