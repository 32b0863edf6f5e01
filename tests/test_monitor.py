"""The monitor: what it says at any step is what a fresh encoding says, and it does no more than it must."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import prune as torch_prune

import topognn
from tests.architectures import NAMED
from tests.naive_attention import Sizes, build
from tests.test_fake_cuda import CUDA, fake_graph, is_on_cuda
from topognn.encoding import again
from topognn.encoding.again import encode_again, start_series
from topognn.encoding.kept import KeptWeights
from topognn.errors import TrainingError, UnknownNameError
from topognn.kernels import host
from topognn.monitoring import monitor as monitoring
from topognn.monitoring.monitor import CHEAP, TopometricsMonitor
from topognn.operators import sparse
from topognn.pruning.dynamic import RigL

QUICK = [name for name, metric in topognn.METRICS.items() if metric.group != "expansion"]
SPECTRAL = ["spectral_gap", "spectral_radius", "algebraic_connectivity"]
MASKS_ALONE = [name for name in QUICK if not topognn.METRICS[name].weighted]


def same_values(found: Any, expected: Any) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-12, nan_ok=True), name


def alter(mask: Tensor, generator: torch.Generator) -> Tensor:
    """Return a mask with some weights more and some less; sometimes none at all, or all."""
    kind = int(torch.randint(8, (1,), generator=generator))
    if kind < 2:
        return torch.full_like(mask, bool(kind))
    return mask ^ (torch.rand(mask.shape, generator=generator) < 0.1 * kind)


# -- encoding again -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(NAMED))
def test_graphs_of_a_series_are_those_of_fresh_encodings(name: str) -> None:
    architecture = NAMED[name]
    layout = topognn.trace(architecture.build(), architecture.input_shape)
    assert layout.weights is not None
    masks = {n: m.bool() for n, m in architecture.masks().items()}
    generator = torch.Generator().manual_seed(1)
    graph = start_series(topognn.encode(layout, masks=masks))
    topognn.topometrics(graph, MASKS_ALONE)
    for round_number in range(4):
        changed = [n for k, n in enumerate(masks) if (k + round_number) % 2 or len(masks) == 1]
        masks = masks | {n: alter(masks[n], generator) for n in changed}
        graph = encode_again(graph, masks, layout.weights(), changed, values=True)
        fresh = topognn.encode(layout, masks=masks)
        assert torch.equal(graph.in_degrees, fresh.in_degrees) and torch.equal(graph.out_degrees, fresh.out_degrees)
        assert graph.num_uses == fresh.num_uses and [k.count for k in graph.kept] == [k.count for k in fresh.kept]
        assert all(torch.equal(a.values, b.values) for a, b in zip(graph.kept, fresh.kept, strict=True))
        same_values(topognn.topometrics(graph, QUICK), topognn.topometrics(fresh, QUICK))
        if round_number < 2:
            continue
        found, expected = topognn.topometrics(graph, SPECTRAL), topognn.topometrics(fresh, SPECTRAL)
        for metric in SPECTRAL:  # searched from where the last one ended: equal to the tolerance of either
            assert found[metric] == pytest.approx(expected[metric], rel=1e-5, abs=1e-5, nan_ok=True), metric


def test_only_what_a_change_touches_is_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from topognn.metrics import effective
    from topognn.operators import sweeps

    calls: list[str] = []

    def count(module: Any, name: str) -> None:
        real = getattr(module, name)

        def counted(connection: Any, *args: Any) -> Any:
            calls.append(f"{name} {connection.layer}")
            return real(connection, *args)

        monkeypatch.setattr(module, name, counted)

    torch.manual_seed(0)
    net = nn.Sequential(*(nn.Linear(12, 12) for _ in range(6)))
    layout = topognn.trace(net, (12,))
    assert layout.weights is not None
    masks = topognn.prune(net, "uniform", 0.5)
    graph = start_series(topognn.encode(layout, masks=masks))
    topognn.topometrics(graph, CHEAP)
    count(sweeps, "push")
    count(sweeps, "pull")
    count(effective, "count_uses")
    masks["2.weight"] = ~masks["2.weight"]
    graph = encode_again(graph, masks, layout.weights(), {"2.weight"}, values=False)
    topognn.topometrics(graph, CHEAP)
    # Paths are counted from there on. What is reached and what reaches stays, beyond the changed layer.
    assert calls.count("push 2") == 2 and sum(call.startswith("push") for call in calls) == 5
    assert [call for call in calls if call.startswith("pull")] == ["pull 2"]
    assert [call for call in calls if call.startswith("count_uses")] == ["count_uses 2"]


@pytest.mark.parametrize("name", ["grouped", "residual projection"])
def test_sparse_weights_of_a_series_are_those_of_its_masks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse, "_DENSE_A_PLACE", math.inf)  # as if images were large
    test_graphs_of_a_series_are_those_of_fresh_encodings(name)


def test_sparse_weights_are_found_once_a_mask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse, "_DENSE_A_PLACE", math.inf)
    found: list[str] = []

    def counted(weights: Any, *args: Any) -> Any:
        found.append(args[0].layer)
        return real(weights, *args)

    real = KeptWeights.by_output
    monkeypatch.setattr(KeptWeights, "by_output", counted)
    net = nn.Sequential(*(nn.Conv2d(2, 2, 3, padding=1) for _ in range(4)))
    layout = topognn.trace(net, (2, 5, 5))
    assert layout.weights is not None
    masks = topognn.prune(net, "uniform", 0.5)
    graph = start_series(topognn.encode(layout, masks=masks))
    for changed, expected in ((None, ["0", "1", "2", "3"]), ("2.weight", ["2"]), ("0.weight", ["0"])):
        if changed:
            masks[changed] = ~masks[changed]
            graph = encode_again(graph, masks, layout.weights(), {changed}, values=False)
        found.clear()
        topognn.topometrics(graph, ["log10_paths", "paths"])
        assert found == expected


def test_one_sync_if_masks_changed_and_none_otherwise() -> None:
    model, masks = topognn.example_model()
    layout = topognn.trace(model, (1, 3, 3))
    assert layout.weights is not None
    graph = start_series(topognn.encode(layout, masks=masks))
    before = host.count_syncs()
    graph = encode_again(graph, {"2.weight": ~masks["2.weight"]}, layout.weights(), ["2.weight"])
    assert host.count_syncs() == before + 1
    encode_again(graph, {}, layout.weights(), [])
    assert host.count_syncs() == before + 1


def test_a_search_begins_near_what_the_last_one_found(monkeypatch: pytest.MonkeyPatch) -> None:
    from topognn.metrics import expansion, leading

    products: list[int] = []

    def counted(*args: Any, **more: Any) -> Any:
        found = find_eigenpairs(*args, **more)
        products.append(found.products)
        return found

    find_eigenpairs = leading.find_eigenpairs
    monkeypatch.setattr(leading, "find_eigenpairs", counted)
    monkeypatch.setattr(expansion, "find_eigenpairs", counted)
    torch.manual_seed(0)
    net, shape = nn.Sequential(*(nn.Conv2d(8, 8, 3, padding=1, bias=False) for _ in range(6))), (8, 12, 12)
    names = ["spectral_gap", "algebraic_connectivity"]
    monitor = TopometricsMonitor(net, shape, names, every=1)
    masks = topognn.prune(net, "uniform", 0.3)
    topognn.apply_masks(net, masks)
    monitor(1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1 + 0.001 * torch.randn_like(parameter))
    masks["3.weight"][0, 0, 0, 0] ^= True
    topognn.apply_masks(net, masks)
    monitor(2)
    monitor(3)  # nothing has changed at all
    cold, warm, same = sum(products[:2]), sum(products[2:4]), sum(products[4:])
    assert len(products) == 6 and max(warm, same) < cold
    expected = topognn.topometrics(topognn.encode(net, shape, masks), names)
    for name, value in expected.items():
        assert monitor.history[1][name] == pytest.approx(value, rel=1e-5)
        assert monitor.history[2][name] == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("name", ["pool before conv", "residual projection"])
def test_a_series_on_cuda_makes_one_sync_a_change(name: str) -> None:
    with fake_graph(name) as graph:
        start_series(graph)
        assert is_on_cuda(topognn.topometrics(graph, CHEAP).tensor)
        changed = next(c.weight for c in graph.connections if c.weight is not None)
        uses = [c for c in graph.connections if c.weight == changed]
        mask = torch.empty(uses[0].weight_shape, dtype=torch.bool, device=CUDA)
        weights = {c.weight: torch.empty(c.weight_shape, device=CUDA) for c in graph.connections if c.weight}
        with host.answering([3] * len(uses) + [-2]):  # kept weights of each use, and how many edges more
            after = encode_again(graph, {changed: mask}, weights, {changed})
        assert after.num_uses == graph.num_uses - 2 and is_on_cuda(after.in_degrees, after.out_degrees)
        assert is_on_cuda(topognn.topometrics(after, CHEAP).tensor)
        again_after = encode_again(after, {}, weights, set())
        assert is_on_cuda(topognn.topometrics(again_after, ["strength"]).tensor)


# -- the monitor --------------------------------------------------------------------------------------------


class Net(nn.Module):
    """A residual network, small."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.conv = nn.Conv2d(6, 6, 3, padding=1)
        self.head = nn.Linear(6 * 9, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(x + self.conv(x))
        return self.head(torch.max_pool2d(x, 2).flatten(1))  # type: ignore[no-any-return]


SHAPE = (1, 6, 6)


def steps(net: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> Iterator[int]:
    """Train a network; yield the number of each step."""
    generator = torch.Generator().manual_seed(5)
    for step in range(1, count + 1):
        x, y = torch.randn(8, *SHAPE, generator=generator), torch.randint(4, (8,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
        yield step


def test_during_rigl_every_measurement_is_that_of_a_fresh_encoding() -> None:
    torch.manual_seed(0)
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    rigl = RigL(net, optimizer, 0.7, total_steps=40, every=3, start="uniform")
    monitor = TopometricsMonitor(net, SHAPE, QUICK, every=2)
    seen = 0
    for step in steps(net, optimizer, 20):
        rigl.step()
        values = monitor(step)
        assert (values is not None) == (step % 2 == 0)
        if values is not None:
            seen += 1
            same_values(values, topognn.topometrics(topognn.encode(net, SHAPE, rigl.masks), QUICK))
    assert seen == 10 == len(monitor.history) and monitor.history.steps == list(range(2, 21, 2))


@pytest.mark.parametrize("kind", ["zeros", "prune buffers"])
def test_masks_that_are_not_in_force_are_found_in_the_model(kind: str) -> None:
    torch.manual_seed(0)
    net = Net()
    monitor = TopometricsMonitor(net, SHAPE, MASKS_ALONE, every=1)
    monitor(1)  # dense, without a warning
    assert monitor.history[0]["edges"] == 6 * 256 + 36 * 256 + 54 * 4 * 4
    for step, amount in enumerate((0.5, 0.3), start=2):
        if kind == "zeros":
            with torch.no_grad():
                net.conv.weight[torch.rand(net.conv.weight.shape) < amount] = 0
        else:
            torch_prune.l1_unstructured(net.conv, "weight", amount)
        values = monitor(step)
        assert values is not None
        same_values(values, topognn.topometrics(topognn.encode(net, SHAPE), MASKS_ALONE))
    topognn.apply_masks(net, topognn.get_masks(net)) if kind == "zeros" else None
    assert monitor.measure(9)["edges"] == monitor.history[2]["edges"]
    assert len({values["edges"] for values in monitor.history}) == 3


def test_nothing_is_encoded_while_masks_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[set[str]] = []

    def counted(graph: Any, masks: Any, weights: Any, changed: Any, **more: Any) -> Any:
        encoded.append(set(changed))
        return again.encode_again(graph, masks, weights, changed, **more)

    monkeypatch.setattr(monitoring, "encode_again", counted)
    net = Net()
    masks = topognn.prune(net, "uniform", 0.6)
    topognn.apply_masks(net, masks)
    cheap, weighted = (TopometricsMonitor(net, SHAPE, names, 1) for names in (CHEAP, ("strength", "sink_nodes")))
    for monitor in (cheap, weighted):
        monitor(1)
    before = host.count_syncs()
    first, second = cheap(2), cheap(3)
    assert first is second and encoded == [] and host.count_syncs() == before
    with torch.no_grad():
        net.conv.weight *= 2
    strength = weighted(2)
    assert encoded == [set()] and host.count_syncs() == before
    assert strength is not None and strength["strength"] > weighted.history[0]["strength"]
    masks["conv.weight"] = ~masks["conv.weight"]
    topognn.apply_masks(net, masks)  # the same masks but one
    cheap(4)
    assert encoded == [set(), {"conv.weight"}]
    masks["stem.weight"] &= False  # in place: that is another mask too
    topognn.apply_masks(net, masks)
    cheap(5)
    assert encoded[2:] == [{"stem.weight"}]
    assert cheap.history[-1]["log10_paths"] == -math.inf


@pytest.mark.parametrize("attention", ["all", "values"])
def test_attention_is_traced_as_asked(attention: Literal["all", "values"]) -> None:
    torch.manual_seed(0)
    net, shape = build(Sizes(), "function"), (Sizes().tokens, Sizes().width)
    monitor = TopometricsMonitor(net, shape, MASKS_ALONE, every=1, attention=attention)
    masks = topognn.prune(net, "uniform", 0.4)
    for name in (None, *masks):
        masks |= {} if name is None else {name: masks[name].roll(1)}
        topognn.apply_masks(net, masks)
        fresh = topognn.encode(net, shape, masks, attention=attention)
        same_values(monitor.measure(1), topognn.topometrics(fresh, MASKS_ALONE))


def test_a_monitor_leaves_the_model_and_random_states_alone() -> None:
    torch.manual_seed(3)
    net = Net()
    state = {name: value.clone() for name, value in net.state_dict().items()}
    random = torch.get_rng_state()
    monitor = TopometricsMonitor(net, SHAPE, QUICK, every=1)
    monitor(1)
    assert net.training and torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 10**6)), min_size=1, max_size=6))
