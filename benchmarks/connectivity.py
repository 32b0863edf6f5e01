"""Connectivity against SciPy, python-igraph, NetworKit and graph-tool: the same undirected CSR in memory for all.

    python benchmarks/connectivity.py [--only GRAPH ...] [--operations NAME ...] [--repeats 7] [--out results.json]

One process, two threads. Every result is compared with ours before anything is timed; making a library's own graph
is timed apart; the first run of each is warm-up. Peers that are not installed are left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

os.environ["OMP_WAIT_POLICY"] = "passive"  # the libraries' idle threads must not take the other's core

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scipy.sparse import csgraph
from scipy.spatial import cKDTree

import topognn
from topognn.metrics.components import connected_components
from topognn.metrics.cores import core_numbers
from topognn.plain import from_csr, from_edge_index
from topognn.plain_graph import PlainGraph

THREADS = 2
LARGE = 60_000_000  # edges from which on peers that need tens of bytes an edge are left out


# -- graphs ---------------------------------------------------------------------------------------------------


def network(name: str, sparsity: float) -> PlainGraph:
    torch.manual_seed(0)
    model = topognn.get_model(name)
    graph = topognn.encode(model, (3, 32, 32), topognn.prune(model, "erk", sparsity))
    rows = graph.rows("both")
    return from_csr(rows.indptr, rows.indices, directed=False)


def simplified(n: int, edges: NDArray[Any]) -> PlainGraph:
    rows = from_edge_index(torch.from_numpy(np.ascontiguousarray(edges.T, dtype=np.int32)), n).simple
    return from_csr(rows.indptr, rows.indices, directed=False)


def geometric(n: int = 200_000, degree: float = 24) -> PlainGraph:
    """Points in the unit square, joined where they are near."""
    points = np.random.default_rng(0).random((n, 2))
    return simplified(n, cKDTree(points).query_pairs((degree / np.pi / n) ** 0.5, output_type="ndarray"))


def rmat(scale: int = 20, m: int = 10_000_000) -> PlainGraph:
    """Edges thrown into quadrants of probability 0.57, 0.19, 0.19, 0.05, as Graph500 does; then made simple."""
    rng = np.random.default_rng(0)
    ends = np.zeros((2, m), dtype=np.int32)
    for _ in range(scale):
        draw = rng.random(m, dtype=np.float32)
        ends[0] = 2 * ends[0] + (draw >= 0.76)
        ends[1] = 2 * ends[1] + (((draw >= 0.57) & (draw < 0.76)) | (draw >= 0.95))
    return simplified(2**scale, rng.permutation(2**scale).astype(np.int32)[ends].T)


def long_path(n: int = 1_000_000) -> PlainGraph:
    order = np.random.default_rng(0).permutation(n)
    return simplified(n, np.stack([order[:-1], order[1:]], 1))


def uniform(n: int = 1_000_000) -> PlainGraph:
    return simplified(n, np.random.default_rng(0).integers(0, n, (2 * n, 2)))


GRAPHS: dict[str, Callable[[], PlainGraph]] = {
    "conv6 98 % erk": lambda: network("conv6", 0.98),
    "resnet20 95 % erk": lambda: network("resnet20", 0.95),
    "geometric": geometric,
    "R-MAT": rmat,
    "wide_resnet28_2 dense": lambda: network("wide_resnet28_2", 0.0),
    "path of 1e6, shuffled": long_path,
    "random, 1e6 nodes": uniform,
}


# -- libraries: how each is given a graph, and what it is asked -----------------------------------------------


def pairs(rows: Any) -> NDArray[Any]:
    """Every edge once, the lower end first."""
    sources = np.repeat(np.arange(rows.indptr.numel() - 1, dtype=np.int32), np.diff(rows.indptr.numpy()))
    targets = rows.indices.numpy()
    up = sources < targets
    return np.stack([sources[up], targets[up]], 1)


def to_scipy(graph: PlainGraph) -> Any:
    rows = graph.rows("both")
    ones = np.ones(rows.num_entries)
    return sp.csr_array((ones, rows.indices.numpy(), rows.indptr.numpy()), shape=(graph.num_nodes,) * 2)


def to_igraph(graph: PlainGraph) -> Any:
    import igraph

    return igraph.Graph(graph.num_nodes, pairs(graph.rows("both")))


def to_networkit(graph: PlainGraph) -> Any:
    import networkit

    networkit.setNumberOfThreads(THREADS)
    source, target = np.ascontiguousarray(pairs(graph.rows("both")).T.astype(np.uint64))
    return networkit.GraphFromCoo((source, target), n=graph.num_nodes, directed=False)


def to_graph_tool(graph: PlainGraph) -> Any:
    import graph_tool

    graph_tool.openmp_set_num_threads(THREADS)
    made = graph_tool.Graph(directed=False)
    made.add_vertex(graph.num_nodes)
    made.add_edge_list(pairs(graph.rows("both")))
    return made


DOORS: dict[str, Callable[[PlainGraph], Any]] = {
    "topognn": lambda graph: graph,
    "scipy": to_scipy,
    "igraph": to_igraph,
    "networkit": to_networkit,
    "graph_tool": to_graph_tool,
}


def is_installed(library: str) -> bool:
    """Tell whether a library can be imported: graph-tool, a Debian package, may be built for another NumPy."""
    if importlib.util.find_spec(library) is None:
        return False
    try:
        importlib.import_module(library)
    except (ImportError, AttributeError):
        return False
    return True


def graph_tool_run(function: str, **options: Any) -> Callable[[Any], Any]:
    def run(graph: Any) -> Any:
        return getattr(importlib.import_module("graph_tool.topology"), function)(graph, **options)

    return run


def networkit_run(module: str, algorithm: str) -> Callable[[Any], Any]:
    def run(graph: Any) -> Any:
        return getattr(getattr(importlib.import_module("networkit"), module), algorithm)(graph).run()

    return run


def parts_of_networkit(found: Any) -> NDArray[Any]:
    """Label each node by the smallest of its part; making Python lists is not timed."""
    parts = found.getComponents()
    labels = np.empty(sum(map(len, parts)), dtype=np.int64)
    for part in parts:
        labels[part] = min(part)
    return labels


def canonical_labels(labels: Any) -> NDArray[Any]:
    """Label each node by the smallest of equal label."""
    labels = np.asarray(labels)
    first = np.full(labels.max() + 1, labels.size)
    np.minimum.at(first, labels, np.arange(labels.size))
    return first[labels]


class Contestant(NamedTuple):
    """A library's way: what is timed, and how its result is put into the form of ours."""

    library: str
    run: Callable[[Any], Any]
    canonical: Callable[[Any], NDArray[Any]] = np.asarray
    before: Callable[[Any], Any] = lambda given: None  # not timed


