"""Bridges and articulation points against python-igraph, NetworKit and graph-tool: the same undirected CSR for all.

    python benchmarks/biconnectivity.py [--only GRAPH ...] [--operations NAME ...] [--repeats 7] [--out results.json]

Graphs and rules are those of ``benchmarks/connectivity.py``. igraph has a call for each of the two, which are
timed together; from NetworKit's biconnected components both are read off, which is not timed.
"""

from __future__ import annotations

import itertools
from typing import Any, Literal

import connectivity
import numpy as np
from connectivity import Contestant
from numpy.typing import NDArray

from topognn.metrics.cuts import Biconnectivity, biconnectivity
from topognn.plain_graph import PlainGraph


def ours(algorithm: Literal["serial", "parallel"] | None = None, labels: bool = False) -> Contestant:
    def run(graph: PlainGraph) -> Biconnectivity:
        found = biconnectivity(graph, algorithm)
        assert found.bridges is not None  # made when asked for
        assert not labels or found.labels is not None
        return found

    return Contestant("topognn", run, lambda found: canonical(found.bridges.numpy(), np.flatnonzero(found.is_cut_node)))


def ask_igraph(graph: Any) -> Any:
    return graph, graph.bridges(), graph.articulation_points()


def ask_networkit(graph: Any) -> Any:
    import networkit

    made = networkit.components.BiconnectedComponents(graph)
    made.run()
    return made


def read_networkit(made: Any) -> NDArray[Any]:
    """A bridge is a component of two nodes; an articulation point is in more than one component."""
    parts = made.getComponents()
    counts = np.bincount(list(itertools.chain.from_iterable(parts)))
    return canonical([part for part in parts if len(part) == 2], np.flatnonzero(counts > 1))


def ask_graph_tool(graph: Any) -> Any:
    import graph_tool.topology

    return graph, graph_tool.topology.label_biconnected_components(graph)


def read_graph_tool(found: Any) -> NDArray[Any]:
    """A bridge is a component of one edge."""
    graph, (component, is_point, sizes) = found
    ends = graph.get_edges()
    alone = np.asarray(sizes)[component.a[: len(ends)]] == 1
    return canonical(ends[alone], np.flatnonzero(is_point.a))


def canonical(bridges: Any, points: Any) -> NDArray[Any]:
    """All bridges in ascending order, the lower end first, and after them all points in ascending order."""
    ends = np.sort(np.array(bridges, dtype=np.int64).reshape(-1, 2), 1)
    ends = ends[np.lexsort((ends[:, 1], ends[:, 0]))]
    return np.concatenate([ends.ravel(), np.sort(np.asarray(points, dtype=np.int64))])


connectivity.OPERATIONS = {
    "bridges and points": [
        ours(),
        Contestant(
            "igraph",
            ask_igraph,
            lambda found: canonical([found[0].es[e].tuple for e in found[1]], found[2]),
        ),
        Contestant("networkit", ask_networkit, read_networkit),
        Contestant("graph_tool", ask_graph_tool, read_graph_tool),
    ],
    "the same, serial": [ours("serial")],
    "the same, parallel": [ours("parallel")],
    "and labels of edges": [ours(labels=True)],
}

if __name__ == "__main__":
    connectivity.main()
