"""Metrics that need no matrix on networks whose matrix is large: time, memory, and growth with resolution.

    python benchmarks/large.py [--only NAME ...] [--out results.json]

A process of its own for each network, two threads; peak memory is the whole process's. Before anything is timed, the
same metrics of a small network by convolutions must equal those by rows. Tracing, once a model, is timed apart.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torchvision
from connectivity import THREADS, write
from rich.console import Console
from rich.progress import track
from rich.table import Table

import topognn
from topognn.metrics.spectral import find_adjacency_eigenvalues

NETWORKS = {  # name: (model, side of its input, sparsity of an ERK mask)
    "wide_resnet28_2 dense at 32": ("wide_resnet28_2", 32, 0.0),
    "wide_resnet28_2 dense at 64": ("wide_resnet28_2", 64, 0.0),
    "resnet50 90 % at 224": ("resnet50", 224, 0.9),
    "resnet50 90 % at 448": ("resnet50", 448, 0.9),
}
STEPS = {
    "degrees and strength": ("sink_nodes", "source_nodes", "removable_out_edges", "strength"),
    "paths": ("paths", "log10_paths", "log10_path_norm"),
    "effective density": ("effective_density",),
    "spectral gap": ("spectral_gap",),
    "spectral radius": ("spectral_radius",),
}


def build(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return torchvision.models.resnet50() if name == "resnet50" else topognn.get_model(name)


def check() -> None:
    model = build("resnet20")
    graph = topognn.encode(model, (3, 32, 32), topognn.prune(model, "erk", 0.95))
    by_route = [find_adjacency_eigenvalues(graph, route=route).abs() for route in ("rows", "connections")]
    assert torch.allclose(*by_route, rtol=1e-5), by_route


def measure(name: str) -> dict[str, Any]:
    """Measure a network; to be called in a process of its own."""
    model_name, side, sparsity = NETWORKS[name]
    model = build(model_name)
    masks = topognn.prune(model, "erk", sparsity)
    check()
    seconds: dict[str, float] = {}
    start = time.perf_counter()
    layout = topognn.trace(model, (3, side, side))
    traced = time.perf_counter() - start
    start = time.perf_counter()
    graph = topognn.encode(layout, masks=masks)
    seconds["encode"] = time.perf_counter() - start
    values: dict[str, float] = {}
    for step, metrics in STEPS.items():
        start = time.perf_counter()
        values |= topognn.topometrics(graph, metrics).to_dict()
        seconds[step] = time.perf_counter() - start
    assert not graph._rows, "a matrix was made"
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    finite = {metric: value if math.isfinite(value) else None for metric, value in values.items()}
    peak = int(line.split()[1]) * 1024
    return {"graph": name, "trace": traced, "seconds": seconds, "peak_bytes": peak, "values": finite}


def table_of(records: list[dict[str, Any]]) -> Table:
    columns = ("network", "nodes", "edges", "encode s", *(f"{step} s" for step in STEPS), "all s", "peak GB", "trace s")
    table = Table(*columns, title=f"without a matrix, {THREADS} threads")
    for r in records:
        times = [*r["seconds"].values(), sum(r["seconds"].values())]
        sizes = (f"{r['values']['nodes']:,}", f"{r['values']['edges']:,}")
        table.add_row(
            r["graph"], *sizes, *(f"{t:.2f}" for t in times), f"{r['peak_bytes'] / 1e9:.2f}", f"{r['trace']:.2f}"
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--measure", choices=NETWORKS, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    topognn.set_num_threads(THREADS)
    if options.measure:
        print(json.dumps(measure(options.measure)))
        return
    records = []
    for name in track(options.only, "networks", console=Console(stderr=True)):
        command = [sys.executable, __file__, "--measure", name]
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment)
        records.append(json.loads(done.stdout))
    Console(width=200).print(table_of(records))
    if options.out:
        write(options.out, records)


if __name__ == "__main__":
    main()
