"""Where the command line's models come from: a name of ours, torchvision, or a Python file."""

from __future__ import annotations

import contextlib
import difflib
import importlib.util
import itertools
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from topognn.errors import CheckpointError, TopognnError, UnknownNameError, unknown_name

if TYPE_CHECKING:
    from torch import nn

FORMS = "a model's name (see `topognn models`), torchvision:NAME, or path/to/file.py:callable"

_file_numbers = itertools.count()


class ArgumentError(TopognnError, ValueError):
    """An argument of the command that has no meaning."""


class Source(NamedTuple):
    """A model that can be built.

    Attributes:
        build: Returns a new model, its weights drawn from torch's random state.
        input_shape: Shape of one input without the batch.
    """

    build: Callable[[], nn.Module]
    input_shape: tuple[int, ...]


def parse_shape(text: str) -> tuple[int, ...]:
    """Return the shape that a text such as ``3x32x32`` spells.

    >>> parse_shape("3x32x32")
    (3, 32, 32)
    """
    if not re.fullmatch(r"[1-9]\d{0,8}(x[1-9]\d{0,8})*", text):
        raise ArgumentError(
            f"--input {text!r} is no shape: give the sizes of one input without the batch, such as 3x32x32."
        )
    return tuple(int(size) for size in text.split("x"))


def find_source(spec: str, input_text: str | None = None, classes: int | None = None) -> Source:
    """Return the model that a MODEL argument means.

    Args:
        spec: A name of :data:`topognn.MODELS`, ``torchvision:NAME`` or ``path/to/file.py:callable``.
        input_text: Shape of one input, such as ``3x32x32``; what the model is made for by default.
        classes: Length of the output; 10 by default, 1000 for torchvision's.

    Raises:
        UnknownNameError: There is no such model, or no such callable in the file.
        CheckpointError: There is no such file.
        ArgumentError: A shape or an option that does not suit the model, or a file that Python cannot import.

    >>> find_source("resnet20").input_shape
    (3, 32, 32)
    """
    shape = parse_shape(input_text) if input_text is not None else None
    if spec.startswith("torchvision:"):
        return _from_torchvision(spec.removeprefix("torchvision:"), shape or (3, 224, 224), classes or 1000)
    path, colon, name = spec.rpartition(":")
    if colon and path.endswith(".py"):
        if not Path(path).is_file():
            raise CheckpointError(f"there is no file {path!r}: check the path.")
        if shape is None:
            raise ArgumentError(f"say what {spec} reads: --input with the sizes of one input, such as 3x32x32.")
        if classes is not None:
            raise ArgumentError(f"--classes means nothing to {spec}, which is called without arguments: leave it out.")
        return _from_file(Path(path), name, shape)
    if spec.endswith(".py"):
        raise ArgumentError(f"say what to call in {spec}: {spec}:NAME, a class or function without arguments.")
    return _from_ours(spec, shape or (3, 32, 32), classes or 10)


def _from_ours(name: str, shape: tuple[int, ...], classes: int) -> Source:
    from topognn.models import MODELS, get_model

    if name not in MODELS:
        raise unknown_name("model", name, [*MODELS, "torchvision:NAME", "path/to/file.py:callable"])
    if len(shape) != 3:
        text = "x".join(map(str, shape))
        raise ArgumentError(f"{name} reads images: give --input as channels x height x width, not {text}.")
    return Source(lambda: get_model(name, classes, shape[0]), shape)


def _from_torchvision(name: str, shape: tuple[int, ...], classes: int) -> Source:
    from torchvision import models

    # Its detection models are left out: they have no single tensor output, and download a backbone.
    known = models.list_models(module=models)
    if name not in known:
        near = " or ".join(map(repr, difflib.get_close_matches(name, known, cutoff=0)))
        listing = "all are in torchvision.models.list_models(module=torchvision.models)"
        raise UnknownNameError(f"unknown torchvision model {name!r}: did you mean {near}? ({listing})")
    return Source(lambda: models.get_model(name, weights=None, num_classes=classes), shape)


def _from_file(path: Path, name: str, shape: tuple[int, ...]) -> Source:
    module = _import_file(path)
    make: Any = getattr(module, name, None)
    if not callable(make):
        raise unknown_name("callable", name, [n for n, v in vars(module).items() if callable(v) and n[0] != "_"])
    return Source(lambda: _call(f"{path}:{name}", make), shape)


def _import_file(path: Path) -> ModuleType:
    # A name of its own: no module that is there already is hidden, and the same file can be read twice.
    name = f"topognn_model_{next(_file_numbers)}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # it ends in .py
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        with _importable(path.resolve().parent):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise ArgumentError(f"cannot import {str(path)!r}: {type(error).__name__}: {error}") from error
    return module


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let a file import what lies beside it, as ``python file.py`` does."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(str(folder))


def _call(spec: str, make: Callable[[], Any]) -> nn.Module:
    from torch import nn

    try:
        model = make()
    except (Exception, SystemExit) as error:
        raise ArgumentError(f"{spec} failed when called without arguments: {type(error).__name__}: {error}") from error
    if not isinstance(model, nn.Module):
        raise ArgumentError(f"{spec} returned an object of type {type(model).__name__}: return a torch.nn.Module.")
    return model
