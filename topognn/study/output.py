"""The files of a study: results as CSV and JSON, and the report."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

from topognn.errors import TableError
from topognn.files import write_text
from topognn.study.analysis import Analysis, take_rows
from topognn.study.page import make_page
from topognn.study.summary import describe, summarise


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Return a folder to write to, made where it is missing; meant for before the long work.

    Raises:
        TableError: It is a file, or cannot be made.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TableError(f"cannot make the folder {str(path)!r}: {error.strerror}. Give another one.") from error
    return path


def write_study(analysis: Analysis, folder: str | os.PathLike[str], title: str) -> list[Path]:
    """Write ``summary``, every table of results and ``networks`` as CSV, ``study.json``, and ``report.html``.

    Returns:
        The files, each whole or not there at all.
    """
    folder = make_folder(folder)
    tables = {"summary": summarise(analysis), **analysis.tables()}
    texts = {f"{name}.csv": table.to_csv(index=False, lineterminator="\n") for name, table in tables.items()}
    texts["networks.csv"] = take_rows(analysis).to_csv(index=False, lineterminator="\n")
    content = {
        "title": title,
        "says": describe(analysis),
        "notes": analysis.notes,
        "features": analysis.sets,
        **{name: [_without_nan(row) for row in table.to_dict("records")] for name, table in tables.items()},
    }
    texts["study.json"] = json.dumps(content, indent=1, allow_nan=False) + "\n"
    texts["report.html"] = make_page(analysis, title)
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in texts]


def _without_nan(row: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
