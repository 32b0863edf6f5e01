"""Exact motif counts against enumeration, igraph, networkx and golden values."""

from __future__ import annotations

import itertools
from pathlib import Path

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
from tests.plain_graphs import NAMED, Edges, array, clique, path, random_graphs, shuffled, star
from tests.test_golden import load
from tests.test_simulator import simulated
from topognn.encoding.rows import Rows
from topognn.kernels import launch
from topognn.metrics import motifs as module
from topognn.metrics.motifs import Motifs, motifs, motifs4
from topognn.plain import from_edge_index
from topognn.plain_graph import PlainGraph

TYPES = ("path", "claw", "cycle", "paw", "diamond", "clique")
DEGREES = {
    (1, 1, 2, 2): "path",
    (1, 1, 1, 3): "claw",
    (2, 2, 2, 2): "cycle",
    (1, 2, 2, 3): "paw",
    (2, 2, 3, 3): "diamond",
    (3, 3, 3, 3): "clique",
}


def graph_of(n: int, edges: Edges, dtype: torch.dtype = torch.int32) -> PlainGraph:
    return from_edge_index(torch.from_numpy(edges.T.copy()).to(dtype), n)


def naive_motifs(n: int, edges: Edges) -> dict[str, int]:
    """Look at every four nodes; their degrees among themselves tell the type."""
    joined = np.zeros((n, n), np.int64)
    joined[edges[:, 0], edges[:, 1]] = joined[edges[:, 1], edges[:, 0]] = 1
    np.fill_diagonal(joined, 0)
    fours = np.array(list(itertools.combinations(range(n), 4)), np.int64).reshape(-1, 4)
    degrees = np.sort(joined[fours[:, :, None], fours[:, None, :]].sum(2), 1)
    return {name: int((degrees == want).all(1).sum()) for want, name in DEGREES.items()}


def naive_cycles(n: int, edges: Edges) -> list[int]:
    """Cycles of four through each node: pairs of nodes with two common neighbours, found from the walks."""
    joined = np.zeros((n, n), np.int64)
    joined[edges[:, 0], edges[:, 1]] = joined[edges[:, 1], edges[:, 0]] = 1
    np.fill_diagonal(joined, 0)
    walks = joined @ joined
    np.fill_diagonal(walks, 0)
    return (walks * (walks - 1) // 2).sum(1).tolist() if n else []


def check_identities(found: Motifs) -> None:
    assert int(found.total) == sum(int(getattr(found, name)) for name in TYPES)
    if found.triangles_at is not None and found.cycles_at is not None:
        rings = int(found.cycle) + int(found.diamond) + 3 * int(found.clique)
        assert int(found.triangles_at.sum()) == 3 * int(found.triangles)
        assert int(found.cycles_at.sum()) == 4 * rings


def check_per_node(n: int, edges: Edges, found: Motifs) -> None:
    simple = nx.Graph([e for e in edges.tolist() if e[0] != e[1]])
    simple.add_nodes_from(range(n))
    triangles = nx.triangles(simple)
    assert found.triangles_at is not None
    assert found.cycles_at is not None
    assert found.triangles_at.tolist() == [triangles[v] for v in range(n)]
    assert found.cycles_at.tolist() == naive_cycles(n, edges)
    assert int(found.triangles) == sum(triangles.values()) // 3


def check(n: int, edges: Edges, dtype: torch.dtype = torch.int32) -> None:
    graph = graph_of(n, edges, dtype)
    found = motifs4(graph, per_node=True)
    alone = motifs4(graph)
    want = naive_motifs(n, edges)
    assert {name: int(getattr(found, name)) for name in TYPES} == want
    assert {name: int(getattr(alone, name)) for name in TYPES} == want
    assert alone.triangles_at is alone.cycles_at is None
    check_identities(found)
    check_per_node(n, edges, found)


def small_graphs(count: int, seed: int) -> list[tuple[int, Edges]]:
    """Random graphs, and from those too large to enumerate what their first nodes induce."""
    made = []
    for n, edges in random_graphs(count, seed):
        size = min(n, 13)
        made.append((size, edges[(edges < size).all(1)]) if seed % 2 else (size, edges % size if n else edges))
    return made


@pytest.mark.parametrize("name", NAMED)
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_named(name: str, dtype: torch.dtype) -> None:
    n, edges = NAMED[name]
    check(n, edges, dtype)


@pytest.mark.parametrize("seed", range(4))
def test_random_graphs_equal_enumeration(seed: int) -> None:
    for n, edges in small_graphs(250, seed):
        check(n, edges)


@given(st.integers(1, 8), st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=30))
@settings(max_examples=150, deadline=None)
def test_any_small_multigraph(n: int, pairs: list[tuple[int, int]]) -> None:
    check(n, array(pairs) % n)


def test_random_graphs_equal_igraph() -> None:
    """igraph counts classes of four nodes in the order of its isomorphism classes, connected ones among them."""
    named = {"claw": 4, "path": 6, "paw": 7, "cycle": 8, "diamond": 9, "clique": 10}
    for n, edges in random_graphs(400, 7):
        oracle = igraph.Graph(n, edges.tolist()).simplify()
        counts = oracle.motifs_randesu(size=4) if n else [0] * 11
        found = motifs4(graph_of(n, edges), per_node=True)
        assert {k: int(getattr(found, k)) for k in TYPES} == {k: int(counts[named[k]]) for k in TYPES}
        check_identities(found)
        check_per_node(n, edges, found)


