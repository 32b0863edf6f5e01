"""Random walks biased by magnitude: they go where they say, as often as they should, along real paths."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

import topognn
from tests.architectures import NAMED
from topognn.errors import SparsityError
from topognn.pruning import phew
from topognn.pruning import random_walks as walks
from topognn.pruning.channel_graph import FIRM, channel_graph


def mlp(*widths: int) -> nn.Sequential:
    torch.manual_seed(2)
    return nn.Sequential(*(nn.Linear(a, b, bias=False) for a, b in itertools.pairwise(widths)))


def test_channels_of_a_convolution_before_a_linear_layer() -> None:
    model, _ = topognn.example_model()
    graph = channel_graph(topognn.trace(model, (1, 3, 3)), {"0.weight": 0, "2.weight": 8})
    found = set(zip(graph.source.tolist(), graph.target.tolist(), graph.weight.tolist(), strict=True))
    # One input channel (0), two of the convolution (1, 2) whose 2x2 places are 4 inputs each, two outputs (3, 4).
    expected = {(0, 1 + o, 4 * o + tap) for o in range(2) for tap in range(4)}
    expected |= {(1 + i // 4, 3 + o, 8 + 8 * o + i) for o in range(2) for i in range(8)}
    assert found == expected and graph.inputs.tolist() == [0] and graph.outputs.tolist() == [3, 4]


@pytest.mark.parametrize("name", sorted(NAMED))
@pytest.mark.parametrize("shortcuts", ["parametric", "all"])
def test_channel_edges_are_those_of_the_graph(name: str, shortcuts: str) -> None:
    """Every weight joins the channels that its edges in the Multipartite Graph Encoding join, and no others."""
    architecture = NAMED[name]
    layout = topognn.trace(architecture.build(), architecture.input_shape, shortcuts=shortcuts)  # type: ignore[arg-type]
    offsets, total = {}, 0
    for weight, shape in layout.weight_shapes.items():
        offsets[weight], total = total, total + torch.Size(shape).numel()
    graph = channel_graph(layout, offsets)
    assert graph.weight.max() < total and graph.weight.min() >= FIRM
    unread = {1} if name == "window of padding" else set()  # the weight that reads what only padding gives
    assert set(range(total)) - set(graph.weight.tolist()) == unread
    dense = {n: torch.ones(s, dtype=torch.bool) for n, s in layout.weight_shapes.items()}
    rows = topognn.encode(layout, masks=dense).rows("out")
    from topognn.pruning.channel_graph import _number_channels

    channels, _ = _number_channels(layout)
    sources = torch.repeat_interleave(torch.arange(channels.numel()), rows.indptr.diff())
    joined = set(zip(channels[sources].tolist(), channels[rows.indices.long()].tolist(), strict=True))
    assert joined <= set(zip(graph.source.tolist(), graph.target.tolist(), strict=True))


def test_walks_pass_weights_as_often_as_their_magnitudes_say() -> None:
    net = mlp(3, 4, 2)
    first, second = (net[k].weight.detach().abs().double() for k in (0, 1))
    layout = topognn.trace(net, (3,))
    graph = channel_graph(layout, {"0.weight": 0, "1.weight": 12})
    strength = torch.cat([first.reshape(-1), second.reshape(-1)])[graph.weight]
    steps = walks._sort_steps(graph.source, graph.target, graph.weight, strength, graph.inputs, graph.num_channels)
    enter = (first / first.sum(0)).mean(1)  # a walk starts at each input a third of the time
    expected = torch.cat([(first / first.sum(0) / 3).reshape(-1), (second / second.sum(0) * enter).reshape(-1)])
    torch.testing.assert_close(walks._expect_visits(steps, 3, 20)[:-1], expected)
    draws = torch.rand(3, 30_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    passed = walks._walk(steps, torch.arange(30_000), draws, 20)
    assert (passed[2] == 20).all()  # two layers: the walk has ended
    seen = passed.reshape(-1).bincount(minlength=21)[:20] / 30_000
    spread = (expected * (1 - expected) / 30_000).sqrt()
    assert ((seen - expected).abs() < 5 * spread + 1e-9).all()


def test_every_kept_weight_is_on_a_path() -> None:
    net = mlp(8, 30, 30, 30, 5)
    masks = phew(net, 0.95, input_shape=(8,))
    kept = sum(int(mask.sum()) for mask in masks.values())
    values = topognn.topometrics(topognn.encode(net, (8,), masks), ["sink_nodes", "source_nodes", "effective_density"])
    # All but the last walk are whole.
    assert values["sink_nodes"] + values["source_nodes"] <= 2
    assert values["effective_density"] * 2190 >= kept - 4


def test_large_weights_are_preferred_and_zero_ones_come_last() -> None:
    net = mlp(6, 20, 20, 4)
    with torch.no_grad():
        net[1].weight[:, :10] = 0
    masks = phew(net, 0.8, input_shape=(6,))
    weight = net[1].weight.detach().abs()
    assert not masks["1.weight"][:, :10].any()
    assert weight[masks["1.weight"]].mean() > weight[:, 10:].mean()
    everything_alive = 1 - 400 / 600  # all weights but the 200 zeros of 600
    masks = phew(net, everything_alive, input_shape=(6,))
    assert not masks["1.weight"][:, :10].any() and masks["0.weight"].all() and masks["1.weight"][:, 10:].all()


def test_seeds_and_tied_weights() -> None:
    net = mlp(6, 20, 20, 4)

    def draw(seed: int) -> Tensor:
        return torch.cat([mask.reshape(-1) for mask in phew(net, 0.7, input_shape=(6,), seed=seed).values()])

    assert torch.equal(draw(1), draw(1)) and not torch.equal(draw(1), draw(2))
    tied = mlp(5, 5, 5)
    tied[1].weight = tied[0].weight
    assert {name: int(m.sum()) for name, m in phew(tied, 0.6, input_shape=(5,)).items()} == {"0.weight": 10}


def test_weights_that_are_nan_are_named() -> None:
    net = mlp(4, 4)
    with torch.no_grad():
        net[0].weight[1, 1] = torch.nan
    with pytest.raises(SparsityError, match=r"scores of '0.weight' are NaN or infinite"):
        phew(net, 0.5, input_shape=(4,))


@pytest.mark.gpu
def test_on_a_gpu_walks_are_those_of_the_cpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA GPU")
    net = mlp(8, 30, 30, 5)
    here, there = phew(net, 0.8, input_shape=(8,)), phew(mlp(8, 30, 30, 5).cuda(), 0.8, input_shape=(8,))
    assert all(torch.equal(mask, there[name].cpu()) for name, mask in here.items())
