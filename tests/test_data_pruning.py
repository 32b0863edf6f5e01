"""Pruning with data: scores equal plain autograd's, the model stays as it was, and bad data are refused."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from topognn.errors import DataError, MaskError, SparsityError, TrainingError
from topognn.masks import prunable_weights
from topognn.pruning import grasp, iterative_snip, magnitude, prospr, snip, synflow
from topognn.pruning.applying import plain_parameters
from topognn.pruning.gradient_flow import get_gradient_flows
from topognn.pruning.meta_gradient import get_meta_gradients
from topognn.pruning.rounds import count_rounds
from topognn.pruning.selection import keep_highest
from topognn.pruning.synaptic_flow import _flow
from topognn.pruning.training_loss import take_balanced, training_loss

Batch = tuple[Tensor, Tensor]
WITH_DATA: list[Callable[..., dict[str, Tensor]]] = [snip, iterative_snip, grasp, prospr]


def small_net(*, norm: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    middle = [nn.BatchNorm2d(4)] if norm else []
    layers = (nn.Conv2d(1, 4, 3, bias=False), *middle, nn.Tanh(), nn.Flatten(), nn.Linear(16, 6), nn.Tanh())
    return nn.Sequential(*layers, nn.Linear(6, 3)).double()


def make_batches(count: int, size: int = 30) -> list[Batch]:
    generator = torch.Generator().manual_seed(7)
    labels = torch.arange(size) % 3
    return [(torch.randn(size, 1, 4, 4, generator=generator, dtype=torch.float64), labels) for _ in range(count)]


def plain_loss(net: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(net(batch[0]), batch[1])


def same(masks: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return list(masks) == list(other) and all(torch.equal(masks[name], other[name]) for name in masks)


# -- scores -------------------------------------------------------------------------------------------------


def test_snip_equals_the_gradient_of_masks() -> None:
    net, batches = small_net(), make_batches(2)
    twin = copy.deepcopy(net).train()
    weights = plain_parameters(twin)
    masks = {name: torch.ones_like(weight, requires_grad=True) for name, weight in weights.items()}
    outputs = torch.func.functional_call(twin, {name: weights[name] * masks[name] for name in masks}, batches[0][0])
    F.cross_entropy(outputs, batches[0][1]).backward()
    scores = {name: mask.grad.abs() for name, mask in masks.items() if mask.grad is not None}
    assert same(snip(net, 0.8, batches=batches), keep_highest(scores, round(0.2 * 150)))


def test_grasp_equals_the_full_hessian() -> None:
    net, (batch,) = small_net(norm=False), make_batches(1)
    weights = {name: weight.detach() for name, weight in plain_parameters(net).items()}
    shapes = [weight.shape for weight in weights.values()]
    flat = torch.cat([weight.reshape(-1) for weight in weights.values()])

    def cooled_loss(vector: Tensor) -> Tensor:
        parts = vector.split([shape.numel() for shape in shapes])
        tensors = {name: part.view(shape) for name, part, shape in zip(weights, parts, shapes, strict=True)}
        return F.cross_entropy(torch.func.functional_call(net, tensors, batch[0]) / 200, batch[1])

    gradient = torch.autograd.functional.jacobian(cooled_loss, flat)
    hessian = torch.autograd.functional.hessian(cooled_loss, flat)
    expected = -flat * (hessian @ gradient)
    with training_loss(net, F.cross_entropy, 0) as evaluate:
        found = get_gradient_flows(evaluate, weights, batch, 200.0)
    torch.testing.assert_close(torch.cat([v.reshape(-1) for v in found.values()]), expected, rtol=1e-9, atol=0)
    # The lowest are kept.
    count = round(0.3 * flat.numel())
    lowest = set(expected.argsort()[:count].tolist())
    kept = torch.cat([m.reshape(-1) for m in grasp(net, 0.7, batches=[batch], samples_per_class=None).values()])
    assert set(kept.nonzero()[:, 0].tolist()) == lowest


def test_prospr_equals_an_explicit_unroll_and_finite_differences() -> None:
    net, batches = small_net(norm=False), make_batches(4)
    weights = plain_parameters(net)
    masks = {name: torch.ones_like(weight, requires_grad=True) for name, weight in weights.items()}
    # Three steps of SGD written out one by one: x1 = x0 - l g0, v1 = m g0 + g1, ...
    start = {name: p.detach() * masks[name] if name in masks else p.detach() for name, p in net.named_parameters()}
    start = {name: p if p.requires_grad else p.requires_grad_() for name, p in start.items()}

    def gradients(at: dict[str, Tensor], k: int) -> dict[str, Tensor]:
        value = F.cross_entropy(torch.func.functional_call(net, at, batches[k][0]), batches[k][1])
        return dict(zip(at, torch.autograd.grad(value, list(at.values()), create_graph=True), strict=True))

    g0 = gradients(start, 0)
    x1 = {n: start[n] - 0.5 * g0[n] for n in start}
    g1 = gradients(x1, 1)
    x2 = {n: x1[n] - 0.5 * (0.9 * g0[n] + g1[n]) for n in start}
    g2 = gradients(x2, 2)
    x3 = {n: x2[n] - 0.5 * (0.81 * g0[n] + 0.9 * g1[n] + g2[n]) for n in start}
    last = F.cross_entropy(torch.func.functional_call(net, x3, batches[3][0]), batches[3][1])
    expected = dict(zip(masks, torch.autograd.grad(last, list(masks.values())), strict=True))
    with training_loss(net, F.cross_entropy, 0) as evaluate:
        found = get_meta_gradients(evaluate, weights, dict(net.named_parameters()), batches, 0.5, 0.9)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-9, atol=1e-14)
    scores = {name: gradient.abs() for name, gradient in expected.items()}
    assert same(prospr(net, 0.8, batches=batches), keep_highest(scores, round(0.2 * 150)))

    def trained_loss(factor: float) -> float:  # one weight scaled, then torch's own SGD
        twin = copy.deepcopy(net)
        with torch.no_grad():
            twin[3].weight[2, 5] *= factor
        optimizer = torch.optim.SGD(twin.parameters(), lr=0.5, momentum=0.9)
        for batch in batches[:3]:
            optimizer.zero_grad()
            plain_loss(twin, batch).backward()
            optimizer.step()
        return plain_loss(twin, batches[3]).item()

    slope = (trained_loss(1 + 1e-5) - trained_loss(1 - 1e-5)) / 2e-5
    assert found["3.weight"][2, 5].item() == pytest.approx(slope, rel=1e-5)


def test_iterative_snip_scores_the_pruned_network_and_revives_nothing() -> None:
    net, batches = small_net(), make_batches(2)
    first = snip(net, 0.5, batches=batches[:1])
    pruned = copy.deepcopy(net).train()
    with torch.no_grad():
        for name, mask in first.items():
            pruned.get_parameter(name).mul_(mask)
    plain_loss(pruned, batches[1]).backward()
    scores = {name: (w * w.grad).abs() for name, w in plain_parameters(pruned).items() if w.grad is not None}
    scores = {name: score.detach().masked_fill(~first[name], -1) for name, score in scores.items()}
    found = iterative_snip(net, 0.8, batches=batches, iterations=2, schedule="linear")
    half = count_rounds(scores, 30, 2, "linear")[0]  # 90 of 150
    first = snip(net, 1 - half / 150, batches=batches[:1])
    assert all((first[name] | ~found[name]).all() for name in found)
    assert sum(int(mask.sum()) for mask in found.values()) == 30
    assert same(iterative_snip(net, 0.75, batches=batches, iterations=2), keep_highest(scores, round(0.25 * 150)))


def test_synflow_conserves_flow_layer_by_layer() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(*(nn.Conv2d(c, 5, 3, padding=1, bias=False) for c in (2, 5, 5)), nn.Flatten())
    net.append(nn.Linear(5 * 16, 4, bias=False))
    weights = {name: weight.abs().double() for name, weight in prunable_weights(net).items()}
    masks = {name: torch.rand_like(weight) < 0.6 for name, weight in weights.items()}
    flow = _flow(net, weights, masks, {}, torch.ones(1, 2, 4, 4, dtype=torch.float64))
    sums = torch.stack([layer.sum() for layer in flow.values()])
    torch.testing.assert_close(sums, sums[:1].expand(4), rtol=1e-12, atol=0)
    assert sums[0] > 0


def test_no_layer_collapse_at_high_sparsity_where_magnitude_and_snip_collapse() -> None:
    torch.manual_seed(0)
    widths = (3, 32, 32, 64, 64, 64)
    layers: list[nn.Module] = []
    for a, b in itertools.pairwise(widths):
        layers += [nn.Conv2d(a, b, 3, padding=1, bias=False), nn.ReLU()]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    batch = (torch.randn(32, 3, 8, 8), torch.arange(32) % 10)

    def alive(masks: dict[str, Tensor]) -> bool:
        return all(bool(mask.any()) for mask in masks.values())

    assert not alive(magnitude(net, 0.999))
    assert not alive(snip(net, 0.999, batches=[batch]))
    kept = synflow(net, 0.999, input_shape=(3, 8, 8))
    assert alive(kept) and sum(int(mask.sum()) for mask in kept.values()) == 103


# -- the model ----------------------------------------------------------------------------------------------


class Tied(nn.Module):
    """Two layers that share a weight, with dropout and batch norm between them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.norm = nn.BatchNorm1d(6)
        self.second = nn.Linear(6, 6)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.tanh(self.norm(self.first(x)))
        return self.second(F.dropout(hidden, 0.3, self.training))  # type: ignore[no-any-return]


