"""PHEW: pruning that keeps the weights on random walks from the input to the output and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from topognn.kernels.host import read
from topognn.pruning.applying import plain_parameters
from topognn.pruning.channel_graph import FIRM, ChannelGraph, channel_graph
from topognn.pruning.selection import check_finite, count_kept, keep_highest
from topognn.tracing import trace

_AT_ONCE = 2048  # walks
_A_WEIGHT = 10  # walks a weight to keep, before the rest is drawn


def phew(model: nn.Module, sparsity: float, *, input_shape: Sequence[int], seed: int = 0) -> dict[str, Tensor]:
    """Return masks that keep the weights on random walks through the network's channels, biased by magnitude.

    A walk goes from an input channel to the output, or from an output back to the input, by turns; it begins at each
    of them in turn, and takes weight w of those that lead on with probability proportional to |w|. Walks go on until
    they have passed enough weights. Where most weights are kept, the last ones would take forever: after ten walks
    a weight, the rest is drawn by the times at which independent walks would come to each weight first.

    Args:
        model: any module that :func:`topognn.trace` can trace; it is left exactly as it was.
        sparsity: fraction of all prunable weights to prune, in [0, 1).
        input_shape: of one example, without the batch: ``(3, 32, 32)``.
        seed: of the walks; the same masks on every device.

    Returns:
        Weight name -> bool tensor of the weight's shape on its device, True where kept.

    Raises:
        SparsityError: a sparsity outside [0, 1), nothing to prune, or weights that are NaN or infinite.
        MaskError: a weight is computed by torch prune or a parametrization.
        TraceError, UnsupportedOperation: see :func:`topognn.trace`.

    Source: Patil, Dovrolis, *PHEW: Constructing Sparse Networks that Learn Fast and Generalize Well without Training
    Data*, ICML 2021, section 4. Details are our understanding of it: a convolution's walk takes one weight of the
    kernel that it passes, so that sparsity is exact, and residual branches are alternatives as the graph has them.

    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> sum(mask.sum().item() for mask in phew(model, 0.5, input_shape=(4,)).values())
    24
    """
    parameters = plain_parameters(model)
    count = count_kept(parameters, sparsity)
    device = next(iter(parameters.values())).device
    layout = trace(model, input_shape).to(device)
    assert layout.weights is not None
    values = {n: w.detach().abs().double() for n, w in (*layout.weights().items(), *parameters.items())}
    check_finite(values)
    offsets, total = {}, 0
    for name, value in values.items():
        offsets[name], total = total, total + value.numel()
    magnitude = torch.cat([value.reshape(-1).to(device) for value in values.values()])
    graph = channel_graph(layout, offsets)
    prunable = torch.cat([torch.full((v.numel(),), name in parameters, device=device) for name, v in values.items()])
    order = _order_of_visits(graph, magnitude, prunable, count, len(layout.partitions), seed)
    scores = {name: -order[offsets[name] :][: p.numel()].view(p.shape) for name, p in parameters.items()}
    return keep_highest(scores, count)


class _Steps(NamedTuple):
    """Where walks go in one direction: edges, sorted by the channel that they leave.

    Attributes:
        weights: The weight of each edge; the number of weights where it has none.
        next: The channel that each leads to.
        sums: Running sum of the edges' magnitudes.
        low, high: For each channel, the running sum before and after its edges; equal where walks end.
        last: For each channel, its last edge.
        starts: The channels where walks begin.
    """

    weights: Tensor
    next: Tensor
    sums: Tensor
    low: Tensor
    high: Tensor
    last: Tensor
    starts: Tensor


def _order_of_visits(
    graph: ChannelGraph, magnitude: Tensor, wanted: Tensor, count: int, length: int, seed: int
) -> Tensor:
    """Return a float64 a weight that rises in the order in which walks, of ``length`` at most, come to them first."""
    generator = torch.Generator().manual_seed(seed)  # on the CPU: generators of other devices draw other numbers
    device, num_weights = magnitude.device, magnitude.numel()
    strength = torch.where(graph.weight == FIRM, 1.0, magnitude[graph.weight.clamp(min=0)])
    weights = torch.where(graph.weight == FIRM, num_weights, graph.weight)
    size = graph.num_channels
    both = (
        _sort_steps(graph.source, graph.target, weights, strength, graph.inputs, size),
        _sort_steps(graph.target, graph.source, weights, strength, graph.outputs, size),
    )
    first = torch.full((num_weights + 1,), torch.inf, dtype=torch.float64, device=device)
    unneeded = wanted.sum() - count
    for made in range(0, _A_WEIGHT * count, _AT_ONCE):
        draws = torch.rand(2, length, _AT_ONCE, dtype=torch.float64, generator=generator).to(device)
        for direction, steps in enumerate(both):
            if steps.starts.numel():
                turns = torch.arange(made, made + _AT_ONCE, device=device)
                times = ((2 * turns + direction) * length + torch.arange(length, device=device)[:, None]).double()
                passed = _walk(steps, turns, draws[direction], num_weights)
                first.scatter_reduce_(0, passed.view(-1), times.view(-1), "amin")
        unseen = torch.isinf(first[:-1])
        if read((unseen & wanted).sum()[None] <= unneeded)[0]:
            break
    else:
        visits = torch.stack([_expect_visits(steps, length, num_weights) for steps in both]).sum(0)[:-1]
        draw = torch.rand(num_weights, dtype=torch.float64, generator=generator).to(device)
        later = 2.0 * length * (_A_WEIGHT * count + _AT_ONCE) - torch.log1p(-draw).clamp(max=-1e-300) / visits
        first[:-1] = torch.where(unseen, later, first[:-1])
    return first[:-1].clamp(max=torch.finfo(torch.float64).max)


def _sort_steps(leaves: Tensor, enters: Tensor, weights: Tensor, strength: Tensor, starts: Tensor, size: int) -> _Steps:
    order = torch.argsort(leaves, stable=True)
    sums = strength[order].cumsum(0)
    degree = torch.bincount(leaves, minlength=size)
    end = degree.cumsum(0)
    padded = torch.cat([sums.new_zeros(1), sums])
    low, high = padded[end - degree], padded[end]
    return _Steps(weights[order], enters[order], sums, low, high, end - 1, starts[high[starts] > low[starts]])


def _walk(steps: _Steps, turns: Tensor, draws: Tensor, nothing: int) -> Tensor:
    """Return the weights that the walks number ``turns`` pass, ``(length, walks)``; ``nothing`` after their end."""
    at = steps.starts[turns % steps.starts.numel()]
    passed = torch.full(draws.shape, nothing, dtype=torch.int64, device=draws.device)
    for step, draw in enumerate(draws):
        low, high = steps.low[at], steps.high[at]
        edge = torch.searchsorted(steps.sums, low + draw * (high - low), right=True)
        edge = edge.minimum(steps.last[at]).clamp(min=0)
        on = high > low
        passed[step] = torch.where(on, steps.weights[edge], nothing)
        at = torch.where(on, steps.next[edge], at)
    return passed


def _expect_visits(steps: _Steps, length: int, num_weights: int) -> Tensor:
    """Return how often a walk passes each weight on average, ``(weights + 1,)``."""
    visits = torch.zeros(num_weights + 1, dtype=torch.float64, device=steps.sums.device)
    if not steps.starts.numel():
        return visits
    total = steps.high - steps.low
    degree = steps.last.diff(prepend=steps.last.new_full((1,), -1))
    leaves = torch.repeat_interleave(torch.arange(degree.numel(), device=degree.device), degree)
    share = torch.where(total[leaves] > 0, steps.sums.diff(prepend=steps.sums.new_zeros(1)) / total[leaves], 0.0)
    here = torch.zeros_like(total)
    here[steps.starts] = 1 / steps.starts.numel()
    for _ in range(length):
        moved = here[leaves] * share
        visits.index_add_(0, steps.weights, moved)
        here = torch.zeros_like(here).index_add_(0, steps.next, moved)
    return visits
