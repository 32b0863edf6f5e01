"""Layers that read what many channels share: one edge, with the sum of their weights, instead of parallel ones.

The channels of a head all stand for the head's scores, besides hubs of their own. So a linear layer behind attention is
two connections: one from the channels' hubs, and one from the scores', whose weights are sums over the head's channels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from topognn.tracing.draft import LayerUse
from topognn.tracing.operations import count_distinct


def split_shared(use: LayerUse) -> list[LayerUse]:
    """Return a use of a layer as several that make no parallel edges, where that can be done simply.

    ``ids`` are final. The first of them is the layer itself, the others have sums of its weights.
    """
    pointwise = use.is_linear or math.prod(use.weight_shape[2:]) == 1
    if use.ids.shape[0] == 1 or not pointwise or use.groups > 1 or use.depth is not None:
        return [use]
    out, inner = use.weight_shape[:2]
    channels = use.ids.reshape(use.ids.shape[0], -1, inner).transpose(1, 2) if use.is_linear else _by_channel(use)
    shared = [_find_shared(layer) for layer in channels]
    own = [k for k, found in enumerate(shared) if found is None]
    if not own or len(own) == len(shared) or not _are_disjoint(channels, own):
        return [use]
    parts = [use._replace(ids=use.ids[own])]
    index = torch.arange(out * inner) if use.entries is None else use.entries
    for k, found in enumerate(shared):
        if found is None:
            continue
        which, first = found
        terms = _gather_terms(index.reshape(out, inner), which, first.numel())
        kept = channels[k][first]
        shape = (out, first.numel(), *use.weight_shape[2:])
        ids = kept.T if use.is_linear else kept.view(-1, *use.ids.shape[-len(use.weight_shape) + 2 :])
        whole = use.weight_shape if use.parameter_shape is None else use.parameter_shape
        parts.append(use._replace(ids=ids[None], weight_shape=shape, entries=terms, parameter_shape=whole))
    return parts


def _by_channel(use: LayerUse) -> Tensor:
    return use.ids.reshape(use.ids.shape[0], use.weight_shape[1], -1)


def _find_shared(layer: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return which group each channel is in (groups have the same nodes, -1: in none), and each group's first.

    None if all channels that stand for anything differ, or if groups are so uneven that sums would take long.
    """
    real = (layer >= 0).any(1).nonzero()[:, 0]
    taken = layer[real]
    if not real.numel() or (bool((taken[:, 0] >= 0).all()) and count_distinct(taken[:, 0]) == real.numel()):
        return None
    _, which = torch.unique(taken, dim=0, return_inverse=True)
    counts = torch.bincount(which)
    if counts.numel() == real.numel() or counts.numel() * int(counts.max()) > 2 * layer.shape[0]:
        return None
    first = torch.full(counts.shape, layer.shape[0]).scatter_reduce_(0, which, real, "amin")
    order = first.argsort()  # groups in the order of their channels
    groups = torch.full((layer.shape[0],), -1)
    groups[real] = order.argsort()[which]
    return groups, first[order]


def _are_disjoint(channels: Tensor, own: list[int]) -> bool:
    """Tell whether no node is in two parts: then no edge is."""
    rest = [k for k in range(channels.shape[0]) if k not in own]
    sets = [channels[own], *(channels[k] for k in rest)]
    sizes = [count_distinct(nodes[nodes >= 0]) for nodes in sets]
    return count_distinct(channels[channels >= 0]) == sum(sizes)


def _gather_terms(index: Tensor, which: Tensor, groups: int) -> Tensor:
    """Return ``(terms, out, groups)``: the weights of each group's channels, -1 where a group has fewer."""
    index, which = index[:, which >= 0], which[which >= 0]
    counts = torch.bincount(which, minlength=groups)
    order = torch.argsort(which, stable=True)
    place = torch.arange(which.numel()) - (counts.cumsum(0) - counts)[which[order]]
    terms = torch.full((int(counts.max()), index.shape[0], groups), -1)
    terms[place, :, which[order]] = index[:, order].T
    return terms
