"""One network of a sweep: initialise, prune, train, measure."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from topognn.data import Dataset, Images, Loader, get_data
from topognn.errors import DeviceError
from topognn.kernels.host import read
from topognn.kernels.launch import check_device
from topognn.masks import get_masks
from topognn.models import MODELS, get_model
from topognn.pruning import PRUNERS, needs_data, prune
from topognn.pruning.dynamic import DYNAMIC
from topognn.study.columns import OF_WEIGHTS
from topognn.study.grid import Settings, Task
from topognn.study.measuring import measure, measure_graph
from topognn.training import Recipe, paper_recipe, train

BATCHES = 8  # that algorithms which learn from data may take: ProsPR's four, and class-balanced ones of GraSP
REDRAW = 1_000_003  # between the seeds of an algorithm's redraws


def make_network(task: Task, settings: Settings) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the row and the masks of one network.

    Topometrics are those at initialisation, before any training. The row has besides: ``accuracy`` on the test images
    after the last epoch, ``train_accuracy``, ``trained:`` spectra and strength with the weights after training,
    ``reached_sparsity``, and ``seconds`` of each phase.
    """
    device, data = pick_device(), load_data(task.data, settings)
    seconds: dict[str, float] = {}
    model = build_model(task, data).to(device)
    recipe = make_recipe(task, settings)
    algorithm, redraw = task.algorithm
    seed = task.seed + REDRAW * redraw
    masks, grow = None, None
    with _timing(seconds, "prune"):
        if algorithm in PRUNERS:
            batches = None
            if needs_data(algorithm):
                loader = Loader(
                    data.train, recipe.batch_size, data.mean, data.std, train=True, seed=seed, device=device
                )
                batches = [batch for epoch in range(BATCHES) for batch in loader.epoch(epoch)][:BATCHES]
            masks = prune(model, algorithm, task.sparsity, seed=seed, input_shape=data.image_shape, batches=batches)
        else:
            scheduler: Any = DYNAMIC[algorithm]
            grow = functools.partial(_start, scheduler, task.sparsity, seed)
    row: dict[str, Any] = {}
    if masks is not None:
        with _timing(seconds, "measure"):
            row |= measure(model, masks, data.image_shape, settings)
    with _timing(seconds, "train"):
        history = train(model, data, recipe, masks=masks, grow=grow)
    final = get_masks(model) if masks is None else masks
    with _timing(seconds, "measure trained"):
        if masks is None:  # dynamic: the graph is known after training only
            row |= measure(build_model(task, data).to(device), final, data.image_shape, settings)
        trained = measure_graph(model, final, data.image_shape, ("strength", "spectral_gap", "spectral_radius"))
        row |= {f"trained:{name}": trained[name] for name in OF_WEIGHTS if name in trained}
    kept = sum(map(int, read(torch.stack([mask.sum() for mask in final.values()]))))
    weights = sum(mask.numel() for mask in final.values())
    last = history[-1]
    row |= {
        "accuracy": last["test_accuracy"],
        "train_accuracy": last["train_accuracy"],
        "epochs": len(history),
        "reached_sparsity": 1 - kept / weights,
        **{f"seconds:{name}": value for name, value in seconds.items()},
    }
    return row, final


def add_metrics(task: Task, settings: Settings, row: Mapping[str, Any], masks: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return what the settings ask to measure and a row lacks, from its masks, without training."""
    device, data = pick_device(), load_data(task.data, settings)
    model = build_model(task, data).to(device)
    kept = {name: mask.to(device) for name, mask in masks.items()}
    return measure(model, kept, data.image_shape, settings, have=row)


def _start(scheduler: Any, sparsity: float, seed: int, model: nn.Module, optimizer: Any, total: int) -> Any:
    return scheduler(model, optimizer, sparsity, total_steps=total, seed=seed)


def make_recipe(task: Task, settings: Settings) -> Recipe:
    """Return how a network is trained: as in the paper, but for what the settings say."""
    usual = paper_recipe(task.model, task.data)
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in settings.training.items()}
    fields = {name: getattr(usual, name) for name in usual.__dataclass_fields__}
    return Recipe(**fields | given | {"seed": task.seed})


def build_model(task: Task, data: Dataset) -> nn.Module:
    """Return a network with its initial weights, which follow from the seed."""
    torch.manual_seed(task.seed)
    if task.model in MODELS:
        return get_model(task.model, data.num_classes, data.image_shape[0])
    from topognn.cli.sources import find_source

    return find_source(task.model, "x".join(map(str, data.image_shape))).build()


def load_data(name: str, settings: Settings) -> Dataset:
    """Return a dataset as the settings reduce it; kept from one network to the next."""
    return _load(name, settings.root, settings.side, settings.train, settings.test)


@functools.lru_cache(maxsize=2)
def _load(name: str, root: str | None, side: int, train_count: int, test_count: int) -> Dataset:
    data = get_data(name, root)
    parts = [
        Images(shrink(part.images[: count or None], side), part.labels[: count or None])
        for part, count in ((data.train, train_count), (data.test, test_count))
    ]
    values = parts[0].images.double() / 255
    spread, mean = torch.std_mean(values, dim=(0, 2, 3))
    return Dataset(data.name, parts[0], parts[1], data.num_classes, tuple(read(mean)), tuple(read(spread)))


def shrink(images: Tensor, side: int) -> Tensor:
    """Return uint8 images averaged down to ``side`` pixels in height and width; as they are if ``side`` is 0.

    >>> shrink(torch.tensor([[[[0, 255], [255, 255]]]], dtype=torch.uint8), 1)
    tensor([[[[191]]]], dtype=torch.uint8)
    """
    if not side or images.shape[-2:] == (side, side):
        return images
    return F.adaptive_avg_pool2d(images.float(), side).round().to(torch.uint8)


def pick_device() -> torch.device:
    """Return a GPU where kernels can run on one, else the CPU."""
    with contextlib.suppress(DeviceError):
        return torch.device(check_device("cuda"))
    return torch.device("cpu")


@contextlib.contextmanager
def _timing(seconds: dict[str, float], phase: str) -> Any:
    started = time.perf_counter()
    yield
    seconds[phase] = time.perf_counter() - started
