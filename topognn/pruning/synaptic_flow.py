"""SynFlow: iterative pruning without data that keeps every layer alive."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from topognn.errors import TraceError
from topognn.modes import eval_mode
from topognn.pruning.applying import plain_parameters
from topognn.pruning.rounds import Schedule, count_rounds
from topognn.pruning.selection import count_kept, keep_highest


def synflow(
    model: nn.Module,
    sparsity: float,
    *,
    input_shape: Sequence[int],
    seed: int = 0,
    iterations: int = 100,
    schedule: Schedule = "exponential",
) -> dict[str, Tensor]:
    """Return masks that keep the weights with the largest synaptic flow |w * dR/dw|.

    R is the sum of the outputs of the network with all parameters and buffers replaced by their absolute
    values, in float64 (deep networks overflow float32) and in eval mode, for one input of ones. In each of
    ``iterations`` rounds fewer weights are kept, and flow is computed anew.

    Args:
        model: any module whose prunable weights are plain parameters; it is left exactly as it was.
        sparsity: fraction of all prunable weights to prune, in [0, 1).
        input_shape: of one example, without the batch: ``(3, 32, 32)``.
        seed: unused, for nothing is random: of equal scores the earlier is kept.
        iterations: number of rounds.
        schedule: how the number of kept weights falls: ``"exponential"`` by the same factor or ``"linear"`` by the
            same number a round.

    Returns:
        Weight name -> bool tensor of the weight's shape on its device, True where kept.

    Raises:
        SparsityError: a sparsity outside [0, 1), nothing to prune, no rounds, or a flow that overflows.
        MaskError: a weight is computed by torch prune or a parametrization.
        TraceError: the model does not run on such an input.

    Source: Tanaka, Kunin, Yamins, Ganguli, *Pruning neural networks without any data by iteratively
    conserving synaptic flow*, NeurIPS 2020, algorithm 1.

    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> sum(mask.sum().item() for mask in synflow(model, 0.5, input_shape=(4,)).values())
    24
    """
    parameters = plain_parameters(model)
    weights = {name: parameter.detach().abs().double() for name, parameter in parameters.items()}
    counts = count_rounds(weights, count_kept(weights, sparsity), iterations, schedule)
    prunable = {id(parameter) for parameter in parameters.values()}
    rest = {
        name: tensor.detach().abs().double() if tensor.is_floating_point() else tensor.clone()
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
        if id(tensor) not in prunable
    }
    ones = torch.ones((1, *input_shape), dtype=torch.float64, device=next(iter(weights.values())).device)
    masks = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in weights.items()}
    with eval_mode(model):
        for count in counts:
            flow = _flow(model, weights, masks, rest, ones)
            # Pruned weights rank below living ones without flow, so that none comes back.
            scores = {name: flow[name].masked_fill(~masks[name], -1.0) for name in flow}
            masks = keep_highest(scores, count)
    return masks


def _flow(
    model: nn.Module,
    weights: dict[str, Tensor],
    masks: dict[str, Tensor],
    rest: dict[str, Tensor],
    ones: Tensor,
) -> dict[str, Tensor]:
    """Return |w * dR/dw| of every prunable weight, with pruned ones at zero."""
    with torch.enable_grad():
        alive = {name: (weight * masks[name]).requires_grad_() for name, weight in weights.items()}
        try:
            output = functional_call(model, {**rest, **alive}, (ones,))
        except (RuntimeError, ValueError) as error:
            first = next(iter(str(error).splitlines()), type(error).__name__)
            raise TraceError(f"the model does not run on an input of shape {tuple(ones.shape)}: {first}") from error
        gradients = torch.autograd.grad(output.sum(), list(alive.values()), allow_unused=True, materialize_grads=True)
    return {
        name: (weight.detach() * gradient).abs()
        for (name, weight), gradient in zip(alive.items(), gradients, strict=True)
    }