@settings(max_examples=25, deadline=None)
def test_any_order_of_changes(changes: list[tuple[int, int]]) -> None:
    net = Net()
    masks = topognn.prune(net, "uniform", 0.6)
    names = list(masks)
    topognn.apply_masks(net, masks)
    monitor = TopometricsMonitor(net, SHAPE, CHEAP, every=1)
    for layer, seed in changes:
        monitor(1)
        masks[names[layer]] = alter(masks[names[layer]], torch.Generator().manual_seed(seed))
        topognn.apply_masks(net, masks)
    values = monitor(2)
    assert values is not None
    same_values(values, topognn.topometrics(topognn.encode(net, SHAPE, masks), CHEAP))


# -- history ------------------------------------------------------------------------------------------------


def make_history() -> Any:
    net = Net()
    masks = topognn.prune(net, "uniform", 0.6)
    monitor = TopometricsMonitor(net, SHAPE, ["sink_nodes", "effective_density"], every=5)
    for step in range(1, 16):
        masks["conv.weight"] = torch.rand(6, 6, 3, 3) < step / 20
        topognn.apply_masks(net, masks)
        monitor(step)
    return monitor.history


def test_history_becomes_a_frame_at_one_sync() -> None:
    history = make_history()
    before = host.count_syncs()
    frame = history.to_frame()
    assert host.count_syncs() == before + 1
    assert list(frame.columns) == ["nodes", "edges", "sink_nodes", "effective_density"]
    assert list(frame.index) == [5, 10, 15] and frame.index.name == "step"
    assert frame["sink_nodes"].dtype.kind == "i"
    for values, (_, row) in zip(history, frame.iterrows(), strict=True):
        assert dict(row) == values.to_dict()
    assert frame["edges"].is_monotonic_increasing