def forget(graph: Any) -> None:
    """Make igraph forget that a graph is connected, which it keeps and would answer at no cost."""
    graph.add_edges([(0, 1)])
    graph.delete_edges([graph.ecount() - 1])


OPERATIONS: dict[str, list[Contestant]] = {
    "components": [
        Contestant("topognn", connected_components, lambda found: found.labels.numpy()),
        Contestant(
            "scipy",
            lambda m: csgraph.connected_components(m, directed=False),
            lambda found: canonical_labels(found[1]),
        ),
        Contestant("igraph", lambda g: g.connected_components().membership, canonical_labels, forget),
        Contestant("networkit", networkit_run("components", "ConnectedComponents"), parts_of_networkit),
        Contestant(
            "networkit",
            networkit_run("components", "ParallelConnectedComponents"),
            parts_of_networkit,
        ),
        Contestant(
            "graph_tool", graph_tool_run("label_components", directed=False), lambda found: canonical_labels(found[0].a)
        ),
    ],
    "cores": [
        Contestant("topognn", core_numbers, lambda found: found.numpy()),
        Contestant("igraph", lambda g: g.coreness()),
        Contestant(
            "networkit", networkit_run("centrality", "CoreDecomposition"), lambda found: np.asarray(found.scores())
        ),
        Contestant("graph_tool", graph_tool_run("kcore_decomposition"), lambda found: np.array(found.a)),
    ],
}


