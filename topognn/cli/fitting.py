"""What `topognn train` does: from its arguments to a trained model in a folder."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import rich.progress
import torch
from rich.text import Text
from torch import Tensor, nn
from torch.optim import Optimizer

from topognn.cli.display import make_console
from topognn.cli.measuring import pick_device
from topognn.cli.sources import ArgumentError, find_source
from topognn.data import Dataset, Loader, get_data
from topognn.errors import TrainingError, unknown_name
from topognn.files import check_folder
from topognn.monitoring.monitor import TopometricsMonitor
from topognn.pruning import PRUNERS, prune
from topognn.pruning.dynamic import DYNAMIC, DropAndGrow
from topognn.training import Progress, Recipe, paper_recipe, train
from topognn.training.loggers import Log, log_to_tensorboard, log_to_wandb
from topognn.training.saving import CHECKPOINT, load_checkpoint


@dataclasses.dataclass(frozen=True)
class TrainingRequest:
    """The arguments of `topognn train`; see its help."""

    model: str
    data: str
    pruner: str | None = None
    sparsity: float | None = None
    epochs: int | None = None
    batch_size: int = 128
    lr: float = 0.1
    weight_decay: float | None = None
    seed: int = 0
    device: str | None = None
    root: str | None = None
    out: str | None = None
    resume: bool = False
    metrics: str | None = None
    every: int = 100
    tensorboard: bool = False
    wandb: str | None = None


def fit(request: TrainingRequest) -> None:
    """Train the model of a request, show how it goes, and say where the result is.

    Raises:
        TopognnError: See :func:`find_source`, :func:`topognn.data.get_data`, :func:`topognn.prune` and
            :func:`topognn.training.train`.
    """
    _check(request)
    folder = check_folder(request.out or f"runs/{_name(request)}")
    if (folder / CHECKPOINT).is_file() and not request.resume:
        raise ArgumentError(f"{str(folder)!r} holds a training already: give --resume to go on, or another --out.")
    device = pick_device(request.device)
    recipe = _make_recipe(request)
    data = get_data(request.data, request.root)
    shape = "x".join(map(str, data.image_shape))
    source = find_source(request.model, shape, None if ".py:" in request.model else data.num_classes)
    torch.manual_seed(request.seed)
    model = source.build().to(device)
    grow = _make_grow(request) if request.pruner in DYNAMIC else None
    masks = _make_masks(model, request, recipe, data, folder) if request.pruner in PRUNERS else None
    monitor = None
    if request.metrics is not None:
        names = [name.strip() for name in request.metrics.split(",")]
        monitor = TopometricsMonitor(model, data.image_shape, names, request.every)
    logs: list[Log] = [log_to_tensorboard(folder)] if request.tensorboard else []
    if request.wandb is not None:
        logs.append(log_to_wandb(request.wandb, dataclasses.asdict(request)))
    with _show() as show:
        train(model, data, recipe, masks=masks, grow=grow, monitor=monitor, folder=folder, logs=logs, show=show)
    make_console().print(Text(f"weights and masks: {folder / CHECKPOINT}; tables: {folder / 'metrics.csv'}"))


def _check(request: TrainingRequest) -> None:
    known = [*PRUNERS, *DYNAMIC]
    if request.pruner is not None and request.pruner not in known:
        raise unknown_name("pruner", request.pruner, known)
    if (request.pruner is None) != (request.sparsity is None):
        given, other = ("--sparsity", "--pruner") if request.pruner is None else ("--pruner", "--sparsity")
        raise ArgumentError(f"{given} needs {other} beside it, such as --pruner erk --sparsity 0.9.")


def _name(request: TrainingRequest) -> str:
    """Return a folder's name for a request: what it trains, on what, and how it is pruned."""
    model = Path(request.model).name.replace(":", "-")
    sparse = [] if request.pruner is None else [request.pruner, f"{request.sparsity:g}"]
    return "-".join([model, request.data, *sparse, f"seed{request.seed}"])


def _make_recipe(request: TrainingRequest) -> Recipe:
    usual = paper_recipe(request.model, request.data)
    try:
        return dataclasses.replace(
            usual,
            epochs=request.epochs or usual.epochs,
            batch_size=request.batch_size,
            learning_rate=request.lr,
            weight_decay=usual.weight_decay if request.weight_decay is None else request.weight_decay,
            seed=request.seed,
        )
    except TrainingError as error:
        raise ArgumentError(f"--lr or --weight-decay: {error}") from error


def _make_grow(request: TrainingRequest) -> Callable[[nn.Module, Optimizer, int], DropAndGrow]:
    assert request.pruner is not None and request.sparsity is not None
    scheduler, sparsity = DYNAMIC[request.pruner], request.sparsity

    def grow(model: nn.Module, optimizer: Optimizer, total_steps: int) -> DropAndGrow:
        return scheduler(model, optimizer, sparsity, total_steps=total_steps, seed=request.seed)  # type: ignore[call-arg]

    return grow


def _make_masks(
    model: nn.Module, request: TrainingRequest, recipe: Recipe, data: Dataset, folder: Path
) -> dict[str, Tensor]:
    """Return the masks of the folder's checkpoint, or new ones where there is none."""
    if (saved := load_checkpoint(folder, recipe)) is not None and saved["masks"]:
        return dict(saved["masks"])
    assert request.pruner is not None and request.sparsity is not None
    device = next(model.parameters()).device
    normal = (recipe.batch_size, data.mean, data.std)
    loader = Loader(data.train, *normal, train=True, seed=recipe.seed, shift=data.shift, device=device)
    batches = itertools.chain.from_iterable(map(loader.epoch, itertools.count()))
    shape = data.image_shape
    return prune(model, request.pruner, request.sparsity, seed=request.seed, input_shape=shape, batches=batches)


@contextlib.contextmanager
def _show() -> Iterator[Callable[[Progress], None]]:
    """Yield what shows progress: a bar on a terminal, and everywhere a line an epoch."""
    console = make_console()
    columns = (
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TimeRemainingColumn(),
    )
    with rich.progress.Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("training", total=None)

        def show(progress: Progress) -> None:
            what = f"loss {progress.loss:.4f}, rate {progress.rate:g}"
            bar.update(task, total=progress.total, completed=progress.step, description=what)
            if progress.row is not None:
                console.print(Text(format_row(progress.row)))

        yield show


def format_row(row: Mapping[str, float]) -> str:
    """Return an epoch's numbers in a line."""
    train, test = (
        f"loss {row[f'{part}_loss']:.4f}, accuracy {row[f'{part}_accuracy']:.2%}" for part in ("train", "test")
    )
    return f"epoch {row['epoch']}: train {train}; test {test}; sparsity {row['sparsity']:.4g}; {row['seconds']:.0f} s"
