"""An oracle for whole networks that knows nothing of graphs: the model itself, run on sums of paths.

Functions of torch are replaced while the model runs: weights are their magnitudes, activations and normalisations the
identity, pooling is a sum, and a product of two activations is a sum too, for it stands for both. So the output is a
sum over paths, and autograd says which weights are on one. Run once more with every layer's output replaced by ones,
the model shows how many nodes each element that a layer reads stands for, and so what its multiply-accumulates are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

import topognn
from topognn.encoding.degrees import sum_in
from topognn.metrics import find_effective

IDENTITIES = frozenset(
    "relu relu6 tanh hardtanh hardswish hardsigmoid sigmoid silu gelu batch_norm layer_norm group_norm normalize "
    "dropout div truediv sub isub idiv itruediv".split()
)
PARAMETRIC = frozenset("conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d linear".split())
Function = Callable[..., Any]


class Uses(NamedTuple):
    """Multiply-accumulates of one weight, and whether all elements it reads are one node or padding."""

    macs: int
    is_direct: bool


class SumsOfPaths(TorchFunctionMode):
    """While entered, models compute sums of paths; see above. ``uses`` collects what layers do if ``counting``."""

    def __init__(self, model: nn.Module, weights: Mapping[str, Tensor], counting: bool) -> None:
        super().__init__()
        self.weights, self.counting = weights, counting
        self.names = {id(model.get_parameter(name)): name for name in weights}
        self.uses: dict[str, Uses] = {}

    def __torch_function__(
        self, func: Function, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").strip("_")
        carried = [a for a in args if is_carried(a)]
        if name == "multi_head_attention_forward":
            return self.attend(*args, **kwargs)
        if name == "cat":
            parts = [a if is_carried(a) else torch.zeros_like(a, dtype=self.dtype) for a in args[0]]
            return func(parts, *args[1:], **kwargs)
        if not carried:
            return func(*args, **kwargs)
        x = carried[0]
        if name in PARAMETRIC:
            return self.layer(func, *args)
        if len(carried) == 2 and name in ("add", "iadd", "radd"):
            return self.add(*carried)
        if len(carried) == 2 and name in ("mul", "imul", "rmul"):
            return carried[0] + carried[1]
        if name in IDENTITIES or name in ("add", "iadd", "radd", "mul", "imul", "rmul"):
            return x
        if name in ("matmul", "einsum"):
            a, b = args[-2:]
            return func(*args[:-2], a, torch.ones_like(b)) + func(*args[:-2], torch.ones_like(a), b)
        if name == "softmax":  # of scores of attention, where every element stands for all
            return x.sum((-2, -1), keepdim=True).expand_as(x)
        if name == "scaled_dot_product_attention":
            return attention(*args[:3])
        if "pool" in name or name == "mean":
            return pool(name, x, args, kwargs)
        return x.reshape(*args[1:]) if name == "view" else func(*args, **kwargs)

    @property
    def dtype(self) -> torch.dtype:
        return torch.float32 if self.counting else torch.float64

    def layer(self, func: Function, x: Tensor, weight: Tensor, _bias: Any = None, *geometry: Any) -> Tensor:
        name = self.names[id(weight)]
        made: Tensor = func(x, self.weights[name], None, *geometry)
        if not self.counting:
            return made
        macs = int(made.detach().double().round().sum())
        is_direct = bool(((x == 0) | (x == 1)).all())
        before = self.uses.get(name, Uses(0, True))
        self.uses[name] = Uses(before.macs + macs, before.is_direct and is_direct)
        return torch.ones_like(made).requires_grad_()

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        """A sum ends in the nodes of the operand that is a layer's output, or has one node an element."""
        if not self.counting:
            return a + b
        return torch.where(a == 0, b, torch.where(b == 0, a, torch.minimum(a, b)))

    def attend(self, x: Tensor, _key: Tensor, _value: Tensor, width: int, heads: int, *args: Any, **more: Any) -> Any:
        """``torch.nn.functional.multi_head_attention_forward`` of a tensor with itself, ``(tokens, batch, width)``."""
        parts = self.layer(F.linear, x, args[0]).chunk(3, -1)
        q, k, v = (p.unflatten(-1, (heads, -1)).permute(1, 2, 0, 3) for p in parts)
        out = attention(q, k, v).permute(2, 0, 1, 3).flatten(2)
        return self.layer(F.linear, out, args[6]), None


