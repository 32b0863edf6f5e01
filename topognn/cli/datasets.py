"""The commands `topognn data list`, `get` and `check`."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(help="List, download and check datasets.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="See `topognn data list`.", show_default=False)]
Root = Annotated[
    str | None, typer.Option(metavar="FOLDER", help="Of all datasets; TOPOGNN_DATA or a cache by default.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@app.callback(invoke_without_command=True)
def _start(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command("list")
def list_datasets(root: Root = None, debug: Debug = False) -> None:
    """List the datasets, and whether there are files of them."""
    from pathlib import Path

    from rich.text import Text

    from topognn.cli.display import make_console, new_table
    from topognn.data import DATASETS, default_root

    folder = default_root() if root is None else Path(root)
    table = new_table("dataset", "classes", "train", "test", "what it is", "here", right=("classes", "train", "test"))
    for name, source in DATASETS.items():
        here = "yes" if source.is_there(folder) else f"no: topognn data get {name}"
        table.add_row(name, str(source.classes), f"{source.train:,}", f"{source.test:,}", source.what, Text(here))
    console = make_console()
    console.print(table, soft_wrap=False)
    console.print(Text(f"folder: {folder}"))


@app.command()
def get(name: Name, root: Root = None, debug: Debug = False) -> None:
    """Download a dataset, unless it is there, and check it."""
    from topognn.data import download

    download(name, root)
    check(name, root)


@app.command()
def check(name: Name, root: Root = None, debug: Debug = False) -> None:
    """Check that a dataset's files are whole and what was published."""
    from topognn.cli.display import make_console
    from topognn.data import get_data

    data = get_data(name, root)
    size = "x".join(map(str, data.image_shape))
    counts = f"{len(data.train.labels):,} images to train with, {len(data.test.labels):,} to test with"
    make_console().print(f"{name}: {counts}, {size}, {data.num_classes} classes")
