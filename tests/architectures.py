"""Small networks for tests, written in a tiny language: a program of named operations.

Value 0 is the network's input, step k (counted from 1) makes value k, the last value is the output. A network
prints as the Python expression that makes it, so a failing example can be pasted into a test.
"""

from __future__ import annotations

import math
import operator
import warnings
from ast import literal_eval
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

with warnings.catch_warnings():  # torch warns of this once a process: here
    warnings.simplefilter("ignore")
    nn.Conv2d(1, 1, 2, padding="same")(torch.zeros(1, 1, 2, 2))


@dataclass(frozen=True)
class Step:
    """One operation: its name, the values it reads, and its parameters."""

    op: str
    args: tuple[int, ...]
    params: tuple[tuple[str, Any], ...]

    def __repr__(self) -> str:
        words = [repr(self.op), *map(str, self.args), *(f"{k}={v!r}" for k, v in self.params)]
        return f"step({', '.join(words)})"


def step(op: str, *args: int, **params: Any) -> Step:
    return Step(op, args, tuple(params.items()))


class Offset(nn.Module):
    """Adds a constant buffer."""

    offset: Tensor

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.register_buffer("offset", torch.ones(1, *shape))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.offset


class Scale(nn.Module):
    """Multiplies by a parameter, one number a channel (layer scale)."""

    def __init__(self, channels: int, rank: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels, *[1] * (rank - 2)))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x


