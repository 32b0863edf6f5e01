"""Ramanujan metrics: the reference's own values, a dense SVD on random layers, closed forms, large layers."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import svds
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode

import topognn
from tests.memory import peak_bytes
from tests.naive import bare, responses
from tests.naive_layers import Numbers, naive_scores, naive_scores_of
from tests.test_fake_cuda import fake
from tests.test_golden import load
from topognn.baselines import classes, scores, singular, unrolled
from topognn.encoding import layer_graphs
from topognn.encoding.layer_graphs import LayerWeights, _cut_out, encode_layers, roll
from topognn.kernels.host import answering, count_syncs
from topognn.lanczos import find_eigenpairs

Layers = list[tuple[nn.Module, Tensor]]


def score(layers: Layers, kind: str = "rolled") -> topognn.LayerTable:
    model = nn.ModuleList([layer for layer, _ in layers])
    masks = {f"{number}.weight": mask for number, (_, mask) in enumerate(layers)}
    return topognn.ramanujan(model, kind, masks)  # type: ignore[arg-type]


def check(row: Any, want: Numbers, where: object) -> None:
    for name in scores.COLUMNS:
        got, expected = row[name], want[name]
        assert (got is None) == (expected is None), (where, name, got, expected)
        if got is not None:
            assert got == pytest.approx(expected, abs=1e-5, rel=1e-5), (where, name)
            assert isinstance(got, scores.COLUMNS[name])


def draw_layer(rng: np.random.Generator) -> tuple[nn.Module, Tensor]:
    """A random layer of any kind, and a mask that is even, empty, uneven by input or uneven by output."""
    kind = rng.choice(["linear", "conv1d", "conv2d", "conv3d", "grouped", "depthwise"])
    i, o, k = (int(n) for n in rng.integers(1, [40, 40, 4]))
    makers: dict[str, Callable[[], nn.Module]] = {
        "linear": lambda: nn.Linear(i, o),
        "conv1d": lambda: nn.Conv1d(i, o, k),
        "conv2d": lambda: nn.Conv2d(max(1, i // 2), o, (k, 2)),
        "conv3d": lambda: nn.Conv3d(max(1, i // 4), o, (1, k, 2)),
        "grouped": lambda: nn.Conv2d(3 * max(1, i // 4), 3 * max(1, o // 2), k, groups=3),
        "depthwise": lambda: nn.Conv2d(i, i * k, 3, groups=i),
    }
    layer: Any = makers[str(kind)]()
    shape = layer.weight.shape
    density = float(rng.choice([0, 0.05, 0.2, 0.5, 0.8, 1]))
    chance = torch.full(shape, density)
    spread = int(rng.integers(3))  # even, by output, by input
    if spread:
        sizes = [n if axis == spread - 1 else 1 for axis, n in enumerate(shape)]
        chance = chance * 2 * torch.from_numpy(rng.random(sizes)).float()
    return layer, torch.from_numpy(rng.random(tuple(shape))).float() < chance


@pytest.mark.parametrize("kind", ["rolled", "rolled_channel"])
def test_golden_values_of_the_reference(shared: Path, kind: str) -> None:
    model, masks, _ = load(shared, "conv6_98")
    want = json.loads((shared / "golden" / "golden.json").read_text())["conv6_98"]["ramanujan"][kind]
    found = topognn.ramanujan(model, kind.replace("_", "-"), masks)  # type: ignore[arg-type]
    assert list(found) == list(want)
    undefined = 0
    for layer, values in want.items():
        for name in ("iterative_spectral_gap", "imdb", "delta_r", "density"):
            undefined += values[name] is None
            if values[name] is None:
                assert found[layer][name] is None, (layer, name)
            else:
                assert found[layer][name] == pytest.approx(values[name], abs=1e-5), (layer, name)
        assert found[layer]["edges"] == values["edges"]
    assert undefined == sum(found.undefined.values()) == {"rolled": 8, "rolled_channel": 14}[kind]


@pytest.mark.parametrize("kind", ["rolled", "rolled-channel"])
def test_random_layers_against_a_dense_svd(kind: str) -> None:
    rng = np.random.default_rng(7)
    scored = 0
    for _ in range(5):
        torch.manual_seed(int(rng.integers(2**31)))
        layers = [draw_layer(rng) for _ in range(50)]
        for number, row in enumerate(score(layers, kind).values()):
            layer, mask = layers[number]
            check(row, naive_scores(layer, mask, kind == "rolled-channel"), (layer, mask.shape))
            scored += row["imdb"] is not None
    assert scored > 40


def of_matrix(rows: Any) -> Any:
    """The row of a linear layer whose weights, all 1, are where a matrix (left by right) has ones."""
    mask = torch.as_tensor(rows).T.bool()
    layer = nn.Linear(mask.shape[1], mask.shape[0])
    nn.init.ones_(layer.weight)
    (row,) = score([(layer, mask)]).values()
    return row


def test_empty_layer() -> None:
    row = of_matrix(np.zeros((4, 3)))
    sizes = {"density": 0.0, "n_left": 0, "n_right": 0, "edges": 0}
    assert {name: row[name] for name in sizes} == sizes
    assert all(row[name] is None for name in row if name not in sizes)


def test_one_row_one_column_one_edge() -> None:
    star = of_matrix(np.ones((1, 9)))
    assert star["bound"] == pytest.approx(math.sqrt(8), rel=1e-15)  # torch's root is one bit off on some CPUs
    assert star["delta_r"] == 1 and star["spectral_gap"] == pytest.approx(3)
    assert star["imdb"] is None and star["is_ramanujan"] is True and star["is_scored"] is False
    assert of_matrix(np.ones((9, 1)))["delta_r"] == 1
    edge = of_matrix(np.ones((1, 1)))
    assert edge["bound"] == 0 and edge["delta_r"] is None and edge["is_ramanujan"] is None
    assert edge["delta_s"] == 0 and edge["spectral_gap"] == 1


def test_complete_bipartite_has_no_second_value() -> None:
    for left, right in ((3, 3), (5, 8), (40, 30), (200, 4)):
        row = of_matrix(np.ones((left, right)))
        assert row["delta_r"] == row["imdb"] == 1
        assert row["spectral_gap"] == row["iterative_spectral_gap"] == pytest.approx(math.sqrt(left * right))
        assert row["is_scored"] is row["is_ramanujan"] is True


def test_all_degrees_below_three() -> None:
    ring = np.eye(12) + np.roll(np.eye(12), 1, 1)
    row = of_matrix(ring)
    assert row["imdb"] is row["iterative_spectral_gap"] is None
    assert row["delta_r"] == pytest.approx((2 - 2 * math.cos(math.pi / 12)) / 2)
    assert row["is_ramanujan"] is True and row["is_scored"] is False


def test_a_matching() -> None:
    row = of_matrix(np.eye(7, 9))
    assert row["bound"] == 0 and row["delta_r"] is None and row["delta_s"] == pytest.approx(-1)


def test_two_components_meet_their_bound_exactly() -> None:
    row = of_matrix(np.kron(np.eye(2), np.eye(4) + np.roll(np.eye(4), 1, 1)))  # two rings: s_1 = s_2 = 2
    assert row["delta_r"] == pytest.approx(0, abs=1e-9) and row["is_ramanujan"] is True
    assert row["spectral_gap"] == pytest.approx(0, abs=1e-9)


def test_the_heawood_graph_is_ramanujan() -> None:
    lines = np.array([[(i + d) % 7 for d in (0, 1, 3)] for i in range(7)])
    matrix = np.zeros((7, 7))
    matrix[np.arange(7)[:, None], lines] = 1
    row = of_matrix(matrix)
    assert row["delta_r"] == row["imdb"] == pytest.approx(1 - math.sqrt(2) / (2 * math.sqrt(2)))


def test_a_class_that_d_r_leaves_out() -> None:
    """Nodes of degree 4 meet three a right node, those of degree 3 only one: one of two classes counts."""
    matrix = np.zeros((4, 10))
    matrix[:3, :4] = 1
    matrix[3, 4:7] = 1
    row = of_matrix(matrix)
    assert row["imdb"] == 1 and row["iterative_spectral_gap"] == pytest.approx(math.sqrt(12))


def test_depthwise_layers_have_no_subgraphs_but_a_bound() -> None:
    layer = nn.Conv2d(6, 6, 3, groups=6)
    (row,) = score([(layer, torch.ones(6, 1, 3, 3, dtype=torch.bool))]).values()
    assert row["n_left"] == 54 and row["n_right"] == 6 and row["d_l"] == 1 and row["d_r"] == 9
    assert row["delta_r"] == pytest.approx((math.sqrt(8) - 3) / math.sqrt(8))  # six stars: s_1 = s_2 = 3
    assert row["imdb"] is None


def test_large_classes_and_layers_take_the_same_values_by_every_route(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces, float32 products and Lanczos, forced on a layer small enough for an SVD."""
    torch.manual_seed(3)
    layer = nn.Linear(150, 90)
    mask = torch.rand(90, 150) < 0.1
    mask[:, :40] = torch.rand(90, 1) < 0.3  # a class of 40 nodes that are alike
    want = naive_scores(layer, mask, False)
    applied = []

    def spy(apply: Any, start: Any, count: int, **more: Any) -> Any:
        applied.append(start.shape)
        return find_eigenpairs(apply, start, count, **more)

    monkeypatch.setattr(singular, "find_eigenpairs", spy)
    for name, value in (("_AT_ONCE", 500), ("_EXACT_BELOW", 0), ("_COUNTED_BELOW", 0), ("DENSE_UP_TO", 16)):
        monkeypatch.setattr(singular, name, value)
    monkeypatch.setattr(classes, "_GATHERED", 1000)
    monkeypatch.setattr(classes, "_WEIGHTS_TOGETHER", 1)
    for number, row in enumerate(score([(layer, mask), (layer, mask)]).values()):
        check(row, want, number)
    assert (2, 90) in applied


