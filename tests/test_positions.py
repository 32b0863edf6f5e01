"""Edges as products of channels, rows and columns, and walks of two steps over them, against the graph's own rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import nn
from torchvision.models.vision_transformer import EncoderBlock

import topognn
from tests.architectures import NAMED, Architecture, architectures
from tests.test_fake_cuda import fake_graph, is_on_cuda
from tests.test_neighbors import Mixed, sizes_by_product
from topognn.kernels import host, launch
from topognn.metrics import neighbors
from topognn.metrics.motifs import can_count_by_channels, count_by_channels, count_by_rows, motifs
from topognn.metrics.neighbors import count_two_hop_by_channels, count_two_hop_by_rows, get_two_hop_sizes
from topognn.positions import counting
from topognn.positions.blocks import find_blocks
from topognn.positions.counting import count_dense, count_listed
from topognn.positions.walks import Walks, find_walks

TYPES = ("path", "claw", "cycle", "paw", "diamond", "clique", "total", "triangles")
MODES = ("parametric", "all")
NO_PRODUCT = {"permuted sum", "patches", "linear signal, cubic volume"}  # rows are columns; depth and height one axis


def encode(architecture: Architecture, shortcuts: str) -> topognn.MultipartiteGraph:
    model, masks = architecture.build(), architecture.masks()
    return topognn.encode(model, architecture.input_shape, masks, shortcuts=shortcuts)  # type: ignore[arg-type]


def adjacency(graph: topognn.MultipartiteGraph) -> torch.Tensor:
    """The dense adjacency matrix, from rows."""
    rows = graph.rows("out")
    joined = torch.zeros(graph.num_nodes, graph.num_nodes, dtype=torch.bool)
    joined[torch.repeat_interleave(torch.arange(graph.num_nodes), rows.indptr.diff()), rows.indices.long()] = True
    return joined


def check_blocks(graph: topognn.MultipartiteGraph) -> None:
    """Every block, written out node by node, is that part of the adjacency matrix; without a block it is empty."""
    found, want = graph.channels.found, adjacency(graph)
    for p, source in enumerate(found.pieces):
        for q, target in enumerate(found.pieces):
            part = want[source.nodes, target.nodes]
            block = found.blocks.get((p, q))
            if block is None:
                assert (p, q) in found.blocks or not part.any()
                continue
            (c, y, x), (d, z, w) = (piece.grid.split(np.arange(piece.grid.size)) for piece in (source, target))
            kind_y, kind_x = torch.from_numpy(block.y[y][:, z]), torch.from_numpy(block.x[x][:, w])
            here = (kind_y >= 0) & (kind_x >= 0)
            channels = graph.channels.joined(block)
            got = torch.zeros_like(part)
            at = here.nonzero(as_tuple=True)
            got[at] = channels[kind_y[at], kind_x[at], torch.from_numpy(c)[at[0]], torch.from_numpy(d)[at[1]]]
            assert torch.equal(got, part)


def check_ends(graph: topognn.MultipartiteGraph, walks: Walks) -> None:
    """Both ways of counting give what the adjacency matrix's square has, summed over each node's row."""
    dense, listed = count_dense(graph.channels, walks), count_listed(graph.channels, walks)
    assert all(torch.equal(a, b) for a, b in zip(dense, listed, strict=True))


def check_two_hop(graph: topognn.MultipartiteGraph) -> None:
    want = sizes_by_product(graph)
    assert np.array_equal(count_two_hop_by_rows(graph).numpy(), want)
    if graph.channels.found.are_whole:
        assert np.array_equal(count_two_hop_by_channels(graph).numpy(), want)
        for undirected in (False, True):
            for walks in find_walks(graph.channels.found, undirected):
                check_ends(graph, walks)


def check_motifs(graph: topognn.MultipartiteGraph) -> None:
    if can_count_by_channels(graph):
        got, want = vars(count_by_channels(graph)), vars(count_by_rows(graph))
        assert {name: got[name].tolist() for name in TYPES} == {name: want[name].tolist() for name in TYPES}


def check_degrees(graph: topognn.MultipartiteGraph) -> None:
    if graph.channels.found.are_whole:
        joined = adjacency(graph)
        assert torch.equal(graph.channels.count_targets(), joined.sum(1))
        assert torch.equal(graph.channels.count_sources(), joined.sum(0))


@pytest.mark.parametrize("shortcuts", MODES)
@pytest.mark.parametrize("name", NAMED)
def test_named_architectures(name: str, shortcuts: str) -> None:
    graph = encode(NAMED[name], shortcuts)
    assert graph.channels.found.are_whole == (name not in NO_PRODUCT)
    check_blocks(graph)
    check_two_hop(graph)
    check_motifs(graph)
    check_degrees(graph)


@pytest.mark.parametrize("attention", ["all", "values"])
@pytest.mark.parametrize("shortcuts", MODES)
def test_vision_transformer(shortcuts: str, attention: str) -> None:
    """Patches are tokens behind a class token, which stands alone; attention's hubs are channels at one place."""
    graph = encode_vision(shortcuts, attention)
    found, names = graph.channels.found, [p.name for p in graph.partitions]
    assert found.are_whole and can_count_by_channels(graph)
    pieces = [p for p in found.pieces if names[p.partition].endswith("encoder.0.self_attention.in_proj_weight")]
    assert [p.grid for p in pieces] == [(24, 1, 1, True), (24, 3, 2, True)]
    hubs = [p.grid for p in found.pieces if names[p.partition].endswith((".scores", ".values"))]
    assert {grid[1:3] for grid in hubs} == {(1, 1)}
    assert [piece.nodes.start for piece in found.pieces[1:]] == [piece.nodes.stop for piece in found.pieces[:-1]]
    check_blocks(graph)
    check_two_hop(graph)
    check_motifs(graph)
    check_degrees(graph)


