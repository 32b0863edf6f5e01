"""ITOP: as SET or RigL, in the rhythm that explores most weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor, nn
from torch.optim import Optimizer

from topognn.errors import SparsityError
from topognn.pruning.dynamic.drop_and_grow import DropAndGrow


class ITOP(DropAndGrow):
    """In-Time Over-Parameterization: rare, large updates until the end, so that most weights are tried once.

    A layer drops its smallest weights and grows as many, at random (SET-ITOP) or by gradient (RigL-ITOP). How many
    weights have been tried so far is what it is about: see :meth:`~DropAndGrow.count_explored`.

    Args:
        model: any module whose prunable weights are plain parameters; masks are applied to it.
        optimizer: any torch optimizer that holds all of them.
        sparsity: fraction of all prunable weights that is pruned, in [0, 1); it never changes.
        total_steps: length of the training.
        start: masks, or the name of a pruner without data, for the first masks.
        seed: of the first masks and of random growth.
        every: steps between updates: 1500 (SET-ITOP) and 4000 (RigL-ITOP) in the authors' training of 250 epochs.
        fraction: share of a layer's kept weights that the first update drops, in (0, 1); it falls to 0 as a cosine.
        growth: ``"random"`` or ``"gradient"``.

    Raises:
        SparsityError: a sparsity outside [0, 1), or a number of steps or a share that makes no sense.
        MaskError: a weight is frozen, computed by torch prune or a parametrization, or not in the optimizer.

    Source: Liu, Yin, Mocanu, Pechenizkiy, *Do We Actually Need Dense Over-Parameterization? In-Time
    Over-Parameterization in Sparse Training*, ICML 2021, section 4.

    >>> import torch
    >>> model = nn.Linear(10, 10)
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> scheduler = ITOP(model, optimizer, 0.9, total_steps=100, every=1)
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
        every: int = 1500,
        fraction: float = 0.5,
        growth: Literal["random", "gradient"] = "random",
    ) -> None:
        if growth not in ("random", "gradient"):
            raise SparsityError(f"growth must be 'random' or 'gradient', not {growth!r}.")
        self.grows_by_gradient = growth == "gradient"
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
        self._settings["growth"] = growth
