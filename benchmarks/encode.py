"""How fast a layout and masks become rows, against a memory copy of the same size and SciPy's COO -> CSR.

    python benchmarks/encode.py [--out results.json]

One process, two threads. Rows are checked first (CSR and CSC must be each other's transpose, and the number of
edges that of the degrees), the first run of everything is warm-up, and the best of several is reported: the
machine's noise only ever adds. Peak memory is measured in a process of its own for each graph.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch
import torchvision
from machine import THREADS, use_threads
from rich.console import Console
from rich.table import Table

import topognn

GRAPHS = {  # name: (model, side of its input, sparsity of an ERK mask, runs)
    "conv6 at 99.5 %": ("conv6", 32, 0.995, 20),
    "resnet20 at 95 %": ("resnet20", 32, 0.95, 20),
    "conv6 at 98 %": ("conv6", 32, 0.98, 20),
    "conv6 at 90 %": ("conv6", 32, 0.9, 7),
    "mobilenet_v2 at 90 %": ("mobilenet_v2", 32, 0.9, 7),
    "resnet20 dense": ("resnet20", 32, 0.0, 5),
    "conv6 at 50 %": ("conv6", 32, 0.5, 3),
    "wide_resnet28_2 dense": ("wide_resnet28_2", 32, 0.0, 3),
    "wide_resnet28_2 dense at 40x40": ("wide_resnet28_2", 40, 0.0, 2),
}


def best(run: Callable[[], Any], runs: int) -> float:
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def prepare(model_name: str, side: int, sparsity: float) -> tuple[topognn.Layout, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    model = topognn.get_model(model_name)
    masks = topognn.prune(model, "erk", sparsity)
    return topognn.trace(model, (3, side, side)), masks


def check(graph: topognn.MultipartiteGraph) -> None:
    out, entering = graph.csr, graph.csc
    shape = (graph.num_nodes, graph.num_nodes)
    a = scipy.sparse.csr_array((out.weights.numpy(), out.indices.numpy(), out.indptr.numpy()), shape=shape)
    b = scipy.sparse.csc_array(
        (entering.weights.numpy(), entering.indices.numpy(), entering.indptr.numpy()), shape=shape
    )
    assert a.has_canonical_format and b.has_canonical_format, "rows do not ascend"
    turned = b.tocsr()
    assert np.array_equal(a.indices, turned.indices) and np.array_equal(a.data, turned.data), "CSR and CSC differ"
    assert a.nnz == graph.num_edges == int(graph.in_degrees.sum())


def measure(name: str) -> dict[str, Any]:
    model_name, side, sparsity, runs = GRAPHS[name]
    layout, masks = prepare(model_name, side, sparsity)
    graph = topognn.encode(layout, masks=masks)
    if graph.num_edges < 60_000_000:
        check(graph)
    edges = graph.num_edges
    row = {
        "graph": name,
        "edges": edges,
        "encode": best(lambda: topognn.encode(layout, masks=masks), runs),
        "csr": best(lambda: topognn.encode(layout, masks=masks).csr, runs),
        "csr_and_csc": best(lambda: both(topognn.encode(layout, masks=masks)), runs),
        "undirected": best(lambda: topognn.encode(layout, masks=masks).undirected, runs),
    }
    source = torch.ones(2 * edges, dtype=torch.float32)  # as many bytes as indices and weights together
    row["copy"] = best(source.clone, max(runs, 5))
    if edges < 60_000_000:
        coo = topognn.to_scipy(graph).tocoo()
        shuffled = np.random.default_rng(0).permutation(edges)
        parts = (coo.data[shuffled], (coo.row[shuffled], coo.col[shuffled]))
        row["scipy_coo_to_csr"] = best(
            lambda: scipy.sparse.coo_array(parts, shape=coo.shape).tocsr(), max(2, runs // 3)
        )
    return row


def both(graph: topognn.MultipartiteGraph) -> None:
    _ = graph.csr, graph.csc


def peak(name: str) -> dict[str, float]:
    """Run in a process of its own: the most memory that one CSR takes above what was there, in its own bytes."""
    model_name, side, sparsity, _ = GRAPHS[name]
    layout, masks = prepare(model_name, side, sparsity)
    _ = topognn.encode(layout, masks={n: torch.zeros_like(m) for n, m in masks.items()}).csr  # kernels loaded
    before = forget_high_water()
    rows = topognn.encode(layout, masks=masks).csr
    after = high_water()
    own = sum(t.numel() * t.element_size() for t in (rows.indptr, rows.indices, rows.weights))
    return {"csr_bytes": own, "peak_bytes": after - before}


def high_water_of(script: str, name: str) -> dict[str, float]:
    """Run ``script --peak name`` in a process whose large tensors go back to the system once they are freed."""
    command, env = [sys.executable, script, "--peak", name], {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    found: dict[str, float] = json.loads(subprocess.run(command, env=env, stdout=subprocess.PIPE, check=True).stdout)
    return found


def forget_high_water() -> int:
    """Let this process's high-water mark fall to what is held now, in bytes (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")
    return high_water()


