"""Training of masked models, as in the study, to the same weights whether or not it is interrupted."""

from __future__ import annotations

from topognn.training.evaluating import evaluate
from topognn.training.loop import Progress, train
from topognn.training.recipe import Recipe, paper_recipe

__all__ = ["Progress", "Recipe", "evaluate", "paper_recipe", "train"]
