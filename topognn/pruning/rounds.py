"""How many weights each round of an iterative pruning algorithm keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from topognn.errors import SparsityError

Schedule = Literal["exponential", "linear"]


def count_rounds(weights: Mapping[str, Tensor], final: int, iterations: int, schedule: Schedule) -> list[int]:
    """Return the number of weights that are kept after each of ``iterations`` rounds, down to ``final``.

    Source: Tanaka et al., NeurIPS 2020, algorithm 1 (exponential: the same factor a round).

    Raises:
        SparsityError: no rounds, or an unknown schedule.

    >>> import torch
    >>> weights = {"a": torch.ones(100)}
    >>> count_rounds(weights, 1, 2, "exponential"), count_rounds(weights, 1, 3, "linear")
    ([10, 1], [67, 34, 1])
    """
    if iterations < 1:
        raise SparsityError(f"iterations={iterations} prunes nothing: give at least 1.")
    if schedule not in ("exponential", "linear"):
        raise SparsityError(f"schedule must be 'exponential' or 'linear', not {schedule!r}.")
    total = sum(weight.numel() for weight in weights.values())
    parts = [done / iterations for done in range(1, iterations)]
    if schedule == "exponential":
        return [round(total * (final / total) ** part) for part in parts] + [final]
    return [round(total + (final - total) * part) for part in parts] + [final]
