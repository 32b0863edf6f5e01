"""Libraries against each other on one graph: equal results first, then times, then a table."""

from __future__ import annotations

import argparse
import os
import statistics
import time
from pathlib import Path
from typing import Any

# Before any of them is imported, torch included.
os.environ["OMP_WAIT_POLICY"] = "passive"  # the libraries' idle threads must not take the other's core

import numpy as np
from graphs import GRAPHS
from libraries import DOORS, Contestant
from machine import THREADS, is_installed, use_threads, write
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

Operations = dict[str, list[Contestant]]  # what is asked, and who is

LARGE = 60_000_000  # edges from which on peers that need tens of bytes an edge are left out


def timed(contestant: Contestant, given: Any, repeats: int) -> list[float]:
    seconds = []
    for _ in range(repeats):
        contestant.before(given)
        start = time.perf_counter()
        contestant.run(given)
        seconds.append(time.perf_counter() - start)
    return seconds


def measure(name: str, operations: Operations, repeats: int) -> list[dict[str, Any]]:
    """One record for each operation and contestant on a graph; raises where results differ."""
    graph = GRAPHS[name]()
    libraries = {c.library for contestants in operations.values() for c in contestants}
    known = [lib for lib in DOORS if lib in libraries and is_installed(lib)]
    if graph.num_edges > LARGE:
        known = [lib for lib in known if lib in ("topognn", "scipy")]
    records: list[dict[str, Any]] = []
    given, conversion = {}, {}
    for library in known:
        start = time.perf_counter()
        given[library] = DOORS[library](graph)
        conversion[library] = time.perf_counter() - start
    for operation, contestants in operations.items():
        reference: NDArray[Any] | None = None
        for contestant in contestants:
            if contestant.library not in given:
                continue
            mine = given[contestant.library]
            result = contestant.canonical(contestant.run(mine))  # the warm-up too
            if reference is None:
                reference = result
            elif not np.array_equal(result, reference):
                raise AssertionError(f"{operation} on {name}: {contestant.library} differs from topognn")
            seconds = timed(contestant, mine, repeats)
            records.append(
                {
                    "graph": name,
                    "nodes": graph.num_nodes,
                    "edges": graph.num_edges,
                    "operation": operation,
                    "library": contestant.library,
                    "minimum": min(seconds),
                    "median": statistics.median(seconds),
                    "conversion": conversion[contestant.library],
                }
            )
    return records


def table_of(records: list[dict[str, Any]]) -> Table:
    columns = ("graph and operation", "library", "best ms", "median ms", "to convert ms", "times ours")
    table = Table(*columns, title=f"wall time, {THREADS} threads, the same CSR, equal results")
    for column in table.columns[2:]:
        column.justify = "right"
    for record in records:
        same = [r for r in records if all(r[key] == record[key] for key in ("graph", "operation"))]
        is_ours = record is same[0]
        ratio = "" if is_ours else f"{record['minimum'] / same[0]['minimum']:.1f}"
        title = f"{record['graph']}: {record['operation']}" if is_ours else ""
        numbers = (f"{1e3 * record[key]:.1f}" for key in ("minimum", "median", "conversion"))
        table.add_row(title, record["library"], *numbers, ratio, end_section=record is same[-1])
    return table


def main(description: str | None, operations: Operations) -> list[str]:
    """Measure what the command line asks for; return the graphs that it asked for."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=GRAPHS, default=list(GRAPHS), metavar="GRAPH")
    parser.add_argument("--operations", nargs="+", choices=operations, default=list(operations), metavar="NAME")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    use_threads()
    chosen = {name: operations[name] for name in options.operations}
    records: list[dict[str, Any]] = []
    for name in track(options.only, "graphs", console=Console(stderr=True), transient=True):
        records += measure(name, chosen, options.repeats)
        if options.out:
            write(options.out, records)
    Console().print(table_of(records))
    graphs: list[str] = options.only
    return graphs
