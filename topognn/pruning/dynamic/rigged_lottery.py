"""RigL: the smallest weights go, those with the largest gradients come."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.optim import Optimizer

from topognn.pruning.dynamic.drop_and_grow import DropAndGrow


class RigL(DropAndGrow):
    """The Rigged Lottery: each layer drops its smallest weights and grows those with the largest gradients.

    Call :meth:`~DropAndGrow.step` after each step of the optimizer. Gradients are those of the backward passes before
    the update, of all weights, before they are clipped or unscaled: they are compared within a layer alone, where a
    common factor changes nothing.

    Args:
        model: any module whose prunable weights are plain parameters; masks are applied to it.
        optimizer: any torch optimizer that holds all of them.
        sparsity: fraction of all prunable weights that is pruned, in [0, 1); it never changes.
        total_steps: length of the training.
        start: masks, or the name of a pruner without data, for the first masks.
        seed: of the first masks and of random growth.
        every: steps between updates.
        fraction: share of a layer's kept weights that the first update drops, in (0, 1); it falls to 0 as a cosine.
        stop: share of the training after which nothing is updated any more.

    Raises:
        SparsityError: a sparsity outside [0, 1), or a number of steps or a share that makes no sense.
        MaskError: a weight is frozen, computed by torch prune or a parametrization, or not in the optimizer.

    Source: Evci, Gale, Menick, Castro, Elsen, *Rigging the Lottery: Making All Tickets Winners*, ICML 2020, section 3
    (the values of their ResNet-50: every 100 steps, 0.3, until three quarters). There an update takes the place of an
    optimizer's step; here it follows one. A weight that is dropped and at once grown keeps its value.

    >>> import torch
    >>> model = nn.Linear(10, 10)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> scheduler = RigL(model, optimizer, 0.9, total_steps=100, every=1)
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
        fraction: float = 0.3,
        stop: float = 0.75,
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
            stop=stop,
            anneal=True,
        )
