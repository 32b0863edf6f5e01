"""Bridges, articulation points and biconnected components against igraph, networkx and golden values."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Literal

import igraph
import networkx as nx
import numba
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses import FakeTensorMode

import topognn
from tests.plain_graphs import NAMED, Edges, array, path, random_graphs, shuffled
from tests.test_golden import load
from tests.test_simulator import simulated
from topognn.encoding.rows import Rows
from topognn.kernels import host, launch
from topognn.metrics.cuts import Biconnectivity, biconnectivity, cut_edges, cut_nodes
from topognn.plain import from_edge_index
from topognn.plain_graph import PlainGraph

ALGORITHMS: tuple[Literal["serial"], Literal["parallel"]] = ("serial", "parallel")


def graph_of(n: int, edges: Edges, dtype: torch.dtype = torch.int32) -> PlainGraph:
    return from_edge_index(torch.from_numpy(edges.T.copy()).to(dtype), n)


def parts_of(graph: PlainGraph, found: Biconnectivity) -> list[list[tuple[int, int]]]:
    """The edges of each label, in the labels' order; labels must count up from 0 by first entries."""
    rows = graph.rows("both")
    ends = torch.repeat_interleave(torch.arange(graph.num_nodes), rows.indptr.diff()).tolist()
    parts: dict[int, set[tuple[int, int]]] = defaultdict(set)
    for u, v, label in zip(ends, rows.indices.tolist(), found.labels.tolist(), strict=True):
        assert u != v
        assert label <= len(parts)
        parts[label].add((min(u, v), max(u, v)))
    assert list(parts) == list(range(len(parts)))
    return [sorted(part) for part in parts.values()]


def check(n: int, edges: Edges, dtype: torch.dtype = torch.int32) -> None:
    graph = graph_of(n, edges, dtype)
    oracle = igraph.Graph(n, edges.tolist())
    bridges = sorted(tuple(sorted(oracle.es[e].tuple)) for e in oracle.bridges())
    points = set(oracle.articulation_points())
    simple = nx.Graph([e for e in edges.tolist() if e[0] != e[1]])
    parts = {tuple(sorted((min(e), max(e)) for e in c)) for c in nx.biconnected_component_edges(simple)}
    for algorithm in ALGORITHMS:
        found = biconnectivity(graph, algorithm)
        assert found.labels.dtype == dtype
        assert found.bridges.shape == (len(bridges), 2)
        assert list(map(tuple, found.bridges.tolist())) == bridges
        assert int(found.num_bridges) == len(bridges)
        assert found.is_cut_node.tolist() == [v in points for v in range(n)]
        mine = parts_of(graph, found)
        assert len(mine) == len(parts)
        assert set(map(tuple, mine)) == parts


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_named(name: str, dtype: torch.dtype) -> None:
    check(*NAMED[name], dtype)


@pytest.mark.parametrize("seed", range(4))
def test_random_graphs(seed: int) -> None:
    for n, edges in random_graphs(300, seed):
        check(n, edges)


@given(st.integers(1, 9), st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=24))
@settings(max_examples=150, deadline=None)
def test_any_small_multigraph(n: int, pairs: list[tuple[int, int]]) -> None:
    check(n, array(pairs) % n)


