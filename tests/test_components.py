"""Connected components against a naive union-find, igraph and golden values."""

from __future__ import annotations

from pathlib import Path

import igraph
import networkx as nx
import numpy as np
import pytest
import torch
from torch._subclasses import FakeTensorMode

import topognn
from tests.plain_graphs import NAMED, Edges, cycle, grid, path, random_graphs, shuffled, star
from tests.test_golden import load
from topognn.kernels.host import answering
from topognn.metrics.components import (
    components,
    connected_components,
    find_outside_giant,
    largest_component,
    mean_component,
)
from topognn.plain import from_edge_index
from topognn.plain_graph import PlainGraph


def graph_of(n: int, edges: Edges, dtype: torch.dtype = torch.int32) -> PlainGraph:
    return from_edge_index(torch.from_numpy(edges.T.copy()).to(dtype), n)


def naive_labels(n: int, edges: Edges) -> list[int]:
    """Each node's smallest companion, by pulling labels down until nothing moves."""
    labels = list(range(n))
    moved = True
    while moved:
        moved = False
        for u, v in edges.tolist():
            low = min(labels[u], labels[v])
            moved |= labels[u] != low or labels[v] != low
            labels[u] = labels[v] = low
    return labels


def check(n: int, edges: Edges, labels: list[int], dtype: torch.dtype = torch.int32) -> None:
    graph = graph_of(n, edges, dtype)
    found = connected_components(graph)
    assert found.labels.dtype == dtype
    assert found.labels.tolist() == labels
    sizes = np.bincount(labels, minlength=n) if n else np.zeros(0, np.int64)
    assert found.sizes.tolist() == sizes.tolist()
    assert int(found.count) == int(components(graph)) == len(set(labels))
    assert int(largest_component(graph)) == max(sizes, default=0)
    assert float(mean_component(graph)) == pytest.approx(n / len(set(labels)) if n else float("nan"), nan_ok=True)
    giant = int(sizes.argmax()) if n else -1
    assert find_outside_giant(graph).tolist() == [label != giant for label in labels]


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_named(name: str, dtype: torch.dtype) -> None:
    n, edges = NAMED[name]
    check(n, edges, naive_labels(n, edges), dtype)


def test_random_graphs_equal_naive() -> None:
    for n, edges in random_graphs(1500, 11):
        check(n, edges, naive_labels(n, edges))


def test_random_graphs_equal_igraph_and_networkx() -> None:
    rng = np.random.default_rng(12)
    for number in range(60):
        n = int(rng.integers(100, 3000))
        edges = rng.integers(0, n, (int(n * rng.uniform(0.1, 2)), 2))
        members = np.array(igraph.Graph(n, edges).connected_components().membership)
        first = np.full(n, n)
        np.minimum.at(first, members, np.arange(n))
        check(n, edges, first[members].tolist(), (torch.int32, torch.int64)[number % 2])
        other = nx.Graph(edges.tolist())
        other.add_nodes_from(range(n))
        assert int(components(graph_of(n, edges))) == nx.number_connected_components(other)


@pytest.mark.parametrize("shape", ["path", "path, shuffled", "cycle", "star", "ladder", "two paths", "comb"])
def test_long(shape: str) -> None:
    n = 100_000
    edges = {
        "path": path(n),
        "path, shuffled": shuffled(np.random.default_rng(1), n, path(n))[1],
        "cycle": cycle(n),
        "star": star(n),
        "ladder": grid(2, n // 2),
        "two paths": np.stack([np.arange(n - 2), np.arange(2, n)], 1),
        "comb": shuffled(np.random.default_rng(2), n, np.concatenate([path(n // 2), path(n)[::2]]))[1],
    }[shape]
    members = np.array(igraph.Graph(n, edges).connected_components().membership)
    first = np.full(n, n)
    np.minimum.at(first, members, np.arange(n))
    assert connected_components(graph_of(n, edges)).labels.tolist() == first[members].tolist()


def test_same_for_any_number_of_threads() -> None:
    rng = np.random.default_rng(3)
    n = 60_000
    graphs = [graph_of(n, rng.integers(0, n, (m, 2))) for m in (n // 3, n // 2, 3 * n)] + [
        graph_of(*shuffled(rng, n, path(n)))
    ]
    try:
        for graph in graphs:
            topognn.set_num_threads(1)
            want = connected_components(graph).labels
            for threads in (1, 2, 4):
                topognn.set_num_threads(threads)
                for _ in range(20):
                    assert torch.equal(connected_components(graph).labels, want)
    finally:
        topognn.set_num_threads(2)


@pytest.mark.parametrize("name", ["conv6_98", "resnet20_95"])
def test_golden(shared: Path, name: str) -> None:
    model, masks, golden = load(shared, name)
    graph, want = topognn.encode(model, (3, 32, 32), masks), golden["values"]
    assert int(components(graph)) == want["components"]
    assert float(mean_component(graph)) == want["mean_component"]
    assert int(largest_component(graph)) == want["largest_component"]
    assert int(find_outside_giant(graph).sum()) == want["nodes"] - want["largest_component"]


def test_fake_cuda_makes_no_sync() -> None:
    with FakeTensorMode(), torch.device("cuda"):
        with answering([0, 99], [100, 100, 0, 0, 0, 0, 0, 40]):
            graph = from_edge_index(torch.zeros(2, 40, dtype=torch.int64))
        with answering():
            for value in (components(graph), mean_component(graph), largest_component(graph)):
                assert value.shape == ()
                assert value.device.type == "cuda"
            assert find_outside_giant(graph).shape == (100,)
