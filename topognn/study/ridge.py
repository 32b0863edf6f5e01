"""Ridge regression for many responses and penalties at once, and its nested cross-validation."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from topognn.errors import TableError

Array = NDArray[np.float64]
Labels = NDArray[np.int64]

FOLDS = 3  # at least: one is tested, and a penalty is chosen between the others
PENALTIES = 10.0 ** np.arange(-4, 2.25, 0.5)


def predict_path(features: Array, responses: Array, codes: Labels | None, train: Labels, test: Labels) -> Array:
    """Return predictions of the test rows at every penalty.

    Minimises ``sum (y - X b)^2 + penalty n |b|^2`` over the ``n`` training rows. One decomposition serves all penalties
    and responses, which makes permutation nulls of a whole cross-validation cheap.

    Args:
        features: float64 ``(rows, p)``.
        responses: float64 ``(rows, r)``.
        codes: The intercept that each row has, unpenalised; features are then scaled to unit variance on the
            training rows. None: no intercept, and features as they are.
        train, test: Row numbers.

    Returns:
        float64 ``(penalties, test rows, r)``.
    """
    x, y, x_test, intercepts = features[train], responses[train], features[test], None
    if codes is not None:
        spread = x.std(axis=0)
        scale = np.where(spread > 1e-12 * np.abs(x).max(axis=0, initial=0), spread, np.inf)
        x, x_test = x / scale, x_test / scale
        centres = average_by_code(x, codes[train], codes)
        intercepts = average_by_code(y, codes[train], codes)
        x, x_test, y = x - centres[train], x_test - centres[test], y - intercepts[train]
    values, vectors = np.linalg.eigh(x.T @ x / len(train))
    inside = vectors.T @ (x.T @ y) / len(train)
    turned = x_test @ vectors
    shrunk = turned[None] / (np.maximum(values, 0) + PENALTIES[:, None])[:, None, :]
    predictions: Array = shrunk @ inside
    return predictions if intercepts is None else np.asarray(predictions + intercepts[test])


def average_by_code(values: Array, codes: Labels, wanted: Labels) -> Array:
    """Return for each wanted code the mean of the rows that have it; of all rows where none has."""
    count = int(max(codes.max(), wanted.max())) + 1
    member = np.zeros((count, len(codes)))
    member[codes, np.arange(len(codes))] = 1
    sizes = member.sum(axis=1, keepdims=True)
    means = np.where(sizes > 0, member @ values / np.maximum(sizes, 1), values.mean(axis=0))
    return np.asarray(means[wanted])


def choose_penalty(features: Array, responses: Array, codes: Labels | None, rows: Labels, folds: Labels) -> Labels:
    """Return for each response the number of the penalty with the least squared error over the folds; ties: largest.

    Raises:
        TableError: There are fewer than two folds among the rows.
    """
    labels = np.unique(folds[rows])
    if len(labels) < FOLDS - 1:
        raise TableError(
            "cross-validation needs at least three folds (seeds, algorithms or sparsities): there are two."
        )
    errors = np.zeros((len(PENALTIES), responses.shape[1]))
    for label in labels:
        test = rows[folds[rows] == label]
        predicted = predict_path(features, responses, codes, rows[folds[rows] != label], test)
        errors += ((responses[test] - predicted) ** 2).sum(axis=1)
    best = errors <= errors.min(axis=0) * (1 + 1e-12)
    return np.asarray(len(PENALTIES) - 1 - np.argmax(best[::-1], axis=0))


def predict_nested(features: Array, responses: Array, codes: Labels | None, folds: Labels) -> Array:
    """Return out-of-fold predictions, the penalty of each fold chosen among the other folds."""
    predictions = np.empty_like(responses)
    for label in np.unique(folds):
        train, test = np.flatnonzero(folds != label), np.flatnonzero(folds == label)
        predictions[test] = predict_chosen(features, responses, codes, train, test, folds)
    return predictions


def predict_chosen(
    features: Array, responses: Array, codes: Labels | None, train: Labels, test: Labels, folds: Labels
) -> Array:
    """Return predictions of the test rows at the penalty that cross-validation on the training rows chooses."""
    choice = choose_penalty(features, responses, codes, train, folds)
    path = predict_path(features, responses, codes, train, test)
    return np.asarray(np.take_along_axis(path, choice[None, None, :], axis=0)[0])
