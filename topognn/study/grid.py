"""What a sweep makes: the configuration, and the networks that it spells."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from topognn.errors import SweepError, unknown_name

GRID = ("models", "data", "pruners", "sparsities", "seeds")


class Task(NamedTuple):
    """One network to make.

    Attributes:
        model: A name of :data:`topognn.MODELS`, or ``path/to/file.py:callable``.
        data: A name of :data:`topognn.data.DATASETS`.
        pruner: An algorithm, with ``#k`` behind it for its k-th redraw with other random numbers.
        sparsity: Fraction of the weights to prune.
        seed: Of weights, pruning and training.
    """

    model: str
    data: str
    pruner: str
    sparsity: float
    seed: int

    @property
    def key(self) -> dict[str, Any]:
        """The key of its row in a table of networks."""
        model = self.model.rpartition(":")[2]
        return {
            "model": model,
            "dataset": self.data,
            "pruning": self.pruner,
            "sparsity": self.sparsity,
            "seed": self.seed,
        }

    @property
    def name(self) -> str:
        """A file's name: readable, and of this network only.

        >>> Task("conv6", "synthetic", "erk#1", 0.9, 0).name
        'conv6-synthetic-erk_1-0.9-0-a48ca2e6'
        """
        text = "-".join(map(str, self.key.values()))
        return f"{re.sub(r'[^A-Za-z0-9.-]', '_', text)}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    @property
    def algorithm(self) -> tuple[str, int]:
        """The algorithm's name and the number of the redraw."""
        name, _, number = self.pruner.partition("#")
        return name, int(number or 0)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What all networks of a sweep have in common; see ``docs/study.md``.

    Attributes:
        training: Fields of :class:`topognn.training.Recipe`, but the seed; what is missing is as in the paper.
        root: The folder of datasets; None for the usual one.
        side: Images are averaged down to this height and width; 0 leaves them.
        train, test: So many images are used at most; 0 means all.
        metrics: Topometrics to measure, names of :data:`topognn.METRICS`.
        bipartite: Encodings of layers to measure, of ``rolled`` and ``rolled-channel``.
    """

    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    root: str | None = None
    side: int = 0
    train: int = 0
    test: int = 0
    metrics: tuple[str, ...] = ()
    bipartite: tuple[str, ...] = ("rolled", "rolled-channel")

    def fixed(self) -> dict[str, Any]:
        """Return what must not change between two runs into one folder: all that changes a network."""
        return {"training": dict(self.training), "side": self.side, "train": self.train, "test": self.test}


class Config(NamedTuple):
    """A sweep: its networks, and what they have in common."""

    tasks: list[Task]
    settings: Settings


def read_config(path: str | os.PathLike[str]) -> Config:
    """Return the sweep that a TOML file spells.

    Raises:
        SweepError: The file is missing or no TOML, lacks a list, or has a key or value that means nothing.
        UnknownNameError: A pruner, model, dataset or metric that does not exist.
    """
    path = Path(path)
    if not path.is_file():
        raise SweepError(f"there is no file {str(path)!r}: check the path.")
    content = _load_toml(path)
    _check_keys(content, ("grid", "training", "data", "measure"), "the file")
    grid, data, measure = (dict(content.get(name, {})) for name in ("grid", "data", "measure"))
    _check_keys(grid, GRID, "[grid]")
    _check_keys(data, ("root", "side", "train", "test"), "[data]")
    _check_keys(measure, ("metrics", "bipartite"), "[measure]")
    training = dict(content.get("training", {}))
    for name in GRID:
        if not isinstance(grid.get(name), list) or not grid[name]:
            raise SweepError(f"[grid] needs {name} = [...], with at least one entry.")
    grid["models"] = [_resolve(str(model), path.parent) for model in grid["models"]]
    lists = [grid[name] for name in GRID]
    tasks = [Task(str(m), str(d), str(p), float(s), int(n)) for m, d, p, s, n in itertools.product(*lists)]
    chosen: dict[str, Any] = {name: tuple(values) for name, values in measure.items()}
    settings = Settings(training, **data, **chosen)
    check_config(tasks, settings)
    return Config(list(dict.fromkeys(tasks)), settings)


def _load_toml(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SweepError(f"{str(path)!r} is no TOML: {error}.") from error


def _resolve(model: str, folder: Path) -> str:
    """Return a model whose file is found from anywhere: paths are meant from the configuration's folder."""
    file, colon, name = model.rpartition(":")
    return f"{(folder / file).resolve()}:{name}" if colon and file.endswith(".py") else model


def _check_keys(given: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for name in given:
        if name not in known:
            raise SweepError(f"{where} has {name!r}, which means nothing. Known: {', '.join(known)}.")


def check_config(tasks: list[Task], settings: Settings) -> None:
    """Raise if a task or a setting has no meaning, before hours are spent on the others.

    Raises:
        SweepError, UnknownNameError: See :func:`read_config`.
    """
    from topognn.data import DATASETS
    from topognn.metrics.registry import METRICS
    from topognn.models import MODELS
    from topognn.pruning import PRUNERS
    from topognn.pruning.dynamic import DYNAMIC
    from topognn.training import Recipe

    for task in tasks:
        name, colon, number = task.pruner.partition("#")
        if name not in PRUNERS and name not in DYNAMIC:
            raise unknown_name("pruner", name, [*PRUNERS, *DYNAMIC])
        if colon and not number.isdecimal():
            raise SweepError(f"pruner {task.pruner!r}: what follows # is the number of a redraw, such as {name}#1.")
        if task.data not in DATASETS:
            raise unknown_name("dataset", task.data, DATASETS)
        if task.model not in MODELS and not re.fullmatch(r".+\.py:\w+", task.model):
            raise unknown_name("model", task.model, [*MODELS, "path/to/file.py:callable"])
        if not 0 <= task.sparsity < 1:
            raise SweepError(
                f"sparsity {task.sparsity} is not from 0 to below 1: it is the fraction of weights pruned."
            )
    for metric in settings.metrics:
        if metric not in METRICS:
            raise unknown_name("metric", metric, METRICS)
    for kind in settings.bipartite:
        if kind not in ("rolled", "rolled-channel"):
            raise unknown_name("bipartite encoding", kind, ("rolled", "rolled-channel"))
    fields = [field.name for field in dataclasses.fields(Recipe) if field.name != "seed"]
    _check_keys(settings.training, tuple(fields), "[training]")
    for name in ("side", "train", "test"):
        if not isinstance(getattr(settings, name), int) or getattr(settings, name) < 0:
            raise SweepError(
                f"[data] {name} = {getattr(settings, name)!r}: give a whole number, 0 to leave it as it is."
            )
