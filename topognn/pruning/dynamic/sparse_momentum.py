"""SNFS: weights go where the momentum is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from topognn.kernels.host import read
from topognn.pruning.applying import plain_parameters
from topognn.pruning.dynamic.drop_and_grow import DropAndGrow


class SNFS(DropAndGrow):
    """Sparse Networks from Scratch: layers drop their smallest weights; growth goes where momentum is large.

    Each layer grows a share that is proportional to the mean magnitude of the momentum of its surviving weights; there
    the weights with the largest momentum grow. So layers change size, and the whole does not. The momentum is a running
    mean of the gradients of all weights, pruned ones included: as much memory as the dense model. Where gradients are
    clipped or unscaled (``torch.amp.GradScaler``) before the optimizer's step, those of pruned weights enter with the
    factor by which the magnitude of the layer's others has changed; so call ``zero_grad()`` after
    :meth:`~DropAndGrow.step`. A step with a gradient that is NaN or infinite does not enter.

    Args:
        model: any module whose prunable weights are plain parameters; masks are applied to it.
        optimizer: any torch optimizer that holds all of them.
        sparsity: fraction of all prunable weights that is pruned, in [0, 1); it never changes.
        total_steps: length of the training.
        start: masks, or the name of a pruner without data, for the first masks.
        seed: of the first masks and of random growth.
        every: steps between updates.
        fraction: share of a layer's kept weights that the first update drops, in (0, 1); it falls to 0 as a cosine.
        momentum: how much of the running mean stays at each step.

    Raises:
        SparsityError: a sparsity outside [0, 1), or a number of steps or a share that makes no sense.
        MaskError: a weight is frozen, computed by torch prune or a parametrization, or not in the optimizer.

    Source: Dettmers, Zettlemoyer, *Sparse Networks from Scratch: Faster Training without Losing Performance*, 2019
    (arXiv 1907.04840), section 3 (there once an epoch, and with the optimizer's own momentum).

    >>> model = nn.Linear(10, 10)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> scheduler = SNFS(model, optimizer, 0.9, total_steps=100, every=1)
    >>> model(torch.ones(2, 10)).square().sum().backward()
    >>> optimizer.step()
    >>> scheduler.step(), scheduler.masks["weight"].sum().item()
    (True, 10)
    """

    grows_by_gradient = True

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
        fraction: float = 0.5,
        momentum: float = 0.9,
    ) -> None:
        self._means = {n: torch.zeros_like(p, requires_grad=False) for n, p in plain_parameters(model).items()}
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
            anneal=True,
        )
        self._momentum = momentum
        self._settings["momentum"] = momentum

    def _wants_gradients(self, step: int) -> bool:
        return True

    def _observe(self) -> None:
        flags = [gradient.isfinite().all() for gradient in self._gradients.values()]
        if not flags:
            return
        finite = torch.stack([flag.to(flags[0].device) for flag in flags]).all()
        for name, gradient in self._gradients.items():
            mean, factor = self._means[name], self._find_factor(name, gradient)
            seen = torch.where(finite.to(mean.device), gradient * factor, mean)
            mean.lerp_(seen.to(mean.dtype), 1 - self._momentum)

    def _find_factor(self, name: str, gradient: Tensor) -> Tensor:
        """Return by what the magnitude of kept weights' gradients was multiplied since the backward pass (no sync)."""
        after = self._parameters[name].grad
        if after is None:
            return gradient.new_ones(())
        before = gradient.masked_fill(~self._masks[name], 0).abs().sum(dtype=torch.float64)
        ratio = after.detach().abs().sum(dtype=torch.float64) / before
        return torch.where(ratio.isfinite() & (ratio > 0), ratio, 1.0)

    def _update(self, rate: float) -> None:
        survivors, counts = self._drop_smallest(rate)
        parts = [self._means[name].abs().masked_fill(~kept, 0).sum() for name, kept in survivors.items()]
        sums = read(torch.stack(parts).double())
        means = [total / counts[name] if counts[name] else 0.0 for name, total in zip(survivors, sums, strict=True)]
        self._grow(survivors, counts, self._share(means, counts))

    def _growth_scores(self, name: str) -> Tensor:
        return self._means[name].abs()

    def _extra_state(self) -> dict[str, Any]:
        return {"means": {name: mean.clone() for name, mean in self._means.items()}}

    def _load_extra(self, state: Mapping[str, Any]) -> None:
        for name, mean in state["means"].items():
            self._means[name].copy_(mean)
