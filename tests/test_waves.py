"""Standing waves that a search for eigenvectors starts from: closed forms, and how much shorter the search is."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import topognn
from topognn.encoding.again import encode_again, start_series
from topognn.metrics import leading
from topognn.metrics.spectral import find_adjacency_eigenvalues
from topognn.metrics.waves import find_largest_map, make_waves
from topognn.operators.sides import find_sides


def keep_all(model: nn.Module, shape: tuple[int, ...]) -> topognn.MultipartiteGraph:
    masks = {name: torch.ones_like(w, dtype=torch.bool) for name, w in model.named_parameters() if w.dim() > 1}
    return topognn.encode(model, shape, masks)


@pytest.mark.parametrize("sides", [(7,), (5, 6), (9, 1), (3, 4, 5)])
def test_waves_are_the_singular_vectors_of_a_convolution_by_ones(sides: tuple[int, ...]) -> None:
    """Of three taps an axis: sums of a place and its neighbours, whose factor is 1 + 2 cos(pi k / (side + 1))."""
    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[len(sides) - 1]
    model = nn.Sequential(kind(1, 1, 3, padding=1, bias=False))
    nn.init.ones_(model[0].weight)
    graph = keep_all(model, (1, *sides))
    waves = make_waves(graph, 1, torch.ones(graph.partitions[1].size, dtype=torch.float64))
    axes = [axis for axis, side in enumerate(sides) if side > 1]
    assert len(waves) == 1 + len(axes)
    there = topognn.linear_operator(graph, "out"), topognn.linear_operator(graph, "in")
    for row, slower in zip(waves, [None, *axes], strict=True):
        orders = [2 if axis == slower else 1 for axis in range(len(sides))]
        factor = math.prod(1 + 2 * math.cos(math.pi * k / (n + 1)) for k, n in zip(orders, sides, strict=True))
        whole = torch.cat([torch.zeros(graph.partitions[0].size), row])
        back = there[1](there[0](whole))[graph.partitions[1].offset :]
        assert torch.allclose(back, factor**2 * row, atol=1e-6)
    assert (waves[0] > 0).all()
    products = waves @ waves.T
    assert torch.allclose(products, products.diagonal().diag(), atol=1e-9)  # orthogonal to each other


def test_waves_have_the_profile_of_a_vector() -> None:
    graph = keep_all(nn.Sequential(nn.Conv2d(2, 3, 3, padding=1)), (2, 4, 5))
    profile = torch.tensor([0.5, 0.0, -2.0])
    wave = make_waves(graph, 1, torch.ones(60))[0]
    vector = (profile[:, None] * wave.view(3, 20)).flatten()
    assert torch.allclose(make_waves(graph, 1, vector)[0], vector, atol=1e-6)
    assert make_waves(graph, 1, torch.zeros(60)).count_nonzero() == 0


def test_maps_are_where_channels_come_first() -> None:
    graph = keep_all(nn.Sequential(nn.Conv2d(1, 2, 3, stride=2), nn.Flatten(), nn.Linear(8, 3)), (1, 5, 5))
    assert find_largest_map(graph, (0, 1)) == 0  # 25 places, and 4
    assert find_largest_map(graph, (1, 2)) == 1
    graph = keep_all(nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 5)), (3, 4))  # three tokens
    assert find_largest_map(graph, (0, 1)) is None
    graph = keep_all(nn.Sequential(nn.Conv2d(4, 2, 1), nn.Conv2d(2, 2, 1)), (4, 1, 1))
    assert find_largest_map(graph, (0, 1)) is None


@pytest.mark.parametrize("skip", [False, True])  # with two sides, and without
def test_a_search_on_large_maps_is_shorter_from_waves(skip: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convs = nn.ModuleList(nn.Conv2d(2, 2, 3, padding=1, bias=False) for _ in range(12))

        def forward(self, x: Tensor) -> Tensor:
            maps = [x]
            for number, conv in enumerate(self.convs):
                maps.append(conv(maps[-1]) + (maps[-2] if skip and number == 10 else 0))
            return maps[-1]

    torch.manual_seed(0)
    model = Net()
    with torch.no_grad():
        for conv in model.convs:
            conv.weight.abs_()
        model.convs[4].weight *= 30
    masks = {name: torch.ones_like(w, dtype=torch.bool) for name, w in model.named_parameters()}
    layout = topognn.trace(model, (2, 96, 96), shortcuts="all" if skip else "parametric")
    graph = topognn.encode(layout, masks=masks)
    assert (find_sides(graph) is None) == skip
    monkeypatch.setattr(leading, "_FIRST_SHARE", 0.2)
    found, find_eigenpairs = [], leading.find_eigenpairs

    def note(*args: Any, **options: Any) -> Any:
        found.append(find_eigenpairs(*args, **options))
        return found[-1]

    monkeypatch.setattr(leading, "find_eigenpairs", note)
    with_waves = find_adjacency_eigenvalues(graph)
    vectors = sum(pairs.products * len(pairs.foremost) for pairs in found)
    found.clear()
    monkeypatch.setattr(leading, "find_largest_map", lambda *_: None)
    without = find_adjacency_eigenvalues(graph)
    assert vectors < 0.8 * sum(pairs.products * len(pairs.foremost) for pairs in found)
    assert with_waves.abs().tolist() == pytest.approx(without.abs().tolist(), rel=1e-6)


def test_a_series_goes_on_from_what_waves_have_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The waves are more vectors than eigenvalues are sought: the next search begins with all of them."""
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=1) for _ in range(3)))
    with torch.no_grad():
        model[2].weight *= 0.01  # so that what changes there changes little
    layout, masks = topognn.trace(model, (3, 48, 48)), {f"{n}.weight": torch.rand(3, 3, 3, 3) < 0.5 for n in range(3)}
    graph = start_series(topognn.encode(layout, masks=masks))
    products, find_eigenpairs = [], leading.find_eigenpairs

    def note(*args: Any, **options: Any) -> Any:
        found = find_eigenpairs(*args, **options)
        products.append((len(args[1]), found.products))
        return found

    monkeypatch.setattr(leading, "find_eigenpairs", note)
    first = find_adjacency_eigenvalues(graph)
    masks = {**masks, "2.weight": masks["2.weight"].clone()}
    masks["2.weight"][0, 0, 0, 0] ^= True
    again = encode_again(graph, masks, layout.weights(), ["2.weight"])
    changed = find_adjacency_eigenvalues(again)
    assert [rows for rows, _ in products] == [3, 3]
    assert products[1][1] < 0.75 * products[0][1]
    assert not torch.equal(first, changed)
    alone = find_adjacency_eigenvalues(topognn.encode(layout, masks=masks))
    assert changed.abs().tolist() == pytest.approx(alone.abs().tolist(), rel=1e-5)


@pytest.mark.parametrize("factors", [(1.0, 1.0, 1.0), (1.0, 0.9999, 0.5), (0.5, 1.0, 0.9999)])
@pytest.mark.parametrize("deep", [False, True])
def test_waves_do_not_hide_eigenvalues_of_other_channels(factors: tuple[float, ...], deep: bool) -> None:
    """Channels that never meet: the second eigenvalue is the next channel's longest wave, not this one's next wave."""
    layers = [nn.Conv2d(3, 3, 3, padding=1, groups=3, bias=False) for _ in range(8 if deep else 2)]
    model = nn.Sequential(*layers)
    with torch.no_grad():
        for number, conv in enumerate(layers):
            conv.weight.copy_(torch.tensor(factors).view(3, 1, 1, 1).expand(3, 1, 3, 3) * (1 if number == 1 else 1e-4))
    graph = keep_all(model, (3, 70, 70))
    assert graph.num_nodes > leading._SHORT
    values = find_adjacency_eigenvalues(graph).abs()
    wave = (1 + 2 * math.cos(math.pi / 71)) ** 2
    want = sorted(factors)[::-1][:2]
    assert values.tolist() == pytest.approx([want[0] * wave, want[0] * wave, want[1] * wave], rel=2e-6)
