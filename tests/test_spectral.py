"""Eigenvalues against dense ones, golden values and closed forms."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import topognn
from tests.architectures import NAMED, Architecture, architectures
from tests.test_golden import load
from topognn import lanczos
from topognn.lanczos import find_eigenpairs
from topognn.metrics import leading
from topognn.metrics.decay import find_window, limit_blocks
from topognn.metrics.expansion import find_expansion
from topognn.metrics.spectral import find_adjacency_eigenvalues, spectral_gap, spectral_radius
from topognn.operators import matrix

QUICK = settings(deadline=None, suppress_health_check=list(HealthCheck))


def dense_of(graph: topognn.MultipartiteGraph | topognn.PlainGraph, weighted: bool) -> np.ndarray:
    matrix = np.zeros((graph.num_nodes, graph.num_nodes))
    rows = graph.rows("both", weighted=True)
    ends = torch.repeat_interleave(torch.arange(graph.num_nodes), rows.indptr.diff())
    np.add.at(matrix, (ends.numpy(), rows.indices.numpy()), rows.weights.double().numpy())
    return matrix if weighted else (matrix != 0).astype(float)


def check(graph: topognn.MultipartiteGraph | topognn.PlainGraph, expansion: bool = True) -> None:
    """Everything spectral, against numpy's dense eigenvalues, to 1e-6 of the largest."""
    for weighted in (True, False) if expansion else (True,):
        matrix = dense_of(graph, weighted)
        values = np.linalg.eigvalsh(matrix)
        values = values[np.argsort(-np.abs(values))][:3]
        first, _, third = np.abs(np.pad(values, (0, 3 - len(values))))
        scale = 1e-6 * max(first, 1e-30)
        assert float(spectral_gap(graph, weighted=weighted)) == pytest.approx(first - third, abs=scale)
        laplacian = np.diag(matrix.sum(0)) - matrix
        radius = np.linalg.eigvalsh(laplacian).max(initial=0)
        assert float(spectral_radius(graph, weighted=weighted)) == pytest.approx(radius, rel=1e-6, abs=1e-12)
        if expansion:
            check_expansion(graph, weighted, matrix)


def check_expansion(graph: topognn.MultipartiteGraph | topognn.PlainGraph, weighted: bool, matrix: np.ndarray) -> None:
    found = find_expansion(graph, weighted=weighted)
    components = sorted(nx.connected_components(nx.from_numpy_array(matrix)), key=lambda c: (-len(c), min(c)))
    inside = sorted(components[0]) if components else []
    if len(inside) < 2:
        assert all(math.isnan(float(x)) for x in (found.algebraic_connectivity, found.conductance))
        return
    part = matrix[np.ix_(inside, inside)]
    degrees = part.sum(0)
    second = np.sort(np.linalg.eigvalsh(np.eye(len(inside)) - part / np.sqrt(np.outer(degrees, degrees))))[1]
    assert float(found.algebraic_connectivity) == pytest.approx(second, abs=2e-6)
    outside = np.setdiff1d(np.arange(len(matrix)), inside)
    assert not found.fiedler[outside].any()
    conductance = float(found.conductance)
    assert conductance == pytest.approx(sweep(part, degrees, found.fiedler[inside].numpy()), rel=1e-6)
    assert float(found.cheeger_lower) <= conductance + 1e-6
    assert conductance <= float(found.cheeger_upper) + 1e-5
    if len(inside) <= 10:
        h = min(cut_ratio(part, degrees, s) for s in proper_subsets(len(inside)))
        assert float(found.cheeger_lower) - 1e-6 <= h <= conductance * (1 + 1e-6)


def proper_subsets(size: int) -> list[np.ndarray]:
    return [np.array([bool(code >> i & 1) for i in range(size)]) for code in range(1, 2**size - 1)]


def cut_ratio(matrix: np.ndarray, degrees: np.ndarray, inside: np.ndarray) -> float:
    return float(matrix[inside][:, ~inside].sum() / min(degrees[inside].sum(), degrees[~inside].sum()))


def sweep(matrix: np.ndarray, degrees: np.ndarray, values: np.ndarray) -> float:
    order = np.argsort(values, kind="stable")
    cuts = [np.isin(np.arange(len(order)), order[:k]) for k in range(1, len(order))]
    return min(cut_ratio(matrix, degrees, cut) for cut in cuts)


