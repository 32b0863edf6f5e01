"""Tracing: which weights it finds, that they stay live, and that the model is left as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

import topognn


class Functional(nn.Module):
    """Weights that belong to no layer, one of them masked by an expression."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(4, 3))
        self.second = nn.Parameter(torch.randn(2, 4))
        self.register_buffer("kept", torch.tensor([[1.0, 0, 1, 0], [0, 0, 0, 1]]))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.linear(x, self.first).relu(), self.second * self.kept)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x).relu())


class Halve(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight * 0.5 * (weight > 0)


def strengths(graph: topognn.MultipartiteGraph) -> dict[str, float]:
    sums = zip(graph.connections, graph.kept, strict=True)
    return {c.weight: float(k.magnitude.sum()) for c, k in sums if c.weight is not None}


def test_weights_without_layers() -> None:
    model = Functional()
    graph = topognn.encode(model, (3,), {"first": torch.tensor([[1, 0, 0]] * 4)})
    assert list(graph.layout.weight_shapes) == ["first", "second"]
    assert graph.num_edges == 4 + 3
    assert strengths(graph)["second"] == pytest.approx(float((model.second * model.kept).detach().abs().sum()))


def test_tied_weights_share_a_mask() -> None:
    model = Tied()
    mask = torch.eye(3)
    graph = topognn.encode(model, (3,), {"a.weight": mask})
    assert [c.layer for c in graph.connections] == ["a", "b"]
    assert graph.num_edges == 6
    masks = topognn.prune(model, "magnitude", 0.5)
    assert topognn.encode(model, (3,), masks).num_edges == 2 * int(masks["a.weight"].sum())


def test_torch_prune_is_evaluated_and_stays_live() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2))
    prune.random_unstructured(model[0], "weight", 0.5)
    prune.l1_unstructured(model[2], "weight", 0.25)
    layout = topognn.trace(model, (1, 4, 4))
    assert list(layout.weight_shapes) == ["0.weight", "2.weight"]
    graph = topognn.encode(layout)
    assert [k.count for k in graph.kept] == [9, 12]
    with torch.no_grad():
        model[2].weight_orig.mul_(3)  # an optimizer step, before the next forward pass
    again = topognn.encode(layout)
    assert strengths(again)["2.weight"] == pytest.approx(3 * strengths(graph)["2.weight"])
    prune.l1_unstructured(model[2], "weight", 0.5)  # replaces the mask buffer
    assert topognn.encode(layout).kept[1].count == 6


def test_parametrizations_are_evaluated() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    parametrize.register_parametrization(model[0], "weight", Halve())
    graph = topognn.encode(model, (4,))
    original = model[0].parametrizations.weight.original.detach()
    assert graph.kept[0].count == int((original > 0).sum())
    assert strengths(graph)["0.weight"] == pytest.approx(float(original.clamp(min=0).sum() / 2))


def test_weights_are_read_at_every_encode() -> None:
    model, masks = topognn.example_model()
    layout = topognn.trace(model, (1, 3, 3))
    before = topognn.topometrics(topognn.encode(layout, masks=masks))["strength"]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(-2)
    assert topognn.topometrics(topognn.encode(layout, masks=masks))["strength"] == 2 * before


def test_model_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(), nn.Flatten(), nn.Linear(16, 2))
    model.train()
    model[1].eval()
    calls: list[int] = []
    model[0].register_forward_hook(lambda *_: calls.append(1))
    model(torch.randn(2, 3, 4, 4)).sum().backward()
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    state = copy.deepcopy(model.state_dict())
    gradients = [p.grad.clone() for p in model.parameters()]
    modes = [m.training for m in model.modules()]
    random = torch.get_rng_state()
    topognn.encode(model, (3, 4, 4), topognn.prune(model, "erk", 0.5))
    assert [m.training for m in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random)
    assert [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()] == hooks
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert torch.equal(parameter.grad, gradient)
        assert parameter.requires_grad


def test_a_failed_trace_leaves_the_model_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    with pytest.raises(topognn.TraceError):
        topognn.trace(model, (5, 4, 4))
    assert all(m.training for m in model.modules())


