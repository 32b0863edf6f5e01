"""Two-hop neighbourhoods against python-igraph and a SciPy sparse product: the same directed graph for all.

    python benchmarks/neighbors.py [--repeats 7] [--out results.json]

One process, two threads. All nodes' sizes must be equal before anything is timed; igraph's and SciPy's own graphs are
made beforehand, and so is our CSR; the first run of each is warm-up.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch
from libraries import Contestant
from machine import use_threads, write
from race import table_of, timed
from rich.console import Console

import topognn
from topognn.metrics.neighbors import get_two_hop_sizes

GRAPHS = {
    "conv6 98 % erk": ("conv6", 0.98),
    "resnet20 95 % erk": ("resnet20", 0.95),
    "resnet20 60 % erk": ("resnet20", 0.6),
}


def encode(model_name: str, sparsity: float) -> topognn.MultipartiteGraph:
    torch.manual_seed(0)
    model = topognn.get_model(model_name)
    graph = topognn.encode(model, (3, 32, 32), topognn.prune(model, "erk", sparsity))
    graph.rows("out")
    return graph


def to_boolean(graph: topognn.MultipartiteGraph) -> Any:
    rows = graph.rows("out")
    parts = (np.ones(rows.num_entries, np.float32), rows.indices.numpy(), rows.indptr.numpy())
    return scipy.sparse.csr_array(parts, shape=(graph.num_nodes, graph.num_nodes))


def by_product(steps: Any) -> Any:
    return np.diff((scipy.sparse.eye_array(steps.shape[0], format="csr") + steps + steps @ steps).indptr)


CONTESTANTS = {
    "topognn": (lambda graph: graph, Contestant("topognn", get_two_hop_sizes, lambda sizes: sizes.numpy())),
    "igraph": (topognn.to_igraph, Contestant("igraph", lambda g: g.neighborhood_size(order=2, mode="out"))),
    "scipy": (to_boolean, Contestant("scipy", by_product)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    use_threads()
    records: list[dict[str, Any]] = []
    for name, arguments in GRAPHS.items():
        graph = encode(*arguments)
        reference = None
        for library, (door, contestant) in CONTESTANTS.items():
            given = door(graph)
            result = contestant.canonical(contestant.run(given))
            reference = result if reference is None else reference
            assert np.array_equal(result, reference), f"{library} differs on {name}"
            seconds = timed(contestant, given, options.repeats)
            sizes = {"nodes": graph.num_nodes, "edges": graph.num_edges, "conversion": 0.0}
            times = {"minimum": min(seconds), "median": float(np.median(seconds))}
            records.append({"graph": name, "operation": "two hops", "library": library, **sizes, **times})
    Console().print(table_of(records))
    if options.out:
        write(options.out, records)


if __name__ == "__main__":
    main()
