"""Pruning algorithms: from a model and a sparsity to masks, and masks that hold through training."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from topognn.errors import TraceError, unknown_name
from topognn.pruning.applying import apply_masks
from topognn.pruning.connection_sensitivity import iterative_snip, snip
from topognn.pruning.erdos_renyi import er, erk
from topognn.pruning.global_magnitude import magnitude
from topognn.pruning.gradient_flow import grasp
from topognn.pruning.meta_gradient import prospr
from topognn.pruning.random_walks import phew
from topognn.pruning.synaptic_flow import synflow
from topognn.pruning.training_loss import Batches, Loss
from topognn.pruning.uniform_density import uniform

__all__ = [
    "PRUNERS",
    "apply_masks",
    "er",
    "erk",
    "grasp",
    "iterative_snip",
    "magnitude",
    "needs_data",
    "phew",
    "prospr",
    "prune",
    "snip",
    "synflow",
    "uniform",
]

PRUNERS: dict[str, Callable[..., dict[str, Tensor]]] = {
    pruner.__name__: pruner
    for pruner in (uniform, er, erk, magnitude, snip, iterative_snip, grasp, synflow, prospr, phew)
}


def needs_data(name: str) -> bool:
    """Tell whether an algorithm learns from batches of data.

    Raises:
        UnknownNameError: there is no such algorithm.

    >>> needs_data("synflow"), needs_data("snip")
    (False, True)
    """
    if name not in PRUNERS:
        raise unknown_name("pruner", name, PRUNERS)
    return "batches" in inspect.signature(PRUNERS[name]).parameters


def prune(
    model: nn.Module,
    name: str,
    sparsity: float,
    *,
    seed: int = 0,
    input_shape: Sequence[int] | None = None,
    batches: Batches | None = None,
    loss: Loss = F.cross_entropy,
    **options: Any,
) -> dict[str, Tensor]:
    """Return the masks of a pruning algorithm; the model itself is left as it was (see ``apply_masks``).

    Args:
        model: any module with convolutions or linear layers.
        name: a key of ``PRUNERS``.
        sparsity: fraction of all prunable weights to prune, in [0, 1); reached to the nearest weight.
        seed: of all random choices.
        input_shape: of one example, without the batch; handed on only to algorithms that want it.
        batches: ``(inputs, targets)`` pairs, such as a DataLoader; handed on only to algorithms with data.
        loss: from outputs and targets to a scalar; likewise.
        options: further arguments of the algorithm.

    Returns:
        Weight name -> bool tensor of the weight's shape on its device, True where kept.

    Raises:
        UnknownNameError: there is no such algorithm.
        SparsityError: a sparsity outside [0, 1), or one that cannot be reached.
        TraceError: the algorithm needs an input shape, and none or a wrong one is given.
        DataError: the algorithm learns from data, and none or unfit ones are given.
        TrainingError: the loss or a gradient is NaN or infinite.

    Source: see each algorithm.

    >>> masks = prune(nn.Linear(10, 10), "magnitude", 0.9)
    >>> masks["weight"].sum().item()
    10
    """
    if name not in PRUNERS:
        raise unknown_name("pruner", name, PRUNERS)
    pruner = PRUNERS[name]
    if "input_shape" in inspect.signature(pruner).parameters:
        if input_shape is None:
            raise TraceError(f"{name} runs the model: pass input_shape=..., such as (3, 32, 32).")
        options["input_shape"] = input_shape
    if needs_data(name):
        options |= {"batches": batches, "loss": loss}
    return pruner(model, sparsity, seed=seed, **options)
