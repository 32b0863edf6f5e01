"""A model's modes, put back as they were."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn


@contextlib.contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Put a model in eval mode for a while, and each of its modules back into the mode it was in."""
    with _mode(model, False):
        yield


@contextlib.contextmanager
def train_mode(model: nn.Module) -> Iterator[None]:
    """Put a model in training mode for a while, and each of its modules back into the mode it was in."""
    with _mode(model, True):
        yield


@contextlib.contextmanager
def _mode(model: nn.Module, training_mode: bool) -> Iterator[None]:
    training = {module: module.training for module in model.modules()}
    model.train(training_mode)
    try:
        yield
    finally:
        for module, was_training in training.items():
            module.training = was_training
