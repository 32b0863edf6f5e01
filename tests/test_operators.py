"""Products by rows and by convolutions against dense matrices."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import Tensor

import topognn
from tests.architectures import NAMED, Architecture, architectures, network
from tests.conftest import edges_of
from topognn.operators import linear_operator, products, sparse
from topognn.operators.matrix import KINDS, ConnectionProducts, pick_products
from topognn.operators.products import pull, push
from topognn.operators.sides import Gram, find_sides
from topognn.operators.sparse import SparseWeights, is_shifted, prefers_sparse


def encode(architecture: Architecture, shortcuts: str) -> topognn.MultipartiteGraph:
    return topognn.encode(architecture.build(), architecture.input_shape, architecture.masks(), shortcuts=shortcuts)


def dense(graph: topognn.MultipartiteGraph, weighted: bool) -> Tensor:
    matrix = torch.zeros(graph.num_nodes, graph.num_nodes, dtype=torch.float64)
    for (u, v), w in edges_of(graph, "out").items():
        matrix[u, v] = w if weighted else 1
    return matrix


def oracle(matrix: Tensor, kind: str) -> Tensor:
    both = matrix + matrix.T
    degrees = both.sum(0)
    scale = torch.where(degrees > 0, degrees, torch.inf).rsqrt()
    return {
        "out": matrix,
        "in": matrix.T,
        "adjacency": both,
        "laplacian": degrees.diag() - both,
        "normalized_laplacian": (degrees > 0).double().diag() - scale[:, None] * both * scale,
    }[kind]


def check(architecture: Architecture, shortcuts: str) -> None:
    graph = encode(architecture, shortcuts)
    x = torch.randn(3, graph.num_nodes, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for weighted in (True, False):
        matrix = dense(graph, weighted)
        routes = ["rows"] if graph.has_parallel_edges and not weighted else ["rows", "connections"]
        for kind in KINDS:
            want = x @ oracle(matrix, kind).T
            for route in routes:
                operator = linear_operator(graph, kind, weighted=weighted, route=route)
                assert torch.allclose(operator(x), want, rtol=1e-6, atol=1e-6), (kind, weighted, route)
                assert torch.equal(operator(x[0]), operator(x[:1])[0])
        rows, connections = (linear_operator(graph, weighted=weighted, route=r)(x) for r in (routes[0], routes[-1]))
        # Combined parallel edges are stored in float32; apart from that the two differ by float64 rounding alone.
        rounding = 1e-6 if graph.has_parallel_edges else 1e-13
        assert float((rows - connections).abs().max()) <= rounding * float(rows.abs().max())
        check_sides(graph, weighted, matrix, routes)
        if routes[-1] == "connections":
            by_weight = weight_by_weight(graph, weighted)
            assert torch.allclose(by_weight.adjacency(x), x @ (matrix + matrix.T), rtol=1e-6, atol=1e-6)
            assert torch.allclose(by_weight.out(x[:1]), x[:1] @ matrix.T, rtol=1e-6, atol=1e-6)


def weight_by_weight(graph: topognn.MultipartiteGraph, weighted: bool) -> ConnectionProducts:
    """Products by sparse weights wherever they can be, be they few or many."""
    weights = [
        SparseWeights(c, k, torch.float64, weighted)
        if is_shifted(c)
        else (k.magnitude if weighted else k.mask).double()
        for c, k in zip(graph.connections, graph.kept, strict=True)
    ]
    return ConnectionProducts(graph.layout, weights)


def check_sides(graph: topognn.MultipartiteGraph, weighted: bool, matrix: Tensor, routes: list[str]) -> None:
    sides = find_sides(graph)
    if sides is None:
        return
    both = matrix + matrix.T
    members = [[v for n in side for v in range(graph.partitions[n].offset, graph.partitions[n].end)] for side in sides]
    for inside in members:
        assert not both[inside][:, inside].any()
    for route in routes:
        gram = Gram(graph, sides, pick_products(graph, weighted, torch.float64, route))
        small = sorted(min(members, key=len)) if len(members[0]) != len(members[1]) else sorted(members[0])
        x = torch.randn(2, gram.size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        assert torch.allclose(gram(x), x @ (both @ both)[small][:, small], rtol=1e-5, atol=1e-5)
        assert torch.equal(gram.collect(gram.spread(x)), x)


@pytest.mark.parametrize("shortcuts", ["parametric", "all"])
@pytest.mark.parametrize("name", NAMED)
def test_named_architectures(name: str, shortcuts: str) -> None:
    check(NAMED[name], shortcuts)


@given(architectures())
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@pytest.mark.parametrize("few", [0, 4, 100])  # channels to which a strided layer is transposed phase by phase
def test_random_architectures(monkeypatch: pytest.MonkeyPatch, few: int, architecture: Architecture) -> None:
    monkeypatch.setattr(products, "_FEW_CHANNELS", few)
    check(architecture, "all")


def test_a_layer_that_reads_padding_alone() -> None:
    """And is the only one: no edge, and no other side."""
    check(network((1, 1, 1), "max_pool 0 kernel=2 stride=1 padding=1 dilation=2; linear 1 out=1"), "all")


def test_images_of_several_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sparse._SPAN, "cpu", 5)
    for name in ("grouped", "residual projection", "pool before conv"):
        check(NAMED[name], "parametric")


def test_few_weights_of_large_images_are_convolved_one_by_one() -> None:
    net = torch.nn.Sequential(
        *(torch.nn.Conv2d(4, 4, 3, padding=1), torch.nn.Conv2d(4, 4, 3, 2, 1), torch.nn.Conv2d(4, 4, 3, padding=1)),
        *(torch.nn.Conv2d(4, 8, 16), torch.nn.Flatten(), torch.nn.Linear(8, 8)),
    )
    masks = topognn.prune(net, "uniform", 0.9)
    masks["2.weight"] = torch.ones(4, 4, 3, 3, dtype=torch.bool)
    graph = topognn.encode(net, (4, 32, 32), masks)
    picked = [prefers_sparse(c, k) for c, k in zip(graph.connections, graph.kept, strict=True)]
    assert picked == [True, False, False, False, False]  # strided, dense, and those of a single place
    dense = torch.nn.functional.conv2d
    for dtype in (torch.float32, torch.float64):
        c, k = graph.connections[0], graph.kept[0]
        weights = SparseWeights(c, k, dtype, weighted=True)
        x = torch.rand(2, c.num_elements, dtype=dtype, generator=torch.Generator().manual_seed(0))
        want = dense(
            x.view(2, 4, 32, 32), net[0].weight.detach().abs().to(dtype) * masks["0.weight"], padding=1
        ).flatten(1)
        assert torch.allclose(push(c, weights, x, c.source), want, rtol=1e-5)
        y = torch.rand(2, c.num_targets, dtype=dtype, generator=torch.Generator().manual_seed(1))
        assert (pull(c, weights, y) * x).sum() == pytest.approx(float((want * y).sum()), rel=1e-5)


def test_plain_graphs_with_loops_and_parallel_edges() -> None:
    graph = topognn.from_edge_index([[0, 0, 1, 2, 2], [1, 1, 0, 2, 1]], 4, torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0]))
    x = torch.eye(4, dtype=torch.float64)
    weighted = linear_operator(graph)(x)
    assert weighted.tolist() == [[0, 7, 0, 0], [7, 0, 16, 0], [0, 16, 0, 0], [0, 0, 0, 0]]
    simple = linear_operator(graph, weighted=False)(x)
    assert simple.tolist() == [[0, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert linear_operator(graph, "out")(x).T.tolist()[0] == [0, 3, 0, 0]


def test_float32_is_added_up_in_float64_by_rows() -> None:
    graph = topognn.from_edge_index(torch.stack([torch.zeros(2**16, dtype=torch.int64), torch.arange(2**16)]))
    x = torch.full((2**16,), 1 + 2**-20)
    assert float(linear_operator(graph, "out", dtype=torch.float32)(x)[0]) == 2**16 * (1 + 2**-20)


def test_the_cheaper_route_is_taken() -> None:
    assert linear_operator(topognn.example_graph()).route == "rows"
    model = topognn.get_model("conv6")
    layout = topognn.trace(model, (3, 32, 32))
    routes = {
        s: linear_operator(topognn.encode(layout, masks=topognn.prune(model, "erk", s))).route for s in (0.98, 0.9, 0.5)
    }
    assert routes == {0.98: "rows", 0.9: "connections", 0.5: "connections"}


def test_bad_arguments() -> None:
    graph = topognn.example_graph()
    plain = topognn.from_edge_index([[0], [1]])
    with pytest.raises(topognn.UnknownNameError, match="did you mean 'laplacian'"):
        linear_operator(graph, "laplace")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="route must be 'rows' or 'connections'"):
        linear_operator(graph, route="dense")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="has no connections"):
        linear_operator(plain, route="connections")
    with pytest.raises(ValueError, match="float32 or float64"):
        linear_operator(plain, dtype=torch.float16)
    with pytest.raises(ValueError, match=r"x of shape \(3,\) does not fit"):
        linear_operator(plain)(torch.ones(3))
    parallel = encode(NAMED["repvgg"], "parametric")
    with pytest.raises(ValueError, match="count parallel edges apart"):
        linear_operator(parallel, weighted=False, route="connections")
    assert linear_operator(parallel, weighted=False).route == "rows"
