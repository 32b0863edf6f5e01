"""Real GPUs: what the CPU gives, a GPU gives too, and gives again.

Every check runs on the CPU as well, so that it is itself tried where there is no GPU.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from typer.testing import CliRunner

import topognn
from tests import plain_graphs
from tests.architectures import NAMED
from tests.test_golden import load
from topognn import metrics
from topognn.cli.main import app
from topognn.encoding.again import encode_again, start_series
from topognn.graph_tables import layer_table, trouble_table
from topognn.metrics.expansion import Expansion
from topognn.operators.matrix import KINDS, get_weighted_degrees
from topognn.operators.products import get_window, pull, push
from topognn.operators.sparse import SparseWeights, is_shifted
from topognn.pruning import needs_data

GPU = pytest.param(
    "cuda",
    marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")],
)
on_devices = pytest.mark.parametrize("device", ["cpu", GPU])
on_gpu = pytest.mark.parametrize("device", [GPU])


@pytest.fixture(autouse=True)
def exact_convolutions() -> Iterator[None]:
    """Let a GPU's float32 products be as exact as the CPU's (TF32 keeps ten bits): these tests compare digits."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


@on_devices
@pytest.mark.parametrize("name", NAMED)
def test_networks(name: str, device: str) -> None:
    architecture = NAMED[name]
    model = architecture.build()
    layout = topognn.trace(model, architecture.input_shape)
    check_network(layout, architecture.masks(model), device)


@on_gpu
@pytest.mark.parametrize("name", ["conv6", "resnet20", "mobilenet_v2"])
def test_whole_networks(name: str, device: str) -> None:
    model = topognn.get_model(name)
    check_network(topognn.trace(model, (3, 32, 32)), topognn.prune(model, "erk", 0.95), device)


