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

from topognn.errors import TraceError, UnsupportedOperation
from topognn.tracing import operations
from topognn.tracing.capture import Captured, Expressions, name_of
from topognn.tracing.draft import Block, LayerUse, Shortcut, Value
from topognn.tracing.nodes import (
    function_of,
    get_depth,
    get_geometry,
    get_padding,
    has_one_reader,
    module_path,
    shape_of,
)


class Propagation:
    """One walk through a captured graph; its lists are what :func:`topognn.tracing.assemble.assemble` reads."""

    def __init__(self, captured: Captured, expressions: Expressions, shortcuts: str, ring: bool) -> None:
        self.captured = captured
        self.expressions = expressions
        self.shortcuts = shortcuts
        self.blocks: list[Block] = []
        self.uses: list[LayerUse | Shortcut] = []
        self.output: list[Tensor] = []
        self._values: dict[Node, Any] = {}
        self._padded_input: dict[Node, Tensor] = {}
        self._enter_input(captured.input, ring)
        for node in captured.graph.nodes:
            if node.op == "call_function" and any(n in self._values for n in node.all_input_nodes):
                self._values[node] = self._visit(node)
            elif node.op == "output":
                values = [self._values[n] for n in node.all_input_nodes if n in self._values]
                self.output = [v.ids for v in tree_leaves(values, is_leaf=_is_value) if _is_value(v)]

    def _visit(self, node: Node) -> Any:
        name = name_of(node).rstrip("_") or name_of(node)
        if name in ("conv1d", "conv2d", "conv3d", "convolution"):
            return self._convolution(node, name)
        if name == "linear":
            return self._linear(node)
        operands = [self._values[n] for n in node.all_input_nodes if n in self._values]
        if name == "getitem":
            return operands[0][node.args[1]]
        if not all(map(_is_value, operands)):
            raise self._unsupported(node, "it reads a tuple of tensors")
        if name in ("add", "sub", "mul", "div", "true_divide") and len(self._carriers(node)) > 1:
            if function_of(node) and all(torch.equal(o.ids, operands[0].ids) for o in operands):
                return operands[0]  # a step inside an activation, such as x / (1 + |x|)
            if name in ("add", "sub"):
                return self._sum(node)
            if name == "mul":
                return self._product(node)
            raise self._unsupported(node, "dividing one activation by another")
        fresh = self._passed_on(node)
        if name in operations.MOVING:
            return self._move(node, name, fresh)
        if len(operands) != 1:
            raise self._unsupported(node, "it combines two activations")
        ids = operands[0].ids
        if name in operations.POOLING:
            pooled = Value(operations.pool(name, ids, shape_of(node), node.args[1:]), fresh)
            return [pooled, pooled] if isinstance(node.meta["val"], tuple | list) else pooled
        if name in operations.REDUCING:
            rest = [*node.args[1:], *node.kwargs.values()]
            dims = next((a for a in rest if isinstance(a, list | tuple)), [])
            keepdim = any(a is True for a in rest)
            return Value(operations.reduce(ids, dims, keepdim), fresh)
        if name in operations.TRANSPARENT or name in ("add", "sub", "mul", "div", "true_divide"):
            value = Value(ids.expand(ids.shape[0], *shape_of(node)), fresh)
            return [value, value, value] if isinstance(node.meta["val"], tuple | list) else value
        raise self._unsupported(node)

    # -- blocks ---------------------------------------------------------------------------------------------

    def _enter_input(self, node: Node, ring: bool) -> None:
        """Open the input's block, with the ring of zero padding of the convolutions that read it if asked to."""
        channels, *size = shape = shape_of(node)[1:]
        if not ring:
            self._values[node] = Value(self._new_block("input", shape)[None, None], None)
            return
        pads = {n: get_padding(n) for n in node.users if name_of(n) == "conv2d" and n.args[0] is node}
        if len(size) != 2 or not pads:
            raise TraceError(
                "input_padding_nodes=True needs a two-dimensional convolution that reads the network's input"
            )
        top, bottom, left, right = (max(sides) for sides in zip(*pads.values(), strict=True))
        height, width = size[0] + top + bottom, size[1] + left + right
        padded = self._new_block("input", (channels, height, width))[None, None]
        self._values[node] = Value(padded[..., top : top + size[0], left : left + size[1]], None)
        for n, (above, below, before, after) in pads.items():
            rows, columns = slice(top - above, height - bottom + below), slice(left - before, width - right + after)
            self._padded_input[n] = padded[..., rows, columns]

    def _new_block(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Open a block and return its ids in the given shape."""
        first = self.blocks[-1].first + math.prod(self.blocks[-1].shape) if self.blocks else 0
        self.blocks.append(Block(name, shape, first))
        return torch.arange(first, first + math.prod(shape)).view(shape)

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

    def _convolution(self, node: Node, name: str) -> Value:
        if node.args[1] in self._values or node.args[0] not in self._values:
            raise self._unsupported(node, "its weight is computed from the network's input")
        if name == "convolution" and node.args[6]:
            raise self._unsupported(node, "transposed convolution")
        ids, output = self._values[_node(node.args[0])].ids, shape_of(node)
        weight_shape = shape_of(node.args[1])
        if len(weight_shape) not in (3, 4, 5):
            raise self._unsupported(node, f"a convolution in {len(weight_shape) - 2} dimensions")
        if ids.dim() - 1 == len(weight_shape) and output[0] != 1:
            raise self._unsupported(node, f"a convolution over a batch of {output[0]} made from one input")
        stride, padding, dilation, groups = get_geometry(node)
        if node in self._padded_input:
            ids, padding = self._padded_input[node], (0, 0)
        shape = output[1:] if ids.dim() - 1 == len(weight_shape) else output
        layer, weight = self._names(node)
        made = self._new_block(layer, shape)
        use = LayerUse(
            *(layer, weight, weight_shape, False, ids, len(self.blocks) - 1, shape),
            *(stride, padding, dilation, groups, get_depth(node)),
        )
        self.uses.append(use)
        return Value(made.view(1, *output), use.block)

    def _linear(self, node: Node) -> Value:
        if node.args[1] in self._values or node.args[0] not in self._values:
            raise self._unsupported(node, "its weight is computed from the network's input")
        ids, output = self._values[_node(node.args[0])].ids, shape_of(node)
        layer, weight = self._names(node)
        shape = output[1:] if output[0] == 1 and len(output) > 1 else output
        made = self._new_block(layer, shape)
        one = (1, 1)
        use = LayerUse(
            layer, weight, shape_of(node.args[1]), True, ids, len(self.blocks) - 1, output, one, (0, 0), one, 1
        )
        self.uses.append(use)
        return Value(made.view(1, *output), use.block)

    def _names(self, node: Node) -> tuple[str, str]:
        """Return a layer's module path and its weight's name, and remember how the weight is computed."""
        root, module = _node(node.args[1]), module_path(node)
        weight = self._weight_name(root) or f"{module}.weight"
        self.expressions.add(weight, root)
        owns_others = weight != f"{module}.weight" and weight.startswith(f"{module}.")
        return (weight.removesuffix(".weight") if owns_others or not module else module), weight

    def _weight_name(self, root: Node) -> str:
        """Return the name of the parameter that a weight is, or is computed from by pruning or parametrization."""
        name = self.captured.tensors.get(root, "")
        if not name:
            below = [self._weight_name(n) for n in root.all_input_nodes]
            name = next((n for n in below if n and not n.endswith("_mask")), "")
        owner, found, tensor = name.partition(".parametrizations.")
        name = f"{owner}.{tensor.split('.')[0]}" if found else name
        if name.startswith("parametrizations."):
            name = name.split(".")[1]
        return name.removesuffix("_orig")

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
        made = self._new_block(name, shape[1:] if len(shape) > 1 and shape[0] == 1 else shape).view(1, *shape)
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

    def _unsupported(self, node: Node, why: str = "") -> UnsupportedOperation:
        where = module_path(node) or "the model's own forward"
        return UnsupportedOperation(
            f"operation {name_of(node)!r} in {where} has no graph meaning yet{': ' if why else ''}{why}. "
            "Supported: conv1d/2d/3d and linear layers, elementwise activations, normalisation, dropout, pooling, "
            "mean/sum, data movement, sums and products of activations"
        )


def _node(argument: Any) -> Node:
    assert isinstance(argument, Node)
    return argument


def _is_value(value: Any) -> bool:
    return isinstance(value, Value)
