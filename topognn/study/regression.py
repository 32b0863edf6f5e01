"""How much of the loss in accuracy features explain: adjusted R2, over all sparsities and within each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from topognn.errors import TableError
from topognn.study.columns import GROUP
from topognn.study.nulls import estimate, get_indices, permute_labels, resample, resample_mean
from topognn.study.ridge import Labels, average_by_code

Array = NDArray[np.float64]
KINDS = ("pooled", "within", "pooled3", "within3")
COMPONENTS = 3


def regress(
    rows: Any, sets: Mapping[str, Sequence[str]], permutations: int = 1000, draws: int = 2000, seed: int = 0
) -> Any:
    """Return the adjusted R2 of ordinary least squares on each set of features.

    ``pooled`` has one intercept, ``within`` one a sparsity, so that it says nothing about sparsity itself;
    ``pooled3`` and ``within3`` use the first three principal components of the features. Sets without a graph are
    ``SPARSITY`` (its intercepts alone) and ``ALGORITHM`` (one indicator an algorithm).

    Args:
        rows: Networks, as :func:`topognn.study.tables.select_complete` returns them.
        sets: Name -> columns.
        permutations: Of algorithm labels within each (model, dataset, sparsity), for the null.
        draws: Bootstrap samples of (algorithm, sparsity) clusters and of groups, at the fitted coefficients.
        seed: Of both.

    Returns:
        A DataFrame, one row a set, kind and (model, dataset), and one with ``all`` for the mean over these:
        ``adjusted_r2`` and the other columns of :class:`topognn.study.nulls.Estimate`.

    Raises:
        TableError: A group has too few rows for its features, or one accuracy only.

    Source:
        Cunegatti et al., TMLR 2024, section 5.
    """
    orders = permute_labels(rows, permutations, seed)
    groups = get_indices(rows, GROUP)
    found = []
    for name, columns, kind in _list_fits(sets):
        rng = np.random.default_rng(seed)
        values, resampled = [], []
        for members in groups:
            group = rows.iloc[members]
            response = group["drop"].to_numpy(float)
            fit = fit_group(group, get_features(group, name, columns), kind)
            local = np.searchsorted(members, orders[:, members])
            null = fit.adjusted_r2(np.column_stack([response, response[local].T]))
            values.append(null)
            resampled.append(fit.resample(response, group, draws, rng))
        for members, value, again in zip(groups, values, resampled, strict=True):
            first = rows.iloc[members[0]]
            found.append((name, kind, first["model"], first["dataset"], len(members), *estimate(value, again)))
        mean = estimate(np.mean(values, axis=0), resample_mean(resampled, rng))
        found.append((name, kind, "all", "all", len(rows), *mean))
    head = ["features", "kind", *GROUP, "rows", "adjusted_r2"]
    return pd.DataFrame(found, columns=[*head, "low", "high", "null_mean", "null_95", "p"])


def _list_fits(sets: Mapping[str, Sequence[str]]) -> Iterator[tuple[str, Sequence[str] | None, str]]:
    """Yield the name, columns and kind of every regression of a group."""
    for name, columns in sets.items():
        yield from ((name, columns, kind) for kind in KINDS)
    yield from (("SPARSITY", None, "pooled"), ("ALGORITHM", None, "pooled"), ("ALGORITHM", None, "within"))


def set_groups_aside(rows: Any, sets: Mapping[str, Sequence[str]]) -> tuple[Any, list[str]]:
    """Return the rows of the groups that :func:`regress` can explain, and a line for each other: which, and why not.

    A sweep that goes on has such groups: those whose networks are not all there yet.

    Raises:
        TableError: No group is left; it says what the first one lacks.
    """
    kept, lines = [], []
    for members in get_indices(rows, GROUP):
        group = rows.iloc[members]
        response = group["drop"].to_numpy(float)[:, None]
        try:
            for name, columns, kind in _list_fits(sets):
                fit_group(group, get_features(group, name, columns), kind).adjusted_r2(response)
        except TableError as error:
            lines.append(str(error))
        else:
            kept.append(members)
    if not kept:
        raise TableError(lines[0])
    return rows.iloc[np.sort(np.concatenate(kept))].reset_index(drop=True), [f"set aside: {line}" for line in lines]


def get_features(rows: Any, name: str, columns: Sequence[str] | None) -> Array:
    """Return the features of a set, or the indicators of what is no graph: float64 ``(rows, p)``."""
    if columns is not None:
        return np.asarray(rows[list(columns)].to_numpy(float))
    labels = rows["sparsity" if name == "SPARSITY" else "pruning"].to_numpy()
    return np.asarray((labels[:, None] == np.unique(labels)[None, 1:]).astype(float))


class Fit:
    """Least squares of one group: an orthonormal basis of its centred features.

    Attributes:
        basis: float64 ``(rows, rank)``.
        codes: The intercept of each row.
        freedom: Degrees of freedom of the residuals, and of the response.
        where: The group in words.
    """

    def __init__(self, basis: Array, codes: Labels, where: str) -> None:
        self.basis, self.codes, self.where = basis, codes, where
        total = len(codes) - len(np.unique(codes))
        self.freedom = total - basis.shape[1], total

    def _residuals(self, responses: Array) -> tuple[Array, Array]:
        centred = responses - average_by_code(responses, self.codes, self.codes)
        return centred - self.basis @ (self.basis.T @ centred), centred

    def adjusted_r2(self, responses: Array) -> Array:
        """Return the adjusted R2 of each column of ``(rows, r)`` responses."""
        residuals, centred = self._residuals(responses)
        total = (centred**2).sum(axis=0)
        if not (total > 1e-18 * (responses**2).sum(axis=0)).all():
            raise TableError(f"accuracy is the same in all {len(responses)} rows of {self.where}: nothing to explain.")
        return np.asarray(1 - (residuals**2).sum(axis=0) / total * self.freedom[1] / self.freedom[0])

    def resample(self, response: Array, group: Any, draws: int, rng: np.random.Generator) -> Array:
        """Return the adjusted R2 of resampled (algorithm, sparsity) clusters at the same coefficients."""
        residuals, centred = self._residuals(response[:, None])
        clusters = get_indices(group, ["pruning", "sparsity"])
        sums = [np.array([(part[c] ** 2).sum() for c in clusters]) for part in (residuals, centred)]
        return np.asarray(1 - resample(sums[0], sums[1], draws, rng) * self.freedom[1] / self.freedom[0])


def fit_group(group: Any, features: Array, kind: str) -> Fit:
    """Return the fit of one (model, dataset); a constant or repeated column adds no feature."""
    codes = np.zeros(len(group), np.int64)
    if kind.startswith("within"):
        codes = np.unique(group["sparsity"].to_numpy(), return_inverse=True)[1]
    centred = features - average_by_code(features, codes, codes)
    spread = centred.std(axis=0)
    centred = centred / np.where(spread > 1e-12 * np.abs(features).max(axis=0, initial=0), spread, np.inf)
    basis, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    basis = basis[:, sizes > 1e-10 * max(sizes.max(initial=0), 1e-300)]
    if kind.endswith("3"):
        basis = basis[:, :COMPONENTS]
    fit = Fit(basis, codes, f"{group['model'].iloc[0]} on {group['dataset'].iloc[0]}")
    if fit.freedom[0] < 1:
        raise TableError(
            f"{fit.where} has {len(group)} rows for {features.shape[1]} features and {len(set(codes))} intercepts: "
            "measure more networks or take fewer features."
        )
    return fit


def find_unique(rows: Any, columns: Sequence[str]) -> Any:
    """Return what each feature adds to the others: the adjusted R2 within sparsities that is lost without it.

    Returns:
        A DataFrame: ``model``, ``metric``, ``lost`` (mean over the model's data sets).
    """

    def losses() -> Iterator[tuple[str, str, float]]:
        for members in get_indices(rows, GROUP):
            group = rows.iloc[members]
            response = group["drop"].to_numpy(float)[:, None]
            whole = fit_group(group, get_features(group, "", columns), "within").adjusted_r2(response)[0]
            for column in columns:
                others = get_features(group, "", [other for other in columns if other != column])
                without = fit_group(group, others, "within").adjusted_r2(response)[0]
                yield group["model"].iloc[0], column, float(whole - without)

    table = pd.DataFrame(losses(), columns=["model", "metric", "lost"])
    return table.groupby(["model", "metric"], sort=False, as_index=False)["lost"].mean()