def test_lanczos_that_does_not_converge_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **more: Any) -> Any:
        raise topognn.ConvergenceError("no")

    monkeypatch.setattr(singular, "DENSE_UP_TO", 4)
    monkeypatch.setattr(singular, "find_eigenpairs", fail)
    torch.manual_seed(0)
    layer, mask = nn.Linear(20, 20), torch.rand(20, 20) < 0.5
    (row,) = score([(layer, mask)]).values()
    check(row, naive_scores(layer, mask, False), "fallback")


def test_a_wide_layer_by_lanczos() -> None:
    torch.manual_seed(0)
    layer, mask = nn.Linear(1300, 1100), torch.rand(1100, 1300) < 0.3
    (row,) = score([(layer, mask)]).values()
    ones = mask.T.double().numpy()
    w = svds(ones * layer.weight.T.detach().abs().double().numpy(), 2, return_singular_vectors=False)
    s = svds(ones, 2, return_singular_vectors=False)
    assert row["spectral_gap"] == pytest.approx(w[1] - w[0], rel=1e-6)
    assert row["delta_r"] == pytest.approx(1 - s[0] / row["bound"], rel=1e-5)
    assert row["delta_s"] == pytest.approx(2 * math.sqrt(s[1] - 1) - s[0], rel=1e-5)


