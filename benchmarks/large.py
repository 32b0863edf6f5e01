"""Large networks: metrics without a matrix, and those that need rows; time, memory, and growth with resolution.

    python benchmarks/large.py [--only NAME ...] [--out results.json]

A process of its own for each network, two threads; peak memory is the whole process's. Before anything is timed, the
same metrics of a small network without rows must equal those by rows. Tracing, once a model, is timed apart. Those at
96x96 are small ones, for a machine that is shared.
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
from machine import THREADS, use_threads, write
from rich.console import Console
from rich.progress import track
from rich.table import Table

import topognn
from topognn.metrics.components import connected_components
from topognn.metrics.neighbors import count_two_hop_by_rows, get_two_hop_sizes
from topognn.metrics.spectral import find_adjacency_eigenvalues

NETWORKS = {  # name: (model, side of its input, sparsity of an ERK mask, by rows)
    "wide_resnet28_2 dense at 32": ("wide_resnet28_2", 32, 0.0, False),
    "wide_resnet28_2 dense at 64": ("wide_resnet28_2", 64, 0.0, False),
    "resnet50 dense at 96": ("resnet50", 96, 0.0, False),
    "resnet50 90 % at 96, rows": ("resnet50", 96, 0.9, True),
    "resnet50 90 % at 224": ("resnet50", 224, 0.9, False),
    "resnet50 90 % at 448": ("resnet50", 448, 0.9, False),
    "resnet50 dense at 224": ("resnet50", 224, 0.0, False),
    "resnet50 90 % at 224, rows": ("resnet50", 224, 0.9, True),
}
STEPS = {
    "local": (
        "sink_nodes",
        "source_nodes",
        "disconnected_nodes",
        "removable_out_edges",
        "removable_in_edges",
        "one_hop",
    ),
    "strength": ("strength",),
    "two_hop": ("two_hop",),
    "paths": ("paths", "log10_paths", "log10_path_norm"),
    "effective": ("effective_nodes", "effective_edges", "effective_density"),
    "components": ("components", "largest_component"),
    "gap": ("spectral_gap",),
    "radius": ("spectral_radius",),
}
BY_ROWS = {
    "rows": (),
    "components": ("components", "largest_component"),
    "cores": ("k_core",),
    "bridges and articulation points": ("cut_edges", "cut_nodes"),
}


def build(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return torchvision.models.resnet50() if name == "resnet50" else topognn.get_model(name)


def check() -> None:
    model = build("resnet20")
    graph = topognn.encode(model, (3, 32, 32), topognn.prune(model, "erk", 0.95))
    streamed = connected_components(graph).labels
    by_route = [find_adjacency_eigenvalues(graph, route=route).abs() for route in ("rows", "connections")]
    assert torch.allclose(*by_route, rtol=1e-5), by_route
    assert graph.has_rows("both")
    assert torch.equal(connected_components(graph).labels, streamed)
    assert torch.equal(get_two_hop_sizes(graph), count_two_hop_by_rows(graph))


def measure(name: str) -> dict[str, Any]:
    """Measure a network; to be called in a process of its own."""
    model_name, side, sparsity, by_rows = NETWORKS[name]
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
    for step, metrics in (BY_ROWS if by_rows else STEPS).items():
        start = time.perf_counter()
        if by_rows:
            graph.rows("both")
        values |= topognn.topometrics(graph, metrics).to_dict()
        seconds[step] = time.perf_counter() - start
    assert by_rows or not graph._rows, "a matrix was made"
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    finite = {metric: value if math.isfinite(value) else None for metric, value in values.items()}
    peak = int(line.split()[1]) * 1024
    return {"graph": name, "trace": traced, "seconds": seconds, "peak_bytes": peak, "values": finite}


def table_of(records: list[dict[str, Any]], steps: list[str], title: str) -> Table:
    columns = ("network", "nodes", "edges", "encode s", *(f"{step} s" for step in steps), "all s", "peak GB", "trace s")
    table = Table(*columns, title=f"{title}, {THREADS} threads")
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
    use_threads()
    if options.measure:
        print(json.dumps(measure(options.measure)))
        return
    records = []
    for name in track(options.only, "networks", console=Console(stderr=True)):
        command = [sys.executable, __file__, "--measure", name]
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=environment)
        records.append(json.loads(done.stdout))
    for steps, title, by_rows in ((STEPS, "without a matrix", False), (BY_ROWS, "by rows", True)):
        if some := [record for record in records if NETWORKS[record["graph"]][3] == by_rows]:
            Console(width=200).print(table_of(some, list(steps), title))
    if options.out:
        write(options.out, records)


if __name__ == "__main__":
    main()
