"""The command line's tables."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from topognn.cli.outcome import Outcome
from topognn.graph_tables import LayerRow, TroubleRow

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from topognn.baselines.summary import Baseline

WIDTH = 120  # of tables that do not go to a terminal


def make_console(stderr: bool = False) -> Console:
    """Return a console on stdout; where that is no terminal, one that neither colours nor wraps at 80.

    ``stderr`` puts it there, for commands whose stdout is taken.
    """
    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(highlight=False, soft_wrap=True, width=None if terminal else WIDTH, stderr=stderr)


def make_status() -> Callable[[str], AbstractContextManager[Any]]:
    """Return what shows a phase as it runs: a spinner on stderr if that is a terminal, nothing otherwise."""
    console = Console(stderr=True)
    return lambda text: console.status(Text(text)) if console.is_terminal else nullcontext()


def make_progress(console: Console, description: str, total: int) -> tuple[Progress, TaskID]:
    """Return a bar to be entered, with its only task; one that is not shown where the console is no terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    return progress, progress.add_task(description, total=total)


def show_report(outcome: Outcome) -> None:
    """Print a report: header, topometrics by group, layers and places if asked for, times and memory."""
    console = make_console()
    console.print(Text(format_header(outcome)))
    console.print()
    _print(console, metric_table(outcome))
    for name, why in outcome.topometrics.not_found.items():
        console.print(Text(f"{name} was not found: {why}"))
    if outcome.baselines is not None:
        _print(console, baseline_table(outcome.baselines, outcome.topometrics))
    if outcome.layers is not None:
        _print(console, layer_table(outcome.layers))
    if outcome.trouble is not None:
        _print(console, trouble_table(outcome.trouble))
    for name, why in outcome.refused.items():
        console.print(Text(f"--{name} is left out: {why}"))
    console.print(Text(format_costs(outcome)))


def _print(console: Console, table: Table) -> None:
    # The console's soft wrap is for prose: a table has to know the width that it may fill.
    console.print(table, soft_wrap=False)
    console.print()


def new_table(*columns: str, right: Iterable[str] = ()) -> Table:
    """Return an empty table; the columns named in ``right`` are aligned there."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
    right = set(right)
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return table


def format_number(value: float | None) -> str:
    """Return a number for a table: whole ones with all their digits, others with six.

    >>> format_number(2335010), format_number(0.1), format_number(13.193442), format_number(math.nan)
    ('2,335,010', '0.1', '13.1934', 'undefined')
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "undefined"
    return f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


def format_header(outcome: Outcome) -> str:
    """Return what was measured, in one line."""
    from topognn.memory import format_bytes

    request, values = outcome.request, outcome.topometrics
    size = "x".join(map(str, outcome.input_shape))
    share = f"{outcome.kept:,} of {outcome.weights:,} weights kept"
    if request.pruner is not None:
        share = f"reached {outcome.sparsity:.6g}, {share}"
    elif outcome.kept < outcome.weights:
        share = f"sparsity {outcome.sparsity:.6g}, {share}"
    else:
        share = "dense" if request.checkpoint or request.masks else "dense; --pruner or --masks make it sparse"
    beyond = values.left_out.get("edges")
    edges = f"{values['edges']:,} edges" if beyond is None else f"counting edges needs {format_bytes(beyond)}"
    return (
        f"{request.model}, input {size}, {outcome.origin} ({share}), "
        f"{values['nodes']:,} nodes, {edges}, on {outcome.device}"
    )


def format_costs(outcome: Outcome) -> str:
    """Return times and memory, in one line."""
    times = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in outcome.seconds.items())
    return f"{times}; peak memory {outcome.peak_bytes / 2**30:.2f} GiB"


def metric_table(outcome: Outcome) -> Table:
    """Return a row a topometric; the group's name stands at its first. What is beyond memory says what it needs."""
    from topognn.memory import format_bytes

    table = new_table("group", "metric", "value", "published as", "normalised", right=("value", "normalised"))
    last = ""
    for name, group, value, column, normalized in outcome.rows():
        shown = "" if group == last else group
        if name in (beyond := outcome.topometrics.left_out):
            table.add_row(shown, name, f"needs {format_bytes(beyond[name])}", column)
        elif name in outcome.topometrics.not_found:
            table.add_row(shown, name, "not found", column)
        else:
            table.add_row(shown, name, format_number(value), column, format_number(normalized) if column else "")
        last = group
    return table


def baseline_table(rows: list[Baseline], network: Mapping[str, float]) -> Table:
    """Return a row a baseline: means over layers in either encoding, beside the same of the network's one graph."""
    encodings = list(dict.fromkeys(row.encoding for row in rows))
    found = {(row.name, row.group, row.encoding): row for row in rows}
    right = ("network", *(title for encoding in encodings for title in (encoding, "undefined in")))
    table = new_table("group", "mean of layers", *right, right=right)
    last = ""
    for name, group in dict.fromkeys((row.name, row.group) for row in rows):
        cells = []
        for encoding in encodings:
            row = found[name, group, encoding]
            cells += [format_number(row.mean), str(row.undefined or "")]
        whole = format_number(network[name]) if group == "topometrics" and name in network else ""
        table.add_row("" if group == last else group, name, whole, *cells)
        last = group
    return table


def layer_table(rows: list[LayerRow]) -> Table:
    """Return a row a layer."""
    right = ("shape", "kept", "density", "edges", "effective", "log10 paths", "expansion")
    table = new_table("layer", *right, right=right)
    for row in rows:
        sizes = ("x".join(map(str, row.shape)), f"{row.kept:,}", f"{row.density:.4f}", f"{row.edges:,}")
        found = (f"{row.effective:,}", f"{row.log10_paths:.3f}", format_number(row.expansion))
        table.add_row(Text(row.layer), *sizes, *found)
    return table


def trouble_table(rows: list[TroubleRow]) -> Table:
    """Return a row a partition: what is wrong there."""
    columns = ("nodes", "sinks", "sources", "bridges into it", "cut nodes", "outside giant")
    table = new_table("partition", *columns, right=columns)
    for row in rows:
        table.add_row(Text(row.partition), *(f"{count:,}" for count in row[1:]))
    return table


def show_models() -> None:
    """Print the networks of the study."""
    import torch

    from topognn.masks import prunable_weights
    from topognn.models import MODELS, get_model

    table = new_table("model", "prunable weights", "input", "what it is", right=["prunable weights"])
    for name, function in MODELS.items():
        with torch.device("meta"):  # shapes without values: nothing is drawn
            count = sum(weight.numel() for weight in prunable_weights(get_model(name)).values())
        line = inspect.getdoc(function) or ""
        line = line.splitlines()[0].split(":")[0].removeprefix("Return ")
        table.add_row(name, f"{count:,}", "3x32x32", Text(line))
    console = make_console()
    _print(console, table)
    console.print(Text("Also: torchvision:NAME, and path/to/file.py:callable."))


def show_pruners() -> None:
    """Print the pruning algorithms."""
    from topognn.pruning import PRUNERS, needs_data

    table = new_table("pruner", "needs data", "source")
    for name, function in PRUNERS.items():
        _, _, source = (inspect.getdoc(function) or "").partition("Source:")
        line = " ".join(source.split("\n\n")[0].replace("*", "").split())
        table.add_row(name, "yes" if needs_data(name) else "no", Text(line))
    _print(make_console(), table)
