"""The configuration of a sweep: a TOML file, read and checked before hours are spent on what it spells."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from topognn.errors import SweepError, TopognnError, unknown_name
from topognn.study.grid import Settings, Task

GRID = {"models": str, "data": str, "pruners": str, "sparsities": float, "seeds": int}
DATA = {"root": str, "side": int, "train": int, "test": int}
KINDS = {str: "text in quotes", int: "a whole number", float: "a number"}
ENCODINGS = ("rolled", "rolled-channel")


class Config(NamedTuple):
    """A sweep: its networks, and what they have in common."""

    tasks: list[Task]
    settings: Settings


def read_config(path: str | os.PathLike[str]) -> Config:
    """Return the sweep that a TOML file spells.

    Raises:
        SweepError: The file is missing or no TOML, lacks a list, or has a key or value that means nothing; or a model's
            file is missing, or cannot be imported.
        UnknownNameError: A pruner, model, dataset or metric that does not exist.
    """
    path = Path(path)
    if not path.is_file():
        raise SweepError(f"there is no file {str(path)!r}: check the path.")
    content = _load_toml(path)
    _check_keys(content, ("grid", "training", "data", "measure"), "the file")
    for name, table in content.items():
        if not isinstance(table, dict):
            raise SweepError(f"{name} = {table!r} is no table: write [{name}], and its keys below.")
    grid, training, data, measure = (dict(content.get(name, {})) for name in ("grid", "training", "data", "measure"))
    _check_keys(grid, GRID, "[grid]")
    _check_keys(data, DATA, "[data]")
    _check_keys(measure, ("metrics", "bipartite"), "[measure]")
    for name, kind in GRID.items():
        if not isinstance(grid.get(name), list) or not grid[name]:
            raise SweepError(f"[grid] needs {name} = [...], with at least one entry.")
        _check_list(grid[name], kind, f"[grid] {name}")
    for name, value in data.items():
        _check_kind(value, DATA[name], f"[data] {name}")
    for name, values in measure.items():
        _check_list(values, str, f"[measure] {name}")
    grid["models"] = [_resolve(model, path.parent) for model in grid["models"]]
    tasks = [Task(m, d, p, float(s), n) for m, d, p, s, n in itertools.product(*(grid[name] for name in GRID))]
    chosen: dict[str, Any] = {name: tuple(values) for name, values in measure.items()}
    settings = Settings(training, **data, **chosen)
    _check_tasks(tasks)
    _check_settings(settings)
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


def _check_keys(given: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    for name in given:
        if name not in known:
            raise SweepError(f"{where} has {name!r}, which means nothing. Known: {', '.join(known)}.")


def _check_kind(value: Any, kind: type, where: str) -> None:
    fits = isinstance(value, int | float if kind is float else kind) and not isinstance(value, bool)
    if not fits or (kind is float and not math.isfinite(value)):
        raise SweepError(f"{where} has {value!r}: give {KINDS[kind]}.")


def _check_list(values: Any, kind: type, where: str) -> None:
    if not isinstance(values, list):
        raise SweepError(f"{where} = {values!r} is no list: write [...], even around one entry.")
    for value in values:
        _check_kind(value, kind, where)


def _check_tasks(tasks: list[Task]) -> None:
    from topognn.data import DATASETS
    from topognn.models import MODELS
    from topognn.pruning import PRUNERS
    from topognn.pruning.dynamic import DYNAMIC

    for task in tasks:
        name, colon, number = task.pruner.partition("#")
        if name not in PRUNERS and name not in DYNAMIC:
            raise unknown_name("pruner", name, [*PRUNERS, *DYNAMIC])
        if colon and not number.isdecimal():
            raise SweepError(f"pruner {task.pruner!r}: what follows # is the number of a redraw, such as {name}#1.")
        if task.data not in DATASETS:
            raise unknown_name("dataset", task.data, DATASETS)
        if not 0 <= task.sparsity < 1:
            raise SweepError(
                f"sparsity {task.sparsity} is not from 0 to below 1: it is the fraction of weights pruned."
            )
    for model in dict.fromkeys(task.model for task in tasks):
        if re.fullmatch(r".+\.py:\w+", model):
            _import(model)
        elif model not in MODELS:
            raise unknown_name("model", model, [*MODELS, "path/to/file.py:callable"])


def _import(model: str) -> None:
    """Raise if a file lacks the model that it should have, as every network of it would."""
    from topognn.cli.sources import find_source

    try:
        find_source(model, "3x32x32")
    except TopognnError as error:
        raise SweepError(f"[grid] models has {model!r}: {error}") from error


def _check_settings(settings: Settings) -> None:
    from topognn.metrics.registry import METRICS
    from topognn.training import Recipe

    for metric in settings.metrics:
        if metric not in METRICS:
            raise unknown_name("metric", metric, METRICS)
    for kind in settings.bipartite:
        if kind not in ENCODINGS:
            raise unknown_name("bipartite encoding", kind, ENCODINGS)
    for name in ("side", "train", "test"):
        if getattr(settings, name) < 0:
            raise SweepError(
                f"[data] {name} = {getattr(settings, name)!r}: give a whole number, 0 to leave it as it is."
            )
    usual = {field.name: field.default for field in dataclasses.fields(Recipe) if field.name != "seed"}
    _check_keys(settings.training, usual, "[training]")
    for name, value in settings.training.items():
        if isinstance(usual[name], tuple):
            _check_list(value, float, f"[training] {name}")
        else:
            _check_kind(value, type(usual[name]), f"[training] {name}")
    try:
        Recipe(**settings.training)
    except TopognnError as error:
        raise SweepError(f"[training] {error}") from error
