"""How cost grows: seconds and bytes against edges, against resolution, and against parameters; a log-log plot.

    python benchmarks/scale.py --out scale.json [--small] [--only AXIS ...] [--limit SECONDS]

Every point is a process of its own with two threads and a time limit; its peak is what it came to hold at most beyond
model, masks and layout. What is in the
file already is not measured again, so that a run that was stopped goes on; what failed or ran out of time is there with
the reason (``--again`` tries those anew). The plot, scale.png and scale.svg, stands beside the file. Exponents are
slopes of straight lines through the logarithms, by least squares. ``--small`` keeps to what a shared machine bears.
Before anything is measured, the same values of a small network by rows must be equal.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torchvision
from encode import forget_high_water, high_water
from large import check
from machine import THREADS, use_threads
from rich.console import Console
from rich.progress import track
from rich.table import Table

import topognn
from topognn.files import write_text

STEPS = {
    "encode": (),
    "local": ("sink_nodes", "source_nodes", "disconnected_nodes", "one_hop"),
    "strength": ("strength",),
    "two_hop": ("two_hop",),
    "components": ("components",),
    "paths": ("log10_paths",),
    "effective": ("effective_density",),
    "radius": ("spectral_radius",),
}


class Point(NamedTuple):
    """A network: a ResNet of bottleneck blocks, its width, the side of its input, the sparsity of its ERK mask."""

    axis: str
    width: int
    side: int
    sparsity: float

    @property
    def name(self) -> str:
        """What the table calls it."""
        return f"{self.axis}: width {self.width} at {self.side}, sparsity {self.sparsity:g}"


# Edges grow with density, then with resolution; resolution alone; parameters alone, by width.
POINTS = [
    *(Point("edges", 64, 64, s) for s in (0.9992, 0.998, 0.99, 0.95, 0.8, 0.0)),
    *(Point("edges", 64, side, 0.0) for side in (96, 160, 224)),
    *(Point("resolution", 64, side, 0.9) for side in (32, 64, 96, 128, 224, 320, 448)),
    *(Point("parameters", width, 64, 0.9) for width in (8, 16, 32, 64, 128, 192)),
]
SMALL = [
    *(Point("edges", 64, 32, s) for s in (0.998, 0.98, 0.9, 0.5)),
    *(Point("resolution", 16, side, 0.9) for side in (32, 48, 64, 96)),
    *(Point("parameters", width, 32, 0.9) for width in (4, 8, 16, 32)),
]
UNITS = {"edges": "edges", "resolution": "side", "parameters": "parameters"}


def measure(point: Point) -> dict[str, Any]:
    """Measure a network; to be called in a process of its own."""
    torch.manual_seed(0)
    model = torchvision.models.ResNet(torchvision.models.resnet.Bottleneck, [3, 4, 6, 3], width_per_group=point.width)
    masks = topognn.prune(model, "erk", point.sparsity)
    layout = topognn.trace(model, (3, point.side, point.side))
    topognn.topometrics(topognn.example_graph())  # compiles, or loads, kernels
    seconds: dict[str, float] = {}
    graph, before = topognn.example_graph(), forget_high_water()
    for step, metrics in STEPS.items():
        start = time.perf_counter()
        if step == "encode":
            graph = topognn.encode(layout, masks=masks)
        dict(topognn.topometrics(graph, metrics))
        seconds[step] = time.perf_counter() - start
    return {
        "point": point._asdict(),
        "nodes": graph.num_nodes,
        "edges": graph.num_edges,
        "side": point.side,
        "parameters": sum(mask.numel() for mask in masks.values()),
        "seconds": seconds,
        "peak_bytes": high_water() - before,
    }


def run(point: Point, limit: float) -> dict[str, Any]:
    """Return a point's record, or the reason why there is none."""
    command = [sys.executable, __file__, "--measure", json.dumps(point)]
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit, check=False, env=environment)
    except subprocess.TimeoutExpired:
        return {"point": point._asdict(), "failed": f"not done in {limit:g} s"}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["killed"])[-1]
        return {"point": point._asdict(), "failed": f"exit code {done.returncode}: {last}"}
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def fit(x: list[float], y: list[float]) -> float | None:
    """Return the exponent of y as a power of x; None from fewer than three points."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0]) if len(set(x)) > 2 else None


def fit_all(records: list[dict[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Return, for each axis, the exponents of each step's seconds, of all of them, and of the peak."""
    found: dict[str, dict[str, float | None]] = {}
    for axis, unit in UNITS.items():
        some = [r for r in records if r["point"]["axis"] == axis and "failed" not in r]
        x = [float(r[unit]) for r in some]
        found[axis] = {step: fit(x, [r["seconds"][step] for r in some]) for step in STEPS}
        found[axis]["all"] = fit(x, [sum(r["seconds"].values()) for r in some])
        found[axis]["peak bytes"] = fit(x, [r["peak_bytes"] for r in some])
    return found