def test_larger_random_graphs_equal_igraph() -> None:
    rng = np.random.default_rng(5)
    for number in range(24):
        n = int(rng.integers(1_000, 20_000))
        edges = rng.integers(0, n, (int(n * rng.uniform(0.3, 2.5)), 2))
        if number % 3 == 0:
            edges = np.concatenate([path(n), edges[: n // 100]])
        n, edges = shuffled(rng, n, edges)
        graph, oracle = graph_of(n, edges), igraph.Graph(n, edges)
        ends = np.sort(np.array([oracle.es[e].tuple for e in oracle.bridges()]).reshape(-1, 2), 1)
        points = torch.zeros(n, dtype=torch.bool)
        points[oracle.articulation_points()] = True
        count = len(oracle.biconnected_components())
        for algorithm in ALGORITHMS:
            found = biconnectivity(graph, algorithm)
            assert np.array_equal(found.bridges.numpy(), ends[np.lexsort((ends[:, 1], ends[:, 0]))])
            assert torch.equal(found.is_cut_node, points)
            assert int(found.labels.max()) + 1 == count


@pytest.mark.parametrize("ids", ["ascending", "shuffled"])
def test_long_paths(ids: str) -> None:
    n, edges = 100_000, path(100_000)
    if ids == "shuffled":
        n, edges = shuffled(np.random.default_rng(0), n, edges)
    ring = np.concatenate([edges, edges[:1, ::-1]]) if ids == "ascending" else edges
    graph = graph_of(n, ring)
    for algorithm in ALGORITHMS:
        found = biconnectivity(graph, algorithm)
        assert int(found.num_bridges) == n - 1 - (ids == "ascending")  # one edge is doubled there
        assert int(found.is_cut_node.sum()) == n - 2
        assert int(found.labels.max()) == n - 2


@pytest.mark.parametrize("name", ["conv6_98", "resnet20_95"])
def test_golden(shared: Path, name: str) -> None:
    model, masks, golden = load(shared, name)
    graph = topognn.encode(model, (3, 32, 32), masks)
    want = golden["values"]
    assert (int(cut_edges(graph)), int(cut_nodes(graph))) == (want["cut_edges"], want["cut_nodes"])
    both = [biconnectivity(graph, algorithm) for algorithm in ALGORITHMS]
    for found in both:
        assert (int(found.num_bridges), int(found.is_cut_node.sum())) == (want["cut_edges"], want["cut_nodes"])
        assert torch.equal(found.labels, both[0].labels)
        assert torch.equal(found.bridges, both[0].bridges)


def test_golden_with_input_padding_nodes(shared: Path) -> None:
    model, masks, golden = load(shared, "conv6_98")
    graph = topognn.encode(model, (3, 32, 32), masks, input_padding_nodes=True)
    want = golden["reference"]["with_input_padding_nodes"]
    assert (int(cut_edges(graph)), int(cut_nodes(graph))) == (want["cut_edges"], want["cut_nodes"])


def test_results_do_not_depend_on_threads_or_repetition() -> None:
    rng = np.random.default_rng(1)
    n = 20_000
    graph = graph_of(n, np.concatenate([rng.integers(0, n, (25_000, 2)), path(n)[:5_000]]))
    want = biconnectivity(graph, "serial")
    before = launch.get_num_threads()
    try:
        for threads in (1, 2, 4):
            launch.set_num_threads(threads)
            for _ in range(20):
                found = biconnectivity(graph, "parallel")
                assert torch.equal(found.is_cut_node, want.is_cut_node)
                assert torch.equal(found.bridges, want.bridges)
                assert torch.equal(found.labels, want.labels)
    finally:
        launch.set_num_threads(before)


def test_cuda_needs_a_sync_for_the_list_of_bridges_only() -> None:
    launch.recorded.clear()
    with FakeTensorMode():
        empty = {"device": "cuda"}
        indptr = torch.empty(101, dtype=torch.int64, **empty)
        rows = Rows(indptr, torch.empty(700, dtype=torch.int32, **empty), torch.empty(0, **empty))
        found = biconnectivity(PlainGraph(rows, False, 0))
        assert found.labels.device.type == found.is_cut_node.device.type == "cuda"
        assert found.num_bridges.shape == ()
        with host.answering([7]):
            assert found.bridges.shape == (7, 2)
    kernels = [entry.kernel for entry in launch.recorded]
    assert "search_depth_first" not in kernels
    assert len(kernels) < 20 + 2 * 7  # the logarithm of 100 nodes, twice


@pytest.mark.skipif(not numba.config.ENABLE_CUDASIM, reason="needs NUMBA_ENABLE_CUDASIM=1")
@pytest.mark.parametrize("seed", range(8))
def test_simulator_equals_cpu(seed: int) -> None:
    seen: set[str] = set()
    for n, edges in random_graphs(30, seed):
        graph = graph_of(n, edges)
        want = biconnectivity(graph, "serial")
        for algorithm in ALGORITHMS if n < 10 else ALGORITHMS[1:]:
            with simulated(1 << seed % 3, seen):
                found = biconnectivity(graph, algorithm)
                assert torch.equal(found.labels, want.labels)
            assert torch.equal(found.is_cut_node, want.is_cut_node)
            assert torch.equal(found.bridges, want.bridges)
    assert {"hook_tree", "rank_arcs", "join_above", "mark_bridges", "label_entries", "search_depth_first"} <= seen
