"""What must fit together before a training begins or goes on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from topognn.data.images import Dataset
from topognn.data.loading import Loader
from topognn.errors import CheckpointError, DataError
from topognn.modes import eval_mode
from topognn.pruning.training_loss import check_labels, run


def check_fit(model: nn.Module, loader: Loader, data: Dataset) -> None:
    """Refuse a model that does not run on the images, or has too few outputs for the labels.

    Raises:
        DataError: It is such a model.
    """
    x, _ = next(loader.epoch(0))
    with eval_mode(model), torch.no_grad():
        outputs = run(model, {}, x[:2])
    if outputs.ndim != 2:
        raise DataError(f"the model's outputs have shape {tuple(outputs.shape)}: scores (images, classes) needed.")
    for images in (data.train, data.test):
        check_labels(images.labels, outputs.shape[1])


def check_same_masks(folder: Path, state: Mapping[str, Any], masks: Mapping[str, Tensor] | None, grows: bool) -> None:
    """Refuse to go on from a checkpoint with other masks, or another way of having them.

    Raises:
        CheckpointError: They are others.
    """
    kinds = ("dense", "with masks", "with a scheduler that drops and grows")
    then = kinds[2 if state["grow"] is not None else 1 if state["masks"] else 0]
    now = kinds[2 if grows else 1 if masks else 0]
    if then == now == kinds[1]:
        assert masks is not None
        then, now = "with its masks", "with others"
        saved = state["masks"]
        if saved.keys() == masks.keys() and all(torch.equal(m.to("cpu"), saved[name]) for name, m in masks.items()):
            return
    if then != now:
        raise CheckpointError(
            f"the checkpoint in {str(folder)!r} was trained {then}, now {now}: go on as it began, or use another "
            "folder."
        )
