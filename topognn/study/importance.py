"""Which topometric goes with accuracy, at which sparsity and in which architecture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control

from topognn.study.columns import CELL
from topognn.study.nulls import get_indices, permute_labels
from topognn.study.ranking import standardise


def find_importance(
    rows: Any, columns: Sequence[str], permutations: int = 1000, draws: int = 2000, seed: int = 0
) -> Any:
    """Return the correlation of each feature with the drop in accuracy, by model and sparsity.

    Both are standardised within (model, dataset, sparsity), then data sets are put together: what is left is the
    difference between algorithms (and seeds) at equal sparsity. Positive: more of it, more accuracy lost.

    Args:
        rows: Networks, as :func:`topognn.study.tables.select_complete` returns them.
        columns: The features.
        permutations: Of algorithm labels within each cell.
        draws: Bootstrap samples of (dataset, algorithm) clusters.
        seed: Of both.

    Returns:
        A DataFrame: ``model``, ``sparsity``, ``metric``, ``correlation`` (Pearson), its 95 % interval ``low`` to
        ``high``, ``null_95`` (95 % quantile of its magnitude under permuted labels), ``p`` (two-sided), and ``q``, p
        corrected for the number of rows of the table.

    Source:
        Benjamini and Hochberg, JRSS B 1995, for ``q``.
    """
    cells = get_indices(rows, CELL)
    features = standardise(rows[list(columns)].to_numpy(float), cells)
    response = standardise(rows[["drop"]].to_numpy(float), cells)[:, 0]
    orders = permute_labels(rows, permutations, seed)
    rng = np.random.default_rng(seed)
    found = []
    for members in get_indices(rows, ["model", "sparsity"]):
        part, first = rows.iloc[members], rows.iloc[members[0]]
        x, ys = features[members], np.column_stack([response[members], response[orders[:, members]].T])
        values = _correlate(x.T @ ys, (x**2).sum(axis=0)[:, None], (ys**2).sum(axis=0))
        clusters = get_indices(part, ["dataset", "pruning"])
        sums = [np.stack([a[c].sum(axis=0) for c in clusters]) for a in (x * ys[:, :1], x**2, ys[:, :1] ** 2)]
        weights = rng.multinomial(len(clusters), np.full(len(clusters), 1 / len(clusters)), size=draws)
        low, high = np.quantile(_correlate(*(weights @ s for s in sums)), [0.025, 0.975], axis=0)
        null = np.abs(values[:, 1:])
        reached = (null >= np.abs(values[:, :1]) - 1e-12).sum(axis=1)
        for k, column in enumerate(columns):
            top = float(np.quantile(null[k], 0.95)) if permutations else np.nan
            p = (1 + reached[k]) / (1 + permutations)
            found.append((first["model"], first["sparsity"], column, values[k, 0], low[k], high[k], top, p))
    table = pd.DataFrame(found, columns="model sparsity metric correlation low high null_95 p".split())
    return table.assign(q=false_discovery_control(table["p"].to_numpy(float)))


def _correlate(products: Any, first: Any, second: Any) -> Any:
    """Return correlations of centred values from their sums of products; 0 where one of them does not vary."""
    scale = np.sqrt(first * second)
    return np.where(scale > 0, products / np.where(scale > 0, scale, 1), 0)
