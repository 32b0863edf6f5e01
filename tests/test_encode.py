"""The encoder against the naive oracle, on random and named architectures."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings

import topognn
from tests.architectures import NAMED, Architecture, architectures
from tests.conftest import edges_of
from tests.naive import naive_graph, naive_metrics
from topognn.kernels.rows import exchange_neighbors

NAIVE = (
    "sink_nodes source_nodes disconnected_nodes removable_out_edges removable_in_edges one_hop two_hop strength"
).split()
MODES = [("parametric", False), ("all", False), ("parametric", True)]


def check(architecture: Architecture, shortcuts: str, ring: bool) -> None:
    masks = architecture.masks()
    if ring and not reads_input(architecture):
        return
    want = naive_graph(architecture, masks, shortcuts, ring)
    graph = topognn.encode(
        architecture.build(), architecture.input_shape, masks, shortcuts=shortcuts, input_padding_nodes=ring
    )
    assert [p.size for p in graph.partitions] == want.partition_sizes
    assert list(graph.layout.outputs) == want.output_partitions
    for direction in ("out", "in"):
        assert edges_of(graph, direction) == pytest.approx(want.edges, rel=1e-5)
    assert graph.num_edges == len(want.edges)
    check_rows(graph)
    values = naive_metrics(want)
    for name in ("in_degrees", "out_degrees", "in_strengths", "out_strengths"):
        assert getattr(graph, name).tolist() == pytest.approx(values[name], rel=1e-5)
    for name, value in topognn.topometrics(graph, NAIVE).items():
        assert value == pytest.approx(values[name], rel=1e-5), name


def reads_input(architecture: Architecture) -> bool:
    """Whether a convolution reads the network's input itself, as the ring of padding nodes needs."""
    first = [s for s in architecture.steps if s.op == "conv2d" and s.args == (0,)]
    return any(dict(s.params).get("padding_mode", "zeros") == "zeros" for s in first)


def check_rows(graph: topognn.MultipartiteGraph) -> None:
    """Rows ascend without repeats, and the undirected ones are the directed ones and their transpose."""
    for direction in ("in", "out", "both"):
        rows = graph.rows(direction)
        for start, stop in zip(rows.indptr.tolist(), rows.indptr.tolist()[1:], strict=False):
            row = rows.indices[start:stop]
            assert bool((row.diff() > 0).all())
    dense = torch.zeros(graph.num_nodes, graph.num_nodes)
    for (u, v), w in edges_of(graph, "out").items():
        dense[u, v] += w
        dense[v, u] += w
    both = graph.undirected
    ends = torch.repeat_interleave(torch.arange(graph.num_nodes), both.indptr.diff())
    found = torch.zeros_like(dense)
    found[ends, both.indices.long()] = both.weights
    torch.testing.assert_close(found, dense)


@pytest.mark.parametrize(("shortcuts", "ring"), MODES)
@pytest.mark.parametrize("name", NAMED)
def test_named_architectures(name: str, shortcuts: str, ring: bool) -> None:
    check(NAMED[name], shortcuts, ring)


@settings(max_examples=500, deadline=None, suppress_health_check=list(HealthCheck))
@given(architectures())
def test_random_architectures(architecture: Architecture) -> None:
    check(architecture, "parametric", False)
    check(architecture, "all", False)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(architectures())
def test_random_architectures_with_input_padding_nodes(architecture: Architecture) -> None:
    check(architecture, "parametric", True)


def test_neighbors_are_exchanged_until_near_rows_are_sorted() -> None:
    """By the kernel that a GPU runs first: entries up to 16 places from theirs; others are left to sort_row."""
    generator = torch.Generator().manual_seed(0)
    indptr = torch.tensor([0, 0, 1, 40, 41, 340])
    places = torch.arange(340) + torch.randint(8, (340,), generator=generator)
    rows = torch.repeat_interleave(torch.arange(5), indptr.diff())
    indices = places.argsort(stable=True).int()  # each entry near its place, and all of a row different
    indices = torch.cat([indices[rows == row].argsort().int() for row in range(5)])
    assert int((indices.diff() < 0).sum()) > 50
    weights = indices.float() + 0.5
    exchange_neighbors.launch(5, 0, indptr, indices, weights, work=100)
    assert torch.equal(indices, torch.cat([torch.arange(n) for n in indptr.diff().tolist()]).int())
    assert torch.equal(weights, indices.float() + 0.5)
    far, kept = torch.arange(100).flip(0).int(), torch.zeros(0)
    exchange_neighbors.launch(1, 0, torch.tensor([0, 100]), far, kept)
    assert far.sort().values.tolist() == list(range(100)) and not torch.equal(far, far.sort().values)