@pytest.mark.parametrize("pruner", WITH_DATA, ids=lambda pruner: pruner.__name__)
def test_tied_weights_have_one_mask_and_the_model_stays_as_it_was(pruner: Callable[..., dict[str, Tensor]]) -> None:
    torch.manual_seed(1)
    net = Tied()
    net.norm.eval()
    batch = (torch.randn(60, 6), torch.arange(60) % 6)
    F.cross_entropy(net(batch[0]), batch[1]).backward()
    grads = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    state, random = copy.deepcopy(net.state_dict()), torch.get_rng_state()
    masks = pruner(net, 0.5, batches=[batch], seed=3)
    assert {name: int(mask.sum()) for name, mask in masks.items()} == {"first.weight": 18}
    assert torch.equal(torch.get_rng_state(), random) and not net.norm.training and net.training
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())
    assert all(torch.equal(grads[name], p.grad) for name, p in net.named_parameters() if p.grad is not None)
    torch.manual_seed(99)  # the seed is the algorithm's own
    assert same(pruner(net, 0.5, batches=[batch], seed=3), masks)


def test_a_tied_weight_has_the_gradient_of_both_its_layers() -> None:
    net = Tied().eval()
    net.norm.train(False)
    weight = torch.eye(6)
    with torch.no_grad():
        net.first.weight.copy_(weight)
    batch = (torch.randn(8, 6), torch.arange(8) % 6)
    with training_loss(net, F.cross_entropy, 0) as evaluate:
        net.eval()
        leaf = weight.clone().requires_grad_()
        (found,) = torch.autograd.grad(evaluate({"first.weight": leaf}, batch), [leaf])
    F.cross_entropy(net(batch[0]), batch[1]).backward()
    assert net.first.weight.grad is not None
    torch.testing.assert_close(found, net.first.weight.grad)


