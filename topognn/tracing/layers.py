"""Operations with a parameter: convolutions, linear layers, and products that are linear layers in groups."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from topognn.tracing.contraction import Contraction, arrange, spread
from topognn.tracing.draft import LayerUse, Value
from topognn.tracing.layout import swap_channels
from topognn.tracing.nodes import get_depth, get_geometry, is_transposed, module_path, shape_of, unsupported
from topognn.tracing.operations import reduce
from topognn.tracing.parameters import find_root, name_parameter
from topognn.tracing.walk import Walk


def add_convolution(walk: Walk, node: Node) -> Value:
    """Apply a convolution, transposed or not."""
    if node.args[1] in walk.values or node.args[0] not in walk.values:
        raise unsupported(node, "its weight is computed from the network's input")
    ids, output = walk.values[_node(node.args[0])].ids, shape_of(node)
    weight_shape = shape_of(node.args[1])
    if len(weight_shape) not in (3, 4, 5):
        raise unsupported(node, f"a convolution in {len(weight_shape) - 2} dimensions")
    if ids.dim() - 1 == len(weight_shape) and output[0] != 1:
        raise unsupported(node, f"a convolution over a batch of {output[0]} made from one input")
    stride, padding, dilation, groups = get_geometry(node)
    if node in walk.padded_input:
        ids, padding = walk.padded_input[node], (0, 0)
    shape = output[1:] if ids.dim() - 1 == len(weight_shape) else output
    layer, weight, whole, index = _find_weight(walk, node, _node(node.args[1]))
    if is_transposed(node):
        index = torch.arange(math.prod(whole)) if index is None else index
        index = swap_channels(index.view(weight_shape), groups).flip(tuple(range(2, len(weight_shape))))
        weight_shape = tuple(index.shape)
    made = walk.draft.open(layer, shape)
    use = LayerUse(
        *(layer, weight, weight_shape, False, ids, len(walk.draft.blocks) - 1, shape),
        *(stride, padding, dilation, groups, get_depth(node), whole, index),
        transposed=is_transposed(node),
    )
    walk.draft.uses.append(use)
    return Value(made.view(1, *output), use.block)


def add_linear(walk: Walk, node: Node) -> Value:
    """Apply a linear layer."""
    if node.args[1] in walk.values or node.args[0] not in walk.values:
        raise unsupported(node, "its weight is computed from the network's input")
    ids, output = walk.values[_node(node.args[0])].ids, shape_of(node)
    weight = _node(node.args[1])
    layer, name, shape, index = _find_weight(walk, node, weight)
    made, one = walk.open(node, layer), (1, 1)
    use = LayerUse(
        *(layer, name, shape_of(weight), True, ids, len(walk.draft.blocks) - 1, output, one, (0, 0), one, 1),
        parameter_shape=shape,
        entries=index,
    )
    walk.draft.uses.append(use)
    return Value(made, use.block)


def add_product(walk: Walk, node: Node, c: Contraction) -> Value:
    """Apply a product with a parameter: a linear layer in groups, over the axes that the parameter lacks."""
    a, w, x, weight = c.left_labels, c.right_labels, c.left, c.right
    if c.right in walk.values:
        a, w, x, weight = c.right_labels, c.left_labels, c.right, c.left
    ids, shape = walk.values[x].ids, shape_of(node)
    groups = tuple(n for n in c.labels if n in a and n in w)
    outer = tuple(n for n in c.labels if n in w and n not in a)
    places = tuple(n for n in c.labels if n in a and n not in w)
    inner = tuple(n for n in a if n in w and n not in c.labels)
    left_over = tuple(n for n in w if n not in a and n not in c.labels)
    size = dict(zip(w, shape_of(weight), strict=True))
    if any(size[n] > 1 for n in left_over):
        raise unsupported(node, "it adds up a parameter alone")
    alone = [axis for axis, n in enumerate(a) if n not in w and n not in c.labels]
    ids = reduce(ids, alone, False) if alone else ids
    a = tuple(n for axis, n in enumerate(a) if axis not in alone)
    if not inner and not outer:  # each element times a number of its own
        return Value(spread(ids, a, c.labels, shape), None)
    if not name_parameter(find_root(weight)[0], walk.captured):
        raise unsupported(node, "a product with a constant that is no parameter")
    layer, name, whole, index = _find_weight(walk, node, weight)
    if index is None:
        index = torch.arange(math.prod(whole)).view(shape_of(weight))
    count, *kernel = (math.prod(size[n] for n in names) for names in (groups, outer, inner))
    index = arrange(index[None], w, (groups + outer, inner + left_over))
    made, one = walk.open(node, layer), (1, 1)
    is_linear = count == 1
    order = (places, groups + outer) if is_linear else (groups + outer, places)
    form = (count * kernel[0], kernel[1]) if is_linear else (count * kernel[0], kernel[1], 1)
    ids = arrange(ids, a, (places, groups + inner) if is_linear else (groups + inner, places))
    order_ids = arrange(made, c.labels, order)[0]
    use = LayerUse(
        *(layer, name, form, is_linear, ids, len(walk.draft.blocks) - 1, tuple(order_ids.shape)),
        *(one, (0, 0), one, count),
        parameter_shape=whole,
        entries=None if torch.equal(index.reshape(-1), torch.arange(math.prod(whole))) else index,
        order=order_ids,
    )
    walk.draft.uses.append(use)
    return Value(made, use.block)


def _find_weight(walk: Walk, node: Node, weight: Node) -> tuple[str, str, tuple[int, ...], Tensor | None]:
    """Return a layer's module path, its parameter's name and shape, and which entries of that its weight is.

    And remember how the parameter is computed.
    """
    root, index = find_root(weight)
    module = module_path(node)
    name = name_parameter(root, walk.captured) or f"{module}.weight"
    walk.expressions.add(name, root)
    owns_others = name != f"{module}.weight" and name.startswith(f"{module}.")
    layer = name.removesuffix(".weight") if owns_others or not module else module
    return layer, name, shape_of(root), index


def _node(argument: Any) -> Node:
    assert isinstance(argument, Node)
    return argument