@st.composite
def plain_graphs(draw: st.DrawFn) -> topognn.PlainGraph:
    """Up to 30 nodes: from empty to complete, with islands, repeated structure, weights or none."""
    nodes, copies = draw(st.integers(1, 10)), draw(st.sampled_from([1, 1, 1, 2, 3]))
    density, seed = draw(st.sampled_from([0.0, 0.1, 0.3, 0.6, 1.0])), draw(st.integers(0, 10**6))
    generator = np.random.default_rng(seed)
    matrix = np.triu(generator.random((nodes, nodes)) < density, 1) * (generator.random((nodes, nodes)) + 0.01)
    if draw(st.booleans()):  # bipartite
        side = generator.random(nodes) < 0.5
        matrix = matrix * (side[:, None] != side)
    matrix = np.kron(np.eye(copies), matrix)
    return topognn.from_scipy(scipy.sparse.csr_array((matrix + matrix.T).astype(np.float32)), directed=False)


@given(plain_graphs())
@settings(QUICK, max_examples=500)
def test_gap_and_radius_of_random_graphs(graph: topognn.PlainGraph) -> None:
    check(graph, expansion=False)


@given(plain_graphs())
@settings(QUICK, max_examples=60)
def test_expansion_of_random_graphs(graph: topognn.PlainGraph) -> None:
    check(graph)


@given(architectures())
@settings(QUICK, max_examples=12)
def test_random_networks(architecture: Architecture) -> None:
    check(topognn.encode(architecture.build(), architecture.input_shape, architecture.masks(), shortcuts="all"))


@pytest.mark.parametrize("name", NAMED)
def test_named_networks(name: str) -> None:
    architecture = NAMED[name]
    check(topognn.encode(architecture.build(), architecture.input_shape, architecture.masks()))


@pytest.mark.parametrize(
    ("graph", "gap", "radius"),
    [
        (nx.empty_graph(1), 0, 0),
        (nx.empty_graph(5), 0, 0),
        (nx.path_graph(2), 1, 2),  # +-1, and no third
        (nx.star_graph(9), 3, 10),
        (nx.complete_graph(7), 5, 7),
        (nx.complete_bipartite_graph(3, 4), math.sqrt(12), 7),
        (nx.disjoint_union_all([nx.complete_graph(4)] * 3), 0, 4),  # 3, 3, 3
        (nx.disjoint_union_all([nx.complete_graph(4)] * 2), 2, 4),  # 3, 3, -1
        (nx.cycle_graph(6), 1, 4),  # 2, -2, 1, 1, -1, -1
        (nx.hypercube_graph(4), 2, 8),
    ],
    ids=str,
)
def test_closed_forms(graph: nx.Graph, gap: float, radius: float) -> None:
    plain = topognn.from_networkx(graph)
    assert float(spectral_gap(plain)) == pytest.approx(gap, abs=1e-6)
    assert float(spectral_radius(plain)) == pytest.approx(radius, abs=1e-6)


def test_no_nodes() -> None:
    empty = topognn.from_csr([0], [])
    assert float(spectral_gap(empty)) == float(spectral_radius(empty)) == 0
    assert math.isnan(float(find_expansion(empty).algebraic_connectivity))
    assert math.isnan(float(find_expansion(empty).conductance))


@pytest.mark.parametrize("name", ["conv6_98", "resnet20_95"])
def test_golden_spectra(shared: Path, name: str) -> None:
    model, masks, golden = load(shared, name)
    want = golden["values"]
    graph = topognn.encode(model, (3, 32, 32), masks)
    assert float(spectral_gap(graph)) == pytest.approx(want["spectral_gap"], rel=1e-5)
    assert float(spectral_radius(graph)) == pytest.approx(want["spectral_radius"], rel=1e-5)
    for route in ("rows", "connections"):
        values = find_adjacency_eigenvalues(graph, 4, route=route)
        assert values.abs().tolist() == pytest.approx(want["adjacency_magnitudes"], rel=1e-5)
    values = find_adjacency_eigenvalues(graph, 4, weighted=False)
    assert values.abs().tolist() == pytest.approx(want["adjacency_magnitudes_unweighted"], rel=1e-5)


