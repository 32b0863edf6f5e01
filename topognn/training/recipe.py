"""How a model is trained: the numbers of the study."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from topognn.errors import TrainingError

Precision = Literal["auto", "float32", "bfloat16"]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Stochastic gradient descent with momentum, whose learning rate falls at milestones.

    Attributes:
        epochs: How often all images are seen.
        batch_size: Images a step.
        learning_rate: At the start.
        momentum, weight_decay: Of SGD; all parameters decay.
        milestones: Shares of the training at which the learning rate is multiplied by ``decay``.
        decay: See there.
        seed: Of the order of images, their shifts and flips, and of dropout.
        precision: Of activations: ``"auto"`` is bfloat16 on GPUs that have it, and float32 elsewhere.

    Raises:
        TrainingError: A number that makes no sense.

    >>> recipe = Recipe(epochs=160)
    >>> [recipe.rate(step, 1600) for step in (0, 799, 800, 1200)] == [0.1, 0.1, 0.1 * 0.1, 0.1 * 0.1**2]
    True
    """

    epochs: int = 160
    batch_size: int = 128
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    milestones: tuple[float, ...] = (0.5, 0.75)
    decay: float = 0.1
    seed: int = 0
    precision: Precision = "auto"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise TrainingError(f"{name}={getattr(self, name)} trains nothing: give at least 1.")
        finite = 0 < self.learning_rate < math.inf and 0 <= self.weight_decay < math.inf
        if not finite or not 0 <= self.momentum < 1:
            raise TrainingError(
                f"learning_rate={self.learning_rate}, momentum={self.momentum} and weight_decay={self.weight_decay} do "
                "not train: give a rate above 0, a momentum from 0 to below 1, and a decay from 0."
            )
        if self.precision not in ("auto", "float32", "bfloat16"):
            raise TrainingError(f"precision must be 'auto', 'float32' or 'bfloat16', not {self.precision!r}.")

    def rate(self, step: int, total: int) -> float:
        """Return the learning rate of a step, from 0 to ``total`` - 1."""
        passed = sum(step >= share * total for share in self.milestones)
        return self.learning_rate * self.decay**passed


def paper_recipe(model: str, data: str) -> Recipe:
    """Return how the study trains one of its models on one of its datasets.

    160 epochs on CIFAR, the rate divided by 10 after 80 and 120; 100 on Tiny-ImageNet, divided after 30, 60 and 80. The
    paper gives two weight decays, 1e-4 and 5e-4, without saying which model has which: that residual networks have
    1e-4, as in He et al., and all others 5e-4, is our choice.

    Source: Cunegatti et al., TMLR 2024, section 5 and appendix (training set-up).

    >>> paper_recipe("resnet20", "cifar10").epochs, paper_recipe("conv6", "tiny-imagenet").weight_decay
    (160, 0.0005)
    """
    decay = 1e-4 if model in ("resnet20", "resnet32") else 5e-4
    if data == "tiny-imagenet":
        return Recipe(epochs=100, weight_decay=decay, milestones=(0.3, 0.6, 0.8))
    return Recipe(weight_decay=decay)
