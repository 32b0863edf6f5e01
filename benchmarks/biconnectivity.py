"""Bridges and articulation points against python-igraph, NetworKit and graph-tool: the same undirected CSR for all.

    python benchmarks/biconnectivity.py [--only GRAPH ...] [--operations NAME ...] [--repeats 7] [--out results.json]

Graphs and rules are those of ``benchmarks/connectivity.py``. igraph has a call for each of the two, which are
timed together; from NetworKit's biconnected components both are read off, which is not timed. Then, in a process of
its own for each graph: the most memory that each analysis took beyond the undirected CSR.
"""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import race
from encode import forget_high_water, high_water, high_water_of
from graphs import GRAPHS, simplified
from libraries import Contestant
from machine import use_threads
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from topognn.metrics.components import connected_components
from topognn.metrics.cores import core_numbers
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


OPERATIONS = {
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

MEMORY: dict[str, Callable[[PlainGraph], Any]] = {
    "components": connected_components,
    "cores": core_numbers,
    "bridges and points": ours().run,
    "the same, serial": ours("serial").run,
}


def peak(name: str) -> dict[str, float]:
    """Run in a process of its own: bytes that each analysis took beyond the rows."""
    use_threads()
    small, graph = simplified(3, np.array([[0, 1]])), GRAPHS[name]()
    assert graph.simple.num_entries == 2 * graph.num_edges
    found: dict[str, float] = {"nodes": graph.num_nodes, "edges": graph.num_edges}
    for operation, run in MEMORY.items():
        run(small)  # kernels loaded
        before = forget_high_water()
        run(graph)
        found[operation] = high_water() - before
    return found


def memory_table(names: list[str]) -> Table:
    columns = ("graph", "nodes", "edges", *MEMORY, "40 B/node + 4 B/edge")
    table = Table(*columns, title="most memory beyond the undirected CSR, MiB (in brackets: bytes a node)")
    for name in names:
        found = high_water_of(__file__, name)
        limit = 40 * found["nodes"] + 4 * found["edges"]
        taken = (f"{found[o] / 2**20:.1f} ({found[o] / found['nodes']:.0f})" for o in MEMORY)
        table.add_row(name, f"{found['nodes']:,}", f"{found['edges']:,}", *taken, f"{limit / 2**20:.1f}")
    return table


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        print(json.dumps(peak(sys.argv[2])))
    else:
        Console(width=140).print(memory_table(race.main(__doc__, OPERATIONS)))
