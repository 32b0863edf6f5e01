"""The training loop: masked steps, checkpoints, and numbers an epoch."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from topognn.data.images import Dataset
from topognn.data.loading import Loader
from topognn.errors import CheckpointError, MaskError, TrainingError
from topognn.files import check_folder
from topognn.kernels.host import read
from topognn.monitoring.monitor import TopometricsMonitor
from topognn.pruning.applying import apply_masks, get_pruned, plain_parameters
from topognn.pruning.dynamic import DropAndGrow
from topognn.training.checks import check_fit, check_same_masks
from topognn.training.evaluating import evaluate, sum_up
from topognn.training.loggers import Log
from topognn.training.recipe import Recipe
from topognn.training.saving import load_checkpoint, save_checkpoint, write_csv

LOOK_EVERY = 10  # steps between looks at the loss
SAVE_EVERY = 200  # steps between checkpoints, besides those at the ends of epochs

Grow = Callable[[nn.Module, Optimizer, int], DropAndGrow]


class Progress(NamedTuple):
    """How far a training is: what ``train(..., show=...)`` gets.

    Attributes:
        step, total: Steps done, and all.
        loss: Mean of the epoch so far.
        rate: Learning rate of the step.
        row: The numbers of the epoch, where the step was its last.
    """

    step: int
    total: int
    loss: float
    rate: float
    row: Mapping[str, float] | None


def train(
    model: nn.Module,
    data: Dataset,
    recipe: Recipe,
    *,
    masks: Mapping[str, Tensor] | None = None,
    grow: Grow | None = None,
    monitor: TopometricsMonitor | None = None,
    folder: str | os.PathLike[str] | None = None,
    logs: Sequence[Log] = (),
    show: Callable[[Progress], None] = lambda progress: None,
) -> list[dict[str, float]]:
    """Train a model, where it is, with masks that hold after every step.

    Convolutions run channels last, which is faster everywhere. With a folder, checkpoints are written every 200 steps
    and after each epoch, ``metrics.csv`` and, with a monitor, ``topometrics.csv`` after each epoch; and where a
    checkpoint is there already, the training goes on from it. A run that was interrupted, however often and hard, ends
    with the very weights of one that was not (on the same machine with as many threads, and as far as its device
    computes the same twice).

    Args:
        model: Any model from images to scores of classes; it is trained in place.
        data: Images to train and to test with.
        recipe: How.
        masks: Which weights are kept throughout, as :func:`topognn.prune` returns them; all by default.
        grow: Instead: makes a scheduler of ``topognn.pruning.dynamic`` from the model, the optimizer and the number of
            steps.
        monitor: Is called after every step.
        folder: Where checkpoints and tables go; it is made.
        logs: Functions that get step and numbers after each epoch, and the monitor's when it measures.
        show: Is called every 10 steps.

    Returns:
        A row an epoch: ``epoch``, ``step``, ``rate``, ``train_loss``, ``train_accuracy``, ``test_loss``,
        ``test_accuracy`` (shares of 1), ``sparsity``, ``seconds``.

    Raises:
        DataError: Labels are out of the range of the model's outputs, or it does not run on the images.
        TrainingError: The loss is NaN or infinite, pruned weights are not zero, or all parameters are frozen.
        MaskError: Masks do not fit, or were changed by hand.
        CheckpointError: The folder is a file, or its checkpoint is truncated, or of another recipe, model or scheduler.

    Source: Cunegatti et al., TMLR 2024, section 5 (set-up).

    >>> from topognn.data import get_data
    >>> data = get_data("synthetic")
    >>> model = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 10))
    >>> len(train(model, data, Recipe(epochs=2)))
    2
    """
    return _Training(model, data, recipe, masks, grow, monitor, folder, logs, show).run()


class _Training:
    """A training under way."""

    def __init__(
        self,
        model: nn.Module,
        data: Dataset,
        recipe: Recipe,
        masks: Mapping[str, Tensor] | None,
        grow: Grow | None,
        monitor: TopometricsMonitor | None,
        folder: str | os.PathLike[str] | None,
        logs: Sequence[Log],
        show: Callable[[Progress], None],
    ) -> None:
        if masks is not None and grow is not None:
            raise TrainingError("masks and grow both say which weights are kept: give one of them.")
        self.model, self.recipe, self.monitor, self.logs, self.show = model, recipe, monitor, logs, show
        self.device = next(model.parameters()).device
        self.folder = None if folder is None else check_folder(folder)
        normal = (recipe.batch_size, data.mean, data.std)
        self.loader = Loader(data.train, *normal, train=True, seed=recipe.seed, shift=data.shift, device=self.device)
        self.test_loader = Loader(data.test, *normal, device=self.device)
        check_fit(model, self.loader, data)
        model.to(memory_format=torch.channels_last)
        trained = [p for p in model.parameters() if p.requires_grad]
        if not trained:
            raise TrainingError("all parameters of the model are frozen: unfreeze what is to learn (requires_grad_()).")
        self.optimizer = torch.optim.SGD(
            trained, lr=recipe.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        )
        self.total = recipe.epochs * len(self.loader)
        self.grow = grow(model, self.optimizer, self.total) if grow is not None else None
        self.masks = dict(masks) if masks is not None else None
        if self.masks is not None:
            apply_masks(model, self.masks)
        self._applied = {name: (p, get_pruned(p)) for name, p in plain_parameters(model).items()} if self.masks else {}
        bfloat16 = self.device.type == "cuda" and torch.cuda.is_bf16_supported()
        self.bfloat16 = recipe.precision == "bfloat16" or (recipe.precision == "auto" and bfloat16)
        self.step, self.sums, self.seconds = 0, torch.zeros(3, dtype=torch.float64, device=self.device), 0.0
        self.rows: list[dict[str, float]] = []

    def run(self) -> list[dict[str, float]]:
        """Train to the end, from the last checkpoint if there is one."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self.recipe.seed)
            self._resume()
            self._clock = time.perf_counter()
            self.model.train()
            for epoch in range(self.step // len(self.loader), self.recipe.epochs):
                for x, y in self.loader.epoch(epoch, self.step % len(self.loader)):
                    self._take_step(x, y)
                    if self.step % len(self.loader) and self.step % SAVE_EVERY == 0:
                        self._look()
                        self._save()
                self._end_epoch(epoch)
        return self.rows

    def _take_step(self, x: Tensor, y: Tensor) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.rate(self.step, self.total)
        self.optimizer.zero_grad()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bfloat16):
            outputs = self.model(x)
            loss = F.cross_entropy(outputs.float(), y)
        loss.backward()  # type: ignore[no-untyped-call]
        self._check_masks()
        self.optimizer.step()
        self.step += 1
        if self.grow is not None:
            self.grow.step()
        self.sums += sum_up(loss, outputs, y)
        if self.monitor is not None and (values := self.monitor(self.step)) is not None:
            for log in self.logs:
                log(self.step, values.to_dict(prefix="topo/"))
        if self.step % LOOK_EVERY == 0 and self.step % len(self.loader):
            self.show(Progress(self.step, self.total, self._look(), self.optimizer.param_groups[0]["lr"], None))

    def _look(self) -> float:
        """Return the mean loss of the epoch so far, which must be a number (one host sync)."""
        loss, _, count = read(self.sums)
        if not loss - loss == 0:
            raise TrainingError(
                f"the loss is {loss} at step {self.step} of {self.total}: lower the learning rate "
                f"({self.recipe.learning_rate:g}), or look for NaN in the weights."
            )
        return loss / count

    def _end_epoch(self, epoch: int) -> None:
        loss = self._look()
        _, correct, count = read(self.sums)
        test_loss, test_accuracy = evaluate(self.model, self.test_loader.epoch(0))
        now = time.perf_counter()
        self.seconds, self._clock = self.seconds + now - self._clock, now
        row = {
            "epoch": epoch + 1,
            "step": self.step,
            "rate": self.optimizer.param_groups[0]["lr"],
            "train_loss": loss,
            "train_accuracy": correct / count,
            "test_loss": test_loss,
            "test_accuracy": test_accuracy,
            "sparsity": self._check_zeros(),
            "seconds": self.seconds,
        }
        self.rows.append(row)
        self.sums.zero_()
        self._save()
        self._write_tables()
        for log in self.logs:
            log(self.step, row)
        self.show(Progress(self.step, self.total, loss, row["rate"], row))

    def _write_tables(self) -> None:
        if self.folder is None:
            return
        write_csv(self.folder / "metrics.csv", self.rows)
        if self.monitor is not None:
            columns = self.monitor.history.to_dict()
            rows = zip(*columns.values(), strict=True)
            write_csv(self.folder / "topometrics.csv", [dict(zip(columns, row, strict=True)) for row in rows])

    def _kept(self) -> Mapping[str, Tensor]:
        return self.grow.masks if self.grow is not None else self.masks or {}

    def _check_masks(self) -> None:
        for name, (parameter, pruned) in self._applied.items():
            if get_pruned(parameter) is not pruned:
                raise MaskError(
                    f"the mask of {name!r} was changed by hand since the last step: this training's masks are fixed. "
                    "Use a scheduler of topognn.pruning.dynamic (grow=...) to change them."
                )

    def _check_zeros(self) -> float:
        """Return the share of prunable weights that are pruned, which must all be zero (one host sync)."""
        parameters, kept = plain_parameters(self.model), self._kept()
        if not kept:
            return 0.0
        found = [(parameters[name].detach() != 0) & ~mask.to(self.device) for name, mask in kept.items()]
        counts = read(
            torch.stack([bad.sum() for bad in found] + [mask.sum().to(self.device) for mask in kept.values()])
        )
        for name, bad in zip(kept, counts, strict=False):
            if bad:
                raise TrainingError(
                    f"{bad} pruned weights of {name!r} are not zero: something set them after the step."
                )
        return 1 - sum(counts[len(kept) :]) / sum(p.numel() for p in parameters.values())

    # -- checkpoints --------------------------------------------------------------------------------------------

    def _save(self) -> None:
        if self.folder is None:
            return
        state: dict[str, Any] = {
            "step": self.step,
            "model": self.model.state_dict(),
            "masks": dict(self._kept()),
            "optimizer": self.optimizer.state_dict(),
            "grow": self.grow.state_dict() if self.grow is not None else None,
            "sums": self.sums,
            "rows": self.rows,
            "seconds": self.seconds,
            "measured": self.monitor.history.to_dict() if self.monitor is not None else None,
            "random": torch.get_rng_state(),
            "cuda_random": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }
        save_checkpoint(self.folder, self.recipe, state)

    def _resume(self) -> None:
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        if (state := load_checkpoint(self.folder, self.recipe)) is None:
            return
        check_same_masks(self.folder, state, self.masks, self.grow is not None)
        try:
            self.model.load_state_dict(state["model"])
        except RuntimeError as error:
            first = next(iter(str(error).splitlines()))
            raise CheckpointError(f"the checkpoint in {str(self.folder)!r} is of another model: {first}") from error
        self.optimizer.load_state_dict(state["optimizer"])
        if self.grow is not None:
            self.grow.load_state_dict(state["grow"])
        if self.monitor is not None and state["measured"] is not None:
            self.monitor.history.extend(state["measured"])
        self.step, self.rows, self.seconds = state["step"], state["rows"], state["seconds"]
        self.sums.copy_(state["sums"])
        torch.set_rng_state(state["random"])
        if self.device.type == "cuda" and state["cuda_random"] is not None:
            torch.cuda.set_rng_state(state["cuda_random"], self.device)
        self._write_tables()  # it may have been killed after a checkpoint, before these
