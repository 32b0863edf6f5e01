"""GraSP: pruning that keeps the gradient flowing."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from topognn.pruning.applying import plain_parameters
from topognn.pruning.selection import count_kept, keep_highest
from topognn.pruning.training_loss import (
    Batches,
    Evaluate,
    Loss,
    check_gradients,
    check_trainable,
    iterate,
    run,
    take_balanced,
    take_batches,
    training_loss,
)


def grasp(
    model: nn.Module,
    sparsity: float,
    *,
    batches: Batches | None = None,
    loss: Loss = F.cross_entropy,
    seed: int = 0,
    temperature: float = 200.0,
    samples_per_class: int | None = 10,
) -> dict[str, Tensor]:
    """Return masks without the weights whose removal lowers the gradient norm least: the lowest -w * Hg are kept.

    g is the gradient and H the Hessian of the loss of one class-balanced batch with regard to the prunable
    weights, with the outputs divided by ``temperature``; in training mode.

    Args:
        model: any module whose prunable weights are plain parameters; it is left exactly as it was.
        sparsity: fraction of all prunable weights to prune, in [0, 1).
        batches: ``(inputs, targets)`` pairs, such as a DataLoader; read until the batch is full.
        loss: from outputs and targets to a scalar.
        seed: of random choices in the model (dropout); of equal scores the earlier is kept.
        temperature: what the outputs are divided by.
        samples_per_class: examples of every class in the batch; None takes the first batch as it is.

    Returns:
        Weight name -> bool tensor of the weight's shape on its device, True where kept.

    Raises:
        SparsityError: a sparsity outside [0, 1), or nothing to prune.
        DataError: no batch, one that the model does not run on, a class that is too rare, or labels out of range.
        TrainingError: the loss or a gradient is NaN or infinite.
        MaskError: a weight is frozen, or computed by torch prune or a parametrization.

    Source: Wang, Zhang, Grosse, *Picking Winning Tickets Before Training by Preserving Gradient Flow*, ICLR 2020,
    algorithm 1; temperature and batch as in the authors' code, which splits the batch in halves where we do not.

    >>> model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    >>> batch = (torch.ones(20, 4), torch.arange(20) % 2)
    >>> sum(mask.sum().item() for mask in grasp(model, 0.5, batches=[batch]).values())
    24
    """
    parameters = plain_parameters(model)
    count = count_kept(parameters, sparsity)
    check_trainable(parameters)
    device = next(iter(parameters.values())).device
    with training_loss(model, loss, seed) as evaluate:
        if samples_per_class is None:
            (batch,) = take_batches(batches, 1, device)
        else:
            given = iterate(batches)
            first = next(given)
            classes = run(model, {}, take_batches([first], 1, device)[0][0]).shape[-1]
            batch = take_balanced(itertools.chain([first], given), samples_per_class, classes, device)
        flows = get_gradient_flows(evaluate, parameters, batch, temperature)
    return keep_highest({name: -flow for name, flow in flows.items()}, count)


def get_gradient_flows(
    evaluate: Evaluate, weights: Mapping[str, Tensor], batch: tuple[Tensor, Tensor], temperature: float
) -> dict[str, Tensor]:
    """Return -w * Hg of each weight on a batch, by differentiating twice."""
    weights = {name: weight.detach().requires_grad_() for name, weight in weights.items()}
    value = evaluate(weights, batch, temperature)
    held = list(weights.values())
    gradients = torch.autograd.grad(value, held, create_graph=True, allow_unused=True, materialize_grads=True)
    # The gradient of g.g with one g held fast is Hg.
    product = sum((g * g.detach()).sum() for g in gradients)
    found = torch.autograd.grad(product, held, allow_unused=True, materialize_grads=True)  # type: ignore[arg-type]
    hessian_products = dict(zip(weights, found, strict=True))
    check_gradients(hessian_products)
    return {name: -weight.detach() * hessian_products[name] for name, weight in weights.items()}
