"""Whether features put pruning algorithms in the right order, on a data set that they were not fitted to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from topognn.errors import TableError
from topognn.study.columns import CELL, GROUP
from topognn.study.nulls import estimate, get_families, get_indices, permute_labels, resample, resample_mean
from topognn.study.ridge import predict_chosen

Array = NDArray[np.float64]
PERSISTENCE = 0.9
TIE = 1e-9  # accuracies that differ by less, in percent or standard deviations, are equal: means of seeds are rounded


def rank_algorithms(
    rows: Any, sets: Mapping[str, Sequence[str]], permutations: int = 1000, draws: int = 2000, seed: int = 0
) -> Any:
    """Return how well each set of features ranks the algorithms of every (model, dataset, sparsity).

    Features and response are standardised within each cell; ridge without intercept is fitted to the other data sets
    of the same model (where it has only one: to other models), its penalty by leaving one algorithm out; predictions
    and truth are averaged over seeds. Without a graph: ``ELSEWHERE``, the algorithm's mean at the same sparsity in
    those other groups, and ``CEILING``, one seed against the mean of the others, where there is more than one seed.

    Args:
        rows: Networks, as :func:`topognn.study.tables.select_complete` returns them.
        sets: Name -> columns.
        permutations: Of algorithm labels within each cell; the fit is repeated on each.
        draws: Bootstrap samples of cells and groups.
        seed: Of both.

    Returns:
        A DataFrame with a row a set and (model, dataset), ``all`` for the mean over all cells: Kendall's ``tau`` (b)
        with interval and null, and ``rbo``, rank-biased overlap (extrapolated, p = 0.9) with its null mean. NaN where
        nothing can be ranked.

    Raises:
        TableError: There is one group only.

    Source:
        Kendall, Biometrika 1945; Webber, Moffat, Zobel, ACM TOIS 2010, equation 32.
    """
    groups = get_indices(rows, GROUP)
    if len(groups) < 2:
        first = rows.iloc[0]
        raise TableError(
            f"all rows are {first['model']} on {first['dataset']}: ranking is fitted elsewhere, add a group."
        )
    cells = get_indices(rows, CELL)
    response = standardise(rows[["drop"]].to_numpy(float), cells)[:, 0]
    truth = rows["drop"].to_numpy(float)
    orders = permute_labels(rows, permutations, seed)
    responses = np.column_stack([response, response[orders].T])
    truths = _average_items(rows, np.column_stack([truth, truth[orders].T]), cells)
    found = []
    for name in [*sets, "ELSEWHERE", *(["CEILING"] if rows["seed"].nunique() > 1 else [])]:
        if name == "CEILING":
            scores = _score_ceiling(rows, cells)
        elif name == "ELSEWHERE":
            items = _average_items(rows, responses, cells)
            scores = [_score(p, t) for p, t in zip(_average_elsewhere(rows, items, cells), truths, strict=True)]
        else:
            features = standardise(rows[list(sets[name])].to_numpy(float), cells)
            predictions = _predict_elsewhere(rows, features, responses, groups)
            scores = [_score(p, t) for p, t in zip(_average_items(rows, predictions, cells), truths, strict=True)]
        found += _summarise(rows, name, cells, scores, draws, seed)
    columns = ["features", *GROUP, "cells", "tau", "low", "high", "null_mean", "null_95", "p", "rbo", "rbo_null_mean"]
    return pd.DataFrame(found, columns=columns)


def standardise(values: Array, cells: Sequence[NDArray[np.int64]]) -> Array:
    """Return values with mean 0 and population standard deviation 1 in every cell and column; 0 where constant."""
    out = np.zeros_like(values)
    for members in cells:
        part = values[members]
        spread = part.std(axis=0)
        varies = spread > 1e-12 * np.abs(part).max(axis=0)
        out[members] = np.where(varies, (part - part.mean(axis=0)) / np.where(varies, spread, 1), 0)
    return out


def kendall_tau(predicted: Array, truth: Array) -> Array:
    """Return Kendall's tau-b of each column; what is NaN in ``predicted`` takes no part; NaN where all is tied.

    >>> kendall_tau(np.array([[1.0], [2.0], [3.0]]), np.array([[1.0], [3.0], [2.0]]))
    array([0.33333333])
    """
    first, second = np.triu_indices(len(truth), 1)
    gaps = [values[first] - values[second] for values in (predicted, truth)]
    p, t = (np.where(np.abs(gap) <= TIE, 0, np.sign(gap)) for gap in gaps)
    p, t = np.nan_to_num(p), np.where(np.isnan(gaps[0]), 0, t)
    with np.errstate(invalid="ignore"):
        return np.asarray((p * t).sum(axis=0) / np.sqrt((p != 0).sum(axis=0) * (t != 0).sum(axis=0)))


def rank_biased_overlap(predicted: Array, truth: Array) -> Array:
    """Return the extrapolated rank-biased overlap (p = 0.9) of each column, lowest first; ties by position.

    >>> rank_biased_overlap(np.array([[1.0], [2.0]]), np.array([[1.0], [2.0]]))
    array([1.])
    """
    first, second = (np.argsort(np.argsort(v.round(9), axis=0, kind="stable"), axis=0) for v in (predicted, truth))
    depth = np.maximum(first, second)  # the depth at which an item is in both lists
    agreement = [(depth < d).sum(axis=0) / d for d in range(1, len(truth) + 1)]
    p = PERSISTENCE
    weighted = sum(a * p**d for d, a in enumerate(agreement, 1))
    return np.asarray(agreement[-1] * p ** len(truth) + (1 - p) / p * weighted)


def _score(predicted: Array, truth: Array) -> tuple[Array, Array]:
    known = ~np.isnan(predicted).any(axis=1)
    if known.sum() < 2:  # no order
        return np.full(truth.shape[1], np.nan), np.full(truth.shape[1], np.nan)
    return kendall_tau(predicted, truth), rank_biased_overlap(predicted[known], truth[known])


def _average_items(rows: Any, values: Array, cells: Sequence[NDArray[np.int64]]) -> list[Array]:
    """Return for each cell the means over seeds: ``(algorithms, r)``, algorithms in the order of their names."""
    names = rows["pruning"].to_numpy(str)
    means = []
    for members in cells:
        labels, codes = np.unique(names[members], return_inverse=True)
        member = (codes == np.arange(len(labels))[:, None]) / np.bincount(codes)[:, None]
        means.append(member @ values[members])
    return means


def _find_elsewhere(rows: Any, group: Any) -> Any:
    """Return which rows a group is predicted from: its model on other data, or else all other groups."""
    same_model, same_data = rows["model"] == group["model"], rows["dataset"] == group["dataset"]
    others = same_model & ~same_data
    return (others if others.any() else ~(same_model & same_data)).to_numpy()


def _predict_elsewhere(rows: Any, features: Array, responses: Array, groups: Sequence[Any]) -> Array:
    predictions = np.empty_like(responses)
    algorithms = np.unique(get_families(rows), return_inverse=True)[1]
    for members in groups:
        train = np.flatnonzero(_find_elsewhere(rows, rows.iloc[members[0]]))
        predictions[members] = predict_chosen(features, responses, None, train, members, algorithms)
    return predictions


def _average_elsewhere(rows: Any, items: Sequence[Array], cells: Sequence[Any]) -> list[Array]:
    names = [np.unique(rows["pruning"].to_numpy(str)[members]) for members in cells]
    firsts = rows.iloc[[members[0] for members in cells]]
    found = []
    for number, cell in enumerate(firsts.itertuples()):
        use = _find_elsewhere(firsts, firsts.iloc[number]) & (firsts["sparsity"] == cell.sparsity).to_numpy()
        sums, counts = np.zeros_like(items[number]), np.zeros((len(items[number]), 1))
        for other in map(int, np.flatnonzero(use)):
            _, here, there = np.intersect1d(names[number], names[other], return_indices=True)
            sums[here] += items[other][there]
            counts[here] += 1
        found.append(np.where(counts > 0, sums / np.maximum(counts, 1), np.nan))
    return found


def _score_ceiling(rows: Any, cells: Sequence[Any]) -> list[tuple[Array, Array]]:
    scores = []
    for members in cells:
        wide = rows.iloc[members].pivot(index="pruning", columns="seed", values="drop")
        taus, overlaps = [np.array([np.nan])], [np.array([np.nan])]
        for number in wide.columns:
            pair = pd.DataFrame({"one": wide[number], "rest": wide.drop(columns=number).mean(axis=1)}).dropna()
            if len(pair) > 1:
                tau, overlap = _score(pair[["rest"]].to_numpy(), pair[["one"]].to_numpy())
                taus.append(tau)
                overlaps.append(overlap)
        scores.append((_mean(np.stack(taus)), _mean(np.stack(overlaps))))
    return scores


def _summarise(rows: Any, name: str, cells: Sequence[Any], scores: Sequence[Any], draws: int, seed: int) -> list[Any]:
    firsts = rows.iloc[[members[0] for members in cells]].reset_index(drop=True)
    taus, overlaps = (np.stack([score[part] for score in scores]) for part in (0, 1))
    rng = np.random.default_rng(seed)
    found: list[Any] = []
    resampled: list[Array] = []
    for members in [*get_indices(firsts, GROUP), np.arange(len(firsts))]:
        tau, overlap, first = taus[members], overlaps[members], firsts.iloc[members[0]]
        whole = len(members) == len(firsts)
        known = tau[~np.isnan(tau[:, 0]), 0]
        if not len(known):
            again = np.full(draws, np.nan)
        elif whole:
            again = resample_mean(resampled, rng)
        else:
            again = resample(known, np.ones(len(known)), draws, rng)
            resampled.append(again)
        rbo = estimate(_mean(overlap))
        where = ("all", "all") if whole else (first["model"], first["dataset"])
        found.append((name, *where, len(members), *estimate(_mean(tau), again), rbo.value, rbo.null_mean))
    return found


def _mean(values: Array) -> Array:
    """Return means over cells, without those where nothing can be ranked; NaN where that is so in all."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.where(known, values, 0).sum(axis=0) / known.sum(axis=0))
