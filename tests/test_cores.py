"""Core numbers against naive peeling, igraph, networkx, closed forms and golden values."""

from __future__ import annotations

from pathlib import Path

import igraph
import networkx as nx
import numpy as np
import pytest
import torch
from torch._subclasses import FakeTensorMode

import topognn
from tests.plain_graphs import NAMED, Edges, clique, cycle, grid, path, random_graphs, shuffled, star
from tests.test_components import graph_of
from tests.test_golden import load
from topognn.kernels import launch
from topognn.kernels.host import answering, count_syncs
from topognn.metrics import cores
from topognn.metrics.cores import core_numbers, k_core
from topognn.plain import from_edge_index


@pytest.fixture(params=["alone", "rounds"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every test with the serial kernel and with that of a GPU."""
    if request.param == "rounds":
        monkeypatch.setattr(cores, "_peel_alone", cores._peel_in_rounds)


def naive_cores(n: int, edges: Edges) -> list[int]:
    """Take away a node of least degree, over and over; the highest such degree so far is its core number."""
    near: list[set[int]] = [set() for _ in range(n)]
    for u, v in edges.tolist():
        if u != v:
            near[u].add(v)
            near[v].add(u)
    cores, left, level = [0] * n, set(range(n)), 0
    while left:
        v = min(left, key=lambda node: len(near[node]))
        level = max(level, len(near[v]))
        cores[v] = level
        left.remove(v)
        for u in near[v]:
            near[u].remove(v)
    return cores


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_named(name: str, dtype: torch.dtype) -> None:
    n, edges = NAMED[name]
    found = core_numbers(graph_of(n, edges, dtype))
    assert found.dtype == torch.int32
    assert found.tolist() == naive_cores(n, edges)


def test_closed_forms() -> None:
    for n in (3, 10, 65):
        assert set(core_numbers(graph_of(n, clique(n))).tolist()) == {n - 1}
        assert set(core_numbers(graph_of(n, cycle(n))).tolist()) == {2}
        assert set(core_numbers(graph_of(n, star(n))).tolist()) == {1}
    complete = np.array([(u, 30 + v) for u in range(30) for v in range(70)])
    assert set(core_numbers(graph_of(100, complete)).tolist()) == {30}
    assert float(k_core(graph_of(12, grid(3, 4)))) == 2


def test_random_graphs_equal_naive() -> None:
    for n, edges in random_graphs(1500, 21):
        assert core_numbers(graph_of(n, edges)).tolist() == naive_cores(n, edges)


def test_random_graphs_equal_igraph_and_networkx() -> None:
    rng = np.random.default_rng(22)
    for number in range(60):
        n = int(rng.integers(100, 2000))
        edges = (n * rng.random((int(n * rng.uniform(0.5, 12)), 2)) ** rng.uniform(1, 4)).astype(np.int64)
        found = core_numbers(graph_of(n, edges, (torch.int32, torch.int64)[number % 2])).tolist()
        assert found == igraph.Graph(n, edges).simplify().coreness()
        if number % 4 == 0:
            other = nx.Graph(edges[edges[:, 0] != edges[:, 1]].tolist())
            other.add_nodes_from(range(n))
            assert dict(enumerate(found)) == nx.core_number(other)


@pytest.mark.parametrize("shape", ["path", "path, shuffled", "star", "ladder", "comb"])
def test_long_chains_take_few_rounds(shape: str) -> None:
    n = 100_000
    edges = {
        "path": path(n),
        "path, shuffled": shuffled(np.random.default_rng(1), n, path(n))[1],
        "star": star(n),
        "ladder": grid(2, n // 2),
        "comb": shuffled(np.random.default_rng(2), n, np.concatenate([path(n // 2), path(n)[::2]]))[1],
    }[shape]
    graph = graph_of(n, edges)
    _ = graph.simple
    before = count_syncs()
    assert core_numbers(graph).tolist() == igraph.Graph(n, edges).simplify().coreness()
    assert count_syncs() - before <= 6


def test_empty_levels_are_skipped() -> None:
    n = 400
    graph = graph_of(n + 10, np.concatenate([clique(n), path(11) + n - 1]))
    _ = graph.simple
    before = count_syncs()
    assert core_numbers(graph).tolist() == [n - 1] * n + [1] * 10
    assert count_syncs() - before <= 4


def test_same_for_any_number_of_threads() -> None:
    rng = np.random.default_rng(3)
    n = 20_000
    graphs = [
        graph_of(n, rng.integers(0, n, (6 * n, 2))),
        graph_of(n, (n * rng.random((12 * n, 2)) ** 3).astype(np.int64)),
        graph_of(*shuffled(rng, n, path(n))),
        graph_of(*shuffled(rng, n, grid(100, n // 100))),
    ]
    try:
        for graph in graphs:
            topognn.set_num_threads(1)
            want = core_numbers(graph)
            for threads in (1, 2, 4):
                topognn.set_num_threads(threads)
                for _ in range(20):
                    assert torch.equal(core_numbers(graph), want)
    finally:
        topognn.set_num_threads(2)


@pytest.mark.parametrize("name", ["conv6_98", "resnet20_95"])
def test_golden(shared: Path, name: str) -> None:
    model, masks, golden = load(shared, name)
    graph = topognn.encode(model, (3, 32, 32), masks)
    assert float(k_core(graph)) == pytest.approx(golden["values"]["k_core"], rel=1e-12)


def test_fake_cuda_makes_one_sync_every_32_rounds() -> None:
    with FakeTensorMode(), torch.device("cuda"):
        with answering([0, 99], [100, 100, 0, 0, 0, 0, 0, 400]):
            graph = from_edge_index(torch.zeros(2, 400, dtype=torch.int64))
        with answering([700], [10], [10], [100]):
            launch.recorded.clear()
            found = core_numbers(graph)
            assert [entry.kernel for entry in launch.recorded].count("peel") == 3 * 32
        with answering([100]):
            assert k_core(graph).dtype == torch.float64
        assert found.device.type == "cuda"
