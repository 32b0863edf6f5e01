"""Neighbours and motifs without rows against resolution: seconds, memory, exponents, and the ratio of 224 to 64.

    python benchmarks/positions.py [--only NAME ...] [--sides 32 64 ...] [--out results.json]

A process of its own for each network and resolution, two threads; peak memory is the whole process's. Before anything
is timed, both must be as by rows on a small network. What follows from a layout alone is found by a first run, whose
seconds are told apart; the exponent is that of the resolution in the seconds of the second run, over all sides from 64.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from machine import THREADS, use_threads, write
from rich.console import Console
from rich.progress import track
from rich.table import Table

import topognn
from topognn.metrics.motifs import count_by_channels, count_by_rows
from topognn.metrics.neighbors import count_two_hop_by_channels, count_two_hop_by_rows, two_hop

NETWORKS = {"resnet18 90 % erk": ("resnet18", 0.9), "resnet50 90 % erk": ("resnet50", 0.9)}
NETWORKS["resnet50 dense"] = ("resnet50", 0.0)
SIDES = (32, 64, 96, 128, 160, 192, 224, 320, 448)
OPERATIONS: dict[str, Callable[[topognn.MultipartiteGraph], torch.Tensor]] = {
    "two_hop": two_hop,
    "motifs": lambda graph: count_by_channels(graph).total,
}


def encode(name: str, side: int, sparsity: float) -> topognn.MultipartiteGraph:
    torch.manual_seed(0)
    model = getattr(torchvision.models, name)()
    layout = topognn.trace(model, (3, side, side))
    return topognn.encode(layout, masks=topognn.prune(model, "erk", sparsity))


def check() -> None:
    graph = encode("resnet18", 32, 0.98)
    assert torch.equal(count_two_hop_by_channels(graph), count_two_hop_by_rows(graph))
    ours, rows = count_by_channels(graph), count_by_rows(graph)
    for kind in ("path", "claw", "cycle", "paw", "diamond", "clique"):
        assert torch.equal(getattr(ours, kind), getattr(rows, kind)), kind


def measure(name: str, side: int) -> dict[str, Any]:
    """Measure a network at a resolution; to be called in a process of its own."""
    check()
    graph = encode(NETWORKS[name][0], side, NETWORKS[name][1])
    record: dict[str, Any] = {"graph": name, "side": side, "nodes": graph.num_nodes, "edges": graph.num_uses}
    for operation, run in OPERATIONS.items():
        for when in ("first", "seconds"):
            start = time.perf_counter()
            record[f"{operation} value"] = float(run(graph))
            record[f"{operation} {when}"] = time.perf_counter() - start
    assert not graph.has_rows("out")
    assert not graph.has_rows("both")
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return record | {"peak_bytes": int(line.split()[1]) * 1024}


def summarize(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return, for each network and operation, the exponent of resolution and the ratio of 224 to 64."""
    found = []
    for name in dict.fromkeys(r["graph"] for r in records):
        own = {r["side"]: r for r in records if r["graph"] == name}
        for operation in OPERATIONS:
            seconds = {side: r[f"{operation} seconds"] for side, r in own.items() if side >= 64}
            ratio = seconds[224] / seconds[64] if {64, 224} <= seconds.keys() else None
            logs = np.log([list(seconds), list(seconds.values())])
            exponent = float(np.polyfit(*logs, 1)[0]) if len(seconds) > 1 else None
            found.append({"graph": name, "operation": operation, "exponent": exponent, "ratio 224/64": ratio})
    return found


def table_of(records: list[dict[str, Any]]) -> Table:
    times = [f"{operation} {when}" for operation in OPERATIONS for when in ("first", "seconds")]
    table = Table("network", "side", "nodes", "edges", *times, "peak GB", title=f"by channels, {THREADS} threads")
    for r in records:
        sizes = (str(r["side"]), f"{r['nodes']:,}", f"{r['edges']:,}")
        table.add_row(r["graph"], *sizes, *(f"{r[t]:.3f}" for t in times), f"{r['peak_bytes'] / 1e9:.2f}")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--sides", nargs="+", type=int, default=list(SIDES))
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    use_threads()
    if options.measure:
        print(json.dumps(measure(options.measure[0], int(options.measure[1]))))
        return
    records = []
    cases = [(name, side) for name in options.only for side in options.sides]
    for name, side in track(cases, "networks", console=Console(stderr=True)):
        command = [sys.executable, __file__, "--measure", name, str(side)]
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment)
        records.append(json.loads(done.stdout))
    console, summary = Console(width=160), summarize(records)
    console.print(table_of(records))
    for line in summary:
        values = (f"{key} {value:.2f}" for key, value in line.items() if isinstance(value, float))
        console.print(f"{line['graph']}, {line['operation']}: {', '.join(values)}")
    if options.out:
        write(options.out, [*records, *summary])


if __name__ == "__main__":
    main()
