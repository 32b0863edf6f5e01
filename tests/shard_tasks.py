"""A checkpoint measured slowly enough to be killed. Run as a script, it is killed and resumed."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import topognn
from tests.shard_files import save, sparse
from topognn.shards.measuring import measure_plan
from topognn.shards.planning import plan_checkpoint
from topognn.shards.rows import RowFolder

LAYERS = 12
METRICS = ("disconnected_nodes", "wedges", "spectral_gap", "strength")


def make_checkpoint(folder: Path) -> str:
    """Write shards of twelve layers, and return their pattern."""
    for shard in range(3):
        names = range(4 * shard, 4 * shard + 4)
        save(folder / f"{shard}.safetensors", {f"layers.{n}.fc.weight": sparse(12, 16, seed=n) for n in names})
    return f"{folder}/*.safetensors"


def write_slowly(folder: RowFolder, row: Mapping[str, Any]) -> None:
    time.sleep(0.05)
    write(folder, row)


def count_rows(out: Path) -> int:
    return len(list((out / "rows").glob("*.parquet"))) if (out / "rows").is_dir() else 0


def kill_and_resume(pattern: str, out: Path, times: int) -> None:
    """Measure ``times`` times, each killed at a random moment a layer or two later; forked, as starts are slow."""
    rng = random.Random(0)
    for kill in range(times):
        if not (child := os.fork()):
            measure_plan(plan_checkpoint(pattern), metrics=METRICS, out=str(out))
            os._exit(0)
        while count_rows(out) < LAYERS * kill // times:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.05))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        print(count_rows(out), flush=True)


if __name__ == "__main__":
    write = RowFolder.write_row
    # All that takes time at the first layer, once, before the forks; without threads, which a fork would not have.
    torch.set_num_threads(1)
    topognn.set_num_threads(1)
    measure_plan(plan_checkpoint(sys.argv[1]), metrics=METRICS, out=f"{sys.argv[2]}.first")
    RowFolder.write_row = write_slowly  # type: ignore[method-assign]
    kill_and_resume(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
