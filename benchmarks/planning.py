"""What `topognn.plan` tells against what comes of it: bytes and seconds of each step, and their ratios.

    python benchmarks/planning.py [--only NAME ...] [--out results.json]

A process of its own for each network, two threads; every step has a graph of its own, so that it builds its own rows.
Bytes are what the process came to hold beyond what it held before the step; kernels are loaded first. The constants of
``topognn/needs.py`` are meant for ratios from a third to three.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from encode import forget_high_water, high_water
from large import build, check
from machine import THREADS, use_threads, write
from rich.console import Console
from rich.progress import track
from rich.table import Table

import topognn

NETWORKS = {  # name: (model, side of its input, sparsity of an ERK mask)
    "resnet20 at 98 %": ("resnet20", 32, 0.98),
    "resnet20 at 60 %": ("resnet20", 32, 0.6),
    "conv6 at 98 %": ("conv6", 32, 0.98),
    "mobilenet_v2 at 90 %": ("mobilenet_v2", 32, 0.9),
    "wide_resnet28_2 at 90 %": ("wide_resnet28_2", 32, 0.9),
    "resnet50 at 90 %, 96x96": ("resnet50", 96, 0.9),
}


def measure(name: str) -> list[dict[str, Any]]:
    """Measure a network's steps; to be called in a process of its own."""
    model_name, side, sparsity = NETWORKS[name]
    check()
    model = build(model_name)
    layout, masks = topognn.trace(model, (3, side, side)), topognn.prune(model, "erk", sparsity)
    small = build("resnet20")
    dict(topognn.topometrics(topognn.encode(small, (3, 8, 8), topognn.prune(small, "erk", 0.9))))  # loads kernels
    found = []
    for step in topognn.plan(topognn.encode(layout, masks=masks)).steps:
        graph = topognn.encode(layout, masks=masks)
        (want,) = topognn.plan(graph, step.metrics).steps
        before, start = forget_high_water(), time.perf_counter()
        dict(topognn.topometrics(graph, step.metrics))
        seconds, size = time.perf_counter() - start, high_water() - before
        found.append({"graph": name, "took_seconds": seconds, "took_bytes": size, **want._asdict()})
    return found


def table_of(records: list[dict[str, Any]]) -> Table:
    columns = ("network", "step", "route", "told MB", "took MB", "ratio", "told s", "took s", "ratio")
    table = Table(*columns, title=f"plan and outcome, {THREADS} threads")
    for r in records:
        size = (
            f"{r['bytes'] / 1e6:.1f}",
            f"{r['took_bytes'] / 1e6:.1f}",
            f"{r['bytes'] / max(1, r['took_bytes']):.2f}",
        )
        times = (f"{r['seconds']:.3f}", f"{r['took_seconds']:.3f}", f"{r['seconds'] / r['took_seconds']:.2f}")
        table.add_row(r["graph"], r["metrics"][0], r["route"], *size, *times)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--measure", choices=NETWORKS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    use_threads()
    if options.measure:
        print(json.dumps(measure(options.measure)))
        return
    records = []
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "MALLOC_MMAP_THRESHOLD_": "65536"}
    for name in track(options.only, "networks", console=Console(stderr=True)):
        command = [sys.executable, __file__, "--measure", name]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment)
        records += json.loads(done.stdout)
    Console(width=160).print(table_of(records))
    within = sum(1 / 3 <= r["seconds"] / r["took_seconds"] <= 3 for r in records)
    Console().print(f"seconds within a factor of three: {within} of {len(records)}")
    if options.out:
        write(options.out, records)


if __name__ == "__main__":
    main()
