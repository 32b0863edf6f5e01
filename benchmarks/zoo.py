"""Every classification model of torchvision at its own input size, against an oracle that knows nothing of graphs.

    python benchmarks/zoo.py [NAME ...] [--sparsity 0.9] [--largest 200] [--expect] [--out benchmarks/results/zoo.json]

A process of its own for each model, with random weights and ERK masks. Two checks (tests/sums_of_paths.py): the edges
of every layer that others feed directly are its sparse multiply-accumulates on real inputs, counted on the way through
the model; and the effective weights are those with a gradient when the model computes sums of paths. A run begins where
the last one ended: models that are in the file are not measured again, unless they are named. ``--expect`` exits with 1
if any differs or fails, ``--largest`` leaves out models of more than so many million parameters.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from machine import use_threads, write
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torchvision import models

import topognn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.sums_of_paths import compare  # noqa: E402 - the tests' oracle, which is not installed


def build(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    drawn = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}  # theirs takes minutes
    model: torch.nn.Module = models.get_model(name, **drawn)
    return model


def count_parameters(name: str) -> int:
    return int(models.get_model_weights(name).DEFAULT.meta["num_params"])


def measure(name: str, sparsity: float) -> dict[str, Any]:
    """Check a model; to be called in a process of its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = build(name)
    masks = topognn.prune(model, "erk", sparsity)
    start = time.perf_counter()
    known = models.get_model_weights(name).DEFAULT.transforms().crop_size[0]
    side = getattr(model, "image_size", known)  # a vision transformer is made for one size
    found = compare(model, masks, (3, side, side))
    seconds = time.perf_counter() - start
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    peak = int(line.split()[1]) * 1024
    return {
        "model": name,
        "side": side,
        "sparsity": sparsity,
        "seconds": seconds,
        "peak_bytes": peak,
        **found._asdict(),
    }


def run(name: str, sparsity: float) -> dict[str, Any]:
    command = [sys.executable, __file__, name, "--measure", "--sparsity", str(sparsity)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"})
    if done.returncode == 0:
        record: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return record
    last = next(iter(reversed(done.stderr.strip().splitlines())), f"ended with code {done.returncode}")
    return {"model": name, "sparsity": sparsity, "failure": last}


def is_good(record: dict[str, Any]) -> bool:
    return "failure" not in record and not record["edges"] and not record["effective"]


def table_of(records: list[dict[str, Any]]) -> Table:
    columns = ("model", "side", "nodes", "edges", "layers", "of them direct", "MACs", "effective", "not effective", "s")
    table = Table(*columns, "peak GB", title="torchvision's classification models")
    for column in table.columns[1:]:
        column.justify = "right"
    for r in records:
        if "failure" in r:
            table.add_row(r["model"], "failed: " + r["failure"])
            continue
        sizes = (str(r["side"]), f"{r['nodes']:,}", f"{r['num_edges']:,}", str(r["layers"]), str(r["direct"]))
        checks = [f"{len(r[check])} differ" if r[check] else "equal" for check in ("edges", "effective")]
        table.add_row(
            r["model"], *sizes, *checks, f"{r['ineffective']:,}", f"{r['seconds']:.1f}", f"{r['peak_bytes'] / 1e9:.2f}"
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = models.list_models(module=models)
    parser.add_argument("names", nargs="*", metavar="NAME", help="models of torchvision; by default all")
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--largest", type=float, default=float("inf"), help="millions of parameters")
    parser.add_argument("--expect", action="store_true", help="exit with 1 if a model differs or fails")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/zoo.json")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in known]:
        parser.error(f"torchvision has no classification model {unknown[0]!r}")
    if options.measure:
        use_threads()
        print(json.dumps(measure(options.names[0], options.sparsity)))
        return
    records: dict[str, dict[str, Any]] = {}
    if options.out.is_file():
        before = json.loads(options.out.read_text())["records"]
        records = {r["model"]: r for r in before if r["sparsity"] == options.sparsity}
    wanted = options.names or known
    todo = [n for n in wanted if (options.names or n not in records) and count_parameters(n) <= options.largest * 1e6]
    for name in track(todo, "models", console=Console(stderr=True)):
        records[name] = run(name, options.sparsity)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write(options.out, [records[n] for n in known if n in records])
    shown = [records[name] for name in wanted if name in records]
    Console(width=160).print(table_of(shown))
    for record in shown:
        for line in (*record.get("edges", ()), *record.get("effective", ())):
            print(f"{record['model']}: {line}")
    if options.expect and not all(map(is_good, shown)):
        sys.exit(1)


if __name__ == "__main__":
    main()
