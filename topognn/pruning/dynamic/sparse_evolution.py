"""SET: the smallest weights go, random ones come."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.optim import Optimizer

from topognn.pruning.dynamic.drop_and_grow import DropAndGrow


class SET(DropAndGrow):
    """Sparse Evolutionary Training: each layer drops its smallest weights and grows as many at random.

    Call :meth:`~DropAndGrow.step` after each step of the optimizer.

    Args:
        model: any module whose prunable weights are plain parameters; masks are applied to it.
        optimizer: any torch optimizer that holds all of them.
        sparsity: fraction of all prunable weights that is pruned, in [0, 1); it never changes.
        total_steps: length of the training.
        start: masks, or the name of a pruner without data, for the first masks.
        seed: of the first masks and of random growth.
        every: steps between updates.
        fraction: share of a layer's kept weights that an update drops, in (0, 1).

    Raises:
        SparsityError: a sparsity outside [0, 1), or a number of steps or a share that makes no sense.
        MaskError: a weight is frozen, computed by torch prune or a parametrization, or not in the optimizer.

    Source: Mocanu, Mocanu, Stone, Nguyen, Gibescu, Liotta, *Scalable training of artificial neural networks with
    adaptive sparse connectivity inspired by network science*, Nature Communications 2018, algorithm 1 (there once an
    epoch). A weight that was dropped may be drawn again at once.

    >>> import torch
    >>> model = nn.Linear(10, 10)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> scheduler = SET(model, optimizer, 0.9, total_steps=100, every=1)
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
        fraction: float = 0.3,
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
