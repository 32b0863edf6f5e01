"""How many weights to keep, and which: the steps that all pruning algorithms share."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from topognn.errors import SparsityError


def count_kept(weights: Mapping[str, Tensor], sparsity: float) -> int:
    """Return how many of all elements of ``weights`` are kept: round((1 - sparsity) * total).

    Raises:
        SparsityError: a sparsity outside [0, 1), no weights at all, or none that would be kept.

    >>> count_kept({"a": torch.ones(10), "b": torch.ones(5, 2)}, 0.9)
    2
    """
    if isinstance(sparsity, str) or sparsity is None:
        raise SparsityError(f"sparsity {sparsity!r} is no number: give the fraction of weights to prune, such as 0.9.")
    if not 0 <= sparsity < 1:  # NaN fails this too
        raise SparsityError(f"sparsity {sparsity!r} is outside [0, 1): give the fraction of weights to prune.")
    if not weights:
        raise SparsityError("the model has no convolution and no linear layer: there is nothing to prune.")
    total = sum(weight.numel() for weight in weights.values())
    kept = round((1 - sparsity) * total)
    if not kept:
        raise SparsityError(f"sparsity {sparsity!r} leaves none of {total} weights: give a lower one.")
    return kept


def allocate(sizes: Sequence[int], ratios: Sequence[float], total: int) -> list[int]:
    """Share ``total`` kept weights among layers with densities proportional to ``ratios``.

    A layer that would pass density 1 is kept dense and the others rescaled, until none does. What rounding
    down leaves goes to the largest remainders (the first layer among equals), so the shares add up to
    ``total``.

    Source: Evci et al., *Rigging the Lottery*, ICML 2020, appendix (Erdos-Renyi-Kernel), for the dense
    layers.

    >>> allocate([10, 100, 1000], [1.0, 0.3, 0.05], 60)
    [7, 20, 33]
    >>> allocate([10, 100, 1000], [1.0, 0.3, 0.05], 110)  # the first layer is dense
    [10, 38, 62]
    """
    layers = range(len(sizes))
    dense: set[int] = set()
    while True:
        rest = [k for k in layers if k not in dense]
        room = total - sum(sizes[k] for k in dense)
        weighted = math.fsum(sizes[k] * ratios[k] for k in rest)
        scale = room / weighted if weighted else 0.0  # what is left may have no room at all
        passing = {k for k in rest if scale * ratios[k] > 1}
        if not passing:
            break
        dense |= passing
    quotas = [float(sizes[k]) if k in dense else min(scale * ratios[k], 1.0) * sizes[k] for k in layers]
    kept = [math.floor(quota) for quota in quotas]
    by_remainder = sorted(layers, key=lambda k: (kept[k] - quotas[k], k))
    open_layers = [k for k in by_remainder if kept[k] < sizes[k]]
    for k in open_layers[: total - sum(kept)]:
        kept[k] += 1
    return kept


def check_layers(weights: Mapping[str, Tensor], kept: Sequence[int], sparsity: float) -> None:
    """Refuse shares of kept weights by which a layer would lose all.

    Raises:
        SparsityError: a layer would keep no weight.
    """
    for (name, weight), count in zip(weights.items(), kept, strict=True):
        if not count:
            raise SparsityError(
                f"at sparsity {sparsity:g} {name!r} would keep none of its {weight.numel()} weights: give a lower one, "
                "or another pruner (erk keeps small layers denser)."
            )


def draw_masks(weights: Mapping[str, Tensor], kept: Sequence[int], seed: int) -> dict[str, Tensor]:
    """Return masks that keep ``kept[k]`` random weights of layer k: the same masks on every device.

    With one seed, more kept weights include fewer: the masks are nested.

    >>> {name: mask.sum().item() for name, mask in draw_masks({"a": torch.ones(3, 4)}, [5], 0).items()}
    {'a': 5}
    """
    generator = torch.Generator().manual_seed(seed)  # on the CPU: generators of other devices draw other numbers
    masks = {}
    for (name, weight), count in zip(weights.items(), kept, strict=True):
        mask = torch.zeros(weight.numel(), dtype=torch.bool)
        mask[torch.randperm(weight.numel(), generator=generator)[:count]] = True
        masks[name] = mask.view(weight.shape).to(weight.device)
    return masks


def check_finite(scores: Mapping[str, Tensor]) -> None:
    """Refuse scores that have no order.

    Raises:
        SparsityError: a score is NaN or infinite.
    """
    for name, score in scores.items():
        if not torch.isfinite(score).all():
            raise SparsityError(
                f"scores of {name!r} are NaN or infinite: look for such weights, or for values that overflow."
            )


def keep_highest(scores: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
    """Return masks that keep the ``count`` highest of all scores; among equals the earlier layer and index.

    Raises:
        SparsityError: a score is NaN or infinite, so no order exists.

    >>> keep_highest({"a": torch.tensor([1.0, 3.0]), "b": torch.tensor([3.0, 3.0])}, 2)
    {'a': tensor([False,  True]), 'b': tensor([ True, False])}
    """
    check_finite(scores)
    device = next(iter(scores.values())).device
    flat = torch.cat([score.reshape(-1).to(device) for score in scores.values()])
    parts = torch.split(find_highest(flat, count), [score.numel() for score in scores.values()])
    return {
        name: part.view(score.shape).to(score.device) for (name, score), part in zip(scores.items(), parts, strict=True)
    }


def find_highest(scores: Tensor, count: int) -> Tensor:
    """Return which are the ``count`` highest scores, the earlier ones among equals; bool of their shape, no host sync.

    >>> find_highest(torch.tensor([3.0, 1.0, 3.0, 3.0]), 2)
    tensor([ True, False,  True, False])
    """
    if count == 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    # A threshold and a running count of its ties: topk would choose among equals as it likes.
    flat = scores.reshape(-1)
    threshold = flat.kthvalue(flat.numel() - count + 1).values
    above, ties = flat > threshold, flat == threshold
    return (above | (ties & (ties.cumsum(0) <= count - above.sum()))).view(scores.shape)
