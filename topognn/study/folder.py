"""The folder of a sweep: a row, masks, and a lock or an error for each network, every file whole or not there."""

from __future__ import annotations

import json
import traceback
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from topognn.checkpoints import pack_bits, unpack_bits
from topognn.errors import SweepError
from topognn.files import write_text
from topognn.resumable import ResumableFolder
from topognn.study.grid import Settings, Task


class SweepFolder(ResumableFolder):
    """Where a sweep puts what it makes.

    ``rows/NAME.parquet`` is a finished network's row, ``masks/NAME.safetensors`` its masks in packed bits,
    ``errors/NAME.json`` why it failed; ``locks/NAME`` is held by the process that makes it, and let go by the system
    when that process ends in whatever way.
    """

    failure = SweepError
    parts = ("rows", "masks", "errors")

    def working(self, settings: Settings) -> AbstractContextManager[None]:
        """Return a context in which networks of these settings may be put here; sweeps may share it.

        Raises:
            SweepError: On entering: the folder was made with other settings, or cannot be made.
        """
        return self.claimed(settings.fixed())

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
        self.write(self.row(task), lambda path: table.to_parquet(path, index=False))
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
        self.write(self.masks(task), lambda path: path.write_bytes(save(packed, {"shapes": shapes})))

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
            self.write(self.path / "networks.parquet", lambda path: table.to_parquet(path, index=False))
        return table
