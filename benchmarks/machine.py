"""What all benchmarks have in common: how many threads, and results written down with where they were measured."""

from __future__ import annotations

import importlib.util
import json
import os
import platform
from pathlib import Path
from typing import Any

import torch

import topognn

THREADS = 2
LIBRARIES = ("topognn", "torch", "numpy", "scipy", "igraph", "networkit", "graph_tool")


def use_threads() -> None:
    """Let torch and topognn have so many."""
    torch.set_num_threads(THREADS)
    topognn.set_num_threads(THREADS)


def is_installed(library: str) -> bool:
    """Tell whether a library can be imported: graph-tool, a Debian package, may be built for another NumPy."""
    if importlib.util.find_spec(library) is None:
        return False
    try:
        importlib.import_module(library)
    except (ImportError, AttributeError):
        return False
    return True


def write(path: Path, records: list[dict[str, Any]], more: dict[str, Any] | None = None) -> None:
    """Write results and where they were measured, with ``more`` about that, all or nothing."""
    versions = {lib: str(importlib.import_module(lib).__version__) for lib in LIBRARIES if is_installed(lib)}
    where = {"machine": platform.machine(), "cores": os.cpu_count(), "threads": THREADS, "versions": versions}
    part = path.with_suffix(".part")
    part.write_text(json.dumps({"where": where | (more or {}), "records": records}, indent=1))
    os.replace(part, path)
