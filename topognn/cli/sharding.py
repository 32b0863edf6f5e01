"""What `topognn layers --checkpoint` does without a model: shards, a layer at a time."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from topognn.cli.layer_tables import format_value, join_tables, show_table, tables_to_json
from topognn.cli.writing import write_files

if TYPE_CHECKING:
    from rich.console import Console

    from topognn.shards.measuring import CheckpointTables
    from topognn.shards.planning import CheckpointPlan

# What the table shows, and its title there; the files have all.
SHOWN = {
    "density": "density",
    "isolated_left": "idle in",
    "isolated_right": "idle out",
    "d_l": "d_l",
    "d_r": "d_r",
    "delta_r": "delta_r",
    "imdb": "imdb",
    "spectral_gap": "gap",
    "iterative_spectral_gap": "class gap",
}
_NAMED = 3  # tensors of those left out for one reason that are named


@dataclasses.dataclass(frozen=True)
class ShardRequest:
    """The arguments of `topognn layers --checkpoint` without a model; see its help."""

    checkpoint: str
    encoding: str = "rolled"
    masks: str | None = None
    layers: str | None = None
    skip: str | None = None
    metrics: str | None = None
    out: str | None = None
    device: str | None = None


class ShardOutcome(NamedTuple):
    """What came of it.

    Attributes:
        seconds: Wall time of measuring.
        peak_bytes: Most memory held: by torch on a GPU, by the process on the CPU.
    """

    request: ShardRequest
    found: CheckpointTables
    seconds: float
    peak_bytes: int

    def to_json(self) -> str:
        """Return the summary and all tables as JSON; what is not defined is null."""
        from topognn.shards.measuring import TEXTS

        content: dict[str, Any] = {"checkpoint": self.request.checkpoint, "arguments": dataclasses.asdict(self.request)}
        content |= {"summary": self.found.summary, "left_out": dict(self.found.plan.left_out)}
        content |= {"seconds": self.seconds, "peak_bytes": self.peak_bytes}
        content["tensors"] = [{name: row[name] for name in TEXTS} for row in self.found.rows]
        content |= tables_to_json(self.found.tables)
        return json.dumps(content, indent=2, allow_nan=False) + "\n"

    def to_csv(self) -> str:
        """Return a row a layer: in words, our columns, then those of the released tables that are no column of ours."""
        from topognn.shards.measuring import TEXTS

        joined = join_tables(self.found.kind, self.found.tables)
        out = io.StringIO()
        writer = csv.DictWriter(out, [*TEXTS, *joined.columns], lineterminator="\n")
        writer.writeheader()
        writer.writerows({**{name: row[name] for name in TEXTS}, **joined[row["layer"]]} for row in self.found.rows)
        return out.getvalue()


def run_shards(request: ShardRequest, json: str | None, csv: str | None) -> None:
    """Show what will be measured, measure it, and show or write what came of it.

    Raises:
        TopognnError: See :func:`topognn.measure_checkpoint`.
    """
    from topognn.baselines.layers import LAYER_METRICS
    from topognn.cli.display import make_console, make_progress, make_status
    from topognn.cli.measuring import get_peak_bytes, pick_device, pick_metrics
    from topognn.shards.measuring import measure_plan
    from topognn.shards.planning import plan_checkpoint

    metrics = LAYER_METRICS if request.metrics == "all" else pick_metrics(request.metrics, LAYER_METRICS)
    device = pick_device(request.device)
    console = make_console(stderr="-" in (json, csv))
    with make_status()(f"reading headers of {request.checkpoint}"):
        patterns = {name: _split(getattr(request, name)) for name in ("layers", "skip")}
        plan = plan_checkpoint(request.checkpoint, masks=request.masks, **patterns)
    _show_plan(console, request, plan)
    progress, task = make_progress(console, "layers", len(plan.layers))
    kind: Any = request.encoding
    started = time.perf_counter()
    with progress:
        found = measure_plan(
            *(plan, kind),
            metrics=metrics,
            out=request.out,
            device=device,
            show=lambda layer: progress.update(task, advance=1, description=layer.name),
        )
    outcome = ShardOutcome(request, found, time.perf_counter() - started, get_peak_bytes(device))
    if not write_files(outcome, json, csv):
        _show(console, outcome)


def _split(text: str | None) -> list[str]:
    return [pattern.strip() for pattern in text.split(",")] if text else []


def _show_plan(console: Console, request: ShardRequest, plan: CheckpointPlan) -> None:
    """Print which layers will be measured, those of one name but for numbers together, and what is left out."""
    from rich.text import Text

    from topognn.cli.display import new_table
    from topognn.shards.measuring import estimate_bytes

    alike = Counter(
        (re.sub(r"\d+", "*", layer.name), "x".join(map(str, layer.shape)), layer.main.dtype, layer.form)
        for layer in plan.layers
    )
    table = new_table("layers", "number", "shape", "dtype", "form", right=("number",))
    for (name, shape, dtype, form), count in alike.items():
        table.add_row(Text(name), str(count), shape, dtype, form)
    most = max(map(estimate_bytes, plan.layers)) / 2**20
    files = f"{len(plan.files)} file{'s' if len(plan.files) > 1 else ''}"
    console.print(Text(f"{request.checkpoint}: {len(plan.layers)} layers in {files}, {request.encoding}"))
    console.print()
    console.print(table, soft_wrap=False)
    for reason, count in Counter(plan.left_out.values()).items():
        names = [name for name, why in plan.left_out.items() if why == reason][:_NAMED]
        console.print(Text(f"left out, {reason}: {', '.join(names)}{', ...' if count > _NAMED else ''} ({count})"))
    console.print(Text(f"one layer at a time: at most {most:,.0f} MiB beside the program's own"))
    console.print()


def _show(console: Console, outcome: ShardOutcome) -> None:
    """Print a row a layer, their means, and the network in a few numbers."""
    from rich.text import Text

    found = outcome.found
    show_table(console, join_tables(found.kind, found.tables), SHOWN)
    summary = found.summary
    numbers = (f"{name.replace('_', ' ')} {format_value(value)}" for name, value in summary.items())
    console.print(Text(f"network: {', '.join(numbers)}"))
    if outcome.request.out is not None:
        console.print(Text(f"rows are in {outcome.request.out}, together in layers.parquet"))
    console.print(Text(f"{outcome.seconds:.1f} s; peak memory {outcome.peak_bytes / 2**30:.2f} GiB"))