def show(records: list[dict[str, Any]], exponents: dict[str, dict[str, float | None]]) -> None:
    console = Console(width=180)
    table = Table("network", "nodes", "edges", "parameters", *(f"{step} s" for step in STEPS), "peak GB")
    for r in records:
        name = Point(**r["point"]).name
        if "failed" in r:
            table.add_row(name, r["failed"])
            continue
        sizes = [f"{r[size]:,}" for size in ("nodes", "edges", "parameters")]
        table.add_row(name, *sizes, *(f"{s:.3f}" for s in r["seconds"].values()), f"{r['peak_bytes'] / 1e9:.2f}")
    console.print(table)
    for axis, slopes in exponents.items():
        words = ", ".join(f"{step} {slope:.2f}" for step, slope in slopes.items() if slope is not None)
        console.print(f"powers of the {UNITS[axis]}: {words}" if words else f"{axis}: fewer than three points")


def draw(records: list[dict[str, Any]], exponents: dict[str, dict[str, float | None]], path: Path) -> None:
    """Write the plot as PNG and SVG: seconds above, bytes below, one column an axis."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import NullLocator

    figure, axes = plt.subplots(2, len(UNITS), figsize=(18, 8), squeeze=False)
    for column, (axis, unit) in enumerate(UNITS.items()):
        some = [r for r in records if r["point"]["axis"] == axis and "failed" not in r]
        some.sort(key=lambda r: r[unit])
        x = [r[unit] for r in some]
        for step in STEPS:
            slope = exponents[axis][step]
            label = step if slope is None else f"{step}: {slope:.2f}"
            axes[0, column].loglog(x, [r["seconds"][step] for r in some], "o-", label=label)
        axes[1, column].loglog(x, [r["peak_bytes"] for r in some], "ko-", label="peak")
        axes[0, column].set_ylabel("seconds")
        axes[1, column].set_ylabel("bytes at most")
        for plot in axes[:, column]:
            plot.set_xlabel(unit)
            plot.grid(True, which="both", alpha=0.3)
            if unit == "side":  # less than two decades: matplotlib's own labels of both would overlap
                plot.set_xticks(x, [str(value) for value in x])
                plot.xaxis.set_minor_locator(NullLocator())
        axes[0, column].legend(fontsize=8, title="power", loc="upper left", bbox_to_anchor=(1, 1))
    figure.tight_layout()
    for suffix in (".png", ".svg"):
        figure.savefig(path.with_suffix(suffix))
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--small", action="store_true", help="networks that a shared machine bears")
    parser.add_argument("--only", nargs="+", choices=UNITS, default=list(UNITS))
    parser.add_argument("--limit", type=float, default=600, help="seconds a point may take")
    parser.add_argument("--again", action="store_true", help="try again what failed")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args()
    use_threads()
    if options.measure:
        print(json.dumps(measure(Point(*json.loads(options.measure)))))
        return
    if options.out is None:
        parser.error("--out FILE is needed: the results, which a run that was stopped goes on from")
    check()
    have = json.loads(options.out.read_text())["records"] if options.out.exists() else []
    known = {Point(**r["point"]): r for r in have if not (options.again and "failed" in r)}
    wanted = [point for point in (SMALL if options.small else POINTS) if point.axis in options.only]
    for point in track([p for p in wanted if p not in known], "networks", console=Console(stderr=True)):
        known[point] = run(point, options.limit)
        records = list(known.values())
        content = {"threads": THREADS, "exponents": fit_all(records), "records": records}
        write_text(str(options.out), json.dumps(content, indent=1) + "\n")
    records = [known[point] for point in wanted]
    exponents = fit_all(records)
    show(records, exponents)
    draw(records, exponents, options.out)


if __name__ == "__main__":
    main()
