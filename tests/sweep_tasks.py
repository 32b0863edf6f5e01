"""Networks that take no time: what workers make in tests of the engine. Run as a script, it is killed and resumed."""

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

from topognn.study.folder import SweepFolder
from topognn.study.grid import Settings, Task
from topognn.study.sweeping import sweep

TASKS = [
    Task("conv6", "synthetic", pruner, s, seed) for pruner in ("er", "erk") for s in (0.5, 0.9) for seed in range(3)
]
SETTINGS = Settings()


def make(task: Task, settings: Settings) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Return a row and masks that follow from the task; tell a log that it began, slowly enough to be killed."""
    log(task)
    time.sleep(float(os.environ.get("SWEEP_SECONDS", "0.03")))
    generator = torch.Generator().manual_seed(task.seed + int(100 * task.sparsity) + len(task.pruner))
    mask = torch.rand(5, 7, generator=generator) > task.sparsity
    return {"accuracy": float(mask.double().mean()), "edges": 1 + int(mask.sum())}, {"weight": mask}


def make_or_fail(task: Task, settings: Settings) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    if task.seed == 1 and not os.environ.get("SWEEP_MENDED"):
        raise RuntimeError("the loss\nis NaN")
    return make(task, settings)


def make_or_die(task: Task, settings: Settings) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Kill the worker that meets a certain task first."""
    flag = Path(os.environ["SWEEP_LOG"]).with_suffix(".died")
    if task == TASKS[4] and not flag.exists():
        flag.write_text(task.name)
        os.kill(os.getpid(), signal.SIGKILL)
    return make(task, settings)


def add(task: Task, settings: Settings, row: Mapping[str, Any], masks: Mapping[str, Any]) -> dict[str, Any]:
    return {} if "kept" in row else {"kept": int(masks["weight"].sum())}


def log(task: Task) -> None:
    with open(os.environ["SWEEP_LOG"], "a") as file:
        file.write(f"{task.name}\n")


def kill_and_resume(path: Path, times: int) -> None:
    """Start the sweep ``times`` times, each killed at a random moment; forked, so that a start takes no time."""
    rng = random.Random(0)
    for _ in range(times):
        if not (child := os.fork()):
            sweep(TASKS, SETTINGS, SweepFolder(path), make)
            os._exit(0)
        time.sleep(rng.uniform(0.05, 0.6))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        print(len(list((path / "rows").glob("*.parquet"))) if (path / "rows").is_dir() else 0, flush=True)


if __name__ == "__main__":
    import distributed  # noqa: F401 - once, before the forks
    import pyarrow.dataset
    import pyarrow.parquet  # noqa: F401
    import safetensors.torch  # noqa: F401

    kill_and_resume(Path(sys.argv[1]), int(sys.argv[2]))
