"""A table of layers: a row of numbers for each, and their means over the network."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Value = int | float | bool | None
Row = Mapping[str, Value]


class LayerTable(Mapping[str, Row]):
    """Numbers of each layer by the layer's path. What is not defined for a layer is None, never 0 or infinite.

    Attributes:
        kind: The bipartite encoding that the numbers are of.
        columns: Names of the numbers.
        published_names: Column of the released tables -> the column here that it is.
        index: What the column of layers is called in files and frames.
    """

    def __init__(
        self,
        kind: str,
        rows: Mapping[str, Row],
        columns: Sequence[str],
        published: Mapping[str, str] | None = None,
        index: str = "layer",
    ) -> None:
        """Take ``published`` for which released column is which of ours."""
        self.kind = kind
        self.columns = tuple(columns)
        self.index = index
        self._rows = dict(rows)
        self.published_names = {theirs: ours for theirs, ours in (published or {}).items() if ours in columns}

    def __getitem__(self, layer: str) -> Row:
        """Return a layer's numbers by name."""
        return self._rows[layer]

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def published(self) -> LayerTable:
        """The same numbers under the released tables' names, to be joined by ``layer_name``."""
        rows = {
            layer: {theirs: row[ours] for theirs, ours in self.published_names.items()} for layer, row in self.items()
        }
        return LayerTable(self.kind, rows, list(self.published_names), index="layer_name")

    @property
    def means(self) -> dict[str, float | None]:
        """The mean of each column over the layers where it is defined; of a yes or no, the fraction of yes.

        None where it is defined for no layer.
        """
        columns = {name: [float(v) for v in self._column(name) if v is not None] for name in self.columns}
        return {name: math.fsum(values) / len(values) if values else None for name, values in columns.items()}

    @property
    def undefined(self) -> dict[str, int]:
        """The number of layers for which a column is not defined."""
        return {name: sum(value is None for value in self._column(name)) for name in self.columns}

    def _column(self, name: str) -> list[Value]:
        return [row[name] for row in self._rows.values()]

    def to_dict(self) -> dict[str, Any]:
        """Return layers, means and counts of undefined values as plain numbers, ready for JSON."""
        layers = [{self.index: layer, **row} for layer, row in self.items()]
        return {"encoding": self.kind, "layers": layers, "means": self.means, "undefined": self.undefined}

    def to_csv(self) -> str:
        """Return the table as CSV, a row a layer; what is not defined is empty."""
        out = io.StringIO()
        writer = csv.DictWriter(out, [self.index, *self.columns], lineterminator="\n")
        writer.writeheader()
        writer.writerows({self.index: layer, **row} for layer, row in self.items())
        return out.getvalue()

    def to_frame(self) -> Any:
        """Return a pandas DataFrame, one row a layer."""
        try:
            import pandas as pd
        except ImportError:
            raise ImportError("to_frame() needs pandas: pip install 'topognn[study]'") from None
        rows = [list(row.values()) for row in self.values()]
        return pd.DataFrame(rows, index=pd.Index(list(self), name=self.index), columns=list(self.columns))

    def __repr__(self) -> str:
        return f"LayerTable({self.kind}, {len(self)} layers: {', '.join(self.columns)})"


def make_table(
    kind: str,
    layers: Sequence[str],
    columns: Mapping[str, Sequence[float]],
    types: Mapping[str, Any],
    published: Mapping[str, str],
) -> LayerTable:
    """Return the table of numbers of which NaN stands for what is not defined.

    ``types`` maps the names of columns that are no floats to ``int`` or ``bool``.
    """

    def convert(name: str, value: float) -> Value:
        converted: Value = None if math.isnan(value) else types.get(name, float)(value)
        return converted

    rows = {
        layer: {name: convert(name, values[number]) for name, values in columns.items()}
        for number, layer in enumerate(layers)
    }
    return LayerTable(kind, rows, list(columns), published)
