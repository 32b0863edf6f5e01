"""The one error family of topognn: every message names what was wrong and says what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TopognnError(Exception):
    """Base of every error that topognn raises on purpose."""


class MaskError(TopognnError, ValueError):
    """A mask does not fit: unknown name, another shape, values other than 0 and 1."""


class CheckpointError(TopognnError, ValueError):
    """A file is missing, truncated, or not plain tensors."""


class TraceError(TopognnError, ValueError):
    """The model cannot be traced at the given input shape."""


class UnsupportedOperation(TopognnError, NotImplementedError):
    """The model uses an operation that has no meaning yet as a graph."""


class GraphError(TopognnError, ValueError):
    """Arrays that are no graph: bounds, indices, lengths, dtypes or weights that do not fit."""


class GraphMemoryError(TopognnError, MemoryError):
    """A graph would not fit in the memory that is free."""


class DeviceError(TopognnError, RuntimeError):
    """A device was asked for that this machine or installation cannot serve."""


class SparsityError(TopognnError, ValueError):
    """A sparsity outside [0, 1), or one that the model cannot reach."""


class DataError(TopognnError, ValueError):
    """Data that are missing, truncated, or do not fit the model."""


class TrainingError(TopognnError, ArithmeticError):
    """A loss or a gradient that is NaN or infinite."""


class TableError(TopognnError, ValueError):
    """A table of networks that cannot be studied: columns, keys, values or groups that do not fit."""


class SweepError(TopognnError, ValueError):
    """A sweep's configuration or folder that has no meaning."""


class ConvergenceError(TopognnError, ArithmeticError):
    """An iteration did not reach its tolerance; ``found`` is what it reached."""

    def __init__(self, message: str, found: object = None) -> None:
        super().__init__(message)
        self.found = found


class UnknownNameError(TopognnError, KeyError):
    """A model, pruner, metric or partition that does not exist."""

    def __str__(self) -> str:  # KeyError would print the repr, quotes and all
        return str(self.args[0])


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """Return the error for an unknown ``name``, with the nearest known ones first.

    >>> print(unknown_name("metric", "sink_node", ["sink_nodes", "strength"]))
    unknown metric 'sink_node': did you mean 'sink_nodes'? Known: sink_nodes, strength.
    """
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3)
    hint = f" did you mean {' or '.join(map(repr, near))}?" if near else ""
    return UnknownNameError(f"unknown {kind} {name!r}:{hint} Known: {', '.join(known)}.")
