"""Path counts, path norms and what is effective, against slow oracles and closed forms."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import nn

import topognn
from tests.architectures import NAMED, Architecture, architectures
from tests.naive import NaiveGraph, naive_graph, naive_paths, naive_used_weights
from tests.test_golden import load
from topognn.metrics.effective import find_effective, prune_ineffective
from topognn.metrics.paths import find_paths

EFFECTIVE = "effective_nodes effective_edges effective_density layer_collapse".split()


def encode(architecture: Architecture, shortcuts: str) -> tuple[topognn.MultipartiteGraph, NaiveGraph]:
    masks = architecture.masks()
    graph = topognn.encode(architecture.build(), architecture.input_shape, masks, shortcuts=shortcuts)
    return graph, naive_graph(architecture, masks, shortcuts)


def check_paths(architecture: Architecture, shortcuts: str) -> None:
    graph, want = encode(architecture, shortcuts)
    for weighted in (False, True):
        found = find_paths(graph, weighted=weighted)
        forward, backward = naive_paths(want, weighted)
        rel = 1e-5 if weighted else 0
        assert found.forward.plain().tolist() == pytest.approx(forward, rel=rel)
        assert found.backward.plain().tolist() == pytest.approx(backward, rel=rel)
        total = sum(forward[v] for p in want.output_partitions for v in want.members(p))
        assert float(found.total) == pytest.approx(total, rel=rel)
        assert float(found.log10_total) == pytest.approx(math.log10(total) if total else -math.inf, abs=1e-5)
        if not graph.has_parallel_edges or weighted:  # else a use of a weight may be half an edge
            through = sum(forward[u] * (w if weighted else 1) * backward[v] for (u, v), w in want.edges.items())
            assert float(found.log2_through.exp2().sum()) == pytest.approx(through, rel=1e-5)


def check_effective(architecture: Architecture, shortcuts: str) -> None:
    graph, want = encode(architecture, shortcuts)
    forward, backward = naive_paths(want)
    sources = {u for u, paths in enumerate(forward) if paths}
    targets = {u for u, paths in enumerate(backward) if paths}
    found = find_effective(graph)
    assert found.from_input.tolist() == [bool(n) for n in forward]
    assert found.to_output.tolist() == [bool(n) for n in backward]
    used = naive_used_weights(architecture, architecture.masks(), shortcuts, sources, targets)
    known = {name: mask for name, mask in used.items() if name in found.masks}
    assert {name: mask.tolist() for name, mask in found.masks.items()} == {n: m.tolist() for n, m in known.items()}
    assert not any(mask.any() for name, mask in used.items() if name not in known)
    kept = [int(mask.sum()) for mask in known.values()]
    assert dict(topognn.topometrics(graph, EFFECTIVE)) == {
        "nodes": want.nodes,
        "edges": len(want.edges),
        "effective_nodes": len(sources & targets),
        "effective_edges": sum(u in sources and v in targets for u, v in want.edges),
        "effective_density": sum(kept) / sum(mask.numel() for mask in known.values()),
        "layer_collapse": kept.count(0),
    }


@pytest.mark.parametrize("shortcuts", ["parametric", "all"])
@pytest.mark.parametrize("name", NAMED)
def test_named_architectures(name: str, shortcuts: str) -> None:
    check_paths(NAMED[name], shortcuts)
    if shortcuts == "all":
        check_effective(NAMED[name], shortcuts)


@given(architectures())
@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
def test_random_architectures(architecture: Architecture) -> None:
    check_paths(architecture, "all")


@given(architectures())
@settings(max_examples=10, deadline=None, suppress_health_check=list(HealthCheck))
def test_what_is_effective_in_random_architectures(architecture: Architecture) -> None:
    check_effective(architecture, "parametric")


@pytest.mark.parametrize("name", ["conv6_98", "resnet20_95"])
def test_golden_path_counts(shared: Path, name: str) -> None:
    model, masks, golden = load(shared, name)
    found = find_paths(topognn.encode(model, (3, 32, 32), masks))
    want = golden["values"]["paths"]
    assert float(found.total) == want if want < 2**53 else float(found.total) == pytest.approx(want, rel=1e-12)
    assert float(found.log10_total) == pytest.approx(math.log10(want), rel=1e-12)


def test_no_depth_overflows() -> None:
    width, depth = 64, 200
    model = nn.Sequential(*[nn.Linear(width, width, bias=False) for _ in range(depth)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that it is dense
        graph = topognn.encode(model, (width,))
    found = find_paths(graph)
    assert float(found.total) == math.inf
    assert float(found.log10_total) == pytest.approx((depth + 1) * math.log10(width), rel=1e-12)
    assert found.forward.log2()[-width:].tolist() == [6.0 * depth] * width
    assert found.backward.log2()[:width].tolist() == [6.0 * depth] * width
    # Every path is on one edge a layer, and a dense layer shares them evenly among its weights.
    assert found.log2_through.tolist() == pytest.approx([6.0 * (depth + 1)] * depth, rel=1e-12)
    half = {name: torch.full_like(p, 0.5) for name, p in model.named_parameters()}
    expected = (depth + 1) * math.log(width) - depth * math.log(2)
    layout = topognn.trace(model, (width,))
    assert float(topognn.log_path_sum(layout, half).detach()) == pytest.approx(expected, rel=1e-6)


def test_path_norm_is_the_objective_of_synflow() -> None:
    model = topognn.get_model("conv6").double()
    masks = topognn.prune(model, "erk", 0.9)
    for name, parameter in model.named_parameters():
        parameter.data = parameter.abs() * masks.get(name, torch.tensor(0.0))
    graph = topognn.encode(model, (3, 32, 32), masks)
    # Max pooling is a sum in the graph: replaced, as are activations, by what the graph says of them.
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear | nn.MaxPool2d)]
    x = torch.ones(1, 3, 32, 32, dtype=torch.float64)
    for layer in layers:
        if isinstance(layer, nn.MaxPool2d):
            x = nn.functional.avg_pool2d(x, layer.kernel_size) * 4
        else:
            x = layer(x.flatten(1) if isinstance(layer, nn.Linear) else x)
    assert float(find_paths(graph, weighted=True).total) == pytest.approx(float(x.detach().sum()), rel=1e-6)


@pytest.mark.parametrize("bias", [True, False])
def test_a_network_without_its_ineffective_weights_computes_the_same(bias: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(2, 8, 3, padding=1, bias=bias), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 8, 3, padding=1, bias=bias), nn.ReLU(), nn.Flatten(), nn.Linear(72, 4, bias=bias)),
    ).double()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.data.fill_(0.5)  # so that a unit without inputs puts out something
    masks = topognn.prune(model, "uniform", 0.93, seed=3)
    layout = topognn.trace(model, (2, 6, 6))
    fewer = prune_ineffective(layout, masks)
    fewest = prune_ineffective(layout, masks, constants=False)
    counts = [sum(int(m.sum()) for m in some.values()) for some in (masks, fewer, fewest)]
    assert counts[0] > counts[1] > counts[2] > 0
    assert all(not (fewer[n] & ~masks[n]).any() and not (fewest[n] & ~fewer[n]).any() for n in masks)
    x = torch.randn(5, 2, 6, 6, dtype=torch.float64)
    whole = outputs(model, masks, x)
    assert torch.equal(outputs(model, fewer, x), whole)
    assert torch.equal(outputs(model, fewest, x), whole) != bias
    effective = find_effective(topognn.encode(layout, masks=masks)).masks
    assert all(torch.equal(fewest[name], effective[name]) for name in masks)


def outputs(model: nn.Module, masks: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    weights = {name: model.get_parameter(name) * mask for name, mask in masks.items()}
    with torch.no_grad():
        return torch.func.functional_call(model, weights, (x,))


def test_prune_ineffective_wants_a_layout() -> None:
    with pytest.raises(topognn.TraceError, match=r"pass topognn\.trace"):
        prune_ineffective(nn.Linear(2, 2))  # type: ignore[arg-type]
