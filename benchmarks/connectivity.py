"""Connectivity against SciPy, python-igraph, NetworKit and graph-tool: the same undirected CSR in memory for all.

    python benchmarks/connectivity.py [--only GRAPH ...] [--operations NAME ...] [--repeats 7] [--out results.json]

One process, two threads. Every result is compared with ours before anything is timed; making a library's own graph
is timed apart; the first run of each is warm-up. Peers that are not installed are left out.
"""

from __future__ import annotations

import numpy as np
import race
from libraries import Contestant, canonical_labels, forget, graph_tool_run, networkit_run, parts_of_networkit
from scipy.sparse import csgraph

from topognn.metrics.components import connected_components
from topognn.metrics.cores import core_numbers

OPERATIONS = {
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

if __name__ == "__main__":
    race.main(__doc__, OPERATIONS)
