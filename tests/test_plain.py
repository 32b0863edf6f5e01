"""Graphs that are not networks: what goes in comes out, and mistakes are named."""

from __future__ import annotations

from collections import Counter

import networkx as nx
import numpy as np
import pytest
import scipy.sparse
import torch
from torch._subclasses import FakeTensorMode

import topognn
from tests.plain_graphs import random_graphs
from topognn.errors import DeviceError, GraphError
from topognn.kernels.host import answering, count_syncs
from topognn.metrics.neighbors import one_hop
from topognn.plain import from_csr, from_edge_index, from_networkx, from_scipy
from topognn.plain_graph import PlainGraph, get_simple_rows

Entries = list[tuple[int, int, float]]


def entries(rows: topognn.encoding.rows.Rows) -> Entries:
    ends = np.repeat(np.arange(rows.indptr.numel() - 1), rows.indptr.diff().numpy()).tolist()
    weights = rows.weights.tolist() or [1.0] * rows.num_entries
    return list(zip(ends, rows.indices.tolist(), weights, strict=True))


def check(graph: PlainGraph, edges: Entries) -> None:
    """Every kind of rows against the list of edges (each once, in its direction)."""
    both = [e for u, v, w in edges if u != v for e in ((u, v, w), (v, u, w))]
    loops = [e for e in edges if e[0] == e[1]]
    back = [(v, u, w) for u, v, w in edges]
    want = {"out": edges, "in": back, "both": both}
    if not graph.is_directed:
        want["out"] = want["in"] = both + loops
    for direction, expected in want.items():
        got = entries(graph.rows(direction, weighted=True))  # type: ignore[arg-type]
        assert Counter(got) == Counter(expected)
        assert [e[:2] for e in got] == sorted(e[:2] for e in got)
    assert [e[:2] for e in entries(graph.simple)] == sorted({e[:2] for e in both})
    assert graph.num_edges == len(edges)
    assert graph.num_loops == len(loops)
    assert graph.out_degrees.tolist() == [sum(e[0] == v for e in want["out"]) for v in range(graph.num_nodes)]
    assert graph.in_degrees.tolist() == [sum(e[0] == v for e in want["in"]) for v in range(graph.num_nodes)]


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("weighted", [False, True])
def test_edges_come_out_as_they_went_in(dtype: torch.dtype, weighted: bool) -> None:
    rng = np.random.default_rng(1)
    for n, pairs in random_graphs(100, 2):
        weights = rng.integers(1, 9, len(pairs)).astype(np.float32) if weighted else np.ones(len(pairs))
        listed = [(int(u), int(v), float(w)) for (u, v), w in zip(pairs, weights, strict=True)]
        index = torch.from_numpy(pairs.T.copy()).to(dtype)
        given = torch.from_numpy(weights) if weighted else None
        check(from_edge_index(index, n, given), listed)
        mirrored = torch.cat([index, index.flip(0)[:, index[0] != index[1]]], 1)
        twice = None if given is None else torch.cat([given, given[index[0] != index[1]]])
        graph = from_edge_index(mirrored, n, twice, directed=False)
        check(graph, listed)
        assert graph.rows("out").indices.dtype == graph.undirected.indices.dtype == dtype


def test_other_libraries() -> None:
    for n, pairs in random_graphs(60, 3):
        listed = [(int(u), int(v), float(i)) for i, (u, v) in enumerate(pairs)]
        for kind in (nx.MultiGraph, nx.MultiDiGraph):
            graph = kind()
            graph.add_nodes_from(range(n))
            graph.add_weighted_edges_from(listed)
            check(from_networkx(graph), [(u, v, w) for u, v, w in graph.edges(data="weight")])
            check(from_networkx(graph, weight="none"), [(u, v, 1.0) for u, v in graph.edges()])
        if n:
            matrix = scipy.sparse.coo_array((np.ones(len(pairs)), pairs.T), shape=(n, n)).tocsr()
            coo = matrix.tocoo()
            check(
                from_scipy(matrix),
                list(zip(coo.row.tolist(), coo.col.tolist(), coo.data.tolist(), strict=True)),
            )
            half = scipy.sparse.triu(matrix + matrix.T).tocoo()
            want = list(zip(half.row.tolist(), half.col.tolist(), half.data.tolist(), strict=True))
            check(from_scipy(matrix + matrix.T, directed=False), want)


def test_rows_that_do_not_ascend_are_sorted_in_a_copy() -> None:
    indices, weights = torch.tensor([2, 0, 1, 0]), torch.tensor([3.0, 1.0, 2.0, 4.0])
    graph = from_csr([0, 3, 4, 4], indices, weights)
    assert entries(graph.csr) == [(0, 0, 1.0), (0, 1, 2.0), (0, 2, 3.0), (1, 0, 4.0)]
    assert indices.tolist() == [2, 0, 1, 0]
    assert weights.tolist() == [3.0, 1.0, 2.0, 4.0]


