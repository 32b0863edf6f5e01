"""What can be read off a node of an exported graph: shapes, geometry, readers, the module that it is from.

And the error for a node whose operation has no meaning as a graph, which says where it is.
"""

from __future__ import annotations

from typing import Any

from torch.fx import Node
from torch.utils._pytree import tree_leaves

from topognn.errors import UnsupportedOperation
from topognn.tracing.capture import name_of

Pair = tuple[int, int]


def get_geometry(node: Node) -> tuple[Pair, Pair, Pair, int]:
    """Return stride, leading padding and dilation as ``(y, x)``, and groups; one-dimensional kernels have height 1.

    What a three-dimensional kernel has besides is :func:`get_depth`.
    """
    stride, padding, dilation, groups = _arguments(node)
    kernel = shape_of(node.args[1])[2:]
    steps, spread = _pair(stride, 1, len(kernel)), _pair(dilation, 1, len(kernel))
    if padding == "same":  # the smaller half goes before
        height, width = (1, *kernel)[-2:]
        return steps, (spread[0] * (height - 1) // 2, spread[1] * (width - 1) // 2), spread, groups
    return steps, _pair(0 if padding == "valid" else padding, 0, len(kernel)), spread, groups


def get_depth(node: Node) -> tuple[int, int, int] | None:
    """Return stride, leading padding and dilation along a three-dimensional kernel's first axis, None without one."""
    kernel = shape_of(node.args[1])[2:]
    if len(kernel) < 3:
        return None
    stride, padding, dilation = (
        value[0] if isinstance(value, list | tuple) else value for value in _arguments(node)[:3]
    )
    step, spread = int(stride or 1), int(dilation or 1)
    if padding == "same":
        return step, spread * (kernel[0] - 1) // 2, spread
    return step, 0 if padding == "valid" else int(padding or 0), spread


def get_padding(node: Node) -> tuple[int, int, int, int]:
    """Return a two-dimensional convolution's zero padding: top, bottom, left, right."""
    _, (top, left), dilation, _ = get_geometry(node)
    if len(node.args) <= 4 or node.args[4] != "same":
        return top, top, left, left
    reach = [d * (k - 1) for k, d in zip(shape_of(node.args[1])[2:], dilation, strict=True)]
    return top, reach[0] - top, left, reach[1] - left


def shape_of(node: Any) -> tuple[int, ...]:
    """Return the shape of a node's value; of the first, if it has several."""
    value = node.meta["val"]
    if isinstance(value, tuple | list):
        value = value[0]
    return tuple(int(s) for s in value.shape)


def is_transposed(node: Node) -> bool:
    """Tell whether a convolution is a transposed one, whose weight is ``(in channels, out channels a group, ...)``."""
    return bool(node.args[6]) if name_of(node) == "convolution" else name_of(node).startswith("conv_transpose")


def _arguments(node: Node) -> tuple[Any, Any, Any, int]:
    """Return stride, padding, dilation and groups as a convolution was given them, groups 1 by default."""
    args: list[Any] = [*node.args, *[None] * 9]
    if name_of(node).startswith("conv_transpose"):
        return args[3], args[4], args[7], int(args[6] or 1)
    return args[3], args[4], args[5], int((args[8] if name_of(node) == "convolution" else args[6]) or 1)


def _pair(value: Any, default: int, axes: int) -> Pair:
    """Return ``(y, x)`` from an int or a list; the y of a one-dimensional kernel is ``default``."""
    if value is None:
        return (default, default)
    values = list(value) if isinstance(value, list | tuple) else [value]
    values = values * axes if len(values) == 1 else values
    return (default, values[0]) if axes == 1 else (values[-2], values[-1])


def has_one_reader(node: Node) -> bool:
    """Tell whether a tensor is read in one place only: ``x + x`` reads it in two, ``softsign(x)`` in one."""
    places = [function_of(user) or (user, k) for user in node.users for k in range(_count_reads(user, node))]
    return len(set(places)) == 1


def _count_reads(user: Node, node: Node) -> int:
    return sum(leaf is node for leaf in tree_leaves((user.args, user.kwargs)))


def function_of(node: Node) -> str:
    """Return which call of a function of ``torch.nn.functional`` a node is a step of; empty if of none."""
    call, kind = node.meta.get("torch_fn", ("", ""))
    return call if kind.startswith("function.") else ""


def module_path(node: Node) -> str:
    """Return the path of the innermost module that a node was traced in; parametrizations count as their owner."""
    stack = node.meta.get("nn_module_stack") or {}
    path = next(reversed([p for p, _ in stack.values()]), "") if stack else ""
    return str(path).split(".parametrizations.")[0]


def unsupported(node: Node, why: str = "") -> UnsupportedOperation:
    """Return the error that says which operation has no graph meaning, and where."""
    where = module_path(node) or "the model's own forward"
    return UnsupportedOperation(
        f"operation {name_of(node)!r} in {where} has no graph meaning yet{': ' if why else ''}{why}. "
        "Supported: conv1d/2d/3d, transposed ones and linear layers, products with a parameter, embeddings, attention, "
        "elementwise activations, normalisation, dropout, pooling, mean/sum, up-sampling, data movement, sums and "
        "products of activations"
    )
