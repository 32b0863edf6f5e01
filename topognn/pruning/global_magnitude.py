"""Pruning of the smallest weights of the whole network."""

from __future__ import annotations

from torch import Tensor, nn

from topognn.masks import prunable_weights
from topognn.pruning.selection import count_kept, keep_highest


def magnitude(model: nn.Module, sparsity: float, *, seed: int = 0) -> dict[str, Tensor]:
    """Return masks that keep the weights of largest magnitude, compared across all layers.

    Args:
        model: any module; it is left as it was.
        sparsity: fraction of all prunable weights to prune, in [0, 1).
        seed: unused, for nothing is random: of equal weights the earlier is kept.

    Returns:
        Weight name -> bool tensor of the weight's shape on its device, True where kept.

    Raises:
        SparsityError: a sparsity outside [0, 1), nothing to prune, or weights that are NaN or infinite.

    Source: Han, Pool, Tran, Dally, *Learning both Weights and Connections for Efficient Neural Networks*,
    NeurIPS 2015, section 3, with one threshold for all layers.

    >>> import torch
    >>> layer = nn.Linear(4, 1)
    >>> _ = layer.weight.data.copy_(torch.tensor([[0.1, -3.0, 2.0, 0.2]]))
    >>> magnitude(layer, 0.5)
    {'weight': tensor([[False,  True,  True, False]])}
    """
    weights = prunable_weights(model)
    count = count_kept(weights, sparsity)
    return keep_highest({name: weight.abs() for name, weight in weights.items()}, count)
