"""Push node ids through an exported graph: where does each element that a layer reads come from?

The walk meets operations in execution order and keeps, for every tensor in flight, the ids of the nodes that
each element stands for. Ids are provisional: block number and place in the block, ``block.first + j``. Blocks may
turn out to be one (residual sums), so the final numbering is made afterwards, in
:mod:`topognn.tracing.assemble`.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils._pytree import tree_leaves

from topognn.errors import TraceError
from topognn.tracing import operations, resampling
from topognn.tracing.attention import add_scores, add_values, arrange, spread
from topognn.tracing.capture import Captured, Expressions, name_of
from topognn.tracing.contraction import PRODUCTS, Contraction, Labels, label_attention, read_contraction
from topognn.tracing.draft import Draft, LayerUse, Shortcut, Value
from topognn.tracing.layout import swap_channels
from topognn.tracing.nodes import (
    function_of,
    get_depth,
    get_geometry,
    get_padding,
    has_one_reader,
    is_transposed,
    module_path,
    shape_of,
)
from topognn.tracing.parameters import find_root, name_parameter, unsupported


class Propagation:
    """One walk through a captured graph; its lists are what :func:`topognn.tracing.assemble.assemble` reads."""

    def __init__(
        self, captured: Captured, expressions: Expressions, shortcuts: str, attention: str, ring: bool
    ) -> None:
        self.captured = captured
        self.expressions = expressions
        self.shortcuts = shortcuts
        self.attention = attention
        self.draft = Draft()
        self.blocks, self.uses = self.draft.blocks, self.draft.uses
        self.output: list[Tensor] = []
        self._values: dict[Node, Any] = {}
        self._indices = {
            n for n in captured.inputs if not n.meta["val"].is_floating_point()
        }  # and what is made of them
        self._padded_input: dict[Node, Tensor] = {}
        for node in captured.inputs:
            if node not in self._indices:
                self._enter_input(node, ring)
        for node in captured.graph.nodes:
            if name_of(node) in operations.VALUELESS:
                self._indices.add(node)
            elif node.op == "call_function" and any(n in self._values for n in node.all_input_nodes):
                self._values[node] = self._marked(node, self._visit(node))
            elif node.op == "call_function" and any(n in self._indices for n in node.all_input_nodes):
                if name_of(node) == "embedding":
                    self._enter_embedding(node)
                else:
                    self._indices.add(node)
            elif node.op == "output":
                values = [self._values[n] for n in node.all_input_nodes if n in self._values]
                self.output = [v.ids for v in tree_leaves(values, is_leaf=_is_value) if _is_value(v)]

    def _visit(self, node: Node) -> Any:
        name = name_of(node).rstrip("_") or name_of(node)
        if name == "convolution" or name.startswith("conv_transpose") or name in ("conv1d", "conv2d", "conv3d"):
            return self._convolution(node)
        if name == "linear":
            return self._linear(node)
        if name in PRODUCTS:
            return self._contract(node)
        if name == "scaled_dot_product_attention":
            return self._attend(node)
        operands = [self._values[n] for n in node.all_input_nodes if n in self._values]
        if name == "getitem":
            return operands[0][node.args[1]]
        if not all(map(_is_value, operands)):
            raise unsupported(node, "it reads a tuple of tensors")
        if name in ("add", "sub", "mul", "div", "true_divide", "where") and len(self._carriers(node)) > 1:
            if (own := self._find_normalised(node, name)) is not None:
                return Value(self._values[own].ids, None)
            if any(o.is_score for o in operands) or name == "where":
                return self._product(node)
            if function_of(node) and all(torch.equal(o.ids, operands[0].ids) for o in operands):
                return operands[0]  # a step inside an activation, such as x / (1 + |x|)
            if name in ("add", "sub"):
                return self._sum(node)
            if name == "mul":
                return self._product(node)
            raise unsupported(node, "dividing one activation by another")
        fresh = self._passed_on(node)
        if name in operations.MOVING:
            return self._move(node, name, fresh)
        if len(operands) != 1:
            raise unsupported(node, "it combines two activations")
        ids = operands[0].ids
        if name in operations.POOLING:
            pooled = Value(operations.pool(name, ids, shape_of(node), node.args[1:]), fresh)
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
        if name in operations.TRANSPARENT or name in ("add", "sub", "mul", "div", "true_divide"):
            value = Value(ids.expand(ids.shape[0], *shape_of(node)), fresh)
            return [value, value, value] if isinstance(node.meta["val"], tuple | list) else value
        raise unsupported(node)

    # -- blocks ---------------------------------------------------------------------------------------------

    def _enter_input(self, node: Node, ring: bool) -> None:
        """Open the input's block, with the ring of zero padding of the convolutions that read it if asked to."""
        channels, *size = shape = shape_of(node)[1:]
        name = "input" if len(self.captured.inputs) == 1 else node.name
        self.draft.inputs.append(len(self.blocks))
        if not ring:
            self._values[node] = Value(self.draft.open(name, shape)[None, None], None)
            return
        pads = {n: get_padding(n) for n in node.users if name_of(n) == "conv2d" and n.args[0] is node}
        if len(size) != 2 or not pads:
            raise TraceError(
                "input_padding_nodes=True needs a two-dimensional convolution that reads the network's input"
            )
        top, bottom, left, right = (max(sides) for sides in zip(*pads.values(), strict=True))
        height, width = size[0] + top + bottom, size[1] + left + right
        padded = self.draft.open("input", (channels, height, width))[None, None]
        self._values[node] = Value(padded[..., top : top + size[0], left : left + size[1]], None)
        for n, (above, below, before, after) in pads.items():
            rows, columns = slice(top - above, height - bottom + below), slice(left - before, width - right + after)
            self._padded_input[n] = padded[..., rows, columns]

    def _enter_embedding(self, node: Node) -> None:
        """Open an input block: what is looked up is where the network's graph begins."""
        self._values[node] = Value(self._open(node, module_path(node) or node.name), None)
        self.draft.inputs.append(len(self.blocks) - 1)

    def _marked(self, node: Node, made: Any) -> Any:
        """Return what an operation made of scores as scores, unless it multiplied values by them."""
        name = name_of(node)
        operands = [self._values[n] for n in self._carriers(node)]
        if name in PRODUCTS or not any(_is_value(o) and o.is_score for o in operands):
            return made
        return torch.utils._pytree.tree_map(
            lambda v: v._replace(is_score=True) if _is_value(v) else v, made, is_leaf=_is_value
        )

    def _find_normalised(self, node: Node, name: str) -> Node | None:
        """Return the activation that an operation shifts or scales by a statistic of that activation itself, if any."""
        if name not in ("sub", "mul", "div", "true_divide"):
            return None
        for value, statistic in (node.args[:2], node.args[1::-1]) if name == "mul" else (node.args[:2],):
            if isinstance(value, Node) and isinstance(statistic, Node) and shape_of(value) == shape_of(node):
                reduced = False
                while statistic is not value and name_of(statistic) in operations.STATISTICAL:
                    carriers = set(self._carriers(statistic))
                    if len(carriers) != 1:
                        break
                    reduced |= name_of(statistic) in operations.REDUCING
                    statistic = carriers.pop()
                if statistic is value and reduced:
                    return value
        return None

    def _passed_on(self, node: Node) -> int | None:
        """Return the block whose fresh output a transparent operation passes on, if any."""
        carriers = self._carriers(node)
        if len(carriers) != 1 or not has_one_reader(carriers[0]):
            return None
        fresh: int | None = self._values[carriers[0]].fresh
        return fresh

    def _carriers(self, node: Node) -> list[Node]:
        """Return the operands that carry ids, one entry for each place where they stand."""
        return [n for n in tree_leaves(node.args) if isinstance(n, Node) and n in self._values]

    # -- operations -----------------------------------------------------------------------------------------

    def _convolution(self, node: Node) -> Value:
        if node.args[1] in self._values or node.args[0] not in self._values:
            raise unsupported(node, "its weight is computed from the network's input")
        ids, output = self._values[_node(node.args[0])].ids, shape_of(node)
        weight_shape = shape_of(node.args[1])
        if len(weight_shape) not in (3, 4, 5):
            raise unsupported(node, f"a convolution in {len(weight_shape) - 2} dimensions")
        if ids.dim() - 1 == len(weight_shape) and output[0] != 1:
            raise unsupported(node, f"a convolution over a batch of {output[0]} made from one input")
        stride, padding, dilation, groups = get_geometry(node)
        if node in self._padded_input:
            ids, padding = self._padded_input[node], (0, 0)
        shape = output[1:] if ids.dim() - 1 == len(weight_shape) else output
        layer, weight, whole, index = self._find_weight(node, _node(node.args[1]))
        if is_transposed(node):
            index = torch.arange(math.prod(whole)) if index is None else index
            index = swap_channels(index.view(weight_shape), groups).flip(tuple(range(2, len(weight_shape))))
            weight_shape = tuple(index.shape)
        made = self.draft.open(layer, shape)
        use = LayerUse(
            *(layer, weight, weight_shape, False, ids, len(self.blocks) - 1, shape),
            *(stride, padding, dilation, groups, get_depth(node), whole, index),
            transposed=is_transposed(node),
        )
        self.uses.append(use)
        return Value(made.view(1, *output), use.block)

    def _linear(self, node: Node) -> Value:
        if node.args[1] in self._values or node.args[0] not in self._values:
            raise unsupported(node, "its weight is computed from the network's input")
        ids, output = self._values[_node(node.args[0])].ids, shape_of(node)
        weight = _node(node.args[1])
        layer, name, shape, index = self._find_weight(node, weight)
        made, one = self._open(node, layer), (1, 1)
        use = LayerUse(
            *(layer, name, shape_of(weight), True, ids, len(self.blocks) - 1, output, one, (0, 0), one, 1),
            parameter_shape=shape,
            entries=index,
        )
        self.uses.append(use)
        return Value(made, use.block)

    def _open(self, node: Node, name: str) -> Tensor:
        """Open a block for the result of a node, and return its ids, ``(1, *shape)``."""
        shape = shape_of(node)
        return self.draft.open(name, shape[1:] if len(shape) > 1 and shape[0] == 1 else shape).view(1, *shape)

    def _find_weight(self, node: Node, weight: Node) -> tuple[str, str, tuple[int, ...], Tensor | None]:
        """Return a layer's module path, its parameter's name and shape, and which entries of that its weight is.

        And remember how the parameter is computed.
        """
        root, index = find_root(weight)
        module = module_path(node)
        name = name_parameter(root, self.captured) or f"{module}.weight"
        self.expressions.add(name, root)
        owns_others = name != f"{module}.weight" and name.startswith(f"{module}.")
        layer = name.removesuffix(".weight") if owns_others or not module else module
        return layer, name, shape_of(root), index

    # -- products of tensors --------------------------------------------------------------------------------

    def _contract(self, node: Node) -> Value:
        """Apply a product that is summed over axes: with a parameter a layer, of two activations attention."""
        c = read_contraction(node)
        carried = set(self._carriers(node))
        if not carried <= {c.left, c.right}:
            raise unsupported(node, "it adds an activation")
        if len(carried) == 1 and c.left is not c.right:
            return self._weigh(node, c)
        left, right = self._values[c.left], self._values[c.right]
        if left.is_score and right.is_score:
            raise unsupported(node, "the product of two products of activations")
        factors = [(left.ids, c.left_labels), (right.ids, c.right_labels)]
        if left.is_score or right.is_score:
            return self._add_values(node, factors[right.is_score], factors[left.is_score], c.labels)
        return self._add_scores(node, factors, c.labels, shape_of(node))

    def _attend(self, node: Node) -> Value:
        """Apply ``scaled_dot_product_attention``. Which tokens its mask hides from which changes nothing."""
        names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
        given: dict[str, Any] = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
        ids = []
        for name in names[:3]:
            if given[name] not in self._values:
                raise unsupported(node, f"its {name} is not computed from the network's input")
            ids.append(self._values[given[name]].ids)
        if given.get("enable_gqa"):
            ids[1:] = [x.repeat_interleave(ids[0].shape[-3] // x.shape[-3], -3) for x in ids[1:]]
        query, key, scores, value, out = label_attention(*(x.shape[1:] for x in ids))
        lead = torch.broadcast_shapes(ids[0].shape[1:-2], ids[1].shape[1:-2])  # type: ignore[no-untyped-call]
        shape = (*lead, ids[0].shape[-2], ids[1].shape[-2])
        scored = self._add_scores(node, [(ids[0], query), (ids[1], key)], scores, shape)
        if given.get("attn_mask") in self._values:
            bias = self._values[given["attn_mask"]].ids.expand(-1, *shape)
            scored = Value(operations.unite(torch.cat([scored.ids, bias])), None, True)
        return self._add_values(node, (scored.ids, scores), (ids[2], value), out)

    def _add_scores(
        self, node: Node, factors: list[tuple[Tensor, Labels]], out: Labels, shape: tuple[int, ...]
    ) -> Value:
        if self.attention == "values":
            return Value(torch.full((), -1).expand(1, *shape), None, True)
        name = f"{module_path(node)}.scores".removeprefix(".")
        return Value(add_scores(self.draft, name, factors[0], factors[1], out, shape), None, True)

    def _add_values(
        self, node: Node, scores: tuple[Tensor, Labels], values: tuple[Tensor, Labels], out: Labels
    ) -> Value:
        name = f"{module_path(node)}.values".removeprefix(".")
        return Value(add_values(self.draft, name, scores, values, out, shape_of(node)), None)

    def _weigh(self, node: Node, c: Contraction) -> Value:
        """Apply a product with a parameter: a linear layer in groups, over the axes that the parameter lacks."""
        a, w, x, weight = c.left_labels, c.right_labels, c.left, c.right
        if c.right in self._values:
            a, w, x, weight = c.right_labels, c.left_labels, c.right, c.left
        ids, shape = self._values[x].ids, shape_of(node)
        groups = tuple(n for n in c.labels if n in a and n in w)
        outer = tuple(n for n in c.labels if n in w and n not in a)
        places = tuple(n for n in c.labels if n in a and n not in w)
        inner = tuple(n for n in a if n in w and n not in c.labels)
        left_over = tuple(n for n in w if n not in a and n not in c.labels)
        size = dict(zip(w, shape_of(weight), strict=True))
        if any(size[n] > 1 for n in left_over):
            raise unsupported(node, "it adds up a parameter alone")
        alone = [axis for axis, n in enumerate(a) if n not in w and n not in c.labels]
        ids, a = (
            operations.reduce(ids, alone, False) if alone else ids,
            tuple(n for i, n in enumerate(a) if i not in alone),
        )
        if not inner and not outer:  # each element times a number of its own
            return Value(spread(ids, a, c.labels, shape), None)
        if not name_parameter(find_root(weight)[0], self.captured):
            raise unsupported(node, "a product with a constant that is no parameter")
        layer, name, whole, index = self._find_weight(node, weight)
        if index is None:
            index = torch.arange(math.prod(whole)).view(shape_of(weight))
        count, *kernel = (math.prod(size[n] for n in names) for names in (groups, outer, inner))
        index = arrange(index[None], w, (groups + outer, inner + left_over))
        made, one = self._open(node, layer), (1, 1)
        is_linear = count == 1
        order = (places, groups + outer) if is_linear else (groups + outer, places)
        form = (count * kernel[0], kernel[1]) if is_linear else (count * kernel[0], kernel[1], 1)
        ids = arrange(ids, a, (places, groups + inner) if is_linear else (groups + inner, places))
        order_ids = arrange(made, c.labels, order)[0]
        use = LayerUse(
            *(layer, name, form, is_linear, ids, len(self.blocks) - 1, tuple(order_ids.shape), one, (0, 0), one, count),
            parameter_shape=whole,
            entries=None if torch.equal(index.reshape(-1), torch.arange(math.prod(whole))) else index,
            order=order_ids,
        )
        self.uses.append(use)
        return Value(made, use.block)

    def _move(self, node: Node, name: str, fresh: int | None) -> Any:
        values = self._values
        carriers = [values[n].ids for n in self._carriers(node)]
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
                lambda n: next(stacked)[k] if n in values else self.expressions.evaluate(n, constants),
            )

        moved = operations.move(node.target, given, kwargs, layers[0].shape[0])  # type: ignore[arg-type]
        if isinstance(moved, Tensor):
            return Value(moved, fresh)
        return [Value(part, fresh if has_one_reader(node) else None) for part in moved]

    def _product(self, node: Node) -> Value:
        shape = shape_of(node)
        layers = [self._values[n].ids for n in self._carriers(node)]
        return Value(operations.unite(torch.cat([ids.expand(ids.shape[0], *shape) for ids in layers])), None)

    def _sum(self, node: Node) -> Value:
        """Apply the rules of residual sums (definitions, section 1)."""
        shape = shape_of(node)
        carriers = self._carriers(node)
        operands = [self._values[n].ids.expand(-1, *shape) for n in carriers]
        fresh = [
            self._values[n].fresh if has_one_reader(n) and carriers.count(n) == 1 and shape_of(n) == shape else None
            for n in carriers
        ]
        whole = [f is not None and self._is_whole(ids, f) for ids, f in zip(operands, fresh, strict=True)]
        if None not in fresh and all(whole):
            earlier, later = (0, 1) if fresh[0] < fresh[1] else (1, 0)  # type: ignore[operator]
            self._merge(fresh[earlier], fresh[later], operands[earlier][0], operands[later][0])  # type: ignore
            return Value(operands[later], fresh[later])
        if fresh.count(None) == 1:
            one = 0 if fresh[1] is None else 1
            if self.shortcuts == "all":
                self.uses.append(Shortcut(node.name, operands[1 - one], operands[one], fresh[one]))  # type: ignore
            return Value(operands[one], fresh[one])
        name = f"{path}.{node.name}" if (path := module_path(node)) else node.name
        made = self._open(node, name)
        for ids in operands:
            self.uses.append(Shortcut(name, ids, made, len(self.blocks) - 1))
        return Value(made, None)

    def _is_whole(self, ids: Tensor, block: int) -> bool:
        """Tell whether an operand is a block's nodes, each exactly once."""
        size = math.prod(self.blocks[block].shape)
        first = self.blocks[block].first
        if ids.shape[0] != 1 or ids.numel() != size:
            return False
        nodes, whole = ids.flatten(), torch.arange(first, first + size)
        return torch.equal(nodes, whole) or torch.equal(nodes.sort().values, whole)

    def _merge(self, block: int, into: int, ids: Tensor, meets: Tensor) -> None:
        """Make each node of ``block`` the node of block ``into`` that it meets in a sum."""
        one, other = self.blocks[block], self.blocks[into]
        one.merged = torch.empty(ids.numel(), dtype=torch.int64)
        one.merged[ids.flatten() - one.first] = meets.flatten()
        other.name = f"{one.name}+{other.name}"


def _node(argument: Any) -> Node:
    assert isinstance(argument, Node)
    return argument


def _is_value(value: Any) -> bool:
    return isinstance(value, Value)