@pytest.mark.parametrize(
    ("name", "layers"),
    [("resnet18", 21), ("mobilenet_v3_small", 54), ("densenet121", 121), ("convnext_tiny", 59), ("squeezenet1_1", 26),
     ("shufflenet_v2_x0_5", 57), ("googlenet", 58), ("efficientnet_b0", 82)],
)  # fmt: skip
def test_torchvision_models_trace(name: str, layers: int) -> None:
    """Edges of a layer that another feeds directly are its multiply-accumulates on real inputs."""
    options = {"init_weights": False, "aux_logits": False} if name == "googlenet" else {}
    model: nn.Module = getattr(torchvision.models, name)(**options).eval()
    layout = topognn.trace(model, (3, 64, 64))
    parametric = [c for c in layout.connections if c.weight is not None]
    assert len(parametric) == layers
    first = parametric[0]
    counted = count_macs(model, first.layer)
    graph = topognn.encode(layout, masks={first.weight or "": torch.ones(first.weight_shape)})
    partition = layout.partition(first.layer)
    assert int(graph.in_degrees[partition.offset : partition.end].sum()) == counted


def count_macs(model: nn.Module, layer: str) -> int:
    """Count a convolution's multiply-accumulates on real inputs by a forward pass of ones."""
    found: list[int] = []

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        ones = torch.ones_like(inputs[0], dtype=torch.float64)
        weight = torch.ones_like(module.weight, dtype=torch.float64)
        geometry = (module.stride, module.padding, module.dilation, module.groups)
        found.append(int(F.conv2d(ones, weight, None, *geometry).sum()))

    handle = model.get_submodule(layer).register_forward_hook(hook)
    model(torch.zeros(1, 3, 64, 64))
    handle.remove()
    return found[0]


@pytest.mark.parametrize("activation", [F.silu, F.gelu, F.hardswish, F.softsign, F.tanhshrink, F.mish, torch.sigmoid])
def test_activations_are_transparent(activation: Callable[[Tensor], Tensor]) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(activation(self.a(x)))

    layout = topognn.trace(Net(), (3,))
    assert [p.name for p in layout.partitions] == ["input", "a", "b"]
    assert all(c.support is None for c in layout.connections)


@pytest.mark.parametrize("dim", [1, -1])
def test_gated_linear_units_are_products_of_halves(dim: int) -> None:
    class Net(nn.Module):
        def __init__(self, gated: bool) -> None:
            super().__init__()
            self.a, self.b = nn.Conv1d(2, 4, 1), nn.Linear(6 if dim > 0 else 3, 2)
            self.gated = gated

        def forward(self, x: Tensor) -> Tensor:
            x = self.a(x)
            if self.gated:
                return self.b(F.glu(x, dim))
            left, right = x.chunk(2, dim)
            return self.b(left * right.sigmoid())

    masks = {"a.weight": torch.ones(4, 2, 1), "b.weight": torch.ones(2, 6 if dim > 0 else 3)}
    glu, product = (topognn.encode(Net(gated), (2, 6), masks) for gated in (True, False))
    assert glu.num_edges == product.num_edges > 0
    assert torch.equal(glu.csr.indptr, product.csr.indptr) and torch.equal(glu.csr.indices, product.csr.indices)


class Reduced(nn.Module):
    def __init__(self, reduce: Callable[[Tensor], Tensor], side: int) -> None:
        super().__init__()
        self.reduce, self.conv, self.last = reduce, nn.Conv2d(2, 3, 1), nn.Linear(side, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.reduce(self.conv(x)))


@pytest.mark.parametrize(
    ("reduce", "same"),
    [
        (lambda x: x.max(2).values, lambda x: x.amax(2)),
        (lambda x: x.max(2, True)[0], lambda x: x.amax(2, keepdim=True)),
        (lambda x: torch.min(x, dim=-2, keepdim=True).values, lambda x: x.amin(2, keepdim=True)),
        (lambda x: torch.max(x, torch.zeros(())), lambda x: x.relu()),
    ],
)
def test_maxima_with_their_places_are_maxima(
    reduce: Callable[[Tensor], Tensor], same: Callable[[Tensor], Tensor]
) -> None:
    torch.manual_seed(0)
    a, b = Reduced(reduce, 5), Reduced(same, 5)
    b.load_state_dict(a.state_dict())
    masks = {n: torch.rand_like(w) < 0.7 for n, w in a.named_parameters() if w.dim() > 1}
    found, want = (topognn.encode(model, (2, 4, 5), masks) for model in (a, b))
    assert found.num_nodes == want.num_nodes
    assert torch.equal(found.csr.indptr, want.csr.indptr)
    assert torch.equal(found.csr.indices, want.csr.indices)


def test_the_places_of_maxima_carry_nothing() -> None:
    with pytest.raises(topognn.UnsupportedOperation):
        topognn.trace(Reduced(lambda x: x.max(2).indices.float(), 5), (2, 4, 5))
