"""Two activations element for element: residual sums, gates, and a normalisation's own statistics."""

from __future__ import annotations

import torch
from torch.fx import Node

from topognn.tracing.capture import name_of
from topognn.tracing.draft import Shortcut, Value
from topognn.tracing.nodes import function_of, has_one_reader, module_path, shape_of, unsupported
from topognn.tracing.operations import REDUCING, STATISTICAL, unite
from topognn.tracing.walk import Walk


def combine(walk: Walk, node: Node, name: str) -> Value:
    """Apply an operation on two activations; ``name`` is its name, without the underscore of one in place."""
    if (own := _find_normalised(walk, node, name)) is not None:
        return Value(walk.values[own].ids, None)
    nodes = [n for n in node.all_input_nodes if n in walk.values]
    operands: list[Value] = [walk.values[n] for n in nodes]
    if any(o.is_score for o in operands) or name == "where":
        return _multiply(walk, node)
    if function_of(node) and all(torch.equal(o.ids, operands[0].ids) for o in operands):
        # A step inside an activation, such as x / (1 + |x|).
        return operands[0]._replace(fresh=operands[0].fresh if has_one_reader(nodes[0]) else None)
    if name in ("add", "sub"):
        return _add_up(walk, node)
    if name == "mul":
        return _multiply(walk, node)
    raise unsupported(node, "dividing one activation by another")


def _add_up(walk: Walk, node: Node) -> Value:
    """Apply the rules of residual sums (definitions, section 1)."""
    shape = shape_of(node)
    carriers = walk.carriers(node)
    operands = [walk.values[n].ids.expand(-1, *shape) for n in carriers]
    fresh = [
        walk.values[n].fresh if has_one_reader(n) and carriers.count(n) == 1 and shape_of(n) == shape else None
        for n in carriers
    ]
    whole = [f is not None and walk.draft.is_whole(ids, f) for ids, f in zip(operands, fresh, strict=True)]
    if None not in fresh and all(whole):
        earlier, later = (0, 1) if fresh[0] < fresh[1] else (1, 0)  # type: ignore[operator]
        walk.draft.merge(fresh[earlier], fresh[later], operands[earlier][0], operands[later][0])  # type: ignore
        return Value(operands[later], fresh[later])
    if fresh.count(None) == 1:
        one = 0 if fresh[1] is None else 1
        if walk.shortcuts == "all":
            walk.draft.uses.append(Shortcut(node.name, operands[1 - one], operands[one], fresh[one]))  # type: ignore
        return Value(operands[one], fresh[one])
    name = f"{path}.{node.name}" if (path := module_path(node)) else node.name
    made = walk.open(node, name)
    for ids in operands:
        walk.draft.uses.append(Shortcut(name, ids, made, len(walk.draft.blocks) - 1))
    return Value(made, None)


def _multiply(walk: Walk, node: Node) -> Value:
    """Let each element of a product stand for all that its factors stand for."""
    shape = shape_of(node)
    layers = [walk.values[n].ids for n in walk.carriers(node)]
    return Value(unite(torch.cat([ids.expand(ids.shape[0], *shape) for ids in layers])), None)


def _find_normalised(walk: Walk, node: Node, name: str) -> Node | None:
    """Return the activation that an operation shifts or scales by a statistic of that activation itself, if any."""
    if name not in ("sub", "mul", "div", "true_divide"):
        return None
    for value, statistic in (node.args[:2], node.args[1::-1]) if name == "mul" else (node.args[:2],):
        if isinstance(value, Node) and isinstance(statistic, Node) and shape_of(value) == shape_of(node):
            reduced = False
            while statistic is not value and name_of(statistic) in STATISTICAL:
                carriers = set(walk.carriers(statistic))
                if len(carriers) != 1:
                    break
                reduced |= name_of(statistic) in REDUCING
                statistic = carriers.pop()
            if statistic is value and reduced:
                return value
    return None
