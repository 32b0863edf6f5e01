"""Checkpoints of a training, and what it reports, on disk."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from topognn.checkpoints import load_tensors
from topognn.errors import CheckpointError
from topognn.files import replacing, write_text
from topognn.training.recipe import Recipe

CHECKPOINT = "checkpoint.pt"
FORM = 1  # of checkpoints


def save_checkpoint(folder: Path, recipe: Recipe, state: Mapping[str, Any]) -> None:
    """Write a checkpoint into a folder, whole or not at all; the one before stays until then."""
    content = {"form": FORM, "recipe": dataclasses.asdict(recipe), **state}
    with replacing(folder / CHECKPOINT) as temporary:
        torch.save(content, temporary)


def load_checkpoint(folder: Path, recipe: Recipe) -> dict[str, Any] | None:
    """Return the checkpoint of a folder, None if there is none; remove what killed writers left.

    Raises:
        CheckpointError: It is truncated, of another recipe, or no checkpoint of a training.
    """
    for stale in folder.glob(f".{CHECKPOINT}.*.tmp"):
        stale.unlink(missing_ok=True)
    path = folder / CHECKPOINT
    if not path.is_file():
        return None
    content = load_tensors(path)
    if not isinstance(content, dict) or content.get("form") != FORM:
        raise CheckpointError(f"{str(path)!r} is no checkpoint of a training of this version: use another folder.")
    given = dataclasses.asdict(recipe)
    for name, value in content["recipe"].items():
        if given.get(name) != value:
            raise CheckpointError(
                f"{str(path)!r} was trained with {name}={value!r}, now it is {given.get(name)!r}: go on with the same "
                "arguments, or use another folder."
            )
    return content


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows, which have the same names, to a CSV file, whole or not at all."""
    out = io.StringIO()
    if rows:
        writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    write_text(path, out.getvalue())
