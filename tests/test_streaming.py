"""Metrics of networks whose edges are never in memory, against the same by rows and against oracles of their own."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components as scipy_components

import topognn
from tests.architectures import NAMED, Architecture, architectures
from tests.memory import peak_bytes
from tests.naive import naive_graph
from tests.test_fake_cuda import fake_graph, is_on_cuda
from topognn.kernels import launch
from topognn.kernels.host import answering
from topognn.metrics import components
from topognn.metrics.components import connected_components
from topognn.metrics.expansion import Expansion
from topognn.operators.matrix import get_weighted_degrees


def naive_labels(architecture: Architecture, shortcuts: str) -> list[int]:
    """The smallest node of each node's component, by SciPy from the oracle's edges."""
    want = naive_graph(architecture, architecture.masks(), shortcuts, False)
    n = sum(want.partition_sizes)
    ends = torch.tensor(list(want.edges), dtype=torch.int64).reshape(-1, 2).T.numpy()
    _, members = scipy_components(coo_array((torch.ones(ends.shape[1]), tuple(ends)), shape=(n, n)), directed=False)
    first: dict[int, int] = {}
    for node, member in enumerate(members.tolist()):
        first.setdefault(member, node)
    return [first[member] for member in members.tolist()]


def encode(architecture: Architecture, shortcuts: str = "parametric") -> topognn.MultipartiteGraph:
    masks = architecture.masks()
    return topognn.encode(architecture.build(), architecture.input_shape, masks, shortcuts=shortcuts)  # type: ignore[arg-type]


def check(architecture: Architecture, shortcuts: str) -> None:
    graph = encode(architecture, shortcuts)
    found = connected_components(graph)
    assert not graph.has_rows("both")
    assert found.labels.dtype == graph.layout.index_dtype
    assert found.labels.tolist() == naive_labels(architecture, shortcuts)
    assert int(found.count) == len(set(found.labels.tolist()))
    graph.rows("both")
    by_rows = connected_components(graph)
    assert torch.equal(by_rows.labels, found.labels)
    assert torch.equal(by_rows.count, found.count)


@pytest.mark.parametrize("shortcuts", ["parametric", "all"])
@pytest.mark.parametrize("name", NAMED)
def test_components_of_named_networks(name: str, shortcuts: str) -> None:
    check(NAMED[name], shortcuts)


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(architectures())
def test_components_of_random_networks(architecture: Architecture) -> None:
    check(architecture, "all")


@pytest.mark.parametrize("sparsity", [0.0, 0.9, 0.995])
def test_components_of_a_large_network(sparsity: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever component the sample takes for the giant, and however few edges it begins from."""
    torch.manual_seed(0)
    model = topognn.get_model("resnet20")
    layout, masks = topognn.trace(model, (3, 16, 16)), topognn.prune(model, "erk", sparsity)
    rows = topognn.encode(layout, masks=masks)
    rows.rows("both")
    want = connected_components(rows)
    for samples, draws in ((1024, 2), (1, 2), (7, 0)):
        monkeypatch.setattr(components, "_SAMPLES", samples)
        monkeypatch.setattr(components, "_DRAWS", draws)
        graph = topognn.encode(layout, masks=masks)
        assert torch.equal(connected_components(graph).labels, want.labels)
        assert not graph.has_rows("both")


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("name", NAMED)
def test_conductance_of_named_networks(name: str, weighted: bool) -> None:
    """By any vector, of which there are no equal entries as the Fiedler vector has them."""
    graph = encode(NAMED[name], "all")
    degrees = get_weighted_degrees(graph, weighted)
    vector = torch.randperm(graph.num_nodes, generator=torch.Generator().manual_seed(0)).double()
    streamed = Expansion(vector.sum(), vector, graph, degrees, weighted).conductance
    assert graph.has_rows("both") == (graph.has_parallel_edges and not weighted)
    graph.rows("both", weighted=True)
    by_rows = Expansion(vector.sum(), vector, graph, degrees, weighted).conductance
    rel = 1e-6 if graph.has_parallel_edges else 1e-12  # rows have the sums of parallel edges as float32
    assert float(streamed) == pytest.approx(float(by_rows), rel=rel, nan_ok=True)
    assert float(streamed) == pytest.approx(naive_conductance(graph, vector, weighted), rel=1e-6, nan_ok=True)


def naive_conductance(graph: topognn.MultipartiteGraph, vector: torch.Tensor, weighted: bool) -> float:
    """The least conductance of the cuts along a vector, each by itself from its definition."""
    dense = topognn.to_scipy(graph).toarray()
    dense = dense + dense.T if weighted else ((dense + dense.T) > 0).astype(float)
    degrees = dense.sum(0)
    order = [v for v in vector.argsort().tolist() if degrees[v] > 0]
    found = []
    for k in range(1, len(order)):
        below, above = order[:k], order[k:]
        found.append(dense[below][:, above].sum() / min(degrees[below].sum(), degrees[above].sum()))
    return min(found, default=float("nan"))


def test_components_take_one_layers_weights_and_no_edges() -> None:
    model = topognn.get_model("resnet20")
    graph = topognn.encode(model, (3, 32, 32), topognn.prune(model, "erk", 0.5))
    most, _ = peak_bytes(lambda: connected_components(graph))
    largest = max(kept.count for kept in graph.kept)
    assert most <= 9 * graph.num_nodes + 14 * largest + 50_000
    assert most < graph.num_uses  # a byte an edge would be more than all of it


def test_components_on_fake_cuda_make_no_sync() -> None:
    for name in ("pool before conv", "permuted sum", "residual projection", "tokens"):
        with fake_graph(name, "all") as graph:
            with answering():
                found = connected_components(graph)
                assert is_on_cuda(found.labels, found.count, found.mean_size, found.largest)
            assert not graph.has_rows("both")
        assert "hook_taps" in {entry.kernel for entry in launch.recorded}
