"""SNIP: pruning at once by how much the loss of a batch hangs on each weight; and the same in rounds."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from topognn.pruning.applying import plain_parameters
from topognn.pruning.rounds import Schedule, count_rounds
from topognn.pruning.selection import count_kept, keep_highest
from topognn.pruning.training_loss import (
    Batches,
    Evaluate,
    Loss,
    check_gradients,
    check_trainable,
    take_batches,
    training_loss,
)


def snip(
    model: nn.Module,
    sparsity: float,
    *,
    batches: Batches | None = None,
    loss: Loss = F.cross_entropy,
    seed: int = 0,
) -> dict[str, Tensor]:
    """Return masks that keep the weights with the largest connection sensitivity |w * dL/dw| on one batch.

    That is |dL/dm| of masks m at 1; in training mode.

    Args:
        model: any module whose prunable weights are plain parameters; it is left exactly as it was.
        sparsity: fraction of all prunable weights to prune, in [0, 1).
        batches: ``(inputs, targets)`` pairs, such as a DataLoader; the first is used.
        loss: from outputs and targets to a scalar.
        seed: of random choices in the model (dropout); of equal scores the earlier is kept.

    Returns:
        Weight name -> bool tensor of the weight's shape on its device, True where kept.

    Raises:
        SparsityError: a sparsity outside [0, 1), or nothing to prune.
        DataError: no batch, one that the model does not run on, or labels out of range.
        TrainingError: the loss or a gradient is NaN or infinite.
        MaskError: a weight is frozen, or computed by torch prune or a parametrization.

    Source: Lee, Ajanthan, Torr, *SNIP: Single-shot network pruning based on connection sensitivity*, ICLR 2019,
    equation 6.

    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> batch = (torch.ones(2, 4), torch.tensor([0, 1]))
    >>> sum(mask.sum().item() for mask in snip(model, 0.5, batches=[batch]).values())
    24
    """
    return iterative_snip(model, sparsity, batches=batches, loss=loss, seed=seed, iterations=1)


def iterative_snip(
    model: nn.Module,
    sparsity: float,
    *,
    batches: Batches | None = None,
    loss: Loss = F.cross_entropy,
    seed: int = 0,
    iterations: int = 100,
    schedule: Schedule = "exponential",
) -> dict[str, Tensor]:
    """Return masks of SNIP in rounds: sensitivities of the network as pruned so far, on a batch a round.

    A pruned weight never comes back. Arguments, result and errors are those of :func:`snip`, and:

    Args:
        iterations: number of rounds, each on the next batch; where there are fewer they are used again.
        schedule: how the number of kept weights falls: ``"exponential"`` by the same factor or ``"linear"`` by the
            same number a round.

    Source: de Jorge, Sanyal, Behl, Torr, Rogez, Dokania, *Progressive Skeletonization: Trimming more fat from a
    network at initialization*, ICLR 2021, section 4 (iterative SNIP).

    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> batch = (torch.ones(2, 4), torch.tensor([0, 1]))
    >>> masks = iterative_snip(model, 0.5, batches=[batch], iterations=5)
    >>> sum(mask.sum().item() for mask in masks.values())
    24
    """
    parameters = plain_parameters(model)
    counts = count_rounds(parameters, count_kept(parameters, sparsity), iterations, schedule)
    check_trainable(parameters)
    given = take_batches(batches, iterations, next(iter(parameters.values())).device)
    masks = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in parameters.items()}
    with training_loss(model, loss, seed) as evaluate:
        for count, batch in zip(counts, given, strict=True):
            weights = {name: parameter.detach() * masks[name] for name, parameter in parameters.items()}
            scores = get_sensitivities(evaluate, weights, batch)
            # Pruned weights rank below living ones without sensitivity, so that none comes back.
            masks = keep_highest({name: s.masked_fill(~masks[name], -1.0) for name, s in scores.items()}, count)
    return masks


def get_sensitivities(
    evaluate: Evaluate, weights: dict[str, Tensor], batch: tuple[Tensor, Tensor]
) -> dict[str, Tensor]:
    """Return |w * dL/dw| of each weight on a batch."""
    weights = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
    value = evaluate(weights, batch)
    found = torch.autograd.grad(value, list(weights.values()), allow_unused=True, materialize_grads=True)
    gradients = dict(zip(weights, found, strict=True))
    check_gradients(gradients)
    return {name: (weight.detach() * gradients[name]).abs() for name, weight in weights.items()}