def channel_shuffle(x: Tensor, groups: int, native: bool = False) -> Tensor:
    if native:
        return F.channel_shuffle(x, groups)
    n, c, *rest = x.shape
    return x.view(n, groups, c // groups, *rest).transpose(1, 2).reshape(n, c, *rest)


def strided(x: Tensor, dim: int, start: int | None = None, stop: int | None = None, by: int = 1) -> Tensor:
    return x[tuple([slice(None)] * dim + [slice(start, stop, by)])]


# A parametric or stateful step makes a module out of the shape (batch included) of what it reads first.
MODULES: dict[str, Callable[..., nn.Module]] = {
    "conv2d": lambda s, out, kernel=1, **options: nn.Conv2d(s[1], out, kernel, **options),
    "conv3d": lambda s, out, kernel=1, **options: nn.Conv3d(s[1], out, kernel, **options),
    "conv1d": lambda s, out, kernel=1, **options: nn.Conv1d(s[1], out, kernel, **options),
    "up_conv1d": lambda s, out, kernel=1, **options: nn.ConvTranspose1d(s[1], out, kernel, **options),
    "up_conv2d": lambda s, out, kernel=1, **options: nn.ConvTranspose2d(s[1], out, kernel, **options),
    "up_conv3d": lambda s, out, kernel=1, **options: nn.ConvTranspose3d(s[1], out, kernel, **options),
    "linear": lambda s, out, bias=True: nn.Linear(s[-1], out, bias),
    "batch_norm": lambda s: (nn.BatchNorm2d if len(s) == 4 else nn.BatchNorm1d)(s[1]),
    "layer_norm": lambda s, dims=1: nn.LayerNorm(s[-dims:]),
    "group_norm": lambda s, groups=1: nn.GroupNorm(groups, s[1]),
    "prelu": lambda s: nn.PReLU(s[1]),
    "relu_": lambda s: nn.ReLU(inplace=True),
    "dropout": lambda s: nn.Dropout(0.5),
    "max_pool": lambda s, kernel, **options: nn.MaxPool2d(kernel, **options),
    "avg_pool": lambda s, kernel, **options: nn.AvgPool2d(kernel, **options),
    "adaptive_avg_pool": lambda s, size: nn.AdaptiveAvgPool2d(size),
    "adaptive_max_pool": lambda s, size: nn.AdaptiveMaxPool2d(size),
    "add_constant": lambda s: Offset(s[1:]),
    "scale": lambda s: Scale(s[1], len(s)),
}
SCALAR = {
    "add": lambda x: x + 1.5,
    "rsub": lambda x: 1 - x,
    "mul": lambda x: 0.5 * x,
    "neg": lambda x: -x,
    "div": lambda x: x / 2,
}
MOVES: dict[str, Callable[..., Tensor]] = {
    "flatten": lambda x, start=1: x.flatten(start),
    "reshape": lambda x, shape: x.reshape(x.shape[0], *shape),
    "permute": lambda x, dims: x.permute(dims),
    "transpose": lambda x, a, b: x.transpose(a, b),
    "narrow": lambda x, dim, start, length: x.narrow(dim, start, length),
    "slice": strided,
    "select": lambda x, dim, index: x.select(dim, index),
    "pad": lambda x, pads, mode="constant", value=None: F.pad(x, pads, mode, value),
    "chunk": lambda x, chunks, dim, index: x.chunk(chunks, dim)[index],
    "channel_shuffle": channel_shuffle,
    "roll": lambda x, shifts, dims: torch.roll(x, shifts, dims),
    "flip": lambda x, dims: x.flip(dims),
    "pixel_shuffle": F.pixel_shuffle,
    "pixel_unshuffle": F.pixel_unshuffle,
    "squeeze": lambda x, dim: x.squeeze(dim),
    "unsqueeze": lambda x, dim: x.unsqueeze(dim),
    "cat": lambda *xs, dim=1: torch.cat(xs, dim),
    "stack": lambda *xs, dim=1: torch.stack(xs, dim),
    "unfold": lambda x, kernel, **options: F.unfold(x, kernel, **options),
    "nearest": lambda x, scale=None, size=None: F.interpolate(x, size, scale, "nearest"),
}
FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    **MOVES,
    "activation": lambda x, kind: getattr(F, kind)(x),
    "softmax": lambda x, dim: x.softmax(dim),
    "scalar": lambda x, kind: SCALAR[kind](x),
    "mean": lambda x, dims, keepdim=False: x.mean(dims, keepdim),
    "amax": lambda x, dims, keepdim=False: x.amax(dims, keepdim),
    "interpolate": lambda x, mode, scale=None, size=None, **options: F.interpolate(x, size, scale, mode, **options),
    "add": operator.add,
    "sub": operator.sub,
    "iadd": operator.iadd,
    "mul": operator.mul,
}
PARAMETRIC = {"conv1d", "conv2d", "conv3d", "up_conv1d", "up_conv2d", "up_conv3d", "linear"}
POOLS = {"max_pool", "avg_pool", "adaptive_avg_pool", "adaptive_max_pool", "mean", "amax", "interpolate"}
ADDS = {"add", "sub", "iadd"}
POINTWISE = (MODULES.keys() | FUNCTIONS.keys()) - PARAMETRIC - POOLS - ADDS - MOVES.keys() - {"mul"}
ACTIVATIONS = [
    *("relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "mish", "hardtanh", "hardswish"),
    *("hardsigmoid", "sigmoid", "tanh", "softplus", "softsign", "logsigmoid", "tanhshrink", "softshrink"),
]
Operation = nn.Module | partial[Tensor]


def operation(one: Step, shape: tuple[int, ...]) -> Operation:
    if one.op in MODULES:
        return MODULES[one.op](tuple(shape), **dict(one.params)).eval()
    return partial(FUNCTIONS[one.op], **dict(one.params))


class Program(nn.Module):
    """The network: runs the steps in order. Modules are named after operation and value, as `conv2d1`."""

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.calls: list[tuple[Any, tuple[int, ...]]] = []  # a submodule's name or a function, and what it reads
        values = [torch.zeros(1, *architecture.input_shape)]
        for number, one in enumerate(architecture.steps, 1):
            share = dict(one.params).get("share")
            made = operation(one, values[one.args[0]].shape) if share is None else self.operation(share)
            name = f"{one.op}{number}"
            if share is None and isinstance(made, nn.Module):
                self.add_module(name, made)
            self.calls.append((self.calls[share - 1][0] if share else name if one.op in MODULES else made, one.args))
            values.append(made(*[values[a] for a in one.args]))
        self.eval()

    def operation(self, number: int) -> Callable[..., Tensor]:
        """What makes value `number`."""
        call = self.calls[number - 1][0]
        found: Callable[..., Tensor] = getattr(self, call) if isinstance(call, str) else call
        return found

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for call, args in self.calls:
            function = getattr(self, call) if isinstance(call, str) else call
            values.append(function(*[values[a] for a in args]))
        return values[-1]


@dataclass(frozen=True)
class Architecture:
    """A network, its random weights (`seed`), and masks: `density` kept, none of layer `emptied`."""

    input_shape: tuple[int, ...]
    steps: tuple[Step, ...]
    density: float = 0.6
    emptied: int | None = None
    seed: int = 0

    def build(self) -> Program:
        with torch.no_grad():
            model, random = Program(self), torch.Generator().manual_seed(self.seed)
            for tensor in [*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())]:
                tensor.copy_(torch.rand(tensor.shape, generator=random) * 0.9 + 0.1)
            for parameter in model.parameters():
                parameter.mul_(torch.randint(2, parameter.shape, generator=random) * 2 - 1)
        return model

    def masks(self, model: nn.Module | None = None) -> dict[str, Tensor]:
        """True where a weight is kept, by parameter name, for every conv and linear weight."""
        random = torch.Generator().manual_seed(self.seed + 1)
        masks: dict[str, Tensor] = {}
        for name, module in (self.build() if model is None else model).named_modules():
            if isinstance(module, nn.modules.conv._ConvNd | nn.Linear):
                density = 0.0 if self.emptied == len(masks) else self.density
                masks[f"{name}.weight"] = torch.rand(module.weight.shape, generator=random) < density
        return masks

    def pruned(self) -> Program:
        """The model with the masks multiplied in."""
        model = self.build()
        with torch.no_grad():
            for name, mask in self.masks(model).items():
                model.get_parameter(name).mul_(mask)
        return model

    def example_input(self, batch: int = 1) -> Tensor:
        return torch.rand(batch, *self.input_shape, generator=torch.Generator().manual_seed(self.seed)) + 0.1


