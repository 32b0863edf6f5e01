"""Push node ids through an exported graph: where does each element that a layer reads come from?

The walk meets operations in execution order and keeps, for every tensor in flight, the ids of the nodes that
each element stands for. Ids are provisional: block number and place in the block, ``block.first + j``. Blocks may
turn out to be one (residual sums), so the final numbering is made afterwards, in
:mod:`topognn.tracing.assemble`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils._pytree import tree_leaves

from topognn.errors import TraceError
from topognn.tracing import operations, resampling
from topognn.tracing.attention import attend, multiply
from topognn.tracing.capture import Captured, Expressions, name_of
from topognn.tracing.contraction import PRODUCTS, read_contraction
from topognn.tracing.draft import Draft, Value
from topognn.tracing.elementwise import combine
from topognn.tracing.layers import add_convolution, add_linear, add_product
from topognn.tracing.nodes import get_padding, has_one_reader, module_path, shape_of, unsupported
from topognn.tracing.walk import Walk
from topognn.tracing.windows import pool


def propagate(captured: Captured, expressions: Expressions, shortcuts: str, attention: str, ring: bool) -> Draft:
    """Walk through a captured graph and return what there is to write down; ``ring``: with input padding nodes."""
    walk = Walk(captured, expressions, shortcuts, attention)
    # Integer inputs and what is made of them, and what is no activation.
    indices = {n for n in captured.inputs if not n.meta["val"].is_floating_point()}
    for node in captured.inputs:
        if node not in indices:
            _enter_input(walk, node, ring)
    for node in captured.graph.nodes:
        if name_of(node) in operations.VALUELESS:
            indices.add(node)
        elif node.op == "call_function" and any(n in walk.values for n in node.all_input_nodes):
            walk.values[node] = _marked(walk, node, _visit(walk, node))
        elif node.op == "call_function" and any(n in indices for n in node.all_input_nodes):
            if name_of(node) == "embedding":
                _enter_embedding(walk, node)
            else:
                indices.add(node)
        elif node.op == "output":
            values = [walk.values[n] for n in node.all_input_nodes if n in walk.values]
            walk.draft.output = [v.ids for v in tree_leaves(values, is_leaf=_is_value) if _is_value(v)]
    return walk.draft


def _visit(walk: Walk, node: Node) -> Any:
    name = name_of(node).rstrip("_") or name_of(node)
    if name == "convolution" or name.startswith("conv_transpose") or name in ("conv1d", "conv2d", "conv3d"):
        return add_convolution(walk, node)
    if name == "linear":
        return add_linear(walk, node)
    if name in PRODUCTS:
        return _contract(walk, node)
    if name == "scaled_dot_product_attention":
        return attend(walk, node)
    operands = [walk.values[n] for n in node.all_input_nodes if n in walk.values]
    if name == "getitem":
        return operands[0][node.args[1]]
    if not all(map(_is_value, operands)):
        raise unsupported(node, "it reads a tuple of tensors")
    if name in ("add", "sub", "mul", "div", "true_divide", "where") and len(walk.carriers(node)) > 1:
        return combine(walk, node, name)
    fresh = walk.passed_on(node)
    if name in operations.MOVING:
        return _move(walk, node, name, fresh)
    if len(operands) != 1:
        raise unsupported(node, "it combines two activations")
    ids = operands[0].ids
    if name in operations.POOLING:
        pooled = Value(pool(name, ids, shape_of(node), node.args[1:]), fresh)
        return [pooled, pooled] if isinstance(node.meta["val"], tuple | list) else pooled
    if name == "glu":
        dim = int(node.args[1]) if len(node.args) > 1 else -1  # type: ignore[arg-type]
        axis = dim if dim < 0 else dim + 1
        return Value(operations.unite(torch.cat(ids.chunk(2, axis))), None)
    if name == "im2col":
        return Value(resampling.unfold(node.target, ids, node.args[1:]), fresh)
    if name in resampling.INTERPOLATING:
        return Value(resampling.interpolate(name, ids, shape_of(node), node.args[1:]), fresh)
    if name in operations.REDUCING:
        rest = [*node.args[1:], *node.kwargs.values()]
        dims = next((a for a in rest if isinstance(a, list | tuple)), [])
        keepdim = any(a is True for a in rest)
        return Value(operations.reduce(ids, dims, keepdim), fresh)
    if name in ("max", "min") and not any(isinstance(a, Node) for a in node.args[1:]):
        rest = [*node.args[1:], *node.kwargs.values()]
        dims = [a for a in rest if type(a) is int]
        value = Value(operations.reduce(ids, dims, any(a is True for a in rest)), fresh)
        return [value, None] if isinstance(node.meta["val"], tuple | list) else value  # None: places, which carry none
    if name in operations.TRANSPARENT or name in ("max", "min", "add", "sub", "mul", "div", "true_divide"):
        value = Value(ids.expand(ids.shape[0], *shape_of(node)), fresh)
        return [value, value, value] if isinstance(node.meta["val"], tuple | list) else value
    raise unsupported(node)


def _contract(walk: Walk, node: Node) -> Value:
    """Apply a product that is summed over axes: with a parameter a layer, of two activations attention."""
    c = read_contraction(node)
    carried = set(walk.carriers(node))
    if not carried <= {c.left, c.right}:
        raise unsupported(node, "it adds an activation")
    if len(carried) == 1 and c.left is not c.right:
        return add_product(walk, node, c)
    return multiply(walk, node, c)


def _move(walk: Walk, node: Node, name: str, fresh: int | None) -> Any:
    values = walk.values
    carriers = [values[n].ids for n in walk.carriers(node)]
    layers = operations.stack_depths(carriers)
    kwargs = dict(node.kwargs)
    args = list(node.args)
    if name == "pad" and kwargs.get("mode", args[2] if len(args) > 2 else "constant") == "constant":
        args, kwargs = [args[0], args[1], "constant", -1], {}
    elif name == "constant_pad_nd":
        args, kwargs = [args[0], args[1], -1], {}
    constants: dict[Node, Any] = {}
    if name in operations.JOINING:  # constants have no nodes
        constants = {n: torch.full(shape_of(n), -1) for n in node.all_input_nodes if n not in values}

    def given(k: int) -> Any:
        stacked = iter(layers)
        return torch.fx.map_arg(
            tuple(args),
            lambda n: next(stacked)[k] if n in values else walk.expressions.evaluate(n, constants),
        )

    moved = operations.move(node.target, given, kwargs, layers[0].shape[0])  # type: ignore[arg-type]
    if isinstance(moved, Tensor):
        return Value(moved, fresh)
    return [Value(part, fresh if has_one_reader(node) else None) for part in moved]


def _marked(walk: Walk, node: Node, made: Any) -> Any:
    """Return what an operation made of scores as scores, unless it multiplied values by them."""
    name = name_of(node)
    operands = [walk.values[n] for n in walk.carriers(node)]
    if name in PRODUCTS or not any(_is_value(o) and o.is_score for o in operands):
        return made
    return torch.utils._pytree.tree_map(
        lambda v: v._replace(is_score=True) if _is_value(v) else v, made, is_leaf=_is_value
    )


def _enter_input(walk: Walk, node: Node, ring: bool) -> None:
    """Open the input's block, with the ring of zero padding of the convolutions that read it if asked to."""
    channels, *size = shape = shape_of(node)[1:]
    name = "input" if len(walk.captured.inputs) == 1 else node.name
    walk.draft.inputs.append(len(walk.draft.blocks))
    if not ring:
        walk.values[node] = Value(walk.draft.open(name, shape)[None, None], None)
        return
    pads = {n: get_padding(n) for n in node.users if name_of(n) == "conv2d" and n.args[0] is node}
    if len(size) != 2 or not pads:
        raise TraceError("input_padding_nodes=True needs a two-dimensional convolution that reads the network's input")
    top, bottom, left, right = (max(sides) for sides in zip(*pads.values(), strict=True))
    height, width = size[0] + top + bottom, size[1] + left + right
    padded = walk.draft.open("input", (channels, height, width))[None, None]
    walk.values[node] = Value(padded[..., top : top + size[0], left : left + size[1]], None)
    for n, (above, below, before, after) in pads.items():
        rows, columns = slice(top - above, height - bottom + below), slice(left - before, width - right + after)
        walk.padded_input[n] = padded[..., rows, columns]


def _enter_embedding(walk: Walk, node: Node) -> None:
    """Open an input block: what is looked up is where the network's graph begins."""
    walk.values[node] = Value(walk.open(node, module_path(node) or node.name), None)
    walk.draft.inputs.append(len(walk.draft.blocks) - 1)


def _is_value(value: Any) -> bool:
    return isinstance(value, Value)
