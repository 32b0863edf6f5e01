"""One GPU against all cores of its host, and against CuPy on the same GPU, on the same networks.

    python benchmarks/gpu.py [--only NAME ...] [--repeats 3] [--out results.json]

Masks and weights lie on the device before the clock starts, which stops when the device has finished. The first run
of each is warm-up (it compiles kernels), and must give the CPU's numbers. Needs a GPU; `--device cpu` tries the script
without one.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from large import STEPS, build
from machine import write
from rich.console import Console
from rich.progress import track
from rich.table import Table

import topognn
from topognn.kernels.compiling import import_cuda
from topognn.kernels.launch import LEAST_BLOCKS, THREADS_PER_BLOCK
from topognn.kernels.products import multiply_row
from topognn.kernels.taps import count_kept
from topognn.metrics import spectral_gap, spectral_radius
from topognn.operators.row_products import spread

NETWORKS = {  # name: (model, side of its input, sparsity of an ERK mask, by rows)
    "conv6 98 %": ("conv6", 32, 0.98, True),
    "resnet20 95 %": ("resnet20", 32, 0.95, True),
    "resnet20 60 %": ("resnet20", 32, 0.6, True),
    "conv6 60 %": ("conv6", 32, 0.6, True),
    "resnet50 90 % at 224": ("resnet50", 224, 0.9, False),
}
BY_ROWS = {
    "cores": ("k_core",),
    "bridges, articulation points": ("cut_edges", "cut_nodes"),
    "motifs": ("motifs",),
}
LOOSE = ("spectral_gap", "spectral_radius")  # searched for, to residuals of 1e-6


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def clock(run: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    wait(device)
    start = time.perf_counter()
    result = run()
    wait(device)
    return time.perf_counter() - start, result


def measure_once(
    layout: topognn.Layout, masks: dict[str, torch.Tensor], device: torch.device, by_rows: bool
) -> tuple[dict[str, float], dict[str, Any]]:
    """Return the seconds of each step, and all values."""
    seconds: dict[str, float] = {}
    values: dict[str, Any] = {}
    seconds["encode"], graph = clock(lambda: topognn.encode(layout, masks=masks, device=device), device)
    if by_rows:
        for direction in ("in", "out", "both"):
            seconds[f"rows, {direction}"], _ = clock(lambda d=direction: graph.rows(d, weighted=True), device)
    for step, names in {**STEPS, **(BY_ROWS if by_rows else {})}.items():
        seconds[step], found = clock(lambda names=names: topognn.topometrics(graph, names).to_dict(), device)
        values |= found
    return seconds, values


def measure(name: str, device: torch.device, repeats: int) -> dict[str, Any]:
    model_name, side, sparsity, by_rows = NETWORKS[name]
    model = build(model_name)
    masks = topognn.prune(model, "erk", sparsity)
    layout = topognn.trace(model, (3, side, side))
    there = [measure_once(layout, masks, torch.device("cpu"), by_rows) for _ in range(repeats + 1 if by_rows else 1)]
    model.to(device)
    layout = topognn.trace(model, (3, side, side))
    masks = {weight: mask.to(device) for weight, mask in masks.items()}
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    here = [measure_once(layout, masks, device, by_rows) for _ in range(repeats + 1)]
    for metric, value in there[0][1].items():
        got = here[0][1][metric]
        scale = 1e-5 if metric in LOOSE else 1e-9 if isinstance(value, float) else 0
        # A gap is a difference of eigenvalues, each found to 1e-6 of the largest.
        away = 1e-6 * there[0][1]["spectral_radius"] if metric == "spectral_gap" else 0
        assert abs(got - value) <= scale * abs(value) + away, (name, metric, value, got)
    best = [{step: min(run[0][step] for run in runs[-repeats:]) for step in runs[0][0]} for runs in (there, here)]
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    first = sum(here[0][0].values())
    edges = here[0][1]["edges"]
    return {"graph": name, "edges": edges, "cpu": best[0], "gpu": best[1], "first": first, "peak_bytes": peak}


def against_cupy(name: str, device: torch.device, repeats: int) -> dict[str, Any] | None:
    """Time CuPy's eigsh for gap and radius, matrices at hand, and ours; None where there is no CuPy."""
    if device.type != "cuda":
        return None
    try:
        import cupy
        import cupyx.scipy.sparse as sparse
        from cupyx.scipy.sparse.linalg import eigsh
    except ImportError:
        return None
    model_name, side, sparsity, _ = NETWORKS[name]
    model = build(model_name)
    graph = topognn.encode(model, (3, side, side), topognn.prune(model, "erk", sparsity), device=device)
    directed = topognn.to_cupy(graph).astype(cupy.float64)
    adjacency = (directed + directed.T).tocsr()
    laplacian = (sparse.diags(adjacency.sum(1).ravel()) - adjacency).tocsr()
    start = cupy.random.default_rng(0).standard_normal(adjacency.shape[0])

    def cupys() -> tuple[float, float]:
        values = abs(eigsh(adjacency, k=3, which="LM", tol=1e-6, v0=start, return_eigenvectors=False))
        largest = eigsh(laplacian, k=1, which="LA", tol=1e-6, v0=start, return_eigenvectors=False)
        return float(values.max() - values.min()), float(largest[0])

    def ours() -> tuple[float, float]:
        return float(spectral_gap(graph)), float(spectral_radius(graph))

    (theirs, found), (mine, want) = clock(cupys, device), clock(ours, device)
    assert all(abs(a - b) <= 1e-5 * want[1] for a, b in zip(found, want, strict=True)), (name, found, want)
    for _ in range(repeats):
        theirs, mine = min(theirs, clock(cupys, device)[0]), min(mine, clock(ours, device)[0])
    return {"graph": name, "cupy": theirs, "ours": mine, "cupys_values": found, "our_values": want}