def high_water() -> int:
    """Return the most memory that this process held, in bytes (Linux)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def trace_times() -> dict[str, float]:
    models = {
        "conv6 at 32": (topognn.get_model("conv6"), 32),
        "resnet20 at 32": (topognn.get_model("resnet20"), 32),
        "resnet50 at 224": (torchvision.models.resnet50(), 224),
    }
    topognn.trace(*topognn_example())
    return {name: best(lambda m=m, s=s: topognn.trace(m, (3, s, s)), 3) for name, (m, s) in models.items()}


def topognn_example() -> tuple[torch.nn.Module, tuple[int, ...]]:
    return topognn.example_model()[0], (1, 3, 3)


def show(result: dict[str, Any]) -> None:
    console = Console(width=140)
    table = Table(title="layout + masks -> rows with weights, best of several, seconds")
    columns = (
        "graph",
        "edges",
        "CSR",
        "CSR + CSC",
        "undirected",
        "M edges/s",
        "CSR / copy",
        "SciPy / CSR",
        "peak / CSR bytes",
    )
    for column in columns:
        table.add_column(column, justify="left" if column == "graph" else "right")
    for row in result["graphs"]:
        scipy_ratio = f"{row['scipy_coo_to_csr'] / row['csr']:.1f}" if "scipy_coo_to_csr" in row else "-"
        table.add_row(
            row["graph"], f"{row['edges']:,}",
            f"{row['csr']:.4f}", f"{row['csr_and_csc']:.4f}", f"{row['undirected']:.4f}",
            f"{row['edges'] / row['csr'] / 1e6:.0f}", f"{row['csr'] / row['copy']:.1f}", scipy_ratio,
            f"{row['peak_bytes'] / row['csr_bytes']:.2f}",
        )  # fmt: skip
    console.print(table)
    for name, seconds in result["trace"].items():
        console.print(f"trace {name}: {seconds:.2f} s")
    big = result["graphs"]
    slope = np.polyfit(np.log([r["edges"] for r in big]), np.log([r["csr"] for r in big]), 1)[0]
    console.print(
        f"CSR: time grows as edges to the power {slope:.2f}, from {big[0]['edges']:,} to {big[-1]['edges']:,} edges"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write results as JSON")
    parser.add_argument("--peak", choices=GRAPHS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    use_threads()
    if arguments.peak:
        print(json.dumps(peak(arguments.peak)))
        return
    result: dict[str, Any] = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {THREADS} threads, torch {torch.__version__}",
        "trace": trace_times(),
        "graphs": [],
    }
    for name in GRAPHS:
        row = measure(name)
        result["graphs"].append(row | high_water_of(__file__, name))
    show(result)
    if arguments.out:
        temporary = arguments.out.with_suffix(".tmp")
        temporary.write_text(json.dumps(result, indent=2))
        temporary.replace(arguments.out)


if __name__ == "__main__":
    main()