def test_layers_measured_apart_and_together_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model = topognn.get_model("resnet20")
    masks = topognn.prune(model, "uniform", 0.9)
    together = topognn.ramanujan(model, "rolled", masks)
    names = ["cut_edges", "assortativity"]
    others = topognn.layer_topometrics(model, "rolled", masks, metrics=names)
    monkeypatch.setattr(layer_graphs, "_TOGETHER", 50_000)
    before = count_syncs()
    assert topognn.ramanujan(model, "rolled", masks).to_dict() == together.to_dict()
    assert count_syncs() - before > 6
    assert topognn.layer_topometrics(model, "rolled", masks, metrics=names).to_dict() == others.to_dict()


def test_memory_of_a_large_layer() -> None:
    """Some 14 bytes a weight, and what is copied at a time: a layer of 4096 x 14336 stays below 2 GB."""
    layer, mask = nn.Linear(1500, 3000, bias=False), torch.empty(3000, 1500, dtype=torch.bool).bernoulli_(0.5)
    most, _ = peak_bytes(lambda: score([(layer, mask)]))
    assert 4 * mask.numel() < most < 14 * mask.numel() + 2**27


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")
def test_a_gpu_gives_the_same() -> None:
    model = topognn.get_model("resnet20")
    masks = topognn.prune(model, "erk", 0.9)
    for kind in ("rolled", "rolled-channel"):
        want = topognn.ramanujan(model, kind, masks)  # type: ignore[arg-type]
        topometrics = topognn.layer_topometrics(model, kind, masks)  # type: ignore[arg-type]
        there = {name: mask.cuda() for name, mask in masks.items()}
        for table, got in (
            (want, topognn.ramanujan(model.cuda(), kind, there)),  # type: ignore[arg-type]
            (topometrics, topognn.layer_topometrics(model, kind, there)),  # type: ignore[arg-type]
        ):
            for layer, row in table.items():
                for name, value in row.items():
                    assert got[layer][name] == (None if value is None else pytest.approx(value, rel=1e-5, abs=1e-6))
        model.cpu()


