"""DSR: one threshold for all layers, which finds its own height."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from topognn.kernels.host import read
from topognn.pruning.dynamic.drop_and_grow import DropAndGrow
from topognn.pruning.selection import find_highest


class DSR(DropAndGrow):
    """Dynamic Sparse Reparameterization: weights below one adaptive threshold go, and come at random where many stay.

    All weights smaller than the threshold are dropped, whatever their layer. Layers grow, at random, in proportion to
    their surviving weights. So layers change size, and the whole does not. Where much fewer weights went than wanted
    the threshold doubles, where much more did it halves.

    Args:
        model: any module whose prunable weights are plain parameters; masks are applied to it.
        optimizer: any torch optimizer that holds all of them.
        sparsity: fraction of all prunable weights that is pruned, in [0, 1); it never changes.
        total_steps: length of the training.
        start: masks, or the name of a pruner without data, for the first masks.
        seed: of the first masks and of random growth.
        every: steps between updates.
        fraction: share of all kept weights that an update is to drop, in (0, 1).
        threshold: the first one.
        tolerance: how far, in shares of what is wanted, the number dropped may be off before the threshold moves.

    Raises:
        SparsityError: a sparsity outside [0, 1), or a number of steps or a share that makes no sense.
        MaskError: a weight is frozen, computed by torch prune or a parametrization, or not in the optimizer.

    Source: Mostafa, Wang, *Parameter Efficient Training of Deep Convolutional Neural Networks by Dynamic Sparse
    Reparameterization*, ICML 2019, algorithm 1. Ours alone: the largest weight of each layer stays, since a layer that
    loses all would never grow again.

    >>> model = nn.Linear(10, 10)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> scheduler = DSR(model, optimizer, 0.9, total_steps=100, every=1)
    >>> model(torch.ones(2, 10)).square().sum().backward()
    >>> optimizer.step()
    >>> scheduler.step(), scheduler.masks["weight"].sum().item()
    (True, 10)
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        sparsity: float,
        *,
        total_steps: int,
        start: str | Mapping[str, Tensor] = "erk",
        seed: int = 0,
        every: int = 100,
        fraction: float = 0.1,
        threshold: float = 1e-3,
        tolerance: float = 0.1,
    ) -> None:
        super().__init__(
            model,
            optimizer,
            sparsity,
            total_steps=total_steps,
            start=start,
            seed=seed,
            every=every,
            fraction=fraction,
            stop=1.0,
            anneal=False,
        )
        self.threshold, self._tolerance = threshold, tolerance
        self._settings["tolerance"] = tolerance

    def _update(self, rate: float) -> None:
        survivors = {}
        for name, mask in self._masks.items():
            size = self._parameters[name].detach().abs().masked_fill(~mask, -1)
            largest = find_highest(size, 1) if self._counts[name] else mask
            survivors[name] = (size >= self.threshold) & mask | largest
        found = read(torch.stack([kept.sum() for kept in survivors.values()]))
        counts = dict(zip(survivors, map(int, found), strict=True))
        total = sum(self._counts.values())
        dropped, wanted = total - sum(counts.values()), rate * total
        if dropped < (1 - self._tolerance) * wanted:
            self.threshold *= 2
        elif dropped > (1 + self._tolerance) * wanted:
            self.threshold /= 2
        self._grow(survivors, counts, self._share(list(map(float, counts.values())), counts))

    def _extra_state(self) -> dict[str, Any]:
        return {"threshold": self.threshold}

    def _load_extra(self, state: Mapping[str, Any]) -> None:
        self.threshold = state["threshold"]
