"""Tables of networks, one row each: readers of the released files and of our own, one schema, and its checks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from topognn.errors import TableError
from topognn.study.columns import DYNAMIC, FEATURE_SETS, GROUP, KEY, RAMANUJAN, SHARED

UNROLLED = Path("graph_metrics", "unrolled", "unrolled.csv.gz")
NAMES = ["model", "dataset", "pruning"]
MEASURED = [*KEY, "accuracy", "edges"]  # what every table has


def read_table(path: str | os.PathLike[str]) -> Any:
    """Return the table that ``path`` holds, checked by :func:`check_table`.

    Args:
        path: The folder of the paper's released files (``mge-snn``), a Parquet or CSV file of the schema, or the
            folder that ``topognn sweep`` writes.

    Returns:
        A DataFrame; ``attrs["notes"]`` lists in words what was dropped or is missing.

    Raises:
        TableError: There is no such file, it cannot be read, or :func:`check_table` finds fault with it.
    """
    path = Path(path)
    if (path / UNROLLED).is_file():
        return read_released(path)
    if (path / "rows").is_dir():
        files = sorted((path / "rows").glob("*.parquet"))
        if not files:
            raise TableError(f"{str(path)!r} is a sweep without a finished row: let `topognn sweep` go on.")
        return check_table(pd.concat([_read_file(file) for file in files], ignore_index=True))
    return check_table(_read_file(path))


def _read_file(path: Path) -> Any:
    if not path.is_file():
        raise TableError(
            f"{str(path)!r} is no table: give a Parquet or CSV file, a sweep's folder, or the folder of the "
            f"released files, with {UNROLLED.as_posix()} in it."
        )
    try:
        return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise TableError(f"cannot read {str(path)!r}: {type(error).__name__}: {error}") from error


def read_released(folder: str | os.PathLike[str]) -> Any:
    """Return the tables released with the paper (github.com/eliacunegatti/mge-snn) in the one schema.

    Exact duplicates are dropped; the bipartite encodings' layers are averaged; Ramanujan metrics, whose files do not
    name the pruning algorithm, are attached row by row after checking that their numbers of edges agree.

    Raises:
        TableError: A file is missing, or does not fit its neighbours.

    Source:
        Cunegatti et al., TMLR 2024; their repository's folders ``graph_metrics`` and ``ramanunjan_results``.
    """
    folder = Path(folder)
    table = _read_file(folder / UNROLLED)
    unique = table.drop_duplicates()
    notes = [f"{len(table) - len(unique)} exact duplicates dropped"] if len(unique) < len(table) else []
    unique = unique.set_index(KEY)
    for kind in ("rolled", "rolled_channel"):
        files = sorted((folder / "graph_metrics" / kind).glob("*.csv.gz"))
        if not files:
            raise TableError(f"{str(folder)!r} has no files in graph_metrics/{kind}: copy the whole release.")
        means = pd.concat([_layer_means(folder, file, kind) for file in files])
        unique = unique.join(means, how="left")
    table = check_table(unique.reset_index())
    table.attrs["notes"] = notes + table.attrs["notes"]
    return table


def _layer_means(folder: Path, file: Path, kind: str) -> Any:
    """Return a row a network: means over the layers of one released file."""
    layers = _read_file(file).rename(columns={"pruning_algorithm": "pruning", **{v: k for k, v in SHARED.items()}})
    _need(layers, [*KEY, *SHARED, "edges", "layer_sparsity"], str(file))
    columns = {name: f"{kind}:{name}" for name in SHARED}
    if kind == "rolled_channel":
        return layers.groupby(KEY)[list(columns)].mean().rename(columns=columns)
    source = folder / "ramanunjan_results" / layers["model"].iloc[0] / file.name
    beside = _read_file(source)
    _need(beside, [*RAMANUJAN, "no_weights", "no_params"], str(source))
    if not np.array_equal(beside["no_weights"], layers["edges"]):
        raise TableError(f"{str(source)!r} does not go with {str(file)!r} row by row: their numbers of edges differ.")
    layers[RAMANUJAN] = beside[RAMANUJAN].replace([-np.inf, np.inf], np.nan)
    layers["params"] = beside["no_params"]
    networks = layers.groupby(KEY)
    means = networks[[*columns, *RAMANUJAN]].mean().rename(columns=columns)
    means["layer_density"] = networks["layer_sparsity"].mean()  # which is a density, whatever its name
    means["density"] = networks["edges"].sum() / networks["params"].sum()
    return means


def _need(table: Any, columns: list[str], where: str) -> None:
    missing = [column for column in columns if column not in table]
    if missing:
        raise TableError(
            f"{where} lacks the columns {', '.join(missing)}: it has {', '.join(map(str, table.columns))}."
        )


def check_table(table: Any) -> Any:
    """Return a table of networks, sorted by its key, with the columns that follow from others.

    Args:
        table: A DataFrame with the key (model, dataset, pruning, sparsity, seed), ``accuracy`` and ``edges``, and any
            of the columns of :data:`topognn.study.columns.FEATURE_SETS`. A feature may be missing (NaN) in a row.

    Returns:
        The table; ``attrs["notes"]`` says how many values each column lacks.

    Raises:
        TableError: A column is missing, a key occurs twice, or a value is impossible, or text where a number belongs.

    >>> row = {"model": "conv6", "dataset": "mnist", "pruning": "erk", "sparsity": 0.9, "seed": 0, "edges": 10}
    >>> check_table(pd.DataFrame([row | {"accuracy": 91.5}]))
    Traceback (most recent call last):
    topognn.errors.TableError: accuracy reaches 91.5: it looks like percent, divide it by 100.
    """
    _need(table, MEASURED, "the table")
    if not len(table):
        raise TableError("the table has no rows.")
    unnamed = [column for column in KEY if table[column].isna().any()]
    if unnamed:
        raise TableError(f"{', '.join(unnamed)} is empty in some rows: the key says which network a row is.")
    twice = table.duplicated(KEY, keep=False)
    if twice.any():
        example = ", ".join(map(str, table.loc[twice, KEY].iloc[0]))
        raise TableError(
            f"{int(twice.sum())} rows share their key with another, such as {example}: drop or tell apart."
        )
    _check_numbers(table)
    table = table.astype({name: str for name in NAMES if pd.api.types.is_numeric_dtype(table[name])})
    for column in [name for name in table.columns if name not in NAMES]:
        if not pd.api.types.is_numeric_dtype(table[column]):
            continue  # text beside the schema is nobody's business
        infinite = int(np.isinf(table[column].to_numpy(float)).sum())
        if infinite:
            raise TableError(f"{column} is infinite in {infinite} rows: leave the value empty where it is undefined.")
    _check_range(table, "sparsity", 0, 1, "a fraction from 0 up to, not including, 1")
    top = float(table["accuracy"].max())
    if 1 < top <= 100 and table["accuracy"].min() >= 0:
        raise TableError(f"accuracy reaches {top:g}: it looks like percent, divide it by 100.")
    _check_range(table, "accuracy", 0, 1 + 1e-12, "a fraction from 0 to 1")
    wrong = int((~(table["edges"] > 0)).sum())
    if wrong:
        raise TableError(f"edges is not positive in {wrong} rows, or empty: every network has a number of edges.")
    table = table.sort_values(KEY, ignore_index=True)
    notes = _describe_missing(table)
    table = _derive(table)
    table.attrs["notes"] = notes
    return table


def _check_numbers(table: Any) -> None:
    """Raise if a column that is computed with holds text."""
    features = {column for columns in FEATURE_SETS.values() for column in columns}
    for column in ["sparsity", "accuracy", "edges", *sorted({*features, "density"} & {*table.columns})]:
        values = table[column].dropna()
        if len(values) and not pd.api.types.is_numeric_dtype(values):
            numbers = pd.to_numeric(values, errors="coerce")
            wrong = values[numbers.isna()] if numbers.isna().any() else values
            raise TableError(
                f"{column} is {wrong.iloc[0]!r} in a row ({len(wrong)} such), which is text: it must be a number."
            )


def _describe_missing(table: Any) -> list[str]:
    """Return a line for each number of missing values, naming the columns that lack so many."""
    columns: dict[int, list[str]] = {}
    for column, count in table.isna().sum().items():
        columns.setdefault(int(count), []).append(str(column))
    return [f"missing in {n:,} of {len(table):,} rows: {', '.join(columns[n])}" for n in sorted(columns) if n]


def _check_range(table: Any, column: str, low: float, high: float, meaning: str) -> None:
    wrong = ~((table[column] >= low) & (table[column] < high))
    if wrong.any():
        value = table.loc[wrong, column].iloc[0]
        raise TableError(f"{column} is {value} in a row ({int(wrong.sum())} such): it must be {meaning}.")


def _derive(table: Any) -> Any:
    table = table.assign(log_edges=np.log(table["edges"]), inverse_edges=1 / table["edges"])
    if "density" in table:
        with np.errstate(divide="ignore"):
            density = table["density"].where(table["density"] > 0)
        table = table.assign(log_density=np.log(density), inverse_density=1 / density)
    return table


def find_feature_sets(table: Any) -> dict[str, list[str]]:
    """Return the sets of features whose columns the table has, each with a value in some row."""
    return {
        name: columns
        for name, columns in FEATURE_SETS.items()
        if all(column in table and table[column].notna().any() for column in columns)
    }


def select_complete(table: Any) -> Any:
    """Return the rows that are studied, with the response ``drop``.

    They are those of pruning at initialisation that are complete in every set of features that the table has. The
    response is ``100 (1 - accuracy / best accuracy of the same model and data)``: percent.

    Raises:
        TableError: No row is left.
    """
    sets = find_feature_sets(table)
    columns = sorted({column for columns in sets.values() for column in columns})
    rows = table[~table["pruning"].isin(DYNAMIC)].dropna(subset=columns)
    if not len(rows):
        raise TableError(f"no row of pruning at initialisation is complete in {', '.join(columns)}.")
    best = rows.groupby(GROUP)["accuracy"].transform("max")
    if (best <= 0).any():
        raise TableError("every accuracy of a model and data set is 0: nothing can be compared with the best of them.")
    rows = rows.assign(drop=100 * (1 - rows["accuracy"] / best))
    return rows.sort_values(KEY, ignore_index=True)
