"""What commands write besides tables: the files of `--json` and `--csv`, and warnings."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from topognn.cli.sources import ArgumentError
from topognn.files import check_writable, write_text


class Writable(Protocol):
    """What can be written."""

    def to_json(self) -> str:
        """Return it as JSON."""

    def to_csv(self) -> str:
        """Return it as CSV."""


def check_files(json: str | None, csv: str | None) -> None:
    """Refuse, before anything slow, files that cannot be written.

    Raises:
        ArgumentError: Both are to go to stdout, or a folder is missing.
    """
    if json == csv == "-":
        raise ArgumentError("--json - and --csv - cannot both have stdout: give one of them a file.")
    for path in (json, csv):
        if path is not None and path != "-":
            check_writable(path)


def write_files(outcome: Writable, json: str | None, csv: str | None) -> bool:
    """Write what was asked for, ``-`` to stdout; tell whether stdout is taken."""
    for path, to_text in ((json, outcome.to_json), (csv, outcome.to_csv)):
        if path == "-":
            sys.stdout.write(to_text())
        elif path is not None:
            write_text(path, to_text())
    return "-" in (json, csv)


@contextmanager
def quiet_warnings(debug: bool) -> Iterator[None]:
    """Print our warnings as one line each on stderr, and nothing that the libraries beneath warn of."""

    def show(message: Warning | str, *place: Any, **more: Any) -> None:
        print(f"warning: {' '.join(str(message).split())}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.simplefilter("default" if debug else "ignore")
        warnings.filterwarnings("always", category=UserWarning, module=r"topognn\.")
        warnings.showwarning = show
        yield
