"""What `topognn report --plan` does: which topometrics by which route, at what cost, and nothing of it done."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from topognn.cli.display import make_console, new_table
from topognn.cli.measuring import Status, describe_origin, parse_bytes, pick_metrics, prepare
from topognn.cli.outcome import Request

if TYPE_CHECKING:
    from topognn.planning import Plan


@dataclasses.dataclass(frozen=True)
class Foresight:
    """What a report would take."""

    request: Request
    input_shape: tuple[int, ...]
    origin: str
    plan: Plan

    def to_json(self) -> str:
        """Return everything as JSON."""
        content = {
            "model": self.request.model,
            "arguments": dataclasses.asdict(self.request),
            "input_shape": self.input_shape,
            **self.plan.to_dict(),
        }
        return json.dumps(content, indent=2) + "\n"

    def to_csv(self) -> str:
        """Return a row a topometric; those that are found together have the same bytes and seconds."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(("metric", "route", "bytes", "seconds", "fits"))
        for step in self.plan.steps:
            writer.writerows((name, step.route, step.bytes, step.seconds, step.fits) for name in step.metrics)
        return out.getvalue()


def foresee(request: Request, status: Status = contextlib.nullcontext) -> Foresight:
    """Build, trace, prune and encode the model of a request, and tell what its topometrics would take.

    Raises:
        TopognnError: See :func:`topognn.cli.measuring.measure`.

    >>> [step.route for step in foresee(Request("conv6", metrics="strength,k_core")).plan.steps]
    ['masks', 'rows']
    """
    from topognn.memory import memory_limit
    from topognn.metrics.registry import METRICS
    from topognn.planning import plan

    limit = parse_bytes(request.memory)
    prepared = prepare(request, status)
    with memory_limit(limit):
        found = plan(prepared.graph, pick_metrics(request.metrics, METRICS))
    return Foresight(request, prepared.input_shape, describe_origin(request), found)


def show_plan(found: Foresight) -> None:
    """Print a plan: what it is of, a row for topometrics that are found together, what there is and what it takes."""
    from topognn.memory import format_bytes

    console, plan = make_console(), found.plan
    size = "x".join(map(str, found.input_shape))
    head = f"{found.request.model}, input {size}, {found.origin}, {plan.nodes:,} nodes, {plan.edges:,} edges"
    console.print(Text(f"{head}, on {plan.device}"))
    console.print()
    console.print(plan_table(plan), soft_wrap=False)
    console.print()
    free = "an unknown amount" if plan.free is None else format_bytes(plan.free)
    last = f"{format_bytes(plan.held)} are held and {free} free; what fits takes up to {format_bytes(plan.bytes)} more"
    console.print(Text(f"{last} and about {plan.seconds:.3g} s"))


def plan_table(plan: Plan) -> Table:
    """Return a row for topometrics that are found together: their names, route, bytes and seconds."""
    from topognn.memory import format_bytes

    table = new_table("metrics", "route", "memory", "about", "", right=("memory", "about"))
    for step in plan.steps:
        note = "" if step.fits else "beyond memory"
        table.add_row(", ".join(step.metrics), step.route, format_bytes(step.bytes), f"{step.seconds:.2g} s", note)
    return table
