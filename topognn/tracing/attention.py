"""Attention as hubs: what a product of two activations, and a third one multiplied by it, stand for.

Which value reaches which token depends on data. So every value element feeds one hub a (head, channel), queries and
keys feed one hub a head, and an element of the output stands for its channel's hub and its head's (docs/attention.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from topognn.tracing import operations
from topognn.tracing.contraction import Labels
from topognn.tracing.draft import Draft, Shortcut
from topognn.tracing.operations import count_distinct

Factor = tuple[Tensor, Labels]
"""Ids ``(K, *shape)`` and the labels of the shape's axes."""


def add_scores(draft: Draft, name: str, left: Factor, right: Factor, out: Labels, shape: Sequence[int]) -> Tensor:
    """Open the hubs of a product of two activations, one an index that both and the result have; return its ids."""
    lead = tuple(x for x in out if x in left[1] and x in right[1])
    sizes = [shape[out.index(x)] for x in lead]
    hubs = draft.open(draft.get_free_name(name), _without_batch(sizes))
    parts = [arrange(ids, labels, (lead, tuple(x for x in labels if x not in lead))) for ids, labels in (left, right)]
    targets = torch.cat([hubs.view(-1, 1).expand(-1, part.shape[2]) for part in parts], 1)
    sources = torch.cat(operations.stack_depths(parts), 2)
    draft.uses.append(Shortcut(draft.blocks[-1].name, sources, targets[None], len(draft.blocks) - 1))
    return spread(hubs.view(1, *sizes), lead, out, shape)


def add_values(draft: Draft, name: str, scores: Factor, values: Factor, out: Labels, shape: Sequence[int]) -> Tensor:
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


def arrange(ids: Tensor, labels: Labels, groups: Sequence[Labels]) -> Tensor:
    """Return ids with one axis a group of labels, in that order; ``(K, size of the first group, ...)``."""
    order = [labels.index(x) + 1 for group in groups for x in group]
    sizes = [math.prod(ids.shape[labels.index(x) + 1] for x in group) for group in groups]
    return ids.permute(0, *order).reshape(ids.shape[0], *sizes)


def spread(ids: Tensor, labels: Labels, out: Labels, shape: Sequence[int]) -> Tensor:
    """Return ids with the axes ``out``, repeated along those that they lack; ``(K, *shape)``."""
    kept = [x for x in out if x in labels]
    ids = ids.permute(0, *(labels.index(x) + 1 for x in kept))
    for axis, x in enumerate(out):
        if x not in labels:
            ids = ids.unsqueeze(axis + 1)
    return ids.expand(-1, *shape)


def _sum_out(ids: Tensor, labels: Labels, out: Labels) -> tuple[Tensor, Labels]:
    """Unite the nodes along the axes that the result lacks."""
    gone = [axis for axis, x in enumerate(labels) if x not in out]
    for axis in gone:
        first = ids.narrow(axis + 1, 0, 1)
        if ids.stride(axis + 1) == 0 or bool((ids == first).all()):  # as scores are: one hub all along a row
            ids = first
    return operations.reduce(ids, gone, False) if gone else ids, tuple(x for x in labels if x in out)


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
