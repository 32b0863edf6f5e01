"""Every public function on CUDA tensors that are not there: device mixing raises, syncs are counted.

``FakeTensorMode`` makes tensors of any device without memory; launches are checked and recorded, not run; host
reads are answered by the test, so an undeclared one fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch._subclasses import FakeTensor, FakeTensorMode

import topognn
from tests.architectures import NAMED, Architecture, step
from topognn.encoding.multipartite import encode_kept
from topognn.kernels import host, launch
from topognn.metrics import leading
from topognn.metrics.expansion import Expansion
from topognn.operators.matrix import KINDS, get_weighted_degrees
from topognn.operators.products import pull, push
from topognn.operators.sparse import SparseWeights, is_shifted, prefers_sparse
from topognn.tracing.layout import Layout

CUDA = torch.device("cuda", 0)
# The others read a flag a round: see their own tests.
FREE = [name for name, metric in topognn.METRICS.items() if name != "k_core" and metric.group != "expansion"]


@contextmanager
def fake_graph(name: str | Architecture, shortcuts: str = "parametric") -> Iterator[topognn.MultipartiteGraph]:
    """Encode an architecture on a fake CUDA device, at a declared budget of one host sync."""
    architecture = NAMED[name] if isinstance(name, str) else name
    layout = topognn.trace(architecture.build(), architecture.input_shape, shortcuts=shortcuts)
    assert layout.weights is not None
    real = topognn.encode(layout, masks=architecture.masks())
    topognn.topometrics(real, ["two_hop", "motifs"])  # finds out what follows from a layout's real tables
    launch.recorded.clear()
    with FakeTensorMode(allow_non_fake_inputs=False) as mode:
        moved = fake(layout, mode)
        shapes = layout.weight_shapes
        weights = {n: torch.empty(s, device=CUDA) for n, s in shapes.items()}
        masks = {n: torch.empty(s, device=CUDA, dtype=torch.bool) for n, s in shapes.items()}
        with host.answering([*(k.count for k in real.kept), real.num_uses]):
            graph = encode_kept(moved, weights, masks, CUDA)
        yield graph


def fake(layout: Layout, mode: FakeTensorMode) -> Layout:
    """Return a layout whose tables are fake CPU tensors, so that ``layout.to(device)`` moves them."""
    import dataclasses

    connections = []
    for c in layout.connections:
        tensors = {
            f.name: mode.from_tensor(v)
            for f in dataclasses.fields(c)
            if isinstance(v := getattr(c, f.name), torch.Tensor)
        }
        connections.append(dataclasses.replace(c, **tensors))
    return dataclasses.replace(layout, connections=tuple(connections), _moved={})


def is_on_cuda(*tensors: torch.Tensor) -> bool:
    return all(isinstance(t, FakeTensor) and t.device == CUDA for t in tensors)


@pytest.mark.parametrize(
    "name", ["pool before conv", "residual projection", "grouped", "tokens", "dense concat", "volume"]
)
def test_rows_and_metrics_on_cuda(name: str) -> None:
    with fake_graph(name) as graph:
        assert not graph.has_parallel_edges
        for rows in (graph.csr, graph.csc, graph.undirected):
            assert is_on_cuda(rows.indptr, rows.indices, rows.weights)
        assert is_on_cuda(graph.in_degrees, graph.out_degrees, graph.in_strengths, graph.out_strengths)
        values = topognn.topometrics(graph, FREE)
        assert is_on_cuda(values.tensor)
        with host.answering([1.0] * len(FREE)):  # one sync, when the first value is read
            assert values["sink_nodes"] == 1
            assert values["strength"] == 1.0
    assert {entry.device for entry in launch.recorded} == {"cuda:0"}
    assert {"find_taps", "fill_in", "fill_out"} <= {entry.kernel for entry in launch.recorded}


@pytest.mark.parametrize("route", ["rows", "connections"])
@pytest.mark.parametrize("name", ["pool before conv", "residual projection", "volume"])
def test_operators_on_cuda(name: str, route: str) -> None:
    with fake_graph(name) as graph:
        for kind in KINDS:
            operator = topognn.linear_operator(graph, kind, route=route, dtype=torch.float32)  # type: ignore[arg-type]
            assert is_on_cuda(operator(torch.empty(3, graph.num_nodes, device=CUDA)))
    wanted = {"multiply_row", "multiply_row_pair"} if route == "rows" else set()
    if route == "connections" and name == "pool before conv":
        wanted = {"add_holders", "add_support"}
    assert wanted <= {entry.kernel for entry in launch.recorded}


def test_cuts_without_rows_on_cuda() -> None:
    with fake_graph("residual projection") as graph:
        vector = torch.empty(graph.num_nodes, dtype=torch.float64, device=CUDA)
        assert is_on_cuda(Expansion(vector.sum(), vector, graph, get_weighted_degrees(graph), True).conductance)
    assert "weigh_taps" in {entry.kernel for entry in launch.recorded}


@pytest.mark.parametrize("name", ["grouped", "residual projection"])
def test_sparse_weights_on_cuda(name: str) -> None:
    with fake_graph(name) as graph:
        for c, kept in zip(graph.connections, graph.kept, strict=True):
            assert not prefers_sparse(c, kept)  # dense convolutions have a GPU's library
            if is_shifted(c):
                weights = SparseWeights(c, kept, torch.float32, weighted=True)
                assert is_on_cuda(push(c, weights, torch.empty(2, c.num_sources, device=CUDA), c.source))
                assert is_on_cuda(pull(c, weights, torch.empty(2, c.num_targets, device=CUDA)))
    assert "add_shifted" in {entry.kernel for entry in launch.recorded}


@pytest.mark.parametrize("name", ["pool before conv", "residual projection"])  # with two sides, and without
def test_spectra_take_one_sync_every_five_products(name: str) -> None:
    with fake_graph(name) as graph:
        for metric in ("spectral_gap", "spectral_radius", "algebraic_connectivity"):
            twice = [[0.0]] if name == "residual projection" and metric == "spectral_gap" else []  # may there be more?
            with host.answering([1.0], [1e-5], [1e-7], *twice):  # largest residuals, after 1, 6 and some more products
                assert is_on_cuda(topognn.topometrics(graph, [metric]).tensor)
        with host.answering([1e-7]):
            assert is_on_cuda(topognn.topometrics(graph, ["conductance"]).tensor)
    assert "weigh_crossing" in {entry.kernel for entry in launch.recorded}


def test_a_narrow_search_takes_two_syncs_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leading, "_SHORT", 0)
    monkeypatch.setattr(leading, "_FIRST_SHARE", 0.3)
    chain = Architecture((4,), tuple(step("linear", n, out=4) for n in range(6)))
    with fake_graph(chain) as graph:
        few = [9.0, 9.0, *(0.0 for _ in graph.partitions[2:])]  # largest sums, of which two are of any account
        glimpse, inner, whole = ([1.0], [1e-7]), ([1e-5], [1e-7]), ([1e-7],)
        with host.answering([*few, *few, *few], *glimpse, [8.0], *inner, *whole):
            assert is_on_cuda(topognn.topometrics(graph, ["spectral_radius"]).tensor)


def test_parallel_edges_take_one_more_sync_a_matrix() -> None:
    with fake_graph("repvgg") as graph:
        assert graph.has_parallel_edges
        with host.answering([7]):
            assert graph.csc.indices.shape == (7,)
        with host.answering([7], [14]):
            assert graph.csr.num_entries == 7
            assert graph.undirected.num_entries == 14
    assert {"exchange_neighbors", "sort_row", "combine_row"} <= {entry.kernel for entry in launch.recorded}


def test_an_undeclared_sync_raises() -> None:
    with FakeTensorMode(), pytest.raises(RuntimeError, match="no one declared"):
        host.read(torch.zeros(1, device=CUDA))


def test_a_declared_sync_that_does_not_happen_raises() -> None:
    with pytest.raises(RuntimeError, match="did not happen"), host.answering([1]):
        pass


def test_mixed_devices_raise() -> None:
    from topognn.kernels.taps import count_block

    with FakeTensorMode():
        mask = torch.empty(6, dtype=torch.bool, device=CUDA)
        here = torch.empty(3, dtype=torch.int64)
        with pytest.raises(topognn.DeviceError, match=r"count_block was given tensors on \['cpu', 'cuda:0'\]"):
            count_block.launch(2, mask, here)


def test_encode_counts_one_sync_on_cpu_too() -> None:
    architecture = NAMED["residual projection"]
    layout = topognn.trace(architecture.build(), architecture.input_shape)
    masks = architecture.masks()
    before = host.count_syncs()
    graph = topognn.encode(layout, masks=masks)
    values = topognn.topometrics(graph, FREE)
    assert host.count_syncs() == before + 1
    dict(values)
    assert host.count_syncs() == before + 2
