"""Exact motif counts against sparse matrix products in SciPy, and igraph on a graph that it can enumerate.

    python benchmarks/motifs.py [--only GRAPH ...] [--whole] [--repeats 5] [--out results.json]

One process, two threads, the same undirected CSR in memory for all. SciPy squares the adjacency matrix a thousand
rows at a time, which its caches like; with ``--whole`` also at once, as one writes it first, which takes 12 bytes
and more for each of 5e8 pairs of nodes. SciPy runs once; its counts must be ours. Our first run is warm-up.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from graphs import network, simplified
from libraries import to_igraph, to_scipy
from machine import THREADS, use_threads
from rich.console import Console
from rich.table import Table

from topognn.metrics.motifs import motifs4
from topognn.plain_graph import PlainGraph

TYPES = ("path", "claw", "cycle", "paw", "diamond", "clique")


def small() -> PlainGraph:
    return simplified(10_000, np.random.default_rng(0).integers(0, 10_000, (60_000, 2)))


GRAPHS: dict[str, Callable[[], PlainGraph]] = {
    "conv6 98 % erk": lambda: network("conv6", 0.98),
    "resnet20 95 % erk": lambda: network("resnet20", 0.95),
    "random, 6e4 edges": small,
}


def count_with_scipy(adjacency: Any, size: int = 1000) -> list[int]:
    """Codegrees from products of the adjacency matrix; cliques from the edges that are in two triangles."""
    degrees = np.diff(adjacency.indptr).astype(object)  # Python integers: nothing overflows
    d = np.diff(adjacency.indptr).astype(np.int64)
    rings = 0
    parts = []
    for start in range(0, adjacency.shape[0], size):
        block = adjacency[start : start + size]
        codegrees = block @ adjacency
        parts.append(block.multiply(codegrees).tocsr())
        values = codegrees.data.astype(np.int64)
        own = d[start : start + size]
        rings += int((values * (values - 1) // 2).sum() - (own * (own - 1) // 2).sum())
    triangles = sp.vstack(parts).tocoo()
    triangles.eliminate_zeros()
    each = triangles.data.astype(np.int64)
    twice = int(each.sum())
    total, rings = twice // 6, rings // 4
    paws = int((each * (d[triangles.row] + d[triangles.col])).sum()) // 4 - 6 * total
    diamonds = int((each * (each - 1) // 2).sum()) // 2
    cliques = 0
    rows = {
        u: set(adjacency.indices[adjacency.indptr[u] : adjacency.indptr[u + 1]].tolist())
        for u in set(triangles.row.tolist())
    }
    for u, v, count in zip(triangles.row.tolist(), triangles.col.tolist(), each.tolist(), strict=True):
        if u < v and count > 1:
            common = rows[u] & rows[v]
            cliques += sum(len(rows[w] & common) for w in common)
    cliques //= 12
    source = np.repeat(np.arange(d.size), d)
    paths = int(((d[source] - 1) * (d[adjacency.indices] - 1)).sum()) // 2 - 3 * total
    claws = int((degrees * (degrees - 1) * (degrees - 2) // 6).sum())
    diamond = diamonds - 6 * cliques
    cycle = rings - diamond - 3 * cliques
    paw = paws - 4 * diamond - 12 * cliques
    claw = claws - paw - 2 * diamond - 4 * cliques
    path = paths - 2 * paw - 4 * cycle - 6 * diamond - 12 * cliques
    return [path, claw, cycle, paw, diamond, cliques]


def count_with_igraph(graph: Any) -> list[int]:
    counts = graph.motifs_randesu(size=4)
    return [int(counts[number]) for number in (6, 4, 8, 7, 9, 10)]


def ask(run: Callable[[Any], Any], given: Any, repeats: int = 1) -> tuple[Any, float]:
    """Return a result, and the least seconds that it took."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = run(given)
        seconds.append(time.perf_counter() - start)
    return result, min(seconds)


def measure(name: str, repeats: int, whole: bool) -> list[dict[str, Any]]:
    """One record for each library on a graph; raises where counts differ."""
    graph = GRAPHS[name]()
    peers: dict[str, tuple[Callable[[PlainGraph], Any], Callable[[Any], list[int]]]] = {
        "scipy, by rows": (to_scipy, count_with_scipy)
    }
    if whole:
        peers["scipy, whole"] = (to_scipy, lambda adjacency: count_with_scipy(adjacency, graph.num_nodes))
    if name.startswith("random"):
        peers["igraph"] = (to_igraph, count_with_igraph)
    found = motifs4(graph)
    want = [int(getattr(found, kind)) for kind in TYPES]
    size = {"graph": name, "nodes": graph.num_nodes, "edges": graph.num_edges, "total": int(found.total)}
    records = []
    for library, per_node in (("topognn", False), ("topognn, per node", True)):
        seconds = ask(lambda g, at=per_node: motifs4(g, at), graph, repeats)[1]
        records.append({**size, "library": library, "conversion": 0.0, "best": seconds})
    for library, (door, run) in peers.items():
        given, conversion = ask(door, graph)
        counts, seconds = ask(run, given)
        if counts != want:
            raise AssertionError(f"motifs of {name}: {library} counts {counts}, topognn {want}")
        records.append({**size, "library": library, "conversion": conversion, "best": seconds})
    return records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=GRAPHS, default=list(GRAPHS), metavar="GRAPH")
    parser.add_argument("--whole", action="store_true", help="square the whole matrix at once too")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    use_threads()
    table = Table("graph", "edges", "motifs", "library", "best s", "conversion s", "times ours")
    records: list[dict[str, Any]] = []
    for name in options.only:
        made = measure(name, options.repeats, options.whole)
        records += made
        for record in made:
            table.add_row(
                *(name, f"{record['edges']:,}", f"{record['total']:,}", record["library"]),
                *(f"{record['best']:.3f}", f"{record['conversion']:.3f}", f"{record['best'] / made[0]['best']:.1f}"),
            )
    if options.out:
        part = options.out.with_suffix(".part")
        part.write_text(json.dumps({"threads": THREADS, "cores": os.cpu_count(), "records": records}, indent=1))
        os.replace(part, options.out)
    Console().print(table)


if __name__ == "__main__":
    main()
