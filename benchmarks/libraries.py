"""Other graph libraries: how each is given an undirected CSR, and what it is asked."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
from machine import THREADS
from numpy.typing import NDArray

from topognn.plain_graph import PlainGraph


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
