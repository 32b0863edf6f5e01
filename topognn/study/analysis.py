"""The whole analysis of a table of networks, in one call."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import pandas as pd

from topognn.errors import TableError
from topognn.study.columns import GROUP, KEY
from topognn.study.importance import find_importance
from topognn.study.prediction import predict
from topognn.study.ranking import rank_algorithms
from topognn.study.regression import find_unique, regress, set_groups_aside
from topognn.study.tables import find_feature_sets, select_complete


class Analysis(NamedTuple):
    """What a table says.

    Attributes:
        rows: The networks that took part, with their ``drop``.
        sets: The sets of features that were compared.
        metrics: The features whose importance was asked for.
        regression, prediction, ranking, importance, unique: Results, each a DataFrame; see the modules.
        predicted: Out-of-fold drops, a column a set and scheme, rows as in ``rows``.
        notes: What was dropped, is missing, or could not be done, in words.
    """

    rows: Any
    sets: dict[str, list[str]]
    metrics: list[str]
    regression: Any
    prediction: Any
    ranking: Any
    importance: Any
    unique: Any
    predicted: Any
    notes: list[str]

    def tables(self) -> dict[str, Any]:
        """Return the results by name; what could not be done is left out."""
        names = ("regression", "prediction", "ranking", "importance", "unique")
        return {name: getattr(self, name) for name in names if len(getattr(self, name))}


def analyse(
    table: Any,
    permutations: int = 1000,
    seed: int = 0,
    show: Callable[[str], AbstractContextManager[Any]] = lambda text: nullcontext(),
) -> Analysis:
    """Return everything that a checked table says about topology and accuracy.

    Args:
        table: Networks, as :func:`topognn.study.tables.read_table` returns them.
        permutations: Of algorithm labels, for the nulls.
        seed: Of all random numbers.
        show: Called with the name of each step; the step runs inside what it returns.

    Returns:
        The analysis. A group that has too few rows is set aside, and a step that the table is too small for (one group
        only: no ranking) is left out, each with a note.

    Raises:
        TableError: The table has no features, or no group with enough rows for them.
    """
    rows, sets = select_complete(table), find_feature_sets(table)
    if not sets:
        raise TableError("the table has none of the sets of features: it needs the columns of at least one of them.")
    rows, aside = set_groups_aside(rows, sets)
    dropped = len(table) - len(rows)
    notes = [*table.attrs.get("notes", []), *aside]
    notes += [f"{len(rows):,} rows in {rows.groupby(GROUP).ngroups} groups take part, {dropped:,} do not"]
    metrics = next(sets[name] for name in ("MGE16", "MGE13", *sets) if name in sets)
    metrics = metrics + [name for name in sets.get("BEYOND5", []) if name not in metrics]
    found: dict[str, Any] = {}
    steps: dict[str, Callable[[], Any]] = {
        "regression": lambda: regress(rows, sets, permutations, seed=seed),
        "prediction": lambda: predict(rows, sets, permutations, seed=seed),
        "ranking": lambda: rank_algorithms(rows, sets, permutations, seed=seed),
        "importance": lambda: find_importance(rows, metrics, permutations, seed=seed),
        "unique": lambda: find_unique(rows, metrics),
    }
    for name, step in steps.items():
        with show(name):
            try:
                found[name] = step()
            except TableError as error:
                if name in ("regression", "importance"):
                    raise
                notes.append(f"no {name}: {error}")
                found[name] = (pd.DataFrame(), pd.DataFrame()) if name == "prediction" else pd.DataFrame()
    found["prediction"], found["predicted"] = found["prediction"]
    notes += found["prediction"].attrs.get("notes", [])
    return Analysis(rows=rows, sets=sets, metrics=metrics, notes=notes, **found)


def take_rows(analysis: Analysis) -> Any:
    """Return the networks that took part: key, accuracy, drop, and out-of-fold predictions."""
    return pd.concat([analysis.rows[[*KEY, "accuracy", "drop"]], analysis.predicted], axis=1)
