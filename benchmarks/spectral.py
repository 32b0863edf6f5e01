"""Spectral gap and radius against SciPy's eigsh, and the product of rows against memory copies.

    python benchmarks/spectral.py [--golden FOLDER] [--repeats 5] [--out results.json]

One process, two threads. SciPy has its matrices ready (adjacency and Laplacian, float64 CSR), and so have we our rows
where products go by rows; both stop at residuals of 1e-6 of the value, and must agree to 1e-5 of the first eigenvalue
before anything is timed. Our vectors are float32, with sums in float64. The first run of each is warm-up. With
``--golden``, the networks at 98 % and 95 % are those of a folder with golden.json, which has the paper's own times too:
to convert its graph to a matrix, and for both numbers.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from ctypes import memmove
from pathlib import Path
from typing import Any, NamedTuple

# Idle threads leave their core to the kernels' soon, but are awake for a next small convolution: as the command's.
os.environ.setdefault("GOMP_SPINCOUNT", "3000")

import numpy as np
import torch
from machine import THREADS, use_threads, write
from rich.console import Console
from rich.table import Table
from scipy.sparse import diags_array
from scipy.sparse.linalg import eigsh

import topognn
from topognn.encoding.rows import allocate_rows
from topognn.kernels.products import multiply_row
from topognn.metrics import spectral_gap, spectral_radius
from topognn.operators.row_products import spread

TOLERANCE = 1e-6
NETWORKS = {  # name: (model, sparsity, golden masks)
    "conv6 at 98 %": ("conv6", 0.98, "conv6_98"),
    "resnet20 at 95 %": ("resnet20", 0.95, "resnet20_95"),
    "conv6 at 60 %": ("conv6", 0.6, None),
    "resnet20 at 60 %": ("resnet20", 0.6, None),
}
BEYOND_CACHE = {"conv6 at 90 %": ("conv6", 0.9), "resnet20 at 60 %": ("resnet20", 0.6), "conv6 at 60 %": ("conv6", 0.6)}


class Network(NamedTuple):
    """What is measured."""

    layout: topognn.Layout
    masks: dict[str, torch.Tensor]
    reference: float | None  # the paper's own seconds


def prepare(name: str, golden: Path | None) -> Network:
    model_name, sparsity, file = NETWORKS[name]
    torch.manual_seed(0)
    model, reference = topognn.get_model(model_name), None
    if golden is None or file is None:
        masks = topognn.prune(model, "erk", sparsity)
    else:
        arrays, parameters, masks = np.load(golden / f"golden_{file}.npz"), dict(model.named_parameters()), {}
        for weight in {key.rpartition(".")[0] for key in arrays}:
            values = torch.zeros(parameters[weight].numel())
            values[torch.from_numpy(arrays[f"{weight}.index"]).long()] = torch.from_numpy(
                arrays[f"{weight}.value"]
            ).float()
            parameters[weight].data = values.view_as(parameters[weight])
            masks[weight] = parameters[weight] != 0
        known = json.loads((golden / "golden.json").read_text())[file].get("reference")
        if known is not None:
            reference = sum(known["seconds"]["metrics"][part] for part in ("tosparse", "gap", "radius"))
    return Network(topognn.trace(model, (3, 32, 32)), masks, reference)


def ours(graph: topognn.MultipartiteGraph) -> tuple[float, float]:
    return float(spectral_gap(graph)), float(spectral_radius(graph))


def scipys(adjacency: Any, laplacian: Any) -> tuple[float, float]:
    start = np.random.default_rng(0).standard_normal(adjacency.shape[0])
    values = np.abs(eigsh(adjacency, k=3, which="LM", tol=TOLERANCE, v0=start, return_eigenvectors=False))
    largest = eigsh(laplacian, k=1, which="LA", tol=TOLERANCE, v0=start, return_eigenvectors=False)
    return float(values.max() - values.min()), float(largest[0])


def times(run: Any, repeats: int) -> list[float]:
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return found


def measure(name: str, golden: Path | None, repeats: int) -> dict[str, Any]:
    network = prepare(name, golden)
    graph = topognn.encode(network.layout, masks=network.masks)
    directed = topognn.to_scipy(graph).astype(np.float64)
    adjacency = (directed + directed.T).tocsr()
    laplacian = (diags_array(np.asarray(adjacency.sum(1)).ravel()) - adjacency).tocsr()
    first, second = ours(graph), scipys(adjacency, laplacian)
    scale = eigsh(adjacency, k=1, which="LM", return_eigenvectors=False)[0]
    assert abs(first[0] - second[0]) < 1e-5 * abs(scale) and abs(first[1] - second[1]) < 1e-5 * second[1], name
    route = topognn.linear_operator(graph).route
    mine = times(lambda: ours(graph), repeats)
    theirs = times(lambda: scipys(adjacency, laplacian), max(2, repeats // 2))
    return {
        **{"graph": name, "edges": graph.num_edges, "route": route},
        **{"ours": min(mine), "ours_median": float(np.median(mine)), "scipy": min(theirs)},
        "reference": network.reference,
    }


def product_bandwidth(name: str, repeats: int) -> dict[str, Any]:
    """Time the rows' product of a network beyond all caches, and copies of as many bytes, by turns.

    Copies by torch, and by the C library on as many threads, which may write large ones past the caches.
    """
    model_name, sparsity = BEYOND_CACHE[name]
    torch.manual_seed(0)
    model = topognn.get_model(model_name)
    graph = topognn.encode(model, (3, 32, 32), topognn.prune(model, "erk", sparsity))
    rows = graph.rows("both", weighted=True)
    x, y = torch.rand(1, graph.num_nodes), torch.empty(1, graph.num_nodes)
    work = rows.num_entries / graph.num_nodes

    def product() -> None:
        multiply_row.launch(graph.num_nodes, 0, rows.indptr, rows.indices, rows.weights, *spread(x), y, work=work)

    product()
    matrix = topognn.to_scipy(graph)
    want = matrix @ x[0].numpy() + matrix.T @ x[0].numpy()
    assert np.allclose(y[0].numpy(), want, rtol=1e-4)
    moved = sum(t.numel() * t.element_size() for t in (rows.indptr, rows.indices, rows.weights, x, y))
    # Read and written: as many bytes in all, in memory like that of the rows, with huge pages where Linux has them.
    source, target = (allocate_rows(rows.indptr, moved // 8, torch.int32, False).indices for _ in range(2))
    target.copy_(source.fill_(1))
    size, pool = source.numel() * source.element_size(), ThreadPoolExecutor(THREADS)
    parts = [(o, min(size, o + -(-size // THREADS)) - o) for o in range(0, size, -(-size // THREADS))]

    def move() -> None:
        list(pool.map(lambda part: memmove(target.data_ptr() + part[0], source.data_ptr() + part[0], part[1]), parts))

    # By turns, since the bandwidth of a machine that others use too changes from one second to the next.
    runs = {"product": product, "copy": lambda: target.copy_(source), "memmove": move}
    turns: dict[str, list[float]] = {kind: [] for kind in runs}
    for _ in range(repeats):
        for kind, run in runs.items():
            turns[kind] += times(run, 1)
    record = {"graph": name, "bytes": moved, **{kind: float(np.median(found)) for kind, found in turns.items()}}
    for kind in ("copy", "memmove"):
        shares = np.divide(turns[kind], turns["product"])
        record[f"shares_of_{kind}"] = np.quantile(shares, (0.1, 0.5, 0.9)).tolist()
    return record


def table_of_products(records: list[dict[str, Any]]) -> Table:
    columns = ("rows of", "MB", "product ms", "GB/s", "torch's copy GB/s", "share", "C library's GB/s", "share")
    table = Table(*columns, title=f"product of rows, {THREADS} threads: medians, and from first to ninth tenth")
    for r in records:
        cells = [f"{r['bytes'] / 1e6:.0f}", f"{1e3 * r['product']:.1f}", f"{r['bytes'] / r['product'] / 1e9:.1f}"]
        for kind in ("copy", "memmove"):
            low, median, high = r[f"shares_of_{kind}"]
            cells += [f"{r['bytes'] / r[kind] / 1e9:.1f}", f"{median:.2f} ({low:.2f} to {high:.2f})"]
        table.add_row(r["graph"], *cells)
    return table


def table_of(records: list[dict[str, Any]]) -> Table:
    columns = ("network", "edges", "products by", "ours ms", "SciPy ms", "times ours", "the paper's code", "times ours")
    table = Table(*columns, title=f"spectral gap and radius, {THREADS} threads, residuals of 1e-6")
    for r in records:
        peers = [f"{1e3 * r['scipy']:.0f}", f"{r['scipy'] / r['ours']:.1f}"]
        paper = [f"{r['reference']:.1f} s", f"{r['reference'] / r['ours']:.0f}"] if r["reference"] else ["", ""]
        table.add_row(r["graph"], f"{r['edges']:,}", r["route"], f"{1e3 * r['ours']:.0f}", *peers, *paper)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--golden", type=Path)
    parser.add_argument("--only", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    use_threads()
    records = [measure(name, options.golden, options.repeats) for name in options.only]
    products = [product_bandwidth(name, 4 * options.repeats) for name in BEYOND_CACHE]
    console = Console()
    console.print(table_of(records))
    console.print(table_of_products(products))
    if options.out:
        write(options.out, [*records, *products])


if __name__ == "__main__":
    main()