def product_bandwidth(device: torch.device, repeats: int) -> dict[str, Any]:
    """Time the rows' product of Conv-6 at 60 % (74 M edges), a copy of as many bytes, and torch's own product."""
    model = build("conv6")
    graph = topognn.encode(model, (3, 32, 32), topognn.prune(model, "erk", 0.6), device=device)
    rows = graph.rows("both", weighted=True)
    x = torch.rand(1, graph.num_nodes, device=device)
    y = torch.empty_like(x)
    work = rows.num_entries / graph.num_nodes
    moved = sum(t.numel() * t.element_size() for t in (rows.indptr, rows.indices, rows.weights, x, y))
    source = torch.ones(moved // 8, dtype=torch.float32, device=device)
    target = torch.empty_like(source)
    size = (graph.num_nodes, graph.num_nodes)
    with warnings.catch_warnings(action="ignore"):  # torch's CSR is in beta
        parts = (rows.indptr.to(torch.int32), rows.indices, rows.weights)
        matrix = torch.sparse_csr_tensor(*parts, size, check_invariants=False)
    runs = {
        "ours": lambda: multiply_row.launch(
            graph.num_nodes, 0, rows.indptr, rows.indices, rows.weights, *spread(x), y, work=work
        ),
        "copy": lambda: target.copy_(source),
        "torch": lambda: matrix @ x[0],
    }
    best = {name: min(clock(run, device)[0] for _ in range(5 * repeats)) for name, run in runs.items()}
    assert torch.allclose(y[0], matrix @ x[0], rtol=1e-4)
    return {"graph": "conv6 60 %", "bytes": moved, **best, "share_of_copy_bandwidth": best["copy"] / best["ours"]}


def time_launches(device: torch.device, count: int = 300) -> dict[str, Any] | None:
    """Time the host's part of a small kernel's launch, and of the same launch by Numba; None on a CPU."""
    if device.type != "cuda":
        return None
    counts = torch.zeros(8, dtype=torch.int64, device=device)
    mask = torch.ones(8, 8, 9, dtype=torch.bool, device=device)
    count_kept.launch(8, 1, False, mask, counts)
    cuda = import_cuda()

    def by_numba() -> None:
        stream = cuda.external_stream(torch.cuda.current_stream(device).cuda_stream)
        arrays = [cuda.as_cuda_array(tensor, sync=False) for tensor in (mask, counts)]
        count_kept._on_cuda[LEAST_BLOCKS, THREADS_PER_BLOCK, stream](8, 1, 1, False, *arrays)

    ours = clock(lambda: [count_kept.launch(8, 1, False, mask, counts) for _ in range(count)], device)[0]
    numbas = clock(lambda: [by_numba() for _ in range(count)], device)[0]
    return {"launches": count, "ours": ours / count, "numba": numbas / count}


def table_of(records: list[dict[str, Any]], where: str) -> Table:
    table = Table("step", *(r["graph"] for r in records), title=f"{where}: milliseconds, and times faster than the CPU")
    for column in table.columns[1:]:
        column.justify = "right"
    table.add_row("edges", *(f"{r['edges']:,}" for r in records), end_section=True)
    for step in dict.fromkeys(step for r in records for step in r["gpu"]):
        cells = []
        for r in records:
            mine, other = r["gpu"].get(step), r["cpu"].get(step)
            cells.append("" if mine is None else f"{1e3 * mine:.1f}  {other / mine:5.1f}x")
        table.add_row(step, *cells)
    sums = [(sum(r["gpu"].values()), sum(r["cpu"].values())) for r in records]
    table.add_section()
    table.add_row("all", *(f"{1e3 * mine:.0f}  {other / mine:5.1f}x" for mine, other in sums))
    table.add_row("first run, compiling", *(f"{1e3 * r['first']:.0f}" for r in records))
    table.add_row("peak memory, GB", *(f"{r['peak_bytes'] / 1e9:.2f}" for r in records))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=list(NETWORKS), metavar="NAME")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    device = torch.device(options.device)
    where = {"gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else "none"}
    records: list[dict[str, Any]] = []
    console = Console()

    def keep(record: dict[str, Any] | None) -> dict[str, Any] | None:
        if record is not None:
            records.append(record)
        if options.out:
            where["threads"] = torch.get_num_threads()
            write(options.out, records, where)
        return record

    names = track(options.only, "networks", console=Console(stderr=True), transient=True)
    measured = [r for name in names if (r := keep(measure(name, device, options.repeats)))]
    console.print(table_of(measured, f"{where['gpu']}, against {torch.get_num_threads()} threads of its host"))
    if product := keep(product_bandwidth(device, options.repeats)):
        speed, share = product["bytes"] / product["copy"] / 1e9, product["share_of_copy_bandwidth"]
        console.print(
            f"product of {product['bytes'] / 1e6:.0f} MB of rows: {1e3 * product['ours']:.2f} ms, {share:.2f} of the "
            f"copy bandwidth ({speed:.0f} GB/s); torch's product: {product['torch'] / product['ours']:.2f} times ours"
        )
    if launches := keep(time_launches(device)):
        console.print(f"a launch: {1e6 * launches['ours']:.0f} us, by Numba {1e6 * launches['numba']:.0f} us")
    for name in options.only:
        if NETWORKS[name][3] and (r := keep(against_cupy(name, device, options.repeats))):
            times = f"{1e3 * r['ours']:.0f} ms, CuPy's eigsh {r['cupy'] / r['ours']:.1f} times that"
            console.print(f"gap and radius of {name}: {times} (values {r['our_values']}, {r['cupys_values']})")


if __name__ == "__main__":
    main()
