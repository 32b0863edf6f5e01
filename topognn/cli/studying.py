"""The command `topognn study`: what a table of networks says about topology and accuracy."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from topognn.errors import DeviceError

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
TABLE_HELP = "Parquet or CSV file, a sweep's folder, or the folder of the paper's released files."


def study(
    table: Annotated[str, typer.Argument(metavar="TABLE", help=TABLE_HELP, show_default=False)],
    out: Annotated[str | None, typer.Option(metavar="DIR", help="Write CSV, JSON and report.html there.")] = None,
    permutations: Annotated[int, typer.Option(help="Of algorithm labels, for the nulls.", min=1)] = 1000,
    seed: Annotated[int, typer.Option(help="Of permutations and bootstrap.", min=0)] = 0,
    title: Annotated[str | None, typer.Option(help="Of the report; the table's name by default.")] = None,
    debug: Debug = False,
) -> None:
    """Say what topology tells about accuracy, from a table of networks."""
    check_extra()
    from pathlib import Path

    from topognn.cli.display import make_status
    from topognn.study.analysis import analyse
    from topognn.study.output import make_folder, write_study
    from topognn.study.tables import read_table

    if out is not None:
        make_folder(out)
    show = make_status()
    with show("reading"):
        networks = read_table(table)
    analysis = analyse(networks, permutations, seed, show)
    _show(analysis)
    if out is not None:
        with show("writing"):
            files = write_study(analysis, out, title or f"Topology and accuracy: {Path(table).resolve().name}")
        print(f"wrote {len(files)} files to {out}; open {files[-1]}")


def check_extra() -> None:
    """Raise if the libraries of the extra ``study`` are missing.

    Raises:
        DeviceError: One of them cannot be imported; the message says how to install them.
    """
    import importlib.util

    for library in ("pandas", "pyarrow", "matplotlib", "distributed"):
        if importlib.util.find_spec(library) is None:
            raise DeviceError(f"this command needs {library}: pip install 'topognn[study]'.")


TITLES = {  # short, so that a row fits a terminal
    "within_null_95": "null 95",
    "skill_random": "random",
    "skill_seed": "seed",
    "skill_cell": "cell",
    "skill_algorithm": "algorithm",
    "tau_null_95": "null 95",
}
LEGEND = (
    "pooled, within: adjusted R2 over all sparsities, at equal sparsity. random, seed, cell, algorithm: skill against "
    "sparsity alone on what was not seen. tau, rbo: ranking of algorithms. null 95: under permuted algorithm names."
)


def _show(analysis: Any) -> None:
    """Print the summary, a row a set of features, then what it says."""
    from rich.text import Text

    from topognn.cli.display import make_console, new_table
    from topognn.study.summary import describe, summarise

    summary = summarise(analysis)
    numbers = [column for column in summary.columns if column not in ("features", "meaning")]
    titles = [TITLES.get(column, column) for column in numbers]
    table = new_table("features", *titles, right=titles)
    for row in summary.to_dict("records"):
        shown = ("" if row[column] != row[column] else f"{row[column]:.3f}" for column in numbers)
        table.add_row(row["features"], *shown)
    console = make_console()
    for line in analysis.notes:
        console.print(Text(line))
    console.print()
    console.print(table, soft_wrap=False)
    console.print(Text(LEGEND))
    console.print()
    for line in describe(analysis):
        console.print(Text(line))