@pytest.mark.parametrize("name", ["conv6_98", "resnet20_95"])
def test_residuals_of_golden_networks(shared: Path, name: str) -> None:
    model, masks, _ = load(shared, name)
    graph = topognn.encode(model, (3, 32, 32), masks)
    directed = topognn.to_scipy(graph).astype(np.float64)
    matrix = (directed + directed.T).tocsr()
    degrees = np.asarray(matrix.sum(1)).ravel()
    start = torch.randn(3, graph.num_nodes, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for product, which in (
        (topognn.linear_operator(graph), "magnitude"),
        (topognn.linear_operator(graph, "laplacian"), "largest"),
    ):
        pairs = find_eigenpairs(
            product, start[: 3 if which == "magnitude" else 1], 3 if which == "magnitude" else 1, which
        )
        for value, vector in zip(pairs.values.tolist(), pairs.vectors.numpy(), strict=True):
            image = matrix @ vector if which == "magnitude" else degrees * vector - matrix @ vector
            assert np.linalg.norm(image - value * vector) < 1e-6 * abs(value)
            assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-9)


def operator_of(matrix: Tensor):
    return lambda x: x @ matrix


def test_lanczos_finds_repeated_eigenvalues_with_a_block() -> None:
    values = torch.cat([torch.tensor([5.0, 5.0, 5.0]), torch.linspace(0, 4, 200)]).double()
    turn = torch.linalg.qr(torch.randn(203, 203, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
    start = torch.randn(3, 203, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    pairs = find_eigenpairs(operator_of(turn @ values.diag() @ turn.T), start, 3)
    assert pairs.values.tolist() == pytest.approx([5, 5, 5], abs=1e-9)
    assert torch.allclose(pairs.vectors @ pairs.vectors.T, torch.eye(3, dtype=torch.float64), atol=1e-9)


def test_lanczos_restarts_until_close_eigenvalues_part() -> None:
    values = torch.cat([torch.tensor([1.0, 0.9999]), torch.linspace(-1, 0.999, 2000)]).double()
    start = torch.randn(1, 2002, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    pairs = find_eigenpairs(lambda x: x * values, start, 2, tolerance=1e-8)
    assert pairs.values.tolist() == pytest.approx([1, 0.9999], abs=1e-7)
    assert pairs.products > 100


def test_lanczos_leaves_out_known_vectors() -> None:
    values = torch.arange(50, dtype=torch.float64)
    known = torch.eye(50, dtype=torch.float64)[[49, 47]]
    pairs = find_eigenpairs(lambda x: x * values, torch.ones(1, 50, dtype=torch.float64), 2, deflate=known)
    assert pairs.values.tolist() == pytest.approx([48, 46], abs=1e-9)


def test_lanczos_gives_up_loudly() -> None:
    values = torch.linspace(0, 1, 5000, dtype=torch.float64)
    with pytest.raises(topognn.ConvergenceError, match=r"after 40 products.*not 1.0e-12: allow") as caught:
        find_eigenpairs(
            lambda x: x * values, torch.ones(1, 5000, dtype=torch.float64), 1, tolerance=1e-12, max_products=40
        )
    assert 0.9 < float(caught.value.found.values[0]) < 1


def test_results_do_not_depend_on_threads(shared: Path) -> None:
    model, masks, _ = load(shared, "conv6_98")
    before, seen = topognn.get_num_threads(), []
    try:
        for threads in (1, 2, 4):
            topognn.set_num_threads(threads)
            graph = topognn.encode(model, (3, 32, 32), masks)
            operator = topognn.linear_operator(graph, "laplacian", route="rows")
            x = torch.linspace(-1, 1, graph.num_nodes, dtype=torch.float64)
            seen.append(torch.cat([operator(x), find_expansion(graph).conductance[None]]))
    finally:
        topognn.set_num_threads(before)
    assert all(torch.equal(seen[0], other) for other in seen[1:])


@pytest.mark.parametrize("route", ["rows", "connections"])
@pytest.mark.parametrize("name", sorted(NAMED))
def test_large_networks_are_searched_where_vectors_can_be(
    name: str, route: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As every named network is, if it need not be large for it."""
    for limit, value in (("_SHORT", 0), ("_FIRST_SHARE", 1), ("_SHARE", 1)):
        monkeypatch.setattr(leading, limit, value)
    if route == "connections":
        monkeypatch.setattr(matrix, "_EDGES_A_CONNECTION", {"cpu": -1})
        monkeypatch.setattr(matrix, "_EDGES_A_MULTIPLICATION", 0)
    architecture = NAMED[name]
    check(topognn.encode(architecture.build(), architecture.input_shape, architecture.masks()), expansion=False)


@pytest.mark.parametrize("route", ["rows", "connections"])
@pytest.mark.parametrize("heavy", [0, 7, 15])
def test_a_vector_that_lives_in_one_layer(heavy: int, route: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 16 layers one weighs thirty times more: the search narrows to a few, and finds what a full one does."""
    monkeypatch.setattr(leading, "_SHORT", 0)
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(40, 40) for _ in range(16)))
    with torch.no_grad():
        model[heavy].weight *= 30
    masks = topognn.prune(model, "uniform", 0.5, input_shape=(40,))
    graph = topognn.encode(model, (40,), masks)
    narrowed: list[range] = []
    kind = matrix.RowProducts if route == "rows" else matrix.ConnectionProducts
    narrow = kind.narrow

    def note(self: Any, partitions: range) -> Any:
        narrowed.append(partitions)
        return narrow(self, partitions)

    monkeypatch.setattr(kind, "narrow", note)
    values = find_adjacency_eigenvalues(graph, 3, route=route, tolerance=1e-6)  # type: ignore[arg-type]
    want = np.abs(np.linalg.eigvalsh(dense_of(graph, True)))
    assert values.abs().numpy() == pytest.approx(np.sort(want)[::-1][:3], rel=1e-6)
    first, few = narrowed
    assert first == range(heavy, heavy + 2) and set(first) <= set(few) and len(few) < 9


@pytest.mark.parametrize("copies", [1, 2, 3, 4])
def test_eigenvalues_repeated_as_often_as_there_are_like_components(copies: int) -> None:
    """Cliques of four, whose first eigenvalue is 3, and a triangle, whose first is 2."""
    graph = nx.disjoint_union_all([*(nx.complete_graph(4) for _ in range(copies)), nx.complete_graph(3)])
    values = find_adjacency_eigenvalues(topognn.from_networkx(graph), 3)
    want = sorted(np.linalg.eigvalsh(nx.to_numpy_array(graph)), key=abs, reverse=True)[:3]
    assert sorted(values.tolist()) == pytest.approx(sorted(want), abs=1e-6)


@pytest.mark.parametrize("laplacian", [False, True])
def test_eigenvectors_have_decayed_outside_their_window(laplacian: bool) -> None:
    """Of networks whose layers' weights differ by orders of magnitude; by their dense matrices' eigenvectors."""
    sizes = []
    for seed in range(20):
        torch.manual_seed(seed)
        model = nn.Sequential(*(nn.Linear(6, 6) for _ in range(12)))
        with torch.no_grad():
            for layer in model:
                layer.weight *= float(torch.randn(1).mul(2).exp())
        graph = topognn.encode(model, (6,), topognn.prune(model, "uniform", 0.3, input_shape=(6,)))
        matrix = dense_of(graph, True)
        values, vectors = np.linalg.eigh(np.diag(matrix.sum(1)) - matrix if laplacian else matrix)
        order = np.abs(values).argsort()[::-1]
        norms = limit_blocks(graph, True, laplacian)
        for count in (1, 3):
            window = find_window(norms, float(np.abs(values[order[count - 1]])))
            sizes.append(len(window))
            for number in set(range(13)) - set(window):
                part = vectors[graph.partitions[number].offset : graph.partitions[number].end, order[:count]]
                assert np.linalg.norm(part, axis=0).max() <= 1e-3
    assert sum(size <= 9 for size in sizes) > 10


def test_sums_of_float32_products_keep_their_digits() -> None:
    x = torch.rand(2, 5_000_001, generator=torch.Generator().manual_seed(0))
    parts = lanczos._cut(x)
    assert torch.equal(lanczos._join(parts, x.shape[1]), x)
    assert torch.allclose(lanczos._dot(parts, parts), x.double() @ x.double().T, rtol=1e-7, atol=0)