def encode_vision(shortcuts: str, attention: str) -> topognn.MultipartiteGraph:
    torch.manual_seed(0)
    model = Vision()
    masks = topognn.prune(model, "uniform", 0.6)
    return topognn.encode(model, (3, 6, 4), masks, shortcuts=shortcuts, attention=attention)  # type: ignore[arg-type]


class Vision(nn.Module):
    """Patches, a class token, two layers of attention; of images higher than wide, which torchvision refuses."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 2, 2)
        self.class_token = nn.Parameter(torch.zeros(1, 1, 8))
        self.encoder = nn.Sequential(*(EncoderBlock(2, 8, 12, 0.0, 0.0) for _ in range(2)))
        self.head = nn.Linear(8, 3)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(image).flatten(2).transpose(1, 2)
        return self.head(self.encoder(torch.cat([self.class_token, tokens], 1))[:, 0])


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(architectures())
def test_random_architectures(architecture: Architecture) -> None:
    for shortcuts in MODES:
        graph = encode(architecture, shortcuts)
        check_blocks(graph)
        check_two_hop(graph)
        check_motifs(graph)
        check_degrees(graph)


@pytest.mark.parametrize("shortcuts", MODES)
@pytest.mark.parametrize("sparsity", [0.0, 0.6, 0.95])
def test_both_counts_in_a_larger_network(sparsity: float, shortcuts: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dense matrices in many parts, as they come where memory is short, and lists."""
    torch.manual_seed(0)
    model = Mixed()
    masks = topognn.prune(model, "uniform", sparsity)
    graph = topognn.encode(model, (2, 18, 18), masks, shortcuts=shortcuts)  # type: ignore[arg-type]
    monkeypatch.setattr(counting, "_AT_ONCE", 5000)
    check_two_hop(graph)
    for cost in (0.0, 1e9):
        monkeypatch.setattr(counting, "_MULTIPLICATIONS", cost)
        assert np.array_equal(get_two_hop_sizes(graph).numpy(), sizes_by_product(graph))
        check_motifs(graph)


def test_no_rows_are_made_where_edges_are_products() -> None:
    model = Mixed()
    graph = topognn.encode(model, (2, 34, 34), topognn.prune(model, "erk", 0.5))
    assert graph.has_parallel_edges  # overlapping pooling windows
    before = host.count_syncs()
    values = topognn.topometrics(graph, ["two_hop", "motifs", "one_hop", "sink_nodes", "removable_in_edges"])
    assert host.count_syncs() == before + 1  # the number of edges, parallel ones combined
    assert not graph._rows
    rows = graph.rows("out")
    assert values["edges"] == rows.num_entries
    assert values["two_hop"] == neighbors.count_two_hop_by_rows(graph).double().mean()
    assert values["motifs"] == count_by_rows(graph).total


def test_signatures_do_not_multiply_with_resolution() -> None:
    """Two 3x3 kernels have five offsets, and one more signature at either border."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1))
    for side in (8, 32, 100):
        layout = topognn.trace(model, (1, side, side))
        (walks,) = (w for w in find_walks(find_blocks(layout), False) if w.ways)
        assert walks.y.counts.shape == (side, 7)
        assert walks.y.counts.sum() == 5 * side - 6


def test_height_and_width_share_what_is_found() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1))
    found = find_blocks(topognn.trace(model, (1, 9, 9)))
    assert all(walks.y is walks.x for walks in find_walks(found, True))


def test_rows_are_taken_where_they_are_cheaper(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = encode(NAMED["pool before conv"], "parametric")
    want = topognn.topometrics(graph, ["two_hop", "motifs"]).tensor
    assert not graph._rows
    monkeypatch.setattr(counting, "_AN_EDGE", 0)
    assert torch.equal(topognn.topometrics(graph, ["two_hop", "motifs"]).tensor, want)
    assert set(graph._rows) == {"out", "both"}
    monkeypatch.setattr("topognn.graph.get_free_memory", lambda device: 1)
    assert graph.is_counted_by_channels(True)


@pytest.mark.parametrize("cost", [0.0, 1e9])
def test_two_hop_on_cuda_needs_no_sync(cost: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "_MULTIPLICATIONS", cost)
    for name in ("overlapping pool before conv", "dense concat", "grouped"):
        with fake_graph(name, "all") as graph:
            assert is_on_cuda(get_two_hop_sizes(graph), graph.in_degrees, graph.out_degrees)
            assert is_on_cuda(neighbors.two_hop(graph), motifs(graph))
        kernels = {entry.kernel for entry in launch.recorded}
        assert ({"list_joined", "count_ends"} <= kernels) == (cost == 0.0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("cost", [0.0, 1e9])
def test_on_a_gpu_two_hop_is_that_of_the_cpu(cost: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "_MULTIPLICATIONS", cost)
    model = topognn.get_model("resnet20")
    masks = topognn.prune(model, "erk", 0.9)
    want = get_two_hop_sizes(topognn.encode(model, (3, 32, 32), masks))
    got = get_two_hop_sizes(topognn.encode(model, (3, 32, 32), masks, device="cuda"))
    assert torch.equal(got.cpu(), want)
