"""The oracle itself, against graphs worked out by hand and against multiply-accumulates counted otherwise."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import nn

from tests.architectures import ADDS, NAMED, PARAMETRIC, POINTWISE, Architecture, architectures, network, step
from tests.naive import NaiveGraph, naive_graph, naive_metrics

SEEN: Counter[str] = Counter()


def dense(shape: tuple[int, ...], program: str) -> Architecture:
    return network(shape, program, density=1.0)


def weights(architecture: Architecture, layer: str) -> list[float]:
    return architecture.build().get_parameter(f"{layer}.weight").abs().flatten().tolist()


def same(graph: NaiveGraph, edges: dict[tuple[int, int], float]) -> None:
    assert graph.edges.keys() == edges.keys()
    assert graph.edges == pytest.approx(edges)


def test_convolution() -> None:
    net = dense((1, 3, 3), "conv2d 0 out=1 kernel=2")
    a, b, c, d = weights(net, "conv2d1")
    graph = naive_graph(net)
    assert graph.partition_shapes == [(1, 3, 3), (1, 2, 2)]
    expected: dict[tuple[int, int], float] = {}
    for out, corner in ((9, 0), (10, 1), (11, 3), (12, 4)):
        expected |= {(corner, out): a, (corner + 1, out): b, (corner + 3, out): c, (corner + 4, out): d}
    same(graph, expected)
    assert graph.output_nodes == {9, 10, 11, 12} and graph.output_partitions == [1]


def test_mask() -> None:
    net = dense((1, 1, 3), "conv2d 0 out=1 kernel=(1,2)")
    mask = torch.tensor([False, True]).reshape(1, 1, 1, 2)
    w = weights(net, "conv2d1")[1]
    same(naive_graph(net, {"conv2d1.weight": mask}), {(1, 3): w, (2, 4): w})


def test_pool_stands_for_its_window() -> None:
    net = dense((1, 2, 4), "max_pool 0 kernel=2; flatten 1; linear 2 out=1")
    p, q = weights(net, "linear3")
    same(naive_graph(net), {(n, 8): p if n % 4 < 2 else q for n in range(8)})


def test_overlapping_windows_give_parallel_edges() -> None:
    net = dense((1, 1, 3), "avg_pool 0 kernel=(1,2) stride=1; conv2d 1 out=1 kernel=(1,2)")
    p, q = weights(net, "conv2d2")
    same(naive_graph(net), {(0, 3): p, (1, 3): p + q, (2, 3): q})


def test_reflected_padding_gives_parallel_edges() -> None:
    net = dense((1, 1, 2), "conv2d 0 out=1 kernel=(1,3) padding=(0,1) padding_mode=reflect")
    p, q, r = weights(net, "conv2d1")
    same(naive_graph(net), {(0, 2): q, (1, 2): p + r, (0, 3): p + r, (1, 3): q})


def test_concatenated_with_itself() -> None:
    net = dense((1, 1, 1), "cat 0 0; conv2d 1 out=1")
    same(naive_graph(net), {(0, 1): sum(weights(net, "conv2d2"))})


def test_conv_plus_identity() -> None:
    net = dense((1, 1, 2), "conv2d 0 out=1; add 1 0")
    (w,) = weights(net, "conv2d1")
    same(naive_graph(net), {(0, 2): w, (1, 3): w})
    same(naive_graph(net, shortcuts="all"), {(0, 2): w + 1, (1, 3): w + 1})


def test_two_convs_are_one_partition_numbered_as_the_later() -> None:
    net = dense((1, 1, 2), "conv2d 0 out=1; flip 1 dims=(3,); conv2d 0 out=1; add 2 3; flatten 4; linear 5 out=1")
    (w,), (x,), (p, q) = (weights(net, layer) for layer in ("conv2d1", "conv2d3", "linear6"))
    graph = naive_graph(net)
    assert graph.names == ["input", "conv2d1+conv2d3", "linear6"]
    same(graph, {(0, 2): x, (1, 3): x, (0, 3): w, (1, 2): w, (2, 4): p, (3, 4): q})


def test_three_convs_in_any_order_are_one_partition() -> None:
    for adds in ("add 1 2; add 4 3", "add 2 3; add 4 1", "add 1 3; add 2 4"):
        net = dense((1, 1, 1), f"conv2d 0 out=1; conv2d 0 out=1; conv2d 0 out=1; {adds}")
        same(naive_graph(net), {(0, 1): sum(weights(net, f"conv2d{n}")[0] for n in (1, 2, 3))})


def test_sum_that_two_read_is_not_fresh() -> None:
    graph = naive_graph(dense((1, 1, 1), "conv2d 0 out=1; conv2d 0 out=1; add 1 2; conv2d 3 out=1; add 3 4"))
    assert graph.names == ["input", "conv2d1+conv2d2", "conv2d4"]


def test_no_fresh_operand() -> None:
    net = dense((1, 1, 1), "conv2d 0 out=1; add 1 1; conv2d 2 out=1")
    w, x = weights(net, "conv2d1")[0], weights(net, "conv2d3")[0]
    same(naive_graph(net), {(0, 1): w, (1, 2): 2.0, (2, 3): x})
    net = dense((1, 1, 1), "conv2d 0 out=1; activation 1 kind=relu; conv2d 2 out=1; add 1 2; add 4 3")
    w, x = weights(net, "conv2d1")[0], weights(net, "conv2d3")[0]
    same(naive_graph(net), {(0, 1): w, (1, 2): x, (1, 3): 2.0})


def test_two_pooled_convs_are_not_merged() -> None:
    net = dense((1, 1, 2), "conv2d 0 out=1; conv2d 0 out=1; mean 1 dims=(3,); mean 2 dims=(3,); add 3 4")
    w, x = weights(net, "conv2d1")[0], weights(net, "conv2d2")[0]
    ones = {(n, 6): 1.0 for n in (2, 3, 4, 5)}
    same(naive_graph(net), {(0, 2): w, (1, 3): w, (0, 4): x, (1, 5): x} | ones)


def test_pooled_conv_plus_identity() -> None:
    net = dense((1, 1, 2), "conv2d 0 out=1; mean 1 dims=(3,) keepdim=True; narrow 0 dim=3 start=1 length=1; add 2 3")
    (w,) = weights(net, "conv2d1")
    same(naive_graph(net, shortcuts="all"), {(0, 2): w, (1, 3): w + 1, (1, 2): 1.0})


def test_broadcast_operand_is_not_fresh() -> None:
    net = dense((1, 1, 2), "mean 0 dims=(2,3) keepdim=True; conv2d 1 out=1; add 0 2")
    (w,) = weights(net, "conv2d2")
    graph = naive_graph(net)
    assert graph.names == ["input", "conv2d2", "add3"]
    same(graph, {(0, 2): w, (1, 2): w, (0, 3): 1.0, (1, 4): 1.0, (2, 3): 1.0, (2, 4): 1.0})


def test_gate_stands_for_both() -> None:
    net = dense((2, 1, 1), "conv2d 0 out=2 groups=2; mul 0 1; conv2d 2 out=1")
    (w, x), (p, q) = weights(net, "conv2d1"), weights(net, "conv2d3")
    same(naive_graph(net), {(0, 2): w, (1, 3): x, (0, 4): p, (2, 4): p, (1, 4): q, (3, 4): q})


def test_tied_weights_make_two_partitions() -> None:
    net = dense((1, 1, 1), "conv2d 0 out=1; conv2d 1 share=1")
    (w,) = weights(net, "conv2d1")
    same(naive_graph(net), {(0, 1): w, (1, 2): w})


def test_input_padding_nodes() -> None:
    net = dense((1, 1, 1), "conv2d 0 out=1 kernel=(1,3) padding=(0,1); conv2d 1 out=1")
    (p, q, r), (w,) = weights(net, "conv2d1"), weights(net, "conv2d2")
    graph = naive_graph(net, input_padding_nodes=True)
    assert graph.partition_shapes == [(1, 1, 3), (1, 1, 1), (1, 1, 1)]
    same(graph, {(0, 3): p, (1, 3): q, (2, 3): r, (3, 4): w})


def test_metrics() -> None:
    graph = NaiveGraph(["input", "a", "b"], [(2,), (3,), (1,)], {(0, 2): 1.0, (0, 3): 2.0, (3, 5): 4.0}, frozenset({5}))
    graph.edges[4, 5] = 0.5
    found = naive_metrics(graph)
    assert found["sink_nodes"] == 1 and found["removable_out_edges"] == 1  # node 2
    assert found["source_nodes"] == 1 and found["removable_in_edges"] == 1  # node 4
    assert found["disconnected_nodes"] == 1  # node 1
    assert found["one_hop"] == (3 + 1 + 1 + 2 + 2 + 1) / 6
    assert found["two_hop"] == (4 + 1 + 1 + 2 + 2 + 1) / 6
    assert found["strength"] == pytest.approx(2 * 7.5 / 6)
    assert found["in_degrees"] == [0, 0, 1, 1, 0, 2] and found["out_strengths"] == [3.0, 0, 0, 4.0, 0.5, 0]


def check_against_a_forward_pass(architecture: Architecture) -> None:
    """A layer that reads distinct nodes has as many edges as kept weights meet real inputs, and their weights
    add up: both are sums of its response to ones. True of a layer that shares its partition with none.
    """
    model, masks = architecture.pruned(), architecture.masks()
    assert model(architecture.example_input(2)).shape[0] == 2
    graph = naive_graph(architecture)
    assert eval(repr(architecture), {"Architecture": Architecture, "step": step}) == architecture
    assert all(weight > 0 for weight in graph.edges.values())
    assert graph.ascending and all(u >= 0 and v < graph.nodes for u, v in graph.edges)
    assert graph.output_nodes <= set(range(graph.nodes))
    into: defaultdict[int, list[float]] = defaultdict(list)
    for (_, v), weight in graph.edges.items():
        into[graph.partition_of(v)].append(weight)
    shapes = [torch.zeros(1, *architecture.input_shape)]
    direct = {0}
    for number, one in enumerate(architecture.steps, 1):
        shapes.append(model.operation(number)(*[shapes[a] for a in one.args]))
        if one.op in PARAMETRIC or (one.op in POINTWISE and one.args[0] in direct):
            direct.add(number)
        name = f"{one.op}{number}"
        if one.op not in PARAMETRIC or one.args[0] not in direct or name not in graph.names:
            continue
        found = into[graph.names.index(name)]
        layer: Any = architecture.build().double().get_submodule(name)
        weight = layer.weight.detach().abs() * masks[f"{name}.weight"]
        layer.bias = None
        ones = torch.ones_like(shapes[one.args[0]], dtype=torch.float64)
        layer.weight = nn.Parameter(weight)
        assert sum(found) == pytest.approx(layer(ones).sum().item())
        layer.weight = nn.Parameter((weight > 0).double())
        count = layer(ones).sum().item()
        assert len(found) == count if getattr(layer, "padding_mode", "zeros") == "zeros" else len(found) <= count
        SEEN["layers"] += 1
    kinds = [
        "merged" if "+" in name else "sum" if name.rstrip("0123456789") in ADDS else "layer" for name in graph.names
    ]
    SEEN.update(set(kinds))
    SEEN.update({one.op for one in architecture.steps})


@pytest.mark.parametrize("name", NAMED)
def test_named_architectures(name: str) -> None:
    check_against_a_forward_pass(NAMED[name])


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(architectures())
def test_random_architectures(architecture: Architecture) -> None:
    check_against_a_forward_pass(architecture)


def test_random_architectures_are_not_trivial() -> None:
    """What the test above has seen (runs after it)."""
    if SEEN:
        assert SEEN["layers"] > 200 and SEEN["merged"] > 15 and SEEN["sum"] > 30
        assert {"conv2d", "linear", "max_pool", "avg_pool", "cat", "pad", "slice", "iadd"} <= SEEN.keys()
