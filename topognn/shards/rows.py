"""The folder of a checkpoint's rows: a Parquet file a layer, whole or not there, and all together at the end."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from topognn.errors import CheckpointError, DeviceError
from topognn.resumable import ResumableFolder
from topognn.shards.planning import CheckpointPlan

_LONGEST = 200  # bytes of a file's name, of which systems allow 255


class RowFolder(ResumableFolder):
    """Where the rows of a checkpoint's layers go: ``rows/LAYER.parquet``, and ``layers.parquet`` at the end.

    Args:
        path: The folder.
        types: The columns of a row, in order: str, int, float or bool.

    Raises:
        DeviceError: pyarrow is not installed.
    """

    failure = CheckpointError
    parts = ("rows",)

    def __init__(self, path: str | os.PathLike[str], types: Mapping[str, type]) -> None:
        super().__init__(path)
        if importlib.util.find_spec("pyarrow") is None:
            raise DeviceError("rows of layers are Parquet files, which need pyarrow: pip install 'topognn[study]'.")
        import pyarrow as pa

        kinds = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}
        self._schema = pa.schema([(name, kinds[type_]) for name, type_ in types.items()])

    @contextlib.contextmanager
    def working(self, plan: CheckpointPlan, kind: str, names: Sequence[str]) -> Iterator[None]:
        """Have the folder to oneself, for rows of one checkpoint, encoding and choice of metrics.

        Raises:
            CheckpointError: It has rows of others, another process is at work on it, or the disk is full.
        """
        settings = {"checkpoint": _fingerprint(plan), "encoding": kind, "metrics": list(names)}
        with self.claimed(settings), self.watching(), self.lock("work", wait=False) as held:
            if not held:
                raise CheckpointError(f"another process is at work on {str(self.path)!r}: wait for it, or end it.")
            for half in (self.path / "rows").glob(".*.tmp"):  # of a killed process
                half.unlink()
            yield

    def row(self, layer: str) -> Path:
        """Return the file of a layer's row."""
        name = urllib.parse.quote(layer, safe="")
        if len(name) > _LONGEST:
            name = f"{name[:_LONGEST]}-{hashlib.sha256(layer.encode()).hexdigest()[:16]}"
        return self.path / "rows" / f"{name}.parquet"

    def read_row(self, layer: str) -> dict[str, Any] | None:
        """Return a layer's row, None if it is not there yet."""
        import pyarrow.parquet as pq

        file = self.row(layer)
        if not file.is_file():
            return None
        row: dict[str, Any] = pq.read_table(file, schema=self._schema).to_pylist()[0]
        return row

    def write_row(self, row: Mapping[str, Any]) -> None:
        """Write a layer's row."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.Table.from_pylist([dict(row)], schema=self._schema)
        self.write(self.row(row["layer"]), lambda path: pq.write_table(table, path))

    def gather(self, layers: Sequence[str]) -> None:
        """Put the rows of layers into ``layers.parquet``, in their order."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.concat_tables([pq.read_table(self.row(layer), schema=self._schema) for layer in layers])
        self.write(self.path / "layers.parquet", lambda path: pq.write_table(table, path))


def _fingerprint(plan: CheckpointPlan) -> str:
    """Return what tells the files of one checkpoint from those of another, or from their earlier selves."""
    states = [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in plan.files]
    return f"{len(states)} files, {hashlib.sha256(repr(states).encode()).hexdigest()[:16]}"
