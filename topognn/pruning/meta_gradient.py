"""ProsPR: pruning by what a weight's mask does to the loss after a few steps of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from topognn.errors import DataError
from topognn.pruning.applying import plain_parameters
from topognn.pruning.selection import count_kept, keep_highest
from topognn.pruning.training_loss import (
    Batch,
    Batches,
    Evaluate,
    Loss,
    check_gradients,
    check_trainable,
    take_batches,
    training_loss,
)


def prospr(
    model: nn.Module,
    sparsity: float,
    *,
    batches: Batches | None = None,
    loss: Loss = F.cross_entropy,
    seed: int = 0,
    steps: int = 3,
    learning_rate: float = 0.5,
    momentum: float = 0.9,
) -> dict[str, Tensor]:
    """Return masks that keep the weights with the largest meta-gradient |dL/dm| after ``steps`` steps of training.

    The masks m are at 1 and multiply the initial weights alone; all trainable parameters then take ``steps`` steps of
    SGD, through which, momentum included, the loss of one batch more is differentiated. In training mode, with as
    much memory as ``steps`` + 1 forward passes.

    Args:
        model: any module whose prunable weights are plain parameters; it is left exactly as it was.
        sparsity: fraction of all prunable weights to prune, in [0, 1).
        batches: ``(inputs, targets)`` pairs, such as a DataLoader; ``steps`` + 1 are read. Where there are fewer,
            they are used again in turn.
        loss: from outputs and targets to a scalar.
        seed: of random choices in the model (dropout); of equal scores the earlier is kept.
        steps: number of inner steps.
        learning_rate, momentum: of the inner steps.

    Returns:
        Weight name -> bool tensor of the weight's shape on its device, True where kept.

    Raises:
        SparsityError: a sparsity outside [0, 1), or nothing to prune.
        DataError: no batch, one that the model does not run on, labels out of range, or less than one step.
        TrainingError: the loss or a gradient is NaN or infinite.
        MaskError: a weight is frozen, or computed by torch prune or a parametrization.

    Source: Alizadeh, Tailor, Zintgraf, van Amersfoort, Farquhar, Lane, Gal, *Prospect Pruning: Finding Trainable
    Weights at Initialization using Meta-Gradients*, ICLR 2022, section 3. Their code holds the first step's momentum
    fast; we differentiate through it.

    >>> model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    >>> batch = (torch.ones(2, 4), torch.tensor([0, 1]))
    >>> sum(mask.sum().item() for mask in prospr(model, 0.5, batches=[batch]).values())
    24
    """
    parameters = plain_parameters(model)
    count = count_kept(parameters, sparsity)
    if steps < 1:
        raise DataError(f"steps={steps} trains nothing: give at least 1 (steps=0 would be SNIP).")
    check_trainable(parameters)
    given = take_batches(batches, steps + 1, next(iter(parameters.values())).device)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    with training_loss(model, loss, seed) as evaluate:
        gradients = get_meta_gradients(evaluate, parameters, trained, given, learning_rate, momentum)
    check_gradients(gradients)
    return keep_highest({name: gradient.abs() for name, gradient in gradients.items()}, count)


def get_meta_gradients(
    evaluate: Evaluate,
    weights: Mapping[str, Tensor],
    trained: Mapping[str, Tensor],
    batches: Sequence[Batch],
    learning_rate: float,
    momentum: float,
) -> dict[str, Tensor]:
    """Return the gradient, with regard to the masks of ``weights``, of the last batch's loss after steps on the others.

    ``trained`` are all parameters that take a step.
    """
    masks = {name: torch.ones_like(weight, requires_grad=True) for name, weight in weights.items()}
    now = {name: value.detach().requires_grad_() for name, value in trained.items()}
    now |= {name: weight.detach() * masks[name] for name, weight in weights.items()}
    velocity: dict[str, Tensor] = {}
    for batch in batches[:-1]:
        value = evaluate(now, batch)
        gradients = torch.autograd.grad(
            value, list(now.values()), create_graph=True, allow_unused=True, materialize_grads=True
        )
        for name, gradient in zip(now, gradients, strict=True):
            velocity[name] = momentum * velocity[name] + gradient if name in velocity else gradient
            now[name] = now[name] - learning_rate * velocity[name]
    held = list(masks.values())
    found = torch.autograd.grad(evaluate(now, batches[-1]), held, allow_unused=True, materialize_grads=True)
    return dict(zip(masks, found, strict=True))
