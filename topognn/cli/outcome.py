"""What `topognn report` is asked for, and what came of it, as JSON and CSV."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from topognn.baselines.summary import Baseline
    from topognn.graph_tables import LayerRow, TroubleRow
    from topognn.results import Topometrics


@dataclasses.dataclass(frozen=True)
class Request:
    """The arguments of `topognn report`; see its help."""

    model: str
    pruner: str | None = None
    sparsity: float | None = None
    seed: int = 0
    checkpoint: str | None = None
    masks: str | None = None
    input: str | None = None
    classes: int | None = None
    metrics: str | None = None
    shortcuts: str = "parametric"
    attention: str = "all"
    device: str | None = None
    layers: bool = False
    where: bool = False
    baselines: bool = False
    memory: str | None = None


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a request.

    Attributes:
        origin: Where the masks are from, in words.
        kept, weights: Number of kept and of all prunable weights.
        layers: The table of layers, if that was asked for.
        trouble: Where the trouble sits, if that was asked for.
        baselines: Means of the layers' own metrics, if they were asked for.
        refused: What was asked for and did not fit in memory (``layers``, ``where``), with what was wrong.
        seconds: Wall time of each phase.
        peak_bytes: Most memory held: by torch on a GPU, by the process on the CPU.
    """

    request: Request
    input_shape: tuple[int, ...]
    origin: str
    kept: int
    weights: int
    device: str
    topometrics: Topometrics
    layers: list[LayerRow] | None
    trouble: list[TroubleRow] | None
    baselines: list[Baseline] | None
    refused: dict[str, str]
    seconds: dict[str, float]
    peak_bytes: int

    @property
    def sparsity(self) -> float:
        """The sparsity reached, over all prunable weights."""
        return 1 - self.kept / self.weights if self.weights else 0.0

    def rows(self) -> Iterator[tuple[str, str, float | None, str, float]]:
        """Return a row a metric: name, group, raw value (None: left out, not found), published column, normalised."""
        from topognn.metrics.registry import METRICS

        normalized = self.topometrics.normalized()
        missing = self.topometrics.left_out.keys() | self.topometrics.not_found.keys()
        for name in METRICS if missing else self.topometrics:  # by default, in their own order
            if name in METRICS and (name in self.topometrics or name in missing):
                column, value = METRICS[name].column, self.topometrics.get(name)
                yield name, METRICS[name].group, value, column, normalized.get(column, math.nan)

    def to_json(self) -> str:
        """Return everything as JSON; what is not defined is null."""
        values = json.loads(self.topometrics.to_json())
        content = {
            "model": self.request.model,
            "arguments": dataclasses.asdict(self.request),
            "input_shape": self.input_shape,
            "device": self.device,
            "sparsity": self.sparsity,
            "kept_weights": self.kept,
            "weights": self.weights,
            **values,
            "left_out": self.topometrics.left_out,
            "not_found": self.topometrics.not_found,
            "layers": _to_dicts(self.layers),
            "where": _to_dicts(self.trouble),
            "refused": self.refused,
            "baselines": _to_dicts(self.baselines),
            "seconds": self.seconds,
            "peak_bytes": self.peak_bytes,
        }
        return json.dumps(_without_nan(content), indent=2, allow_nan=False) + "\n"

    def to_csv(self) -> str:
        """Return a row a metric, first the numbers of nodes and edges, last the baselines, ``ENCODING:NAME``."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(("metric", "group", "value", "column", "normalized"))
        writer.writerows((name, "size", self.topometrics.get(name), "", "") for name in ("nodes", "edges"))
        writer.writerows(_without_nan(list(row)) for row in self.rows())
        for row in self.baselines or ():
            writer.writerow((f"{row.encoding}:{row.name}", row.group, row.mean, row.column, ""))
        return out.getvalue()


def _to_dicts(rows: Sequence[LayerRow | TroubleRow | Baseline] | None) -> list[dict[str, Any]] | None:
    return None if rows is None else [row._asdict() for row in rows]


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