@pytest.mark.parametrize("size", [4, 5, 30])
def test_cliques_have_closed_forms(size: int) -> None:
    found = motifs4(graph_of(size, clique(size)))
    fours = size * (size - 1) * (size - 2) * (size - 3) // 24
    assert int(found.total) == int(found.clique) == fours


def test_long_path_star_and_complete_bipartite() -> None:
    n = 100_000
    assert int(motifs(graph_of(*shuffled(np.random.default_rng(0), n, path(n))))) == n - 3
    hub = motifs4(graph_of(n, star(n)), per_node=True)
    leaves = n - 1
    assert int(hub.total) == int(hub.claw) == leaves * (leaves - 1) * (leaves - 2) // 6  # beyond 2**47
    found = motifs4(graph_of(700, array([(u, v) for u in range(300) for v in range(300, 700)])), per_node=True)
    assert int(found.cycle) == 300 * 299 // 2 * 400 * 399 // 2
    assert found.cycles_at is not None
    assert found.cycles_at.tolist() == [299 * 400 * 399 // 2] * 300 + [399 * 300 * 299 // 2] * 400
    assert int(found.claw) == 300 * (400 * 399 * 398 // 6) + 400 * (300 * 299 * 298 // 6)
    assert int(found.path + found.paw + found.diamond + found.clique) == 0


@pytest.mark.parametrize("limit", [130, 200, 1000])
def test_counters_are_cleared_when_they_near_their_limit(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LIMIT", limit)
    for n, edges in random_graphs(30, 3):
        found = motifs4(graph_of(n, edges), per_node=True)
        monkeypatch.setattr(module, "_LIMIT", 2**31 - 1)
        want = motifs4(graph_of(n, edges), per_node=True)
        monkeypatch.setattr(module, "_LIMIT", limit)
        assert all(torch.equal(a, b) for a, b in zip(vars(found).values(), vars(want).values(), strict=True))


def test_golden_resnet20(shared: Path) -> None:
    model, masks, golden = load(shared, "resnet20_95")
    found = motifs4(topognn.encode(model, (3, 32, 32), masks), per_node=True)
    assert golden["motifs"]["total"] == 9_720_531_743
    assert {name: int(getattr(found, name)) for name in golden["motifs"]} == golden["motifs"]
    check_identities(found)


def test_golden_conv6_with_input_padding_nodes(shared: Path) -> None:
    model, masks, _ = load(shared, "conv6_98")
    found = motifs4(topognn.encode(model, (3, 32, 32), masks, input_padding_nodes=True))
    assert int(found.total) == 30_871_183_472
    assert int(found.triangles) == 0


def test_results_do_not_depend_on_threads_or_repetition() -> None:
    rng = np.random.default_rng(1)
    n = 3_000
    edges = (n * rng.random((30_000, 2)) ** 2).astype(np.int64)
    graph = graph_of(n, edges)
    before = launch.get_num_threads()
    try:
        launch.set_num_threads(1)
        want = motifs4(graph, per_node=True)
        for threads in (1, 2, 4):
            launch.set_num_threads(threads)
            for _ in range(20):
                found = motifs4(graph, per_node=True)
                pairs = zip(vars(found).values(), vars(want).values(), strict=True)
                assert all(torch.equal(a, b) for a, b in pairs)
    finally:
        launch.set_num_threads(before)


@pytest.mark.parametrize("per_node", [False, True])
def test_cuda_needs_no_sync(per_node: bool) -> None:
    launch.recorded.clear()
    with FakeTensorMode():
        empty = {"device": "cuda"}
        indptr = torch.empty(101, dtype=torch.int64, **empty)
        rows = Rows(indptr, torch.empty(4000, dtype=torch.int32, **empty), torch.empty(0, **empty))
        found = motifs4(PlainGraph(rows, False, 0), per_node)
        assert {t.device.type for t in vars(found).values() if t is not None} == {"cuda"}
        assert {t.dtype for t in vars(found).values() if t is not None} == {torch.int64}
    assert [(entry.kernel, entry.width) for entry in launch.recorded] == [
        *(("count_neighbors", 1), ("rank_row", 1), ("count_wedges", 32), ("sum_shared", 32))
    ]


@pytest.mark.skipif(not numba.config.ENABLE_CUDASIM, reason="needs NUMBA_ENABLE_CUDASIM=1")
@pytest.mark.parametrize("seed", range(8))
def test_simulator_equals_cpu(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "get_num_threads", lambda: 1)
    monkeypatch.setattr(module, "_BLOCK", {"cpu": 1})
    seen: set[str] = set()
    for n, edges in small_graphs(25, seed):
        graph = graph_of(n, edges)
        want = motifs4(graph, per_node=True)
        with simulated(1 << seed % 3, seen):
            found = motifs4(graph, per_node=True)
        assert all(torch.equal(a, b) for a, b in zip(vars(found).values(), vars(want).values(), strict=True))
    assert {"count_neighbors", "rank_row", "count_wedges", "sum_shared"} <= seen
