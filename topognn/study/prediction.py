"""How well features predict networks that were not seen: nested cross-validation in four schemes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from topognn.errors import TableError
from topognn.study.columns import GROUP
from topognn.study.nulls import estimate, get_families, get_indices, permute_labels, resample, resample_mean
from topognn.study.regression import get_features
from topognn.study.ridge import FOLDS, Labels, average_by_code, predict_nested

SCHEMES = {
    "random": "random 5-fold",
    "seed": "a seed not seen",
    "cell": "an (algorithm, sparsity) not seen",
    "algorithm": "an algorithm not seen",
}

LACK = "cross-validation needs at least three folds (seeds, algorithms or sparsities)"


def make_folds(group: Any, scheme: str) -> Labels:
    """Return the fold of each row of one (model, dataset), whose rows are sorted by their key.

    >>> rows = pd.DataFrame({"pruning": ["er", "er", "erk", "erk"], "sparsity": [0.5, 0.9, 0.5, 0.9], "seed": 0})
    >>> [list(map(int, make_folds(rows, scheme))) for scheme in ("random", "cell", "algorithm")]
    [[0, 1, 2, 3], [0, 1, 1, 2], [0, 0, 1, 1]]
    """

    def number(values: Any) -> Labels:
        return np.asarray(np.unique(values, return_inverse=True)[1])

    pruning, sparsity, seed = (number(group[name].to_numpy()) for name in ("pruning", "sparsity", "seed"))
    folds = {
        "random": np.arange(len(group)) % 5,
        "seed": seed,
        "cell": (pruning + sparsity) % 5,
        "algorithm": number(get_families(group)),
    }
    return folds[scheme]


def predict(
    rows: Any, sets: Mapping[str, Sequence[str]], permutations: int = 1000, draws: int = 2000, seed: int = 0
) -> tuple[Any, Any]:
    """Return the skill of ridge regression on each set of features, in each scheme of cross-validation.

    Skill is ``1 - SSE / SSE of sparsity alone``, both out of fold: 0 says that the features add nothing to knowing the
    sparsity, below 0 that they mislead. Every model has an intercept a sparsity; the penalty is chosen by inner folds
    of the same scheme.

    Args:
        rows: Networks, as :func:`topognn.study.tables.select_complete` returns them.
        sets: Name -> columns.
        permutations: Of algorithm labels, for the null; the whole cross-validation is repeated on each.
        draws: Bootstrap samples of (algorithm, sparsity) clusters and groups, at the predictions made.
        seed: Of both.

    Returns:
        A DataFrame with a row a set, scheme and group (``all``: the mean over groups), and one of the predicted
        drops: ``rows``' key with a column ``features / scheme``. A group with too few seeds, algorithms or sparsities
        for the folds of a scheme has no row of it and predicts NaN; ``attrs["notes"]`` of the first says which.

    Raises:
        TableError: No scheme has a group with enough folds.
    """
    orders = permute_labels(rows, permutations, seed)
    groups = get_indices(rows, GROUP)
    foldable = {
        scheme: [members for members in groups if len(set(make_folds(rows.iloc[members], scheme))) >= FOLDS]
        for scheme in SCHEMES
    }
    notes = [_describe_lack(rows, scheme, groups, foldable[scheme]) for scheme in SCHEMES]
    schemes = [scheme for scheme in SCHEMES if foldable[scheme]]
    if not schemes:
        raise TableError(f"{LACK}: no group has them.")
    found, predictions = [], {}
    for name, columns in [*sets.items(), ("ALGORITHM", None)]:
        for scheme in schemes:
            rng = np.random.default_rng(seed)
            skills, resampled, predicted = [], [], np.full(len(rows), np.nan)
            for members in foldable[scheme]:
                group = rows.iloc[members]
                response = group["drop"].to_numpy(float)
                local = np.searchsorted(members, orders[:, members])
                responses = np.column_stack([response, response[local].T])
                codes = np.unique(group["sparsity"].to_numpy(), return_inverse=True)[1]
                folds = make_folds(group, scheme)
                guesses = predict_nested(get_features(group, name, columns), responses, codes, folds)
                base = _predict_by_sparsity(responses, codes, folds)
                errors, base_errors = (responses - guesses) ** 2, (responses - base) ** 2
                skills.append(1 - errors.sum(axis=0) / base_errors.sum(axis=0))
                clusters = get_indices(group, ["pruning", "sparsity"])
                sums = [np.array([part[c, 0].sum() for c in clusters]) for part in (errors, base_errors)]
                resampled.append(1 - resample(sums[0], sums[1], draws, rng))
                predicted[members] = guesses[:, 0]
            predictions[f"{name} / {scheme}"] = predicted
            for members, skill, again in zip(foldable[scheme], skills, resampled, strict=True):
                first = rows.iloc[members[0]]
                found.append((name, scheme, first["model"], first["dataset"], *estimate(skill, again)))
            mean = estimate(np.mean(skills, axis=0), resample_mean(resampled, rng))
            found.append((name, scheme, "all", "all", *mean))
    table = pd.DataFrame(
        found, columns=["features", "scheme", *GROUP, "skill", *"low high null_mean null_95 p".split()]
    )
    table.attrs["notes"] = [note for note in notes if note]
    return table, pd.DataFrame(predictions, index=rows.index)


def _describe_lack(rows: Any, scheme: str, groups: Sequence[Labels], foldable: Sequence[Labels]) -> str:
    """Return which groups cannot be predicted in a scheme, and why; nothing if all can."""
    if len(foldable) == len(groups):
        return ""
    firsts = [rows.iloc[members[0]] for members in groups if not any(members is other for other in foldable)]
    where = ", ".join(f"{first['model']} on {first['dataset']}" for first in firsts) if foldable else "any group"
    return f"no prediction of {SCHEMES[scheme]} in {where}: {LACK}"


def _predict_by_sparsity(responses: Any, codes: Labels, folds: Labels) -> Any:
    predictions = np.empty_like(responses)
    for label in np.unique(folds):
        seen = folds != label
        predictions[~seen] = average_by_code(responses[seen], codes[seen], codes[~seen])
    return predictions
