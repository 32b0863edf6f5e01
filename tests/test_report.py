"""Topometrics as a mapping, tables, files, and doors to other libraries."""

from __future__ import annotations

import json
import math
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import torch
from torch import nn

import topognn
from tests.architectures import NAMED
from tests.conftest import edges_of
from topognn.kernels import host

SOME = ["residual projection", "overlapping pool before conv", "tokens", "permuted sum", "all pruned"]


def graph_of(name: str) -> topognn.MultipartiteGraph:
    architecture = NAMED[name]
    return topognn.encode(architecture.build(), architecture.input_shape, architecture.masks(), shortcuts="all")


def test_values_are_read_once_and_late() -> None:
    graph = topognn.example_graph()
    before = host.count_syncs()
    values = topognn.topometrics(graph, ["sink_nodes", "cut_nodes", "paths", "effective_density"])
    assert host.count_syncs() == before
    assert values["nodes"] == 19
    assert host.count_syncs() == before
    assert dict(values)["sink_nodes"] == values["sink_nodes"]
    assert host.count_syncs() == before + 1


def test_mapping() -> None:
    values = topognn.topometrics(topognn.example_graph(), ["strength", "sink_nodes"])
    assert list(values) == ["nodes", "edges", "strength", "sink_nodes"]
    assert len(values) == 4
    assert isinstance(values["sink_nodes"], int)
    assert values.to_dict("topo/") == {f"topo/{name}": value for name, value in values.items()}


def test_normalized_values_divide_as_published() -> None:
    names = "sink_nodes source_nodes disconnected_nodes removable_out_edges removable_in_edges one_hop two_hop strength"
    values = topognn.topometrics(topognn.example_graph(), names.split())
    n, m = values["nodes"], values["edges"]
    assert values.normalized() == {
        "sink_nodes": values["sink_nodes"] / n,
        "source_nodes": values["source_nodes"] / n,
        "disc_nodes": values["disconnected_nodes"] / n,
        "r-out": values["removable_out_edges"] / m,
        "r-in": values["removable_in_edges"] / m,
        "1-hop_nei": values["one_hop"] / m,
        "2-hop_nei": values["two_hop"] / m,
        "avg_node_strength": values["strength"] / m,
    }


def test_json_and_frame() -> None:
    values = topognn.topometrics(topognn.example_graph())
    assert json.loads(values.to_json())["raw"] == dict(values)
    frame = values.to_frame()
    assert frame.loc["sink_nodes", "value"] == values["sink_nodes"]
    assert frame.loc["strength", "group"] == "strength"
    assert set(frame.index) == set(topognn.METRICS)


def test_no_edges_to_divide_by() -> None:
    values = topognn.topometrics(graph_of("all pruned"))
    assert math.isnan(values.normalized()["r-out"])
    assert json.loads(values.to_json())["normalized"]["r-out"] is None


def test_layer_table() -> None:
    rows = topognn.layer_table(topognn.example_graph())
    assert [(r.layer, r.shape, r.kept, r.density, r.edges) for r in rows] == [
        ("0", (2, 1, 2, 2), 2, 0.25, 8),
        ("2", (2, 8), 5, 0.3125, 5),
    ]


@pytest.mark.parametrize("name", SOME)
def test_other_libraries_see_the_same_edges(name: str) -> None:
    graph = graph_of(name)
    want = edges_of(graph, "out")
    matrix = topognn.to_scipy(graph).tocoo()
    assert (
        dict(zip(zip(*map(np.ndarray.tolist, matrix.coords), strict=True), matrix.data.tolist(), strict=True)) == want
    )
    digraph = topognn.to_networkx(graph)
    assert {(u, v): w for u, v, w in digraph.edges(data="weight")} == want
    assert digraph.number_of_nodes() == graph.num_nodes
    assert nx.is_directed_acyclic_graph(digraph)
    other = topognn.to_igraph(graph)
    assert dict(zip(other.get_edgelist(), other.es["weight"], strict=True)) == want
    dense = topognn.to_torch_sparse(graph).to_dense()
    assert {(u, v): float(dense[u, v]) for u, v in dense.nonzero().tolist()} == want


def test_scipy_shares_memory() -> None:
    graph = topognn.example_graph()
    topognn.to_scipy(graph).data[:] = 5
    assert bool((graph.csr.weights == 5).all())


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
@pytest.mark.parametrize("door", [topognn.to_cupy, topognn.to_cugraph])
def test_cuda_libraries_need_a_cuda_graph(door: object) -> None:
    with pytest.raises(topognn.DeviceError, match="needs a graph on a CUDA device, not on cpu"):
        door(topognn.example_graph())  # type: ignore[operator]


@pytest.mark.parametrize("name", SOME)
def test_save_and_load(name: str, tmp_path: Path) -> None:
    graph = graph_of(name)
    graph.save(tmp_path / "graph.safetensors")
    loaded = topognn.MultipartiteGraph.load(tmp_path / "graph.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["graph.safetensors"]
    assert edges_of(loaded, "out") == edges_of(graph, "out")
    assert loaded.partitions == graph.partitions
    assert dict(topognn.topometrics(loaded)) == pytest.approx(dict(topognn.topometrics(graph)), rel=0, nan_ok=True)
    assert repr(topognn.layer_table(loaded)) == repr(topognn.layer_table(graph))  # NaN, which differs from itself, too


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "graph.safetensors"
    topognn.example_graph().save(path)
    before = path.read_bytes()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("topognn.storage.os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        topognn.example_graph().save(path)
    assert path.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_bad_graph_files(tmp_path: Path) -> None:
    path = tmp_path / "graph.safetensors"
    load = topognn.MultipartiteGraph.load
    with pytest.raises(topognn.CheckpointError, match="does not exist"):
        load(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(topognn.CheckpointError, match="not a readable safetensors file"):
        load(path)
    topognn.save_masks(path, {"a.weight": torch.ones(2, dtype=torch.bool)})
    with pytest.raises(topognn.CheckpointError, match="holds no topognn graph"):
        load(path)
    topognn.example_graph().save(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(topognn.CheckpointError, match="not a readable safetensors file"):
        load(path)


def test_two_step_and_one_step_encodings_agree() -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 2))
    masks = topognn.prune(model, "erk", 0.5)
    layout = topognn.trace(model, (2, 4, 4))
    for kept in (masks, {"0.weight": masks["0.weight"]}):
        assert edges_of(topognn.encode(layout, masks=kept), "out") == edges_of(
            topognn.encode(model, (2, 4, 4), kept), "out"
        )
