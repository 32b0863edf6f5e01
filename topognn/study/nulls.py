"""What chance gives: permuted labels for a null, resampled networks for an interval."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from topognn.study.columns import CELL

Array = NDArray[np.float64]


class Estimate(NamedTuple):
    """A value with what it has to be seen against.

    Attributes:
        value: What the data give.
        low, high: 95 % bootstrap interval.
        null_mean, null_95: Mean and 95 % quantile of the same value under permuted labels.
        p: Share of permutations, the data themselves counted as one, that reach ``value``.
    """

    value: float
    low: float
    high: float
    null_mean: float
    null_95: float
    p: float


def permute_labels(rows: Any, draws: int, seed: int = 0) -> NDArray[np.int64]:
    """Return orders of the rows in which the pruning algorithms of every cell have changed their names.

    A cell is one (model, dataset, sparsity). Seeds of an algorithm stay together, so that what they share is kept;
    an algorithm that lacks a seed shifts its neighbours' by one.

    Args:
        rows: Networks, as :func:`topognn.study.tables.select_complete` returns them.
        draws: Number of orders.
        seed: Of the random numbers.

    Returns:
        int64 ``(draws, rows)``: in draw ``d``, row ``i`` gets the response of row ``order[d, i]``.

    >>> import pandas as pd
    >>> rows = pd.DataFrame({"model": "a", "dataset": "b", "sparsity": [0.5, 0.5, 0.9], "pruning": ["x", "y", "x"]})
    >>> sorted(set(map(tuple, permute_labels(rows, 20))))
    [(np.int64(0), np.int64(1), np.int64(2)), (np.int64(1), np.int64(0), np.int64(2))]
    """
    rng = np.random.default_rng(seed)
    orders = np.tile(np.arange(len(rows)), (draws, 1))
    for members in get_indices(rows, CELL):
        _, block = np.unique(rows["pruning"].to_numpy(str)[members], return_inverse=True)
        members = members[np.argsort(block, kind="stable")]
        block = np.sort(block)
        keys = rng.random((draws, block[-1] + 1))[:, block]
        orders[:, members] = members[np.argsort(keys, axis=1, kind="stable")]
    return orders


def get_indices(rows: Any, columns: Sequence[str]) -> list[NDArray[np.int64]]:
    """Return the positions of the rows of each combination of values, in the order of the values."""
    return [np.sort(members) for _, members in sorted(rows.groupby(list(columns)).indices.items())]


def get_families(rows: Any) -> NDArray[np.str_]:
    """Return each row's algorithm without the number of its redraw: ``erk#1`` was seen where ``erk`` was."""
    return np.array([name.partition("#")[0] for name in rows["pruning"]])


def resample(tops: Array, bottoms: Array, draws: int, rng: np.random.Generator) -> Array:
    """Return ``sum(tops) / sum(bottoms)`` over clusters drawn with replacement, ``draws`` times; 0 / 0 is NaN."""
    count = len(tops)
    weights = rng.multinomial(count, np.full(count, 1 / count), size=draws)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((weights @ tops) / (weights @ bottoms))


def resample_mean(groups: Sequence[Array], rng: np.random.Generator) -> Array:
    """Return means over groups drawn with replacement, each group with its own resampled values."""
    values = np.stack(groups)
    chosen = rng.integers(len(values), size=values.shape)
    return np.asarray(np.take_along_axis(values, chosen, axis=0).mean(axis=0))


def estimate(values: Array, resampled: Array | None = None) -> Estimate:
    """Return the estimate of ``values[0]`` against its null ``values[1:]``; what is NaN, not defined, is left out.

    >>> estimate(np.array([2.0, 0.0, 1.0, 3.0]))
    Estimate(value=2.0, low=nan, high=nan, null_mean=1.3333333333333333, null_95=2.8, p=0.5)
    """
    value, null = float(values[0]), values[1:]
    null = null[~np.isnan(null)]
    known = np.empty(0) if resampled is None else resampled[~np.isnan(resampled)]
    low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (np.nan, np.nan)
    if not len(null) or np.isnan(value):
        return Estimate(value, float(low), float(high), np.nan, np.nan, np.nan)
    p = float(1 + np.count_nonzero(null >= value - 1e-12)) / (1 + len(null))
    return Estimate(value, float(low), float(high), float(null.mean()), float(np.quantile(null, 0.95)), p)