def test_a_table_of_layers() -> None:
    full, none = torch.ones(4, 4, dtype=torch.bool), torch.zeros(4, 4, dtype=torch.bool)
    table = score([(nn.Linear(4, 4), full), (nn.Linear(4, 4), none)])
    assert list(table) == ["0", "1"] and table.kind == "rolled"
    assert table.means["delta_r"] == 1 and table.undefined["delta_r"] == 1 and table.means["density"] == 0.5
    assert table.means["is_ramanujan"] == 1 and table.undefined["edges"] == 0
    assert score([(nn.Linear(4, 4), none)]).means["delta_r"] is None
    lines = table.to_csv().splitlines()
    assert lines[0] == "layer," + ",".join(scores.COLUMNS)
    assert lines[2] == "1,0.0,0,0,0" + "," * (len(scores.COLUMNS) - 4)
    assert json.loads(json.dumps(table.to_dict()))["layers"][0]["delta_r"] == 1
    frame = table.to_frame()
    assert frame.loc["0", "delta_r"] == 1 and frame["delta_r"].isna().sum() == 1


UNROLLED: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], float]] = {
    "conv2d": (lambda: nn.Conv2d(3, 8, 3, padding=1), (3, 6, 6), 0.4),
    "conv2d, strided": (lambda: nn.Conv2d(2, 12, 3, stride=2), (2, 7, 7), 0.6),
    "conv2d, dense": (lambda: nn.Conv2d(2, 6, 2), (2, 4, 4), 1.0),
    "conv2d, empty": (lambda: nn.Conv2d(2, 6, 2), (2, 4, 4), 0.0),
    "grouped": (lambda: nn.Conv2d(4, 12, 2, groups=2), (4, 5, 5), 0.7),
    "depthwise": (lambda: nn.Conv1d(4, 4, 3, groups=4), (4, 9), 0.8),
    "conv3d": (lambda: nn.Conv3d(2, 6, 2), (2, 3, 3, 3), 0.6),
    "tokens": (lambda: nn.Linear(9, 7), (4, 9), 0.5),
    "one edge": (lambda: nn.Conv2d(1, 1, 2), (1, 2, 2), 0.25),
}


@pytest.mark.parametrize("name", UNROLLED)
def test_unrolled_layers_against_a_dense_svd(name: str) -> None:
    make, shape, density = UNROLLED[name]
    torch.manual_seed(4)
    layer: Any = make()
    count = round(density * layer.weight.numel())
    mask = (torch.randperm(layer.weight.numel()) < count).view(layer.weight.shape)
    (row,) = topognn.ramanujan(nn.Sequential(layer), "unrolled", {"0.weight": mask}, shape).values()
    response, out = responses(bare(layer, mask), shape)
    left, right = math.prod(shape), math.prod(out)
    edges = {(int(u), left + int(v)): float(response[u, v]) for u, v in response.nonzero()}
    check(row, naive_scores_of(left, right, edges, mask), name)


