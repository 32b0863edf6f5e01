"""Count the ends of walks of two steps: by products of dense matrices of channels, or along lists of channels."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from topognn.kernels.launch import get_num_threads
from topognn.kernels.walks import count_ends
from topognn.positions.channels import Channels, Lists
from topognn.positions.grids import to_device
from topognn.positions.walks import Walks, find_walks

_AT_ONCE = 2**20  # counts in memory at a time
_WORKERS = 2**12  # on a GPU
_AN_EDGE = 1500  # multiplications that take as long as an edge does in the rows of a graph
_MULTIPLICATIONS = 15  # that a dense product makes while a list goes one step on


class Ends(NamedTuple):
    """What the walks between two partitions end in; int64 ``(y signatures, x signatures, source channels)``.

    Attributes:
        reached: Target channels that a walk or an edge ends in.
        pairs: Pairs of walks that end in the same target channel.
        shared: Walks that end where an edge ends; triangles on the edges.
        doubled: Pairs of such walks of one edge.
    """

    reached: Tensor
    pairs: Tensor
    shared: Tensor
    doubled: Tensor


def count_all(channels: Channels, walks: Walks) -> Ends:
    """Count the ends of walks by signatures, the cheaper way. Makes no host sync."""
    if 0 in (walks.y.counts.shape[1], walks.x.counts.shape[1]):
        none = torch.zeros(0, 0, channels.found.grids[walks.source].channels, dtype=torch.int64, device=channels.device)
        return Ends(none, none, none, none)
    steps, multiplications = estimate(channels, walks)
    return count_listed(channels, walks) if steps * _MULTIPLICATIONS < multiplications else count_dense(channels, walks)


class Cost(NamedTuple):
    """What it takes to count the ends of all walks.

    Attributes:
        multiplications: About; steps along lists as many as they take as long as.
        bytes: At most, about: of channels and lists, and of one count at a time.
    """

    multiplications: float
    bytes: int


def find_cost(channels: Channels, undirected: bool) -> Cost:
    """Return what it takes to count the ends of all walks; found once a graph."""
    if undirected not in channels.costs:
        total, most = 0.0, 0
        for walks in find_walks(channels.found, undirected):
            steps, dense = estimate(channels, walks)
            total += min(_MULTIPLICATIONS * steps, dense)
            most = max(most, _estimate_bytes(channels, walks, _MULTIPLICATIONS * steps < dense))
        blocks = [b for b in channels.found.blocks.values() if b is not None and b.of_y.size and b.of_x.size]
        sizes = [(channels.most(block), channels.size_of(block)) for block in blocks]
        held = sum(size + 12 * (2 if undirected else 1) * kept for kept, size in sizes)
        channels.costs[undirected] = total, most + held + max((size for _, size in sizes), default=0)
    return Cost(*channels.costs[undirected])


def are_cheap(channels: Channels, undirected: bool, num_uses: int) -> bool:
    """Tell whether walks are sooner counted by channels than along the rows of a graph of ``num_uses`` edges.

    They are, but where a layer reads a flattened image, in a sparse network: many signatures meet there.
    """
    return find_cost(channels, undirected).multiplications <= _AN_EDGE * num_uses


def _estimate_bytes(channels: Channels, walks: Walks, listed: bool) -> int:
    grids = channels.found.grids
    sources, targets = grids[walks.source].channels, grids[walks.target].channels
    pairs = int(walks.y.counts.shape[1] * walks.x.counts.shape[1])
    if listed:
        return 8 * min(sources * pairs, 8 * get_num_threads()) * targets + 32 * sources * pairs
    words = [int(y[0].size * x[0].size) for y, x in zip(walks.y.steps, walks.x.steps, strict=True)] if pairs else []
    entries = max([pairs, *words]) * targets
    return 40 * min(sources * entries, max(entries, _AT_ONCE)) + 4 * sum(
        channels.size_of(b.block) for _, b in walks.ways
    )


def estimate(channels: Channels, walks: Walks) -> tuple[float, float]:
    """Return about how many steps lists take, and how many multiplications dense matrices."""
    grids = channels.found.grids
    sources, targets = grids[walks.source].channels, grids[walks.target].channels
    ny, nx = walks.y.counts.shape[1], walks.x.counts.shape[1]
    steps = float(sources * ny * nx)
    multiplications = float(sources * targets * ny * nx)
    for (first, second), y, x in zip(walks.ways, walks.y.steps, walks.x.steps, strict=True):
        middles = grids[first.ends[1]].channels
        one, two = (channels.most(s.block) / (s.block.of_y.shape[0] * s.block.of_x.shape[0]) for s in (first, second))
        steps += float((y > 0).sum() * (x > 0).sum()) * one * (1 + two / middles)
        words_y, words_x = y[0].size, x[0].size
        multiplications += sources * targets * (words_y * words_x * middles + ny * words_x * (words_y + nx))
    return steps, multiplications


def count_listed(channels: Channels, walks: Walks) -> Ends:
    """Count the ends of walks along lists of joined channels."""
    device, grids = channels.device, channels.found.grids
    sources, targets = grids[walks.source].channels, grids[walks.target].channels
    shape = (walks.y.counts.shape[1], walks.x.counts.shape[1], sources)
    items = shape[0] * shape[1] * sources
    none = Lists(torch.zeros(1, dtype=torch.int64, device=device), torch.zeros(0, dtype=torch.int32, device=device))
    firsts = [channels.lists(first) for first, _ in walks.ways] or [none]
    seconds = [channels.lists(second) for _, second in walks.ways] or [none]
    direct = none if walks.direct is None else channels.lists(walks.direct)
    across = 0 if walks.direct is None else walks.direct.block.of_x.shape[0]
    table = np.zeros((len(walks.ways), 5), dtype=np.int64)
    for number, (first, second) in enumerate(walks.ways):
        table[number, 1::2] = first.block.of_x.shape[0], second.block.of_x.shape[0]
        table[number, 4] = grids[first.ends[1]].channels
        if number:
            rows = firsts[number - 1].indptr.numel(), seconds[number - 1].indptr.numel()
            table[number, [0, 2]] = table[number - 1, [0, 2]] + rows
    steps, _ = estimate(channels, walks)
    workers = min(items, 8 * get_num_threads() if device.type == "cpu" else _WORKERS)
    words = [to_device(array, device) for a in (walks.y, walks.x) for array in (a.indptr, a.words, a.edges)]
    seen = torch.zeros(workers, targets, dtype=torch.int64, device=device)
    counts = torch.zeros(4 * items, dtype=torch.int64, device=device)
    count_ends.launch(
        workers,
        *(workers, items, sources, across, to_device(table, device), *words),
        *(*_chain(firsts), *_chain(seconds), *direct, seen, counts),
        work=steps / workers,
    )
    return Ends(*counts.view(4, *shape))


def _chain(lists: list[Lists]) -> Lists:
    """Return lists one after the other, each with all of its pointers: some have room to spare behind them."""
    if len(lists) == 1:
        return lists[0]
    begins = itertools.accumulate((one.indices.numel() for one in lists), initial=0)
    indptr = torch.cat([one.indptr + begin for one, begin in zip(lists, begins, strict=False)])
    return Lists(indptr, torch.cat([one.indices for one in lists]))


def count_dense(channels: Channels, walks: Walks) -> Ends:
    """Count the ends of walks by products of matrices of channels, some source channels at a time.

    Sums of ones in float32 are exact below 2**24: channels times pairs of taps, at most.
    """
    device = channels.device
    sources, targets = (channels.found.grids[number].channels for number in (walks.source, walks.target))
    ny, nx = walks.y.counts.shape[1], walks.x.counts.shape[1]
    ways = []
    for (first, second), *words in zip(walks.ways, walks.y.steps, walks.x.steps, strict=True):
        one, two = channels.along(first), channels.along(second).permute(2, 0, 1, 3).float()
        y, x = (to_device(w.reshape(len(w), -1).astype(np.float32), device) for w in words)
        ways.append((one, two, y, x))
    direct = None if walks.direct is None else channels.along(walks.direct)
    is_edge = None
    if walks.direct is not None:
        kinds = np.maximum(walks.y.edges, 0), np.maximum(walks.x.edges, 0)
        is_edge = to_device((walks.y.edges >= 0)[:, None] & (walks.x.edges >= 0), device)[:, :, None, None]
        at_y, at_x = (to_device(kind, device) for kind in kinds)
    most = max([ny * nx, *(y.shape[1] * x.shape[1] for _, _, y, x in ways)])
    step = max(1, _AT_ONCE // (targets * most))
    parts = []
    for begin in range(0, sources, step):
        rows = slice(begin, min(begin + step, sources))
        size = rows.stop - begin
        total = torch.zeros(ny, nx, size * targets, device=device)
        for one, two, y, x in ways:
            product = one[:, :, rows].reshape(-1, one.shape[3]).float() @ two.reshape(two.shape[0], -1)
            product = product.view(*one.shape[:2], size, *two.shape[1:]).permute(0, 3, 1, 4, 2, 5)
            total += x @ (y @ product.reshape(y.shape[1], -1)).view(ny, x.shape[1], -1)
        walked = total.view(ny, nx, size, targets)
        reached = walked > 0
        double = walked.double()
        pairs = ((double * double).sum(-1) - double.sum(-1)) / 2
        shared = doubled = torch.zeros_like(pairs)
        if direct is not None and is_edge is not None:
            edges = direct[at_y][:, at_x][:, :, rows] & is_edge
            reached = reached | edges
            double = double * edges
            shared = double.sum(-1)
            doubled = ((double * double).sum(-1) - shared) / 2
        parts.append(torch.stack([reached.sum(-1).double(), pairs, shared, doubled]))
    return Ends(*torch.cat(parts, 3).to(torch.int64))