def test_no_copies() -> None:
    indptr, indices, weights = torch.tensor([0, 1, 2]), torch.tensor([1, 0]), torch.ones(2)
    for directed in (True, False):
        rows = from_csr(indptr, indices, weights, directed=directed).csr
        for kept, given in ((rows.indptr, indptr), (rows.indices, indices), (rows.weights, weights)):
            assert kept.data_ptr() == given.data_ptr()
    graph = from_csr(indptr, indices, weights, directed=False)
    assert graph.undirected is graph.csr is graph.csc
    assert graph.simple.indices.data_ptr() == indices.data_ptr()
    array = np.array([1, 0], dtype=np.int32)
    assert from_csr([0, 1, 2], array).rows("out").indices.data_ptr() == array.ctypes.data


BAD = {
    "indptr must ascend from 0 to 2.*row 1": lambda: from_csr([0, 2, 1, 2], [0, 1]),
    "goes from 1 to 2": lambda: from_csr([1, 2, 2], [0, 1]),
    "goes from 0 to 1": lambda: from_csr([0, 1, 1], [0, 1]),
    "indptr must ascend from 0 to 2.*row 0": lambda: from_csr([0, 9, 2], [0, 1]),
    "indptr must ascend.*row 0": lambda: from_csr([0, -5, 2], [0, 1]),
    "indptr is empty": lambda: from_csr([], []),
    "row 1 of indices .* nodes are 0 to 1": lambda: from_csr([0, 1, 2], [0, 2]),
    "row 0 of indices": lambda: from_csr([0, 1, 2], [-1, 0]),
    "1 of 2 weights are NaN": lambda: from_csr([0, 1, 2], [1, 0], [1.0, float("nan")]),
    "2 numbers needed": lambda: from_csr([0, 1, 2], [1, 0], [1.0]),
    "complex64": lambda: from_csr([0, 1, 2], [1, 0], torch.ones(2, dtype=torch.complex64)),
    "indices is torch.float": lambda: from_csr([0, 1, 2], [1.0, 0.0]),
    r"shape \(1, 2\)": lambda: from_csr([0, 1, 2], [[1, 0]]),
    "dtype <U1": lambda: from_csr([0, 1, 2], ["a", "b"]),
    "not symmetric": lambda: from_csr([0, 1, 1], [1], directed=False),
    "not symmetric.*directed=True": lambda: from_edge_index([[0, 1, 2], [1, 2, 0]], directed=False),
    r"shape \(3,\)": lambda: from_edge_index([0, 1, 2]),
    "nodes 0 to 7: with num_nodes=3": lambda: from_edge_index([[0, 1], [7, 2]], 3),
    "nodes -1 to 2": lambda: from_edge_index([[0, 1], [-1, 2]]),
    r"square sparse matrix, not csr_array of shape \(2, 3\)": lambda: from_scipy(scipy.sparse.csr_array((2, 3))),
    "not ndarray": lambda: from_scipy(np.eye(3)),
}


@pytest.mark.parametrize("message", BAD)
def test_mistakes_are_named(message: str) -> None:
    with pytest.raises(GraphError, match=message):
        BAD[message]()


def test_symmetry_is_seen_on_random_matrices() -> None:
    rng = np.random.default_rng(5)
    for _ in range(300):
        n = int(rng.integers(2, 20))
        matrix = rng.random((n, n)) < 0.3
        matrix |= matrix.T
        from_scipy(scipy.sparse.csr_array(matrix * 1.0), directed=False)
        u, v = rng.choice(n, 2, replace=False)
        matrix[u, v] = not matrix[u, v]
        with pytest.raises(GraphError, match="not symmetric"):
            from_scipy(scipy.sparse.csr_array(matrix * 1.0), directed=False)


def test_syncs_and_devices() -> None:
    before = count_syncs()
    graph = from_csr([0, 2, 3, 3], [0, 1, 2])
    graph.undirected, graph.csc  # noqa: B018
    assert count_syncs() == before + 1
    assert get_simple_rows(graph).num_entries == 4
    assert count_syncs() == before + 2
    with FakeTensorMode(), torch.device("cuda"):
        indptr, indices = torch.zeros(11, dtype=torch.int64), torch.zeros(40, dtype=torch.int32)
        with answering([10, 10, 0, 3, 0, 0, 0, 40]):
            fake = from_csr(indptr, indices, torch.ones(40))
        with answering([60]):
            assert {t.device.type for t in (fake.undirected.weights, fake.csc.indices, fake.simple.indptr)} == {"cuda"}
        with answering([0, 9], [10, 10, 0, 0, 0, 0, 0, 40]):
            assert from_edge_index(torch.zeros(2, 40, dtype=torch.int64)).num_nodes == 10
        with pytest.raises(DeviceError, match="one device needed"):
            from_csr(indptr, indices, torch.ones(40, device="cpu"))


def test_one_hop_of_a_directed_graph() -> None:
    graph = from_edge_index([[0, 1], [1, 2]], num_nodes=4)
    assert one_hop(graph) == 1.5  # type: ignore[arg-type]
