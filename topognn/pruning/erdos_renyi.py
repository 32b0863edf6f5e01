"""Random pruning with Erdos-Renyi densities: small layers are kept denser than large ones."""

from __future__ import annotations

import math

from torch import Tensor, nn

from topognn.masks import prunable_weights
from topognn.pruning.selection import allocate, check_layers, count_kept, draw_masks


def er(model: nn.Module, sparsity: float, *, seed: int = 0) -> dict[str, Tensor]:
    """Return random masks with layer densities proportional to (n_in + n_out) / (n_in * n_out).

    n_in and n_out are the first two sizes of the weight (input channels are those of one group). A layer that
    would pass density 1 is kept dense and the others rescaled.

    Args:
        model: any module; it is left as it was.
        sparsity: fraction of all prunable weights to prune, in [0, 1).
        seed: of the random choice; the same masks on every device.

    Returns:
        Weight name -> bool tensor of the weight's shape on its device, True where kept.

    Raises:
        SparsityError: a sparsity outside [0, 1), nothing to prune, or one at which a layer keeps no weight.

    Source: Mocanu et al., *Scalable training of artificial neural networks with adaptive sparse
    connectivity*, Nature Communications 2018, equation 3.

    >>> model = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 24, 3))
    >>> {name: mask.sum().item() for name, mask in er(model, 0.9).items()}
    {'0.weight': 77, '1.weight': 153}
    """
    return _draw(model, sparsity, seed, with_kernel=False)


def erk(model: nn.Module, sparsity: float, *, seed: int = 0) -> dict[str, Tensor]:
    """Return random masks with densities proportional to (n_in + n_out + k_h + k_w) / (n_in n_out k_h k_w).

    The same as ``er`` with all sizes of the kernel, so 1x1 layers are kept denser than 3x3 ones. A layer that
    would pass density 1 is kept dense and the others rescaled.

    Args:
        model: any module; it is left as it was.
        sparsity: fraction of all prunable weights to prune, in [0, 1).
        seed: of the random choice; the same masks on every device.

    Returns:
        Weight name -> bool tensor of the weight's shape on its device, True where kept.

    Raises:
        SparsityError: a sparsity outside [0, 1), nothing to prune, or one at which a layer keeps no weight.

    Source: Evci, Gale, Menick, Castro, Elsen, *Rigging the Lottery*, ICML 2020, section 3, point 1.

    >>> model = nn.Sequential(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 24, 1))
    >>> {name: mask.sum().item() for name, mask in erk(model, 0.9).items()}
    {'0.weight': 30, '1.weight': 47}
    """
    return _draw(model, sparsity, seed, with_kernel=True)


def _draw(model: nn.Module, sparsity: float, seed: int, *, with_kernel: bool) -> dict[str, Tensor]:
    weights = prunable_weights(model)
    shapes = [tuple(weight.shape) for weight in weights.values()]
    ratios = [sum(shape) / math.prod(shape) for shape in (s if with_kernel else s[:2] for s in shapes)]
    kept = allocate([math.prod(shape) for shape in shapes], ratios, count_kept(weights, sparsity))
    check_layers(weights, kept, sparsity)
    return draw_masks(weights, kept, seed)