def test_what_lanczos_does_not_find_in_an_unrolled_layer_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **more: Any) -> Any:
        raise topognn.ConvergenceError("no")

    monkeypatch.setattr(unrolled, "find_eigenpairs", fail)
    layer, mask = nn.Conv2d(2, 6, 2), torch.ones(6, 2, 2, 2, dtype=torch.bool)
    (row,) = topognn.ramanujan(nn.Sequential(layer), "unrolled", {"0.weight": mask}, (2, 4, 4)).values()
    missing = {"delta_r", "spectral_gap", "imdb", "iterative_spectral_gap", "random_bound", "delta_s", "is_ramanujan"}
    assert {name for name in row if row[name] is None} == missing


def test_fake_cuda_of_an_unrolled_layer() -> None:
    """One read each for kept weights, degrees, touched nodes and the table, and those of Lanczos."""
    cuda = torch.device("cuda", 0)
    layout = topognn.trace(nn.Conv2d(2, 4, 3, padding=1), (2, 5, 5))
    with FakeTensorMode(allow_non_fake_inputs=False) as mode:
        (connection,) = fake(layout, mode).to(cuda).connections
        mask = torch.empty(4, 2, 3, 3, dtype=torch.bool, device=cuda)
        density = torch.empty((), dtype=torch.float64, device=cuda)
        weights = LayerWeights(_cut_out(connection), mask, torch.empty(4, 2, 3, 3, device=cuda), density)
        with answering([30, 500]):
            (graph,) = encode_layers({"a": weights}).values()
        histogram = [50.0 if degree == 10 else 0.0 for degree in range(37)]
        row = [float(n) for n in range(len(scores.COLUMNS))]
        with answering(histogram, [300], [1e-7], [1e-7], row):
            assert scores.score_graphs([graph], [density], False) == [row]
        with answering(histogram, [100], [1e-7], [1e-7], [1e-7], [1e-7], row):  # d_r = 5: the subgraph is solved too
            assert scores.score_graphs([graph], [density], False) == [row]


def test_three_host_syncs_a_network() -> None:
    model = topognn.get_model("resnet20")
    masks = topognn.prune(model, "uniform", 0.9)
    before = count_syncs()
    topognn.ramanujan(model, "rolled", masks)
    assert count_syncs() == before + 3


def test_fake_cuda_and_its_sync_budget() -> None:
    """Three reads: kept weights and edges, numbers of degrees, the table. Nothing is on two devices."""
    cuda = torch.device("cuda", 0)
    histogram = [0.0] * 7 + [4.0, 0.0, 6.0]  # of 9 outputs: four left nodes of degree 7, six of degree 9
    with FakeTensorMode():
        mask = torch.empty(9, 10, dtype=torch.bool, device=cuda)
        weight = torch.empty(9, 10, device=cuda)
        grouped = torch.empty(8, 2, 3, 3, dtype=torch.bool, device=cuda)
        layers = {
            "a": roll("a", mask, weight, 1, False),
            "b": roll("b", grouped, torch.empty(8, 2, 3, 3, device=cuda), 2, False),
        }
        with answering([82, 82, 40, 40]):
            graphs = encode_layers(layers)
        of_groups = [0.0, 0, 0, 15, 3] + [0.0, 0, 6, 12, 0]
        rows = [*range(2 * len(scores.COLUMNS))]
        with answering(histogram + of_groups, rows):
            found = scores.score_graphs(list(graphs.values()), [layer.density for layer in layers.values()], True)
    assert found == [rows[: len(rows) // 2], rows[len(rows) // 2 :]]


def test_fake_cuda_of_a_wide_layer_asks_every_five_products() -> None:
    cuda = torch.device("cuda", 0)
    with FakeTensorMode():
        gram = torch.empty(1, 2000, 2000, dtype=torch.float64, device=cuda)
        with answering([1.0], [1e-4], [1e-7]):
            (values,) = singular.find_largest_two([gram])
    assert values.shape == (1, 2) and values.device == cuda
