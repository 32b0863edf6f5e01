"""Memory: what docstrings and the encoder promise, measured in the allocator."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import nn

import topognn
from tests.memory import peak_bytes
from tests.plain_graphs import path, shuffled
from topognn.encoding.rows import allocate_rows
from topognn.kernels import launch
from topognn.metrics.components import connected_components
from topognn.metrics.cores import _peel_in_rounds, core_numbers
from topognn.metrics.cuts import biconnectivity
from topognn.metrics.motifs import motifs4
from topognn.plain import from_edge_index
from topognn.plain_graph import PlainGraph


def test_the_measure_sees_what_operations_copy() -> None:
    mask = torch.ones(1000, 1000, dtype=torch.bool)
    most, _ = peak_bytes(lambda: mask.clone())
    assert most == 1_000_000
    most, _ = peak_bytes(lambda: mask.sum(1))  # which makes an int64 of every bool
    assert most >= 8_000_000


@pytest.mark.parametrize(("name", "sparsity"), [("conv6", 0.995), ("resnet20", 0.95), ("mobilenet_v2", 0.97)])
@pytest.mark.parametrize("direction", ["out", "in"])
def test_encoding_takes_at_most_twice_the_rows(name: str, sparsity: float, direction: str) -> None:
    model = topognn.get_model(name)
    layout, masks = topognn.trace(model, (3, 32, 32)), topognn.prune(model, "erk", sparsity)
    most, rows = peak_bytes(lambda: topognn.encode(layout, masks=masks).rows(direction, weighted=True))
    own = sum(t.numel() * t.element_size() for t in (rows.indptr, rows.indices, rows.weights))
    assert own < most <= 2 * own


def test_large_rows_are_in_huge_pages_where_linux_has_them() -> None:
    settings = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    if not settings.exists() or "[madvise]" not in settings.read_text():
        pytest.skip("Linux does not let programs ask for huge pages here")
    rows = allocate_rows(torch.zeros(2, dtype=torch.int64), 10_000_000, torch.int32, True)
    for tensor in (rows.indices, rows.weights):
        assert "hg" in flags_of(tensor.data_ptr() + 2**21)
    assert "hg" not in flags_of(torch.empty(10_000_000, dtype=torch.int32).data_ptr() + 2**21)  # torch's own choice


def flags_of(address: int) -> list[str]:
    """Return what Linux keeps of the mapping of an address of this process."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if match := re.match("([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(match[1], 16) <= address < int(match[2], 16)
        elif inside and line.startswith("VmFlags:"):
            return line.split()[1:]
    raise AssertionError("no mapping holds this address")


def test_a_sparse_layer_is_never_copied_in_full() -> None:
    """A linear layer has one edge a kept weight: no float32 copy of all weights may be made."""
    model = nn.Sequential(nn.Linear(2000, 2000, bias=False))
    layout, mask = topognn.trace(model, (2000,)), torch.rand(2000, 2000) < 0.01
    most, rows = peak_bytes(lambda: topognn.encode(layout, masks={"0.weight": mask}).csr)
    assert rows.num_entries == int(mask.sum())
    assert most < 2 * mask.numel()


def test_magnitudes_are_made_when_asked_for() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 6, 3, groups=2, bias=False))
    weight = model[0].weight.detach()
    mask = torch.rand_like(weight) < 0.5
    (kept,) = topognn.encode(model, (4, 5, 5), {"0.weight": mask}).kept
    assert torch.equal(kept.magnitude, torch.where(mask, weight.abs(), 0.0))
    assert torch.equal(kept.values, weight[mask].abs())
    with torch.no_grad():
        model[0].weight.zero_()
    assert bool((kept.magnitude[mask] > 0).all())  # the graph is of the weights that it was made of


N = 50_000
SLACK = 50_000  # bytes: what does not grow with the graph, and heads of the tour


def sparse_graph(name: str) -> PlainGraph:
    """Make graphs of few edges a node, where bytes a node count most, and their rows."""
    rng = np.random.default_rng(0)
    edges = {
        "no edges": np.zeros((0, 2), dtype=np.int64),
        "path": shuffled(rng, N, path(N))[1],
        "star": np.stack([np.zeros(N - 1, dtype=np.int64), np.arange(1, N)], 1),
        "random": rng.integers(0, N, (2 * N, 2)),
    }[name]
    graph = from_edge_index(torch.from_numpy(edges.T.astype(np.int32)), N)
    assert graph.simple.num_entries <= graph.rows("both").num_entries
    return graph


GRAPHS = ["no edges", "path", "star", "random"]


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize(("algorithm", "bytes_a_node"), [("serial", 28), ("parallel", 40)])
def test_biconnectivity(name: str, algorithm: Literal["serial", "parallel"], bytes_a_node: int) -> None:
    graph = sparse_graph(name)
    most, found = peak_bytes(lambda: biconnectivity(graph, algorithm))
    assert most <= bytes_a_node * N + SLACK
    stay = 18 * N
    listing, bridges = peak_bytes(lambda: found.bridges)
    assert stay + listing <= 40 * N + 4 * graph.num_edges + SLACK
    assert listing <= 8 * N + 16 * len(bridges) + SLACK
    labelling, labels = peak_bytes(lambda: found.labels)
    assert labelling <= max(32 * N, 4 * N + 4 * len(labels)) + SLACK


@pytest.mark.parametrize("name", GRAPHS)
def test_components_cores_motifs(name: str) -> None:
    graph = sparse_graph(name)
    most, found = peak_bytes(lambda: connected_components(graph))
    assert most <= 9 * N + SLACK
    assert peak_bytes(lambda: found.sizes)[0] <= 24 * N + SLACK
    assert peak_bytes(lambda: core_numbers(graph))[0] <= 12 * N + SLACK
    assert peak_bytes(lambda: _peel_in_rounds(graph.simple))[0] <= 12 * N + SLACK
    entries, workers = graph.rows("both").num_entries, 8 * launch.get_num_threads()
    assert peak_bytes(lambda: motifs4(graph))[0] <= (64 + 4 * workers) * N + 8 * entries + SLACK