def test_batches_are_read_as_far_as_they_are_needed() -> None:
    read = []

    def give() -> Any:
        for k, batch in enumerate(make_batches(9)):
            read.append(k)
            yield batch

    for pruner, count in ((snip, 1), (prospr, 4), (grasp, 1)):
        read.clear()
        pruner(small_net(), 0.5, batches=give())
        assert read == list(range(count))


def test_a_balanced_batch_takes_the_first_of_each_class() -> None:
    labels = [torch.tensor([0, 0, 0, 2]), torch.tensor([1, 1, 2, 0]), torch.tensor([2, 2])]
    batches = [(torch.arange(len(y)) + 10 * k, y) for k, y in enumerate(labels)]
    taken, found = take_balanced(batches, 2, 3, torch.device("cpu"))
    assert taken.tolist() == [0, 1, 3, 10, 11, 12] and found.tolist() == [0, 0, 2, 1, 1, 2]
    with pytest.raises(DataError, match=r"class 1 has 2 of the 3 examples .*samples_per_class=2"):
        take_balanced(batches, 3, 3, torch.device("cpu"))


# -- bad input ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pruner", WITH_DATA, ids=lambda pruner: pruner.__name__)
def test_bad_data(pruner: Callable[..., dict[str, Tensor]]) -> None:
    net = small_net()
    ((x, y),) = make_batches(1)
    with pytest.raises(DataError, match=r"learns from data: pass batches=..., an iterable of \(inputs, targets\)"):
        pruner(net, 0.5)
    with pytest.raises(DataError, match=r"holds no batch .* pass a list"):
        pruner(net, 0.5, batches=iter([]))
    with pytest.raises(DataError, match=r"a batch is of type Tensor: give a pair"):
        pruner(net, 0.5, batches=[x])
    with pytest.raises(DataError, match=r"label 3 is out of range: the model has 3 outputs, for labels 0 to 2"):
        pruner(net, 0.5, batches=[(x, y + 1)])
    with pytest.raises(DataError, match=r"label -1 is out of range"):
        pruner(net, 0.5, batches=[(x, y - 1)])
    with pytest.raises(DataError, match=r"does not run on a batch of shape \(30, 1, 3, 4\): "):
        pruner(net, 0.5, batches=[(x[:, :, 1:], y)])
    with pytest.raises(TrainingError, match="the loss is nan: look for NaN in the data"):
        pruner(net, 0.5, batches=[(x * torch.nan, y)])
    net[4].weight.requires_grad_(False)
    with pytest.raises(MaskError, match=r"weight '4.weight' is frozen \(1 of 3 are\)"):
        pruner(net, 0.5, batches=[(x, y)])