def is_carried(value: Any) -> bool:
    """Whether a value is computed from the network's input: no other tensor but weights has a gradient."""
    return isinstance(value, Tensor) and value.requires_grad


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Each element of the result stands for its channel's values and for all queries and keys of its head."""
    scores = q.sum((-2, -1), keepdim=True) + k.sum((-2, -1), keepdim=True)
    return (v.sum(-2, keepdim=True) + scores).expand(*v.shape[:-2], q.shape[-2], v.shape[-1])


def pool(name: str, x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The sum over a pooling's windows; of adaptive ones up to a factor."""
    if name == "mean":
        return x.sum(*args[1:], **kwargs)
    if name.startswith("adaptive"):
        size = args[1] if len(args) > 1 else kwargs["output_size"]
        made = F.adaptive_avg_pool2d(x, size)
        return made * max(1.0, x[0, 0].numel() / made[0, 0].numel())
    names = ("kernel_size", "stride", "padding", *(("dilation",) if name == "max_pool2d" else ()), "ceil_mode")
    given = {**dict(zip(names, args[1:], strict=False)), **kwargs}
    window = (given["kernel_size"], given.get("stride"), given.get("padding", 0), given.get("ceil_mode", False))
    return F.avg_pool2d(x, *window, True, 1)


def count_macs(model: nn.Module, masks: Mapping[str, Tensor], shape: tuple[int, ...]) -> dict[str, Uses]:
    """The sparse multiply-accumulates of each layer on real inputs, counted on the way through the model."""
    weights = {name: mask.float() for name, mask in masks.items()}
    with SumsOfPaths(model, weights, counting=True) as mode:
        model(torch.ones(1, *shape).requires_grad_())
    return mode.uses


def find_by_autograd(model: nn.Module, masks: Mapping[str, Tensor], shape: tuple[int, ...]) -> dict[str, Tensor]:
    """Which weights have a gradient; the magnitudes of each layer are scaled so that no product leaves float64."""
    weights = {}
    for name, mask in masks.items():
        magnitude = model.get_parameter(name).detach().double().abs() + 1e-6  # a kept weight of 0 is an edge too
        weight = magnitude * mask
        weights[name] = (weight / weight.sum().clamp(min=1e-6) * weight.shape[0]).requires_grad_()
    with SumsOfPaths(model, weights, counting=False):
        out = model(torch.ones(1, *shape, dtype=torch.float64).requires_grad_())
    assert bool(out.isfinite().all()), "sums of paths left float64"
    found = torch.autograd.grad(out.sum(), list(weights.values()), allow_unused=True, materialize_grads=True)
    return {name: (gradient != 0) & masks[name] for name, gradient in zip(weights, found, strict=True)}


class Comparison(NamedTuple):
    """A network's graph against the oracle.

    Attributes:
        layers: Weights that the graph has edges of; ``direct``: those that read only what is one node or padding.
        edges: Names of the latter whose edges are not their multiply-accumulates, with both numbers.
        effective: Names of weights of which others are effective than the oracle says, with both numbers.
        ineffective: Kept weights that are not effective, by the oracle.
    """

    nodes: int
    num_edges: int
    layers: int
    direct: int
    edges: list[str]
    effective: list[str]
    ineffective: int


def compare(model: nn.Module, masks: Mapping[str, Tensor], shape: tuple[int, ...]) -> Comparison:
    """Encode a model with identity shortcuts, which autograd follows too, and compare it with the oracle.

    The model is left in evaluation mode, its parameters without gradients.
    """
    model = model.eval().requires_grad_(False)
    graph = topognn.encode(model, shape, masks, shortcuts="all")
    used = find_effective(graph).masks
    counts = dict.fromkeys(used, 0)
    for c, k in zip(graph.connections, graph.kept, strict=True):
        if c.weight is not None:
            counts[c.weight] += int(sum_in(c, k.mask).sum())
    nodes, num_edges = graph.num_nodes, graph.num_uses
    del graph
    own = {name: masks[name] for name in used}
    uses = count_macs(model, own, shape)
    edges = [
        f"{name}: {counts[name]} edges, {uses[name].macs} multiply-accumulates"
        for name in used
        if uses[name].is_direct and counts[name] != uses[name].macs
    ]
    found = find_by_autograd(model, own, shape)
    effective = [
        f"{name}: {int(used[name].sum())} by the graph, {int(found[name].sum())} by autograd"
        for name in used
        if not torch.equal(used[name], found[name])
    ]
    direct = sum(use.is_direct for use in uses.values())
    ineffective = sum(int((own[name] & ~found[name]).sum()) for name in used)
    return Comparison(nodes, num_edges, len(used), direct, edges, effective, ineffective)
