"""Attention as hubs: what a product of two activations, and a third one multiplied by it, stand for.

Which value reaches which token depends on data. So every value element feeds one hub a (head, channel), queries and
keys feed one hub a head, and an element of the output stands for its channel's hub and its head's (docs/attention.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from topognn.tracing.contraction import Contraction, Labels, arrange, label_attention, spread
from topognn.tracing.draft import Draft, Shortcut, Value
from topognn.tracing.nodes import module_path, shape_of, unsupported
from topognn.tracing.operations import count_distinct, reduce, stack_depths, unite
from topognn.tracing.walk import Walk

Factor = tuple[Tensor, Labels]
"""Ids ``(K, *shape)`` and the labels of the shape's axes."""


def multiply(walk: Walk, node: Node, c: Contraction) -> Value:
    """Apply a product of two activations that is summed over axes: scores, or values that scores are multiplied by."""
    left, right = walk.values[c.left], walk.values[c.right]
    if left.is_score and right.is_score:
        raise unsupported(node, "the product of two products of activations")
    factors = [(left.ids, c.left_labels), (right.ids, c.right_labels)]
    if left.is_score or right.is_score:
        return _add_values(walk, node, factors[right.is_score], factors[left.is_score], c.labels)
    return _add_scores(walk, node, factors, c.labels, shape_of(node))


def attend(walk: Walk, node: Node) -> Value:
    """Apply ``scaled_dot_product_attention``. Which tokens its mask hides from which changes nothing."""
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    given: dict[str, Any] = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    ids = []
    for name in names[:3]:
        if given[name] not in walk.values:
            raise unsupported(node, f"its {name} is not computed from the network's input")
        ids.append(walk.values[given[name]].ids)
    if given.get("enable_gqa"):
        ids[1:] = [x.repeat_interleave(ids[0].shape[-3] // x.shape[-3], -3) for x in ids[1:]]
    query, key, scores, value, out = label_attention(*(x.shape[1:] for x in ids))
    lead = torch.broadcast_shapes(ids[0].shape[1:-2], ids[1].shape[1:-2])  # type: ignore[no-untyped-call]
    shape = (*lead, ids[0].shape[-2], ids[1].shape[-2])
    scored = _add_scores(walk, node, [(ids[0], query), (ids[1], key)], scores, shape)
    if given.get("attn_mask") in walk.values:
        bias = walk.values[given["attn_mask"]].ids.expand(-1, *shape)
        scored = Value(unite(torch.cat([scored.ids, bias])), None, True)
    return _add_values(walk, node, (scored.ids, scores), (ids[2], value), out)


def _add_scores(walk: Walk, node: Node, factors: list[Factor], out: Labels, shape: tuple[int, ...]) -> Value:
    if walk.attention == "values":
        return Value(torch.full((), -1).expand(1, *shape), None, True)
    name = f"{module_path(node)}.scores".removeprefix(".")
    return Value(_open_scores(walk.draft, name, factors[0], factors[1], out, shape), None, True)


def _add_values(walk: Walk, node: Node, scores: Factor, values: Factor, out: Labels) -> Value:
    name = f"{module_path(node)}.values".removeprefix(".")
    return Value(_open_values(walk.draft, name, scores, values, out, shape_of(node)), None)


def _open_scores(draft: Draft, name: str, left: Factor, right: Factor, out: Labels, shape: Sequence[int]) -> Tensor:
    """Open the hubs of a product of two activations, one an index that both and the result have; return its ids."""
    lead = tuple(x for x in out if x in left[1] and x in right[1])
    sizes = [shape[out.index(x)] for x in lead]
    hubs = draft.open(draft.get_free_name(name), _without_batch(sizes))
    parts = [arrange(ids, labels, (lead, tuple(x for x in labels if x not in lead))) for ids, labels in (left, right)]
    targets = torch.cat([hubs.view(-1, 1).expand(-1, part.shape[2]) for part in parts], 1)
    sources = torch.cat(stack_depths(parts), 2)
    draft.uses.append(Shortcut(draft.blocks[-1].name, sources, targets[None], len(draft.blocks) - 1))
    return spread(hubs.view(1, *sizes), lead, out, shape)


def _open_values(draft: Draft, name: str, scores: Factor, values: Factor, out: Labels, shape: Sequence[int]) -> Tensor:
    """Open the hubs of values that scores are multiplied by, one an index and channel; return the result's ids.

    Heads that share their values, as in grouped queries, share hubs.
    """
    ids, labels = values
    lead = tuple(x for x in out if x in labels and x in scores[1])
    channels = tuple(x for x in out if x in labels and x not in scores[1])
    sizes = {x: shape[out.index(x)] for x in (*lead, *channels)}
    parts = arrange(ids, labels, (lead, channels, tuple(x for x in labels if x not in out)))
    which, first = _find_distinct(parts)
    grid = [sizes[x] for x in lead] if first is None else [first.numel()]
    own = parts if first is None else parts[:, first]
    hubs = draft.open(draft.get_free_name(name), _without_batch([*grid, *(sizes[x] for x in channels)]))
    targets = hubs.view(*own.shape[1:3], 1).expand(own.shape[1:])
    draft.uses.append(Shortcut(draft.blocks[-1].name, own, targets[None], len(draft.blocks) - 1))
    held = hubs.view(own.shape[1:3])[which].view(1, *sizes.values())
    made = spread(held, (*lead, *channels), out, shape)
    scored = spread(*_sum_out(*scores, out), out, shape)
    return torch.cat([made, scored]) if bool((scored >= 0).any()) else made


def _sum_out(ids: Tensor, labels: Labels, out: Labels) -> tuple[Tensor, Labels]:
    """Unite the nodes along the axes that the result lacks."""
    gone = [axis for axis, x in enumerate(labels) if x not in out]
    for axis in gone:
        first = ids.narrow(axis + 1, 0, 1)
        if ids.stride(axis + 1) == 0 or bool((ids == first).all()):  # as scores are: one hub all along a row
            ids = first
    return reduce(ids, gone, False) if gone else ids, tuple(x for x in labels if x in out)


def _find_distinct(parts: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return for each index of axis 1 which distinct slice it is, and each such slice's first index (None: all are)."""
    count = parts.shape[1]
    if not parts.numel() or count_distinct(parts[0, :, 0, 0]) == count:
        return torch.arange(count), None
    _, which = torch.unique(parts.transpose(0, 1).reshape(count, -1), dim=0, return_inverse=True)
    first = torch.stack([(which == n).nonzero()[0, 0] for n in range(int(which.max()) + 1)]).sort().values
    if first.numel() == count:
        return torch.arange(count), None
    rank = torch.empty(first.numel(), dtype=torch.int64)
    rank[which[first]] = torch.arange(first.numel())
    return rank[which], first


def _without_batch(sizes: Sequence[int]) -> tuple[int, ...]:
    return tuple(sizes[1:] if len(sizes) > 1 and sizes[0] == 1 else sizes)
