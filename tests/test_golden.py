"""Two real pruned networks whose values were computed by independent programs."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import topognn

NETWORKS = {"conv6_98": "conv6", "resnet20_95": "resnet20"}


def load(shared: Path, name: str) -> tuple[torch.nn.Module, dict[str, torch.Tensor], dict[str, Any]]:
    """Return the model with the golden weights in it, its masks, and the golden values."""
    arrays = np.load(shared / "golden" / f"golden_{name}.npz")
    model = topognn.get_model(NETWORKS[name])
    parameters = dict(model.named_parameters())
    masks = {}
    for weight in {key.rpartition(".")[0] for key in arrays}:
        index = torch.from_numpy(arrays[f"{weight}.index"]).long()
        values = torch.zeros(parameters[weight].numel())
        values[index] = torch.from_numpy(arrays[f"{weight}.value"].astype(np.float32))
        mask = torch.zeros_like(values, dtype=torch.bool)
        mask[index] = True
        parameters[weight].data = values.view_as(parameters[weight])
        masks[weight] = mask.view_as(parameters[weight])
    golden = json.loads((shared / "golden" / "golden.json").read_text())[name]
    return model, masks, golden


@pytest.mark.parametrize("name", NETWORKS)
def test_graph_and_metrics(shared: Path, name: str) -> None:
    model, masks, golden = load(shared, name)
    want = golden["values"]
    graph = topognn.encode(model, (3, 32, 32), masks)
    assert graph.num_nodes == want["nodes"]
    assert graph.num_edges == want["edges"]
    assert [p.size for p in graph.partitions] == want["partition_sizes"]
    assert not graph.has_parallel_edges
    values = topognn.topometrics(graph)
    exact = "sink_nodes source_nodes disconnected_nodes removable_out_edges removable_in_edges one_hop two_hop"
    exact += " components mean_component largest_component cut_edges cut_nodes"
    for metric in exact.split():
        assert values[metric] == want[metric], metric
    assert values["k_core"] == pytest.approx(want["k_core"], rel=1e-12)
    for motif, count in golden.get("motifs", {}).items():
        if motif != "triangles":
            assert values["motifs" if motif == "total" else f"motif_{motif}"] == count, motif
    assert values["strength"] == pytest.approx(want["strength"], rel=1e-6)


@pytest.mark.parametrize("name", NETWORKS)
def test_edge_set(shared: Path, name: str) -> None:
    model, masks, golden = load(shared, name)
    graph = topognn.encode(model, (3, 32, 32), masks)
    rows = graph.csc
    targets = torch.repeat_interleave(torch.arange(graph.num_nodes, dtype=torch.int32), rows.indptr.diff())
    pairs = torch.stack([rows.indices, targets], 1).numpy().astype("<i4")  # ascending in (target, source)
    assert hashlib.sha256(pairs.tobytes()).hexdigest() == golden["values"]["edges_sha256"]
    out = graph.csr
    sources = torch.repeat_interleave(torch.arange(graph.num_nodes, dtype=torch.int32), out.indptr.diff())
    turned = np.stack([sources.numpy(), out.indices.numpy()], 1)
    turned = turned[np.lexsort((turned[:, 0], turned[:, 1]))]
    assert np.array_equal(turned, pairs)


def test_input_padding_nodes(shared: Path) -> None:
    model, masks, golden = load(shared, "conv6_98")
    want = golden["reference"]["with_input_padding_nodes"]
    graph = topognn.encode(model, (3, 32, 32), masks, input_padding_nodes=True)
    assert graph.num_nodes == want["n"] == 233_366
    assert graph.num_edges == want["m"] == 4_811_579
    assert [p.size for p in graph.partitions] == want["dim"]
    values = topognn.topometrics(graph)
    assert values["motifs"] == 30_871_183_472
    for metric in ("one_hop", "two_hop", "strength"):
        assert values[metric] == pytest.approx(want[metric], rel=1e-6)


def test_results_do_not_depend_on_threads(shared: Path) -> None:
    model, masks, _ = load(shared, "resnet20_95")
    layout = topognn.trace(model, (3, 32, 32))
    seen = []
    before = topognn.get_num_threads()
    try:
        for threads in (1, 4, 1, 4):
            topognn.set_num_threads(threads)
            graph = topognn.encode(layout, masks=masks)
            rows = graph.undirected
            seen.append((rows.indptr, rows.indices, rows.weights, topognn.topometrics(graph).tensor))
    finally:
        topognn.set_num_threads(before)
    for other in seen[1:]:
        assert all(torch.equal(a, b) for a, b in zip(seen[0], other, strict=True))