def check_network(layout: topognn.Layout, masks: dict[str, Tensor], device: str) -> None:
    """Compare a network's rows, topometrics, operators and layers on two devices."""
    here, there = (topognn.encode(layout, masks=masks, device=d) for d in ("cpu", device))
    assert there.device.type == device
    streamed = [metrics.connected_components(g).labels.cpu() for g in (here, there)]  # no rows are there yet
    assert torch.equal(*streamed)
    cuts = [cut_along_a_wave(g) for g in (here, there)]
    assert cuts[0] == pytest.approx(cuts[1], rel=1e-9, nan_ok=True)
    one, other = topognn.topometrics(here), topognn.topometrics(there)
    assert other.tensor.device.type == device and one.keys() == other.keys()
    searched = {name for name, metric in topognn.METRICS.items() if metric.group == "expansion"}
    for metric, value in one.items():
        rel = 1e-5 if metric in searched else 1e-12  # residuals of 1e-6, and rounding
        # A gap is a difference of eigenvalues, each found to 1e-6 of the largest.
        away = 1e-6 * one["spectral_radius"] if metric == "spectral_gap" else 0
        if metric != "conductance":  # of one of several vectors, where an eigenvalue is repeated
            assert other[metric] == close(value, rel, away), metric
    assert math.isnan(one["conductance"]) or other["cheeger_lower"] <= other["conductance"] * 1.00001
    assert math.isnan(one["conductance"]) or other["conductance"] <= other["cheeger_upper"] * 1.00001
    for direction in ("in", "out", "both"):
        for part in ("indptr", "indices", "weights"):
            a = getattr(here.rows(direction, weighted=True), part)
            b = getattr(there.rows(direction, weighted=True), part)
            assert torch.equal(a, b.cpu()), (direction, part)
    for kind in KINDS:
        x = torch.rand(3, here.num_nodes, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        for route in ("rows", "connections"):
            a, b = (topognn.linear_operator(g, kind, route=route)(x.to(g.device)).cpu() for g in (here, there))
            assert torch.allclose(a, b, rtol=1e-10, atol=1e-12), (kind, route)
    for numbers in zip(*(sum_back_and_forth(g) for g in (here, there)), strict=True):
        assert numbers[0] == pytest.approx(numbers[1], rel=1e-12)
    a, b = (metrics.find_layer_expansion(g).cpu() for g in (here, there))
    assert torch.allclose(a, b, rtol=1e-4, atol=1e-6, equal_nan=True)
    for row, same in zip(layer_table(here), layer_table(there), strict=True):
        # Singular values of 0 come out as roots of rounding errors.
        away = {"expansion": 1e-6}
        assert same._asdict() == {key: close(value, 1e-4, away.get(key, 0)) for key, value in row._asdict().items()}
    assert trouble_table(here) == trouble_table(there)


def close(value: Any, rel: float, away: float = 1e-9) -> Any:
    """Return what a float may equal within a share of it or ``away`` from it, and anything else alone."""
    return pytest.approx(value, rel=rel, abs=max(away, 1e-9), nan_ok=True) if isinstance(value, float) else value


def cut_along_a_wave(graph: topognn.MultipartiteGraph) -> float:
    """Return the conductance of the best cut of a vector that is no eigenvector."""
    vector = torch.linspace(-1, 2, graph.num_nodes, dtype=torch.float64).sin().to(graph.device)
    return float(Expansion(vector.sum(), vector, graph, get_weighted_degrees(graph), True).conductance)


def sum_back_and_forth(graph: topognn.MultipartiteGraph) -> list[float]:
    """Go to and fro through each layer, one kept weight after the other; return what comes of it."""
    sums = []
    for c, kept in zip(graph.connections, graph.kept, strict=True):
        if is_shifted(c) and c.sources:
            weights = SparseWeights(c, kept, torch.float64, weighted=True)
            first, end = get_window(graph.layout, c)
            x = torch.linspace(-1, 2, end - first, dtype=torch.float64).to(graph.device)[None]
            sums.append(float(pull(c, weights, push(c, weights, x, first)).square().sum()))
    return sums


@on_devices
@pytest.mark.parametrize("directed", [True, False])
@pytest.mark.parametrize("name", [*plain_graphs.NAMED, "random, loops and parallel edges"])
def test_plain_graphs(name: str, directed: bool, device: str) -> None:
    random = torch.randint(3000, (2, 9000), generator=torch.Generator().manual_seed(0))
    nodes, edges = plain_graphs.NAMED.get(name, (3000, random.T.numpy()))
    pairs = torch.as_tensor(edges).T
    if not directed:
        pairs = torch.cat([pairs, pairs.flip(0)], 1)

    def analyse(where: str) -> list[Tensor]:
        graph = topognn.from_edge_index(pairs.to(where), num_nodes=nodes, directed=directed)
        cuts, motifs = metrics.biconnectivity(graph, "parallel"), metrics.motifs4(graph, per_node=True)
        assert motifs.triangles_at is not None and motifs.cycles_at is not None
        rows = [part for d in ("in", "out", "both") for part in (graph.rows(d).indptr, graph.rows(d).indices)]
        return [
            *rows,
            metrics.connected_components(graph).labels,
            metrics.core_numbers(graph),
            metrics.get_two_hop_sizes(graph),
            *(cuts.bridges, cuts.is_cut_node, cuts.labels),
            *(motifs.total, motifs.triangles_at, motifs.cycles_at),
        ]

    once, again = analyse(device), analyse(device)
    for here, there, repeated in zip(analyse("cpu"), once, again, strict=True):
        assert there.device.type == device
        assert torch.equal(here, there.cpu()) and torch.equal(there, repeated)


@on_devices
@pytest.mark.parametrize("name", ["conv6_98", "resnet20_95"])
def test_golden_values(shared: Path, name: str, device: str) -> None:
    model, masks, golden = load(shared, name)
    want = golden["values"]
    graph = topognn.encode(model, (3, 32, 32), masks, device=device)
    found = topognn.topometrics(graph)
    exact = "sink_nodes source_nodes disconnected_nodes removable_out_edges removable_in_edges one_hop two_hop"
    exact += " components mean_component largest_component cut_edges cut_nodes"
    assert {metric: found[metric] for metric in exact.split()} == {
        metric: close(want[metric], 1e-14) for metric in exact.split()
    }
    assert found["strength"] == pytest.approx(want["strength"], rel=1e-6)
    for metric in ("spectral_gap", "spectral_radius"):
        assert found[metric] == pytest.approx(want[metric], rel=1e-5)


@on_devices
def test_the_same_numbers_run_after_run(device: str) -> None:
    model = topognn.get_model("resnet20")
    masks = topognn.prune(model, "erk", 0.95)

    def measure() -> tuple[dict[str, Any], list[Tensor]]:
        graph = topognn.encode(model, (3, 32, 32), masks, device=device)
        rows = [graph.csr.indices, graph.csr.weights, graph.csc.indices, metrics.core_numbers(graph)]
        return topognn.topometrics(graph).to_dict(), [*rows, metrics.biconnectivity(graph).labels]

    (values, tensors), (repeated, others) = measure(), measure()
    searched = {name for name, metric in topognn.METRICS.items() if metric.group == "expansion"}
    for name, value in values.items():
        assert repeated[name] == (pytest.approx(value, rel=1e-5) if name in searched else value), name
    assert all(torch.equal(one, other) for one, other in zip(tensors, others, strict=True))


@on_devices
@pytest.mark.parametrize("function", [topognn.log_path_sum, topognn.leading_eigenvalue])
@pytest.mark.parametrize("name", ["grouped", "overlapping pool before conv", "residual projection", "shared conv"])
def test_gradients(name: str, function: Callable[..., Tensor], device: str) -> None:
    architecture = NAMED[name]
    layout = topognn.trace(architecture.build(), architecture.input_shape, shortcuts="all")

    def differentiate(where: str) -> list[Tensor]:
        random = torch.Generator().manual_seed(0)
        weights = {
            key: (torch.rand(shape, generator=random, dtype=torch.float64) + 0.1).to(where).requires_grad_()
            for key, shape in layout.weight_shapes.items()
        }
        value = function(layout, weights)
        slopes = torch.autograd.grad(value, list(weights.values()), allow_unused=True, materialize_grads=True)
        return [value.detach(), *slopes]

    for here, there in zip(differentiate("cpu"), differentiate(device), strict=True):
        assert there.device.type == device
        assert torch.allclose(here, there.cpu(), rtol=1e-4, atol=1e-7)


@on_devices
@pytest.mark.parametrize("pruner", [name for name in topognn.PRUNERS if not needs_data(name)])
def test_pruners_without_data(pruner: str, device: str) -> None:
    def prune(where: str) -> dict[str, Tensor]:
        torch.manual_seed(0)
        model = topognn.get_model("resnet20")
        return topognn.prune(model.to(where), pruner, 0.9, input_shape=(3, 32, 32))

    here, there = prune("cpu"), prune(device)
    assert here.keys() == there.keys() and all(mask.device.type == device for mask in there.values())
    agree = sum(int((mask == there[name].cpu()).sum()) for name, mask in here.items())
    assert agree >= 0.999 * sum(mask.numel() for mask in here.values())  # rounding may exchange neighbours in rank


@on_devices
def test_dead_weights_are_dropped(device: str) -> None:
    model = topognn.get_model("conv6").to(device)
    layout = topognn.trace(model, (3, 32, 32))
    masks = topognn.prune(model, "erk", 0.995)
    kept = topognn.prune_ineffective(layout, masks, constants=False)
    count = [sum(int(mask.sum()) for mask in some.values()) for some in (masks, kept)]
    assert count[1] < count[0] and all(mask.device.type == device for mask in kept.values())
    assert topognn.topometrics(topognn.encode(layout, masks=kept), ["effective_density"])["effective_density"] == (
        pytest.approx(count[1] / sum(mask.numel() for mask in masks.values()))
    )


@on_devices
def test_encoding_again(device: str) -> None:
    model = topognn.get_model("resnet20").to(device)
    layout = topognn.trace(model, (3, 32, 32))
    first, second = (topognn.prune(model, "erk", 0.9, seed=seed) for seed in range(2))
    graph = start_series(topognn.encode(layout, masks=first))
    names = ["sink_nodes", "strength", "log10_paths", "two_hop", "components"]
    topognn.topometrics(graph, names).to_dict()
    changed = list(first)[3:6]
    mixed = {name: second[name] if name in changed else mask for name, mask in first.items()}
    again = encode_again(graph, mixed, layout.weights(), changed)
    want = topognn.topometrics(topognn.encode(layout, masks=mixed), names)
    assert topognn.topometrics(again, names).to_dict() == pytest.approx(want.to_dict(), rel=1e-6)


@on_devices
def test_files_and_doors(tmp_path: Path, device: str) -> None:
    model, masks = topognn.example_model()
    graph = topognn.encode(model, (1, 3, 3), masks, device=device)
    matrix = topognn.to_scipy(topognn.encode(model, (1, 3, 3), masks))
    graph.save(tmp_path / "graph.safetensors")
    loaded = topognn.MultipartiteGraph.load(tmp_path / "graph.safetensors", device=device)
    assert loaded.device.type == device
    assert (topognn.to_scipy(loaded) != matrix).nnz == 0 == (topognn.to_scipy(graph) != matrix).nnz
    assert (topognn.to_torch_sparse(graph).to_dense().cpu().numpy() == matrix.toarray()).all()
    assert topognn.to_networkx(graph).number_of_edges() == graph.num_edges


@on_gpu
def test_cupy_shares_the_matrix(device: str) -> None:
    pytest.importorskip("cupy")
    model, masks = topognn.example_model()
    graph = topognn.encode(model, (1, 3, 3), masks, device=device)
    matrix = topognn.to_cupy(graph)
    assert (matrix.get() != topognn.to_scipy(graph)).nnz == 0
    assert matrix.indices.data.ptr == graph.csr.indices.data_ptr()
    assert matrix.data.data.ptr == graph.csr.weights.data_ptr()


@on_devices
def test_layers_alone(tmp_path: Path, device: str) -> None:
    random = torch.Generator().manual_seed(0)
    kept = {f"{name}.weight": torch.randn(64, 48, generator=random) for name in "ab"}
    save_file({name: w * (w.abs() > 1) for name, w in kept.items()}, tmp_path / "net.safetensors")
    here, there = (topognn.measure_checkpoint(str(tmp_path / "net.safetensors"), device=d) for d in ("cpu", device))
    assert here.summary == there.summary
    for name, row in here.tables["ramanujan"].items():
        found = there.tables["ramanujan"][name]
        assert found == {key: value if value is None else pytest.approx(value, rel=1e-5) for key, value in row.items()}


@on_devices
def test_the_command_line(tmp_path: Path, device: str) -> None:
    found = []
    for where in ("cpu", device):
        arguments = f"report resnet20 --pruner erk --sparsity 0.95 --baselines --device {where} --json"
        done = CliRunner().invoke(app, [*arguments.split(), str(tmp_path / "found.json")])
        assert done.exit_code == 0, done.output
        found.append(json.loads((tmp_path / "found.json").read_text()))
    assert found[1]["device"].startswith(device)
    for table in ("raw", "normalized"):
        assert found[1][table] == pytest.approx(found[0][table], rel=1e-5)
    means = [{(row["encoding"], row["name"]): row["mean"] for row in one["baselines"]} for one in found]
    assert means[1] == pytest.approx(means[0], rel=1e-5)
