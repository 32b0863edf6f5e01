"""The command `topognn sweep`: train and measure the networks of a grid."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from topognn.cli.studying import Debug, check_extra


def sweep(
    config: Annotated[
        str, typer.Argument(metavar="CONFIG.toml", help="The grid; see docs/study.md.", show_default=False)
    ],
    out: Annotated[str | None, typer.Option(metavar="DIR", help="Where rows go; beside CONFIG by default.")] = None,
    scheduler: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Of a Dask cluster's scheduler.")] = None,
    add_metrics: Annotated[
        bool, typer.Option("--add-metrics", help="Measure what finished rows lack, from their masks.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Train and measure sparse networks: a grid of models, data, pruners, sparsities and seeds; resumes."""
    check_extra()
    from topognn.study.config import read_config
    from topognn.study.folder import SweepFolder
    from topognn.study.making import add_metrics as add
    from topognn.study.making import make_network
    from topognn.study.sweeping import sweep as run

    tasks, settings = read_config(config)
    folder = SweepFolder(out if out is not None else Path(config).with_suffix(""))
    with _progress(len(tasks)) as show:
        results = run(
            tasks, settings, folder, make_network, add=add if add_metrics else None, scheduler=scheduler, show=show
        )
    counts = {state: sum(result.state == state for result in results) for state in ("done", "there", "failed")}
    table = folder.path / "networks.parquet"
    together = f"; rows together in {table}" if table.is_file() else ""
    print(
        f"{folder.path}: {counts['done']} done, {counts['there']} there before, {counts['failed']} failed, "
        f"of {len(results)}{together}"
    )
    if counts["failed"]:
        print(f"errors are in {folder.path / 'errors'}; the same command tries them again")
        raise typer.Exit(1)


def _progress(total: int) -> Any:
    """Return a context that yields what shows a result: a bar on a terminal, and a line for each network everywhere."""
    import contextlib
    from collections.abc import Iterator

    from rich.text import Text

    from topognn.cli.display import make_console, make_progress

    @contextlib.contextmanager
    def show_all() -> Iterator[Any]:
        console = make_console()
        bar, task = make_progress(console, "networks", total)
        with bar:

            def show(result: Any, link: str) -> None:
                bar.update(task, advance=1, description=f"networks, {link}" if link else "networks")
                if result.state != "there":
                    text = f"{result.state}: {result.task.name}"
                    console.print(Text(f"{text}, {result.error or f'{result.seconds:.1f} s'}"))

            yield show

    return show_all()