# -- timing ---------------------------------------------------------------------------------------------------


def timed(contestant: Contestant, given: Any, repeats: int) -> list[float]:
    seconds = []
    for _ in range(repeats):
        contestant.before(given)
        start = time.perf_counter()
        contestant.run(given)
        seconds.append(time.perf_counter() - start)
    return seconds


def measure(name: str, operations: list[str], repeats: int) -> list[dict[str, Any]]:
    """One record for each operation and contestant on a graph; raises where results differ."""
    graph = GRAPHS[name]()
    libraries = {c.library for operation in operations for c in OPERATIONS[operation]}
    known = [lib for lib in DOORS if lib in libraries and is_installed(lib)]
    if graph.num_edges > LARGE:
        known = [lib for lib in known if lib in ("topognn", "scipy")]
    records: list[dict[str, Any]] = []
    given, conversion = {}, {}
    for library in known:
        start = time.perf_counter()
        given[library] = DOORS[library](graph)
        conversion[library] = time.perf_counter() - start
    for operation in operations:
        reference: NDArray[Any] | None = None
        for contestant in OPERATIONS[operation]:
            if contestant.library not in given:
                continue
            mine = given[contestant.library]
            result = contestant.canonical(contestant.run(mine))  # the warm-up too
            if reference is None:
                reference = result
            elif not np.array_equal(result, reference):
                raise AssertionError(f"{operation} on {name}: {contestant.library} differs from topognn")
            seconds = timed(contestant, mine, repeats)
            records.append(
                {
                    "graph": name,
                    "nodes": graph.num_nodes,
                    "edges": graph.num_edges,
                    "operation": operation,
                    "library": contestant.library,
                    "minimum": min(seconds),
                    "median": statistics.median(seconds),
                    "conversion": conversion[contestant.library],
                }
            )
    return records


def table_of(records: list[dict[str, Any]]) -> Table:
    columns = ("graph and operation", "library", "best ms", "median ms", "to convert ms", "times ours")
    table = Table(*columns, title=f"wall time, {THREADS} threads, the same CSR, equal results")
    for column in table.columns[2:]:
        column.justify = "right"
    for record in records:
        same = [r for r in records if all(r[key] == record[key] for key in ("graph", "operation"))]
        is_ours = record is same[0]
        ratio = "" if is_ours else f"{record['minimum'] / same[0]['minimum']:.1f}"
        title = f"{record['graph']}: {record['operation']}" if is_ours else ""
        numbers = (f"{1e3 * record[key]:.1f}" for key in ("minimum", "median", "conversion"))
        table.add_row(title, record["library"], *numbers, ratio, end_section=record is same[-1])
    return table


def write(path: Path, records: list[dict[str, Any]], more: dict[str, Any] | None = None) -> None:
    """Write results and where they were measured, with ``more`` about that, all or nothing."""
    versions = {lib: str(importlib.import_module(lib).__version__) for lib in DOORS if is_installed(lib)}
    where = {"machine": platform.machine(), "cores": os.cpu_count(), "threads": THREADS, "versions": versions} | (
        more or {}
    )
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"where": where | (more or {}), "records": records}, indent=1))
    os.replace(part, path)


def main() -> list[str]:
    """Measure what the command line asks for; return the graphs that it asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=GRAPHS, default=list(GRAPHS), metavar="GRAPH")
    parser.add_argument("--operations", nargs="+", choices=OPERATIONS, default=list(OPERATIONS), metavar="NAME")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    topognn.set_num_threads(THREADS)
    records: list[dict[str, Any]] = []
    for name in track(options.only, "graphs", console=Console(stderr=True), transient=True):
        records += measure(name, options.operations, options.repeats)
        if options.out:
            write(options.out, records)
    Console().print(table_of(records))
    graphs: list[str] = options.only
    return graphs


if __name__ == "__main__":
    main()
