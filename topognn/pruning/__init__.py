"""Pruning algorithms: from a model and a sparsity to masks, and masks that hold through training."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from topognn.errors import TraceError, unknown_name
from topognn.pruning.applying import apply_masks
from topognn.pruning.erdos_renyi import er, erk
from topognn.pruning.global_magnitude import magnitude
from topognn.pruning.synaptic_flow import synflow
from topognn.pruning.uniform_density import uniform

__all__ = ["PRUNERS", "apply_masks", "er", "erk", "magnitude", "prune", "synflow", "uniform"]

PRUNERS: dict[str, Callable[..., dict[str, Tensor]]] = {
    pruner.__name__: pruner for pruner in (uniform, er, erk, magnitude, synflow)
}


def prune(
    model: nn.Module,
    name: str,
    sparsity: float,
    *,
    seed: int = 0,
    input_shape: Sequence[int] | None = None,
    **options: Any,
) -> dict[str, Tensor]:
    """Return the masks of a pruning algorithm; the model itself is left as it was (see ``apply_masks``).

    Args:
        model: any module with convolutions or linear layers.
        name: a key of ``PRUNERS``.
        sparsity: fraction of all prunable weights to prune, in [0, 1); reached to the nearest weight.
        seed: of all random choices.
        input_shape: of one example, without the batch; handed on only to algorithms that run the model.
        options: further arguments of the algorithm.

    Returns:
        Weight name -> bool tensor of the weight's shape on its device, True where kept.

    Raises:
        UnknownNameError: there is no such algorithm.
        SparsityError: a sparsity outside [0, 1), or one that cannot be reached.
        TraceError: the algorithm needs an input shape, and none or a wrong one is given.

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
    return pruner(model, sparsity, seed=seed, **options)