def test_gradients_that_are_nan_are_named() -> None:
    class Root(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x * 0).abs().sqrt()  # its slope at 0 is infinite, times 0

    net = nn.Sequential(nn.Linear(4, 3), Root())
    batch = (torch.randn(30, 4), torch.arange(30) % 3)
    for pruner in WITH_DATA:
        with pytest.raises(TrainingError, match=r"gradient of '0.weight' is NaN or infinite|the loss is nan"):
            pruner(net, 0.5, batches=[batch])


def test_bad_options() -> None:
    net, batches = small_net(), make_batches(1)
    with pytest.raises(SparsityError, match="iterations=0 prunes nothing"):
        iterative_snip(net, 0.5, batches=batches, iterations=0)
    with pytest.raises(SparsityError, match="schedule must be 'exponential' or 'linear', not 'cubic'"):
        iterative_snip(net, 0.5, batches=batches, schedule="cubic")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="steps=0 trains nothing"):
        prospr(net, 0.5, batches=batches, steps=0)


@pytest.mark.gpu
@pytest.mark.parametrize("pruner", WITH_DATA, ids=lambda pruner: pruner.__name__)
def test_on_a_gpu_masks_are_those_of_the_cpu(pruner: Callable[..., dict[str, Tensor]]) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA GPU")
    batches = make_batches(4)
    here = pruner(small_net(), 0.8, batches=batches)
    there = pruner(small_net().cuda(), 0.8, batches=batches)
    assert all(mask.is_cuda for mask in there.values())
    agree = sum(int((here[name] == there[name].cpu()).sum()) for name in here)
    assert agree >= 0.98 * sum(mask.numel() for mask in here.values())  # rounding may exchange neighbours in rank