def test_history_is_drawn(tmp_path: Any) -> None:
    history = make_history()
    figure = history.plot()
    figure.savefig(tmp_path / "history.png")
    assert (tmp_path / "history.png").stat().st_size > 5000
    assert [axes.get_title() for axes in figure.axes] == ["sink nodes", "effective density"]
    line = figure.axes[1].lines[0]
    assert list(line.get_xdata()) == [5, 10, 15]
    assert list(line.get_ydata()) == history.to_dict()["effective_density"]
    assert len(history.plot(["edges"]).axes) == 1
    with pytest.raises(UnknownNameError, match="unknown metric 'strength'"):
        history.plot(["strength"])


def test_an_empty_history() -> None:
    history = TopometricsMonitor(Net(), SHAPE, ["sink_nodes"]).history
    assert len(history) == 0 and history.to_frame().empty
    assert history.to_dict() == {"step": [], "nodes": [], "edges": [], "sink_nodes": []}


# -- bad input ----------------------------------------------------------------------------------------------


def test_bad_arguments() -> None:
    with pytest.raises(UnknownNameError, match="unknown metric 'sinks': did you mean 'sink_nodes'"):
        TopometricsMonitor(Net(), SHAPE, ["sinks"])
    with pytest.raises(TrainingError, match="every=0 is no number of steps"):
        TopometricsMonitor(Net(), SHAPE, every=0)
    with pytest.raises(topognn.TraceError, match="input shape"):
        TopometricsMonitor(Net(), (3, 6, 6))