LIMIT = 200  # elements of a tensor in a random network
SIMPLE = [
    *("activation", "activation", "relu_", "batch_norm", "layer_norm", "group_norm", "dropout", "prelu"),
    *("scalar", "add_constant", "scale", "softmax"),
]


class _Sketch:
    """The steps drawn so far and what they make, as real tensors; steps that torch refuses are not taken."""

    def __init__(self, draw: st.DrawFn, shape: tuple[int, ...]) -> None:
        self.draw, self.steps = draw, list[Step]()
        self.values, self.alive = [torch.zeros(1, *shape)], [0]

    def pick(self, options: Iterable[Any]) -> Any:
        return self.draw(st.sampled_from(list(options)))

    def whole(self, low: int, high: int) -> int:
        return int(self.pick(range(low, high + 1)))

    def flag(self) -> bool:
        return bool(self.pick((False, True)))

    def shape(self, value: int) -> tuple[int, ...]:
        return tuple(self.values[value].shape)

    def tried(self, one: Step) -> Tensor | None:
        try:
            return operation(one, self.shape(one.args[0]))(*[self.values[a] for a in one.args])
        except (RuntimeError, ValueError, IndexError):
            return None

    def emit(self, op: str, *args: int, **params: Any) -> int:
        """The new value, or the first one read if torch refuses the step or the result is too large."""
        one = step(op, *args, **params)
        made = self.tried(one)
        if made is None or not 2 <= made.ndim <= 5 or not 0 < made.numel() <= LIMIT:
            return args[0]
        self.steps.append(one)
        self.values.append(made)
        self.alive.append(len(self.steps))
        return len(self.steps)

    def overwrite(self, op: str, x: int, *others: int) -> int:
        """An in-place step, where x is memory of its own that nothing has read."""
        own = x > 0 and self.steps[x - 1].op in ("conv2d", "linear", "batch_norm", "add", "sub")
        if not own or x in others or any(x in one.args for one in self.steps):
            return x
        if (made := self.emit(op, x, *others)) != x:
            self.alive.remove(x)
        return made

    def layer(self, x: int, keep: tuple[int, ...] | None = None) -> int:
        """A parametric layer; with `keep` one whose output has that shape, where that can be done simply."""
        shape, bias = self.shape(x), self.flag()
        if len(shape) in (3, 4) and keep is None and not self.whole(0, 7):
            return self.up_layer(x, bias)
        if len(shape) != 4 or not self.whole(0, 15):
            if len(shape) > 2 and keep is None and self.flag():
                x = self.emit("flatten", x)
            return self.emit("linear", x, out=keep[-1] if keep else self.whole(1, 4), bias=bias)
        kernel = (self.whole(1, 4), self.whole(1, 4)) if self.flag() else self.whole(1, 3)
        out = keep[1] if keep else self.whole(1, 4)
        options: dict[str, Any] = {"bias": bias}
        groups = self.pick(g for g in range(1, 5) if shape[1] % g == 0 and (out % g == 0 or not keep))
        if groups > 1 and self.flag():
            out, options["groups"] = out if keep else groups * self.whole(1, 4 // groups), groups
        if not self.whole(0, 2):
            options["dilation"] = self.whole(1, 2)
        if keep and keep[2:] != shape[2:]:  # a projection
            stride = (-(-shape[2] // keep[2]), -(-shape[3] // keep[3]))
            return self.emit("conv2d", x, out=out, stride=stride)
        options["padding"] = "same" if keep else self.pick([0, 1, (1, 0), (0, 1), 2, (2, 1), "same", "valid"])
        if options["padding"] != "same":
            options["stride"] = self.whole(1, 3) if self.flag() else (self.whole(1, 2), self.whole(1, 3))
        if not self.whole(0, 4):
            options["padding_mode"] = self.pick(["circular", "reflect", "replicate"])
        return self.emit("conv2d", x, out=out, kernel=kernel, **options)

    def up_layer(self, x: int, bias: bool) -> int:
        """A transposed convolution of an image or a signal, or a convolution of a signal."""
        shape, axes = self.shape(x), len(self.shape(x)) - 2
        groups = self.pick(g for g in range(1, 5) if shape[1] % g == 0)
        options: dict[str, Any] = {"bias": bias, "groups": groups, "out": groups * self.whole(1, 2)}
        for name, low, high in (("kernel", 1, 3), ("stride", 1, 3), ("padding", 0, 2), ("dilation", 1, 2)):
            options[name] = self.whole(low, high) if self.flag() else tuple(self.whole(low, high) for _ in range(axes))
        if axes == 1 and self.flag():
            return self.emit("conv1d", x, **options)
        return self.emit(f"up_conv{axes}d", x, **options, output_padding=self.whole(0, 1))

    def pointwise(self, x: int) -> int:
        op, shape = self.pick(SIMPLE), self.shape(x)
        if op == "relu_":
            return self.overwrite(op, x)
        params: dict[str, Callable[[], dict[str, Any]]] = {
            "activation": lambda: {"kind": self.pick(ACTIVATIONS)},
            "scalar": lambda: {"kind": self.pick(SCALAR)},
            "layer_norm": lambda: {"dims": self.whole(1, len(shape) - 1)},
            "group_norm": lambda: {"groups": self.pick(g for g in range(1, 5) if shape[1] % g == 0)},
            "softmax": lambda: {"dim": self.whole(1, len(shape) - 1)},
        }
        return self.emit(op, x, **params.get(op, dict[str, Any])())

    def pool(self, x: int) -> int:
        image = len(self.shape(x)) == 4
        if not image or not self.whole(0, 4):
            dims = self.pick([(2, 3), (2,), (1,)] if image else [(1,), (2,)])
            return self.emit(self.pick(["mean", "amax"]), x, dims=dims, keepdim=self.flag())
        if not self.whole(0, 4):
            size = (self.whole(1, 3), self.whole(1, 3))
            return self.emit(self.pick(["adaptive_avg_pool", "adaptive_max_pool"]), x, size=size)
        options: dict[str, Any] = {
            "kernel": self.pick([2, 3, (1, 2), (3, 2), (2, 1)]),
            "stride": self.whole(1, 3),
        }
        options |= {
            "ceil_mode": self.flag(),
            "padding": self.whole(0, 1) if options["kernel"] in (2, 3) else 0,
        }
        if self.flag():
            return self.emit("max_pool", x, **options, **({"dilation": 2} if self.flag() else {}))
        return self.emit("avg_pool", x, **options, count_include_pad=self.flag())

    def like(self, x: int, free: int | None = None, broadcast: bool = False) -> list[int]:
        """Values of x's shape (x among them), dimension `free` aside, or that broadcast with x."""

        def fits(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
            meet = [
                i == free or p == q or (broadcast and 1 in (p, q)) for i, (p, q) in enumerate(zip(a, b, strict=False))
            ]
            return len(a) == len(b) and all(meet)

        return [v for v in self.alive if fits(self.shape(v), self.shape(x))]

    def move(self, x: int) -> int:
        op, shape = self.pick(MOVES), self.shape(x)
        dim = self.whole(1, len(shape) - 1)
        size, rest = shape[dim], math.prod(shape) // shape[dim]
        if op in ("cat", "stack"):
            fitting = st.sampled_from(self.like(x, dim if op == "cat" else None))
            return self.emit(op, x, *self.draw(st.lists(fitting, min_size=1, max_size=2)), dim=dim)

        def narrow() -> dict[str, Any]:
            start = self.whole(0, size - 1)
            return {"dim": dim, "start": start, "length": self.whole(1, size - start)}

        def cut() -> dict[str, Any]:
            ends = {"start": self.pick([None, 1, -2]), "stop": self.pick([None, -1])}
            return {"dim": dim, **ends, "by": self.whole(1, 2)}

        def pad() -> dict[str, Any]:
            mode = self.pick(["constant", "constant", "reflect", "replicate", "circular"])
            low, count = (-1, 2 * dim) if mode == "constant" else (0, 4)
            value = {"value": 0.5} if mode == "constant" and self.flag() else {}
            return {"pads": tuple(self.whole(low, 1) for _ in range(count)), "mode": mode, **value}

        params: dict[str, Callable[[], dict[str, Any]]] = {
            "flatten": lambda: {"start": min(dim, len(shape) - 2)},
            "reshape": lambda: {"shape": self.pick([(size, rest), (rest, size), shape[:0:-1]])},
            "permute": lambda: {"dims": (0, *self.draw(st.permutations(range(1, len(shape)))))},
            "transpose": lambda: {"a": dim, "b": self.whole(1, len(shape) - 1)},
            "narrow": narrow,
            "slice": cut,
            "select": lambda: {"dim": dim, "index": self.whole(0, size - 1)},
            "pad": pad,
            "chunk": lambda: {"chunks": 2, "dim": dim, "index": self.whole(0, 1)},
            "channel_shuffle": lambda: {"groups": 2, "native": len(shape) == 4 and self.flag()},
            "roll": lambda: {"shifts": self.whole(1, 2), "dims": dim},
            "flip": lambda: {"dims": tuple(sorted({dim, self.whole(1, len(shape) - 1)}))},
            "pixel_shuffle": lambda: {"upscale_factor": 2},
            "pixel_unshuffle": lambda: {"downscale_factor": 2},
            "squeeze": lambda: {"dim": dim},
            "unsqueeze": lambda: {"dim": dim},
            "nearest": lambda: {"scale": 2},
            "unfold": lambda: {"kernel": self.whole(1, 2), "padding": self.whole(0, 1), "stride": self.whole(1, 2)},
        }
        one = step(op, x, **params[op]())
        made, found = self.tried(one), dict(one.params)
        # torch.export may drop what changes nothing, and so change who reads what
        idle = op in ("flatten", "reshape", "narrow", "slice", "chunk", "squeeze")
        if (
            made is None
            or made.shape[0] != shape[0]
            or (idle and made.shape == shape)
            or not any(found.get("pads", (1,)))
        ):
            return x
        return x if op == "transpose" and found["a"] == found["b"] else self.emit(op, x, **found)

    def resample(self, x: int) -> int:
        """An interpolation of an image or a signal."""
        axes = len(self.shape(x)) - 2
        modes = {1: ["nearest", "linear"], 2: ["nearest", "bilinear", "bicubic"], 3: ["nearest", "trilinear"]}
        if axes not in modes:
            return x
        mode = self.pick(modes[axes])
        goal = {"scale": self.pick([2, 1.5])} if self.flag() else {"size": tuple(self.whole(1, 5) for _ in range(axes))}
        if mode == "nearest":
            return self.emit("nearest", x, **goal)
        wide = (goal["size"][-1] if "size" in goal else goal["scale"] * self.shape(x)[-1]) >= 2
        # Where its output is one pixel wide, torch's own antialias makes every row like the first.
        more = {"antialias": True} if axes == 2 and wide and self.flag() else {"align_corners": self.flag()}
        return self.emit("interpolate", x, mode=mode, **goal, **more)

    def combine(self, x: int) -> int:
        """A sum, difference or product with any value that broadcasts, x itself included."""
        y, op = self.pick(self.like(x, broadcast=True)), self.pick(["add", "add", "iadd", "sub", "mul"])
        if op == "iadd":
            return self.overwrite(op, x, y)
        return self.emit(op, x, y) if self.flag() else self.emit(op, y, x)

    def residual(self, x: int) -> int:
        """A branch of one or two layers plus a shortcut of any kind; sometimes a third branch."""
        if (branch := self.layer(x)) == x:
            return x
        if self.flag():
            branch = self.pointwise(branch)
        if self.flag():
            branch = self.layer(branch, self.shape(branch))
        if not self.whole(0, 4):
            dim = self.whole(1, len(self.shape(branch)) - 1)
            turned = self.emit("flip", branch, dims=(dim,))
            branch = turned if self.flag() else self.emit("roll", branch, shifts=1, dims=dim)
        kind, short = self.pick(["identity", "layer", "layer", "pool", "pointwise", "option A"]), x
        target, shape = self.shape(branch), self.shape(x)
        if kind == "option A" and len(target) == len(shape) == 4:
            for dim in (2, 3):
                if target[dim] < shape[dim]:
                    short = self.emit("slice", short, dim=dim, by=-(-shape[dim] // target[dim]))
            if (extra := target[1] - shape[1]) > 0:
                short = self.emit("pad", short, pads=(0, 0, 0, 0, extra // 2, extra - extra // 2))
        elif kind == "pool" and len(target) == len(shape) == 4:
            short = self.emit("adaptive_avg_pool", x, size=target[2:])
        elif kind == "layer":
            short = self.layer(x, target if len(target) == len(shape) else None)
        elif kind == "pointwise":
            short = self.pointwise(x)
        if target != self.shape(short):
            return self.combine(branch)
        total = self.overwrite("iadd", branch, short) if self.flag() else branch
        if total == branch:
            total = self.emit("add", *((branch, short) if self.flag() else (short, branch)))
        third = self.layer(x, target) if not self.whole(0, 2) and target[2:] == shape[2:] else total
        return self.emit("add", total, third) if third != total and self.shape(third) == target else total

    def finish(self) -> tuple[Step, ...]:
        """The steps that the last value needs, one layer at least."""

        def needed() -> list[int]:
            found = {self.alive[-1]}
            for number in range(len(self.steps), 0, -1):
                if number in found:
                    found.update(self.steps[number - 1].args)
            return sorted(found | {0})

        if not any(self.steps[v - 1].op in PARAMETRIC for v in needed()[1:]):
            self.emit("linear", self.alive[-1], out=1)
        number_of = {old: new for new, old in enumerate(needed())}
        kept = [self.steps[v - 1] for v in needed()[1:]]
        return tuple(Step(one.op, tuple(number_of[a] for a in one.args), one.params) for one in kept)


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    """Small random networks: up to 3x7x7 or 7x5 tokens in, all operations above (but no tied weights)."""
    size, few = st.sampled_from((1, 2, 3, 4, 5, 6, 7, 5, 6, 7)), st.sampled_from((1, 2, 3))
    image = draw(st.sampled_from(range(7))) > 0
    sketch = _Sketch(draw, (draw(few), draw(size), draw(size)) if image else (draw(size), 2 * draw(few) - 1))
    with torch.no_grad():
        for _ in range(draw(st.sampled_from(range(1, 10)))):
            x = sketch.pick(sketch.alive) if draw(st.sampled_from(range(4))) == 3 else sketch.alive[-1]
            makers = [sketch.pointwise, sketch.move, sketch.pool, sketch.combine]
            if not draw(st.sampled_from(range(4))):
                makers.append(sketch.resample)
            if sum(one.op in PARAMETRIC for one in sketch.steps) < 5:
                makers = [sketch.layer, *makers, sketch.layer, sketch.residual, sketch.residual]
            sketch.pick(makers)(x)
    density = draw(st.sampled_from((0.6, 0.6, 1.0, 1.0, 0.8, 0.4, 0.2, 0.0)))
    emptied = draw(st.sampled_from((None, None, None, None, 0, 1)))
    seed = draw(st.integers(0, 9))
    return Architecture(tuple(sketch.values[0].shape[1:]), sketch.finish(), density, emptied, seed)


def network(shape: tuple[int, ...], program: str, **fields: Any) -> Architecture:
    """An architecture from text: steps on lines of their own or divided by `;`, as in the table below."""
    steps = []
    for line in program.replace("\n", ";").split(";"):
        if words := line.split():
            pairs = [word.split("=") for word in words if "=" in word]
            params = {key: literal_eval(text) if text[0] in "(-0123456789TF" else text for key, text in pairs}
            steps.append(step(words[0], *[int(w) for w in words[1:] if "=" not in w], **params))
    return Architecture(shape, tuple(steps), **fields)


# name | input shape | program, going on in indented lines
_TABLE = """
single node | 1,1,1 | flatten 0; linear 1 out=1
single linear | 5, | linear 0 out=3
one layer emptied | 2,6,6 | conv2d 0 out=3 kernel=3; conv2d 1 out=2 kernel=3 padding=1; conv2d 2 out=2
all pruned | 2,6,6 | conv2d 0 out=3 kernel=3 padding=1; flatten 1; linear 2 out=3
1x1 maps | 3,1,1 | conv2d 0 out=4; activation 1 kind=relu; conv2d 2 out=2 kernel=3 padding=1
stride over kernel | 2,7,7 | conv2d 0 out=3 kernel=2 stride=3; conv2d 1 out=2 stride=2
even kernel, same | 2,6,6 | conv2d 0 out=2 kernel=(4,2) padding=same; conv2d 1 out=2 kernel=2
grouped | 4,5,5 | conv2d 0 out=4 groups=2 kernel=3 padding=1; conv2d 1 out=2 groups=2 kernel=(1,3)
dilated | 2,7,7 | conv2d 0 out=2 kernel=3 dilation=2 padding=2; conv2d 1 out=2 kernel=2 dilation=2
depthwise separable | 3,5,5 | conv2d 0 out=3 kernel=3 padding=1 groups=3; batch_norm 1; relu_ 2;
    conv2d 3 out=4
circular padding | 2,4,4 | conv2d 0 out=2 kernel=3 padding=1 padding_mode=circular; conv2d 1 out=2
reflect padding | 2,3,3 | conv2d 0 out=2 kernel=4 padding=2 padding_mode=reflect; conv2d 1 out=2
volume | 2,3,4,5 | conv3d 0 out=3 kernel=(2,3,1) stride=(1,2,1) padding=(1,0,2); relu_ 1;
    conv3d 2 out=4 kernel=(3,1,2) dilation=(1,1,2); flatten 3; linear 4 out=2
volume, same | 2,3,2,4 | conv3d 0 out=2 kernel=(2,1,3) padding=same; activation 1 kind=relu; conv3d 2 out=2
volume, grouped, plus identity | 2,2,3,3 | conv3d 0 out=4 groups=2 kernel=(1,2,2); conv3d 1 out=4 groups=4
    kernel=(2,1,1) padding=(1,0,0); narrow 2 dim=2 start=1 length=2; add 3 1; conv3d 4 out=1 kernel=(2,2,2)
pool before conv | 2,6,6 | conv2d 0 out=2 kernel=3; max_pool 1 kernel=2; conv2d 2 out=3 kernel=3 padding=1
overlapping pool before conv | 2,6,6 | conv2d 0 out=2; max_pool 1 kernel=3 stride=2 padding=1;
    conv2d 2 out=2 kernel=2
pool of the input, ceil mode | 1,5,5 | avg_pool 0 kernel=2 ceil_mode=True; conv2d 1 out=2 kernel=2
global mean | 2,6,6 | conv2d 0 out=3 kernel=3 padding=1; mean 1 dims=(2,3); linear 2 out=2
repvgg | 2,6,6 | conv2d 0 out=2 kernel=3 padding=1; conv2d 0 out=2; add 1 2; relu_ 3; conv2d 4 out=2
repvgg, identity | 2,6,6 | conv2d 0 out=2 kernel=3 padding=1; conv2d 0 out=2; add 1 2; add 3 0; conv2d 4 out=2
identity of what the conv reads | 2,6,6 | conv2d 0 out=2; conv2d 1 out=2 kernel=3 padding=1; add 2 1;
    conv2d 3 out=2
in-place sum | 2,6,6 | conv2d 0 out=2; conv2d 1 out=2; batch_norm 2; iadd 3 1; relu_ 4; conv2d 5 out=1
in-place after a read | 2,6,6 | conv2d 0 out=2; conv2d 1 out=2; relu_ 1; add 2 3
three convs | 2,6,6 | conv2d 0 out=2; conv2d 0 out=2; conv2d 0 out=2; add 1 2; add 4 3; conv2d 5 out=1
three convs, first last | 2,6,6 | conv2d 0 out=2; conv2d 0 out=2; conv2d 0 out=2; add 2 3; add 4 1;
    conv2d 5 out=1
permuted sum | 2,4,4 | conv2d 0 out=2; conv2d 0 out=2; transpose 1 a=2 b=3; flip 3 dims=(1,); sub 4 2;
    conv2d 5 out=2
softsign, rolled, plus what it reads | 2, | linear 0 out=3; activation 1 kind=softsign; roll 2 shifts=1 dims=1; add 1 3
sum of pooled convs | 2,6,6 | conv2d 0 out=2; conv2d 0 out=2; max_pool 1 kernel=2; avg_pool 2 kernel=2;
    add 3 4; conv2d 5 out=2
pooled conv plus identity | 2,3,3 | conv2d 0 out=2 kernel=2 padding=1; avg_pool 1 kernel=2 stride=1;
    add 2 0; conv2d 3 out=1
sum of identities | 2,6,6 | conv2d 0 out=2; conv2d 1 out=2; activation 1 kind=relu; add 3 2; add 4 1;
    conv2d 2 out=2; add 5 6
tensor plus itself | 2,6,6 | conv2d 0 out=2; add 1 1; conv2d 2 out=2
input plus itself | 2,6,6 | add 0 0; conv2d 1 out=2
dense concat | 2,5,5 | conv2d 0 out=2 kernel=3 padding=1; cat 0 1; conv2d 2 out=2; cat 0 1 3; conv2d 4 out=2
concat with itself | 2,4,4 | conv2d 0 out=2; cat 1 1; conv2d 2 out=3 kernel=3 padding=1
concat plus a conv | 2,4,4 | conv2d 0 out=1; conv2d 0 out=1; cat 1 2; conv2d 0 out=2; add 3 4; conv2d 5 out=2
residual projection | 2,6,6 | conv2d 0 out=3 stride=2; relu_ 1; conv2d 2 out=3; conv2d 0 out=3 stride=2;
    add 3 4; conv2d 5 out=2
early projection | 2,6,6 | conv2d 0 out=2; conv2d 0 out=2; conv2d 2 out=2; cat 3 2;
    narrow 4 dim=1 start=0 length=2; add 1 5
broadcast sum | 2,6,6 | conv2d 0 out=2; mean 0 dims=(2,3) keepdim=True; conv2d 2 out=2; add 1 3
gate | 2,4,4 | conv2d 0 out=2; mean 1 dims=(2,3) keepdim=True; conv2d 2 out=2; mul 1 3; conv2d 4 out=2
shared conv | 2,6,6 | conv2d 0 out=2 kernel=3 padding=1; relu_ 1; conv2d 2 share=1; conv2d 3 out=1
shared conv, summed | 2,4,4 | conv2d 0 out=2; flip 0 dims=(2,); conv2d 2 share=1; add 1 3
tokens | 4,3 | linear 0 out=4; layer_norm 1; activation 2 kind=gelu; mean 3 dims=(1,); linear 4 out=2
token mixing | 4,3 | transpose 0 a=1 b=2; linear 1 out=4; transpose 2 a=1 b=2; add 3 0; linear 4 out=2
channel shuffle | 4,3,3 | conv2d 0 out=4 groups=2; channel_shuffle 1 groups=2; conv2d 2 out=4 groups=4;
    add 3 0
constant padding | 2,4,4 | conv2d 0 out=2; pad 1 pads=(1,0,-1,2) value=0.5; conv2d 2 out=2 kernel=2
output holds the input | 2,3,3 | conv2d 0 out=2; cat 0 1
residual option A | 2,6,6 | conv2d 0 out=2; conv2d 1 out=4 kernel=3 stride=2 padding=1; slice 1 dim=2 by=2;
    slice 3 dim=3 by=2; pad 4 pads=(0,0,0,0,1,1); add 2 5; mean 6 dims=(2,3); linear 7 out=3
signal | 2,9 | conv1d 0 out=3 kernel=3 stride=2 padding=1; relu_ 1; conv1d 2 out=4 kernel=2 dilation=2; flatten 3;
    linear 4 out=2
signal, there and back | 2,7 | conv1d 0 out=4 kernel=3 stride=2; up_conv1d 1 out=2 kernel=3 stride=2; add 2 0;
    conv1d 3 out=2 kernel=2 padding=same
transposed | 2,3,4 | conv2d 0 out=3; up_conv2d 1 out=2 kernel=3 stride=2 padding=1 output_padding=1; relu_ 2;
    conv2d 3 out=2 kernel=2
transposed, grouped, dilated | 4,3,3 | up_conv2d 0 out=6 kernel=(3,2) stride=(1,3) padding=(2,1) dilation=(2,1) groups=2
    output_padding=(0,2); batch_norm 1; up_conv2d 2 out=2 kernel=1 groups=2
transposed, cut on all sides | 2,4,4 | up_conv2d 0 out=2 kernel=2 stride=3 padding=1; conv2d 1 out=2
transposed, padded wide | 1,2,2 | up_conv2d 0 out=2 kernel=2 stride=2 dilation=3 output_padding=(2,1); conv2d 1 out=1
transposed after a pool | 2,4,4 | conv2d 0 out=2; max_pool 1 kernel=2; up_conv2d 2 out=2 kernel=2 stride=2; add 3 1;
    conv2d 4 out=1
transposed twins | 2,3,3 | up_conv2d 0 out=2 kernel=2 stride=2; up_conv2d 0 out=2 kernel=2 stride=2; add 1 2;
    flatten 3; linear 4 out=2
transposed, shared | 2,3,3 | up_conv2d 0 out=2 kernel=3 padding=1; flip 1 dims=(2,); up_conv2d 2 share=1; conv2d 3 out=1
transposed volume | 2,2,2,3 | up_conv3d 0 out=4 kernel=(2,1,3) stride=(2,1,2) padding=(1,0,1) output_padding=(1,0,0)
    groups=2; relu_ 1; up_conv3d 2 out=2 kernel=(1,2,1) dilation=(1,2,1)
up-sampled, nearest | 2,3,3 | conv2d 0 out=2; nearest 1 scale=2; conv2d 2 out=2 kernel=3 padding=1; conv2d 0 out=2;
    nearest 4 size=(6,6); add 3 5; conv2d 6 out=1
nearest to a smaller size | 2,5,7 | conv2d 0 out=2; nearest 1 size=(3,4); conv2d 2 out=2 kernel=2
up-sampled, bilinear | 2,3,4 | conv2d 0 out=2; interpolate 1 mode=bilinear scale=2; conv2d 2 out=2 kernel=2
bilinear, corners aligned | 2,3,3 | conv2d 0 out=2; interpolate 1 mode=bilinear size=(5,4) align_corners=True;
    conv2d 2 out=2; interpolate 0 mode=bilinear size=(5,4); add 3 4; conv2d 5 out=1
bilinear, smaller | 1,7,6 | conv2d 0 out=2; interpolate 1 mode=bilinear size=(3,4) antialias=True; conv2d 2 out=2;
    interpolate 3 mode=bilinear size=(2,2); flatten 4; linear 5 out=2
bicubic | 1,4,5 | conv2d 0 out=2; interpolate 1 mode=bicubic scale=1.5; conv2d 2 out=2
linear signal, cubic volume | 2,5 | conv1d 0 out=2; interpolate 1 mode=linear scale=2; conv1d 2 out=2 kernel=2;
    unsqueeze 3 dim=3; unsqueeze 4 dim=4; interpolate 5 mode=trilinear size=(4,2,2); conv3d 6 out=1 kernel=2
shuffled pixels | 4,2,3 | conv2d 0 out=4; pixel_shuffle 1 upscale_factor=2; conv2d 2 out=1 kernel=3 padding=1;
    pixel_unshuffle 3 downscale_factor=2; conv2d 4 out=2
patches | 2,4,4 | conv2d 0 out=2; unfold 1 kernel=(2,3) padding=1 stride=2 dilation=1; transpose 2 a=1 b=2;
    linear 3 out=3; mean 4 dims=(1,); linear 5 out=2
gates shared unevenly | 2,3,3 | conv2d 0 out=3; conv2d 0 out=2; narrow 2 dim=1 start=0 length=1;
    narrow 2 dim=1 start=1 length=1; activation 3 kind=sigmoid; activation 4 kind=sigmoid; cat 5 6 6 dim=1; mul 1 7;
    conv2d 8 out=4; relu_ 9; conv2d 10 out=1
gate after a pool | 2,4,4 | conv2d 0 out=4 groups=2; mean 1 dims=(2,3) keepdim=True; conv2d 2 out=1; relu_ 3;
    conv2d 4 out=4; activation 5 kind=hardsigmoid; mul 6 1; conv2d 7 out=2 kernel=3 padding=1
padding alone | 1,1,1 | conv2d 0 out=1 padding=1 stride=2; conv2d 1 out=2 padding=1 stride=2
window of padding | 1,1,1 | conv2d 0 out=1; max_pool 1 kernel=3 stride=3 ceil_mode=True padding=1 dilation=2;
    linear 2 out=1
dead end | 2,3,3 | conv2d 0 out=3; conv2d 1 out=3; narrow 2 dim=1 start=0 length=1; flatten 3; linear 4 out=2
"""
_FIELDS: dict[str, dict[str, Any]] = {
    "single node": {"density": 1.0},
    "one layer emptied": {"emptied": 1},
    "all pruned": {"density": 0.0},
    "tokens": {"density": 1.0},
}
NAMED: dict[str, Architecture] = {
    name: network(literal_eval(shape), program, **_FIELDS.get(name, {}))
    for name, shape, program in (line.split(" | ") for line in _TABLE.replace("\n    ", " ").splitlines() if line)
}
