"""What topometrics came to: plain numbers by name, read from the device at one host sync."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor

from topognn.errors import UnknownNameError, unknown_name
from topognn.kernels.host import read
from topognn.memory import format_bytes
from topognn.metrics.registry import METRICS


class Topometrics(Mapping[str, float]):
    """Topometrics by name. Values stay on the device until one of them is read; then all are, at once.

    Besides a graph's metrics it has ``nodes`` and ``edges``.

    Attributes:
        tensor: The values; float64 ``(metrics,)``.
        left_out: Topometrics that did not fit in memory, with the bytes that each needs beyond what was held; and
            ``edges``, if to combine parallel ones did not.
        not_found: Topometrics whose search did not converge, with what was reached.
    """

    def __init__(
        self,
        names: Iterable[str],
        values: Tensor,
        num_nodes: int,
        num_edges: int | None,
        left_out: Mapping[str, int] | None = None,
        not_found: Mapping[str, str] | None = None,
    ) -> None:
        self._names = tuple(names)
        self.tensor = values
        self.left_out = dict(left_out or {})
        self.not_found = dict(not_found or {})
        self._sizes = {"nodes": num_nodes} | ({} if num_edges is None else {"edges": num_edges})
        self._numbers: dict[str, float] | None = None

    def __getitem__(self, name: str) -> float:
        """Return a raw value; reading the first one makes the host sync."""
        if name in self.left_out:
            raise UnknownNameError(
                f"{name} was left out: it needs {format_bytes(self.left_out[name])}, more than was free"
            )
        if name in self.not_found:
            raise UnknownNameError(f"{name} was not found: {self.not_found[name]}")
        if name not in self._sizes and name not in self._names:
            raise unknown_name("metric", name, self)
        if name in self._sizes:
            return self._sizes[name]
        if self._numbers is None:
            numbers = zip(self._names, read(self.tensor), strict=True)
            self._numbers = {n: int(v) if METRICS[n].is_count else v for n, v in numbers}
        return self._numbers[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over names: ``nodes``, ``edges``, then the metrics."""
        return iter((*self._sizes, *self._names))

    def __len__(self) -> int:
        """Return the number of values."""
        return len(self._sizes) + len(self._names)

    def normalized(self) -> dict[str, float]:
        """Return the values that the paper's released tables have, under their column names.

        Most are divided by the number of nodes or of edges; NaN where the graph has no edge to divide by.
        """
        return {METRICS[name].column: self._normalized(name) for name in self._names if METRICS[name].column}

    def _normalized(self, name: str) -> float:
        per = METRICS[name].per
        if not METRICS[name].column or (per and not self._sizes.get(per)):
            return math.nan
        return self[name] / self._sizes[per] if per else self[name]

    def to_dict(self, prefix: str = "") -> dict[str, float]:
        """Return raw values by name, each name with ``prefix``, as loggers want them.

        >>> import topognn
        >>> topognn.topometrics(topognn.example_graph(), ["sink_nodes"]).to_dict(prefix="topo/")
        {'topo/nodes': 19, 'topo/edges': 13, 'topo/sink_nodes': 1}
        """
        return {prefix + name: self[name] for name in self}

    def to_frame(self) -> Any:
        """Return a pandas DataFrame, one row a metric: group, raw value, published column, normalised value."""
        try:
            import pandas as pd
        except ImportError:
            raise ImportError("to_frame() needs pandas: pip install 'topognn[study]'") from None
        rows = [
            (name, METRICS[name].group, self[name], METRICS[name].column, self._normalized(name))
            for name in self._names
        ]
        return pd.DataFrame(rows, columns=["metric", "group", "value", "column", "normalized"]).set_index("metric")

    def to_json(self, indent: int | None = 2) -> str:
        """Return raw and normalised values as JSON; a value that is not defined is null."""
        normalized = {k: None if math.isnan(v) else v for k, v in self.normalized().items()}
        return json.dumps({"raw": self.to_dict(), "normalized": normalized}, indent=indent)

    def __repr__(self) -> str:
        return f"Topometrics({', '.join(f'{name}={value:g}' for name, value in self.items())})"
