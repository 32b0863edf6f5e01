"""Random pruning with the same density in every layer."""

from __future__ import annotations

from torch import Tensor, nn

from topognn.masks import prunable_weights
from topognn.pruning.selection import allocate, check_layers, count_kept, draw_masks


def uniform(model: nn.Module, sparsity: float, *, seed: int = 0) -> dict[str, Tensor]:
    """Return masks that keep the same fraction of every layer, at random.

    Args:
        model: any module; it is left as it was.
        sparsity: fraction of all prunable weights to prune, in [0, 1).
        seed: of the random choice; the same masks on every device.

    Returns:
        Weight name -> bool tensor of the weight's shape on its device, True where kept.

    Raises:
        SparsityError: a sparsity outside [0, 1), nothing to prune, or one at which a layer keeps no weight.

    Source: Mariet, Sra, *Diversity Networks*, ICLR 2016; "uniform" in Evci et al., ICML 2020, section 3.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8, 4))
    >>> {name: mask.sum().item() for name, mask in uniform(model, 0.75).items()}
    {'0.weight': 54, '2.weight': 8}
    """
    weights = prunable_weights(model)
    sizes = [weight.numel() for weight in weights.values()]
    kept = allocate(sizes, [1.0] * len(sizes), count_kept(weights, sparsity))
    check_layers(weights, kept, sparsity)
    return draw_masks(weights, kept, seed)
