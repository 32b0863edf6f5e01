"""What a monitor has measured, step by step."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from topognn.errors import unknown_name
from topognn.kernels.host import read
from topognn.metrics.registry import METRICS
from topognn.results import Topometrics

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class History(Sequence[Topometrics]):
    """Topometrics in the order in which they were measured; on the device until they are read.

    Attributes:
        steps: The step of each.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self.steps: list[int] = []
        self._values: list[Topometrics] = []

    def append(self, step: int, values: Topometrics) -> None:
        """Put a measurement at the end."""
        self.steps.append(step)
        self._values.append(values)

    def extend(self, columns: Mapping[str, Sequence[float]]) -> None:
        """Put measurements at the end that :meth:`to_dict` gave, for a training that goes on, of other metrics too."""
        names = [name for name in columns if name in METRICS]
        rows = zip(*(columns[name] for name in ("step", "nodes", "edges", *names)), strict=True)
        for step, nodes, edges, *numbers in rows:
            values = torch.tensor(numbers, dtype=torch.float64)
            self.append(int(step), Topometrics(names, values, int(nodes), int(edges)))

    def __getitem__(self, index: Any) -> Any:
        return self._values[index]

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[Topometrics]:
        return iter(self._values)

    def to_dict(self) -> dict[str, list[float]]:
        """Return lists of numbers by name: ``step``, ``nodes``, ``edges`` and the metrics (one host sync).

        Where a training has gone on with other metrics, those that were not asked for at a step are NaN there.

        >>> from topognn import example_graph, topometrics
        >>> history = History(["sink_nodes"])
        >>> history.append(3, topometrics(example_graph(), ["sink_nodes"]))
        >>> history.to_dict()
        {'step': [3], 'nodes': [19], 'edges': [13], 'sink_nodes': [1]}
        """
        columns: dict[str, list[float]] = {"step": list(self.steps)}
        for size in ("nodes", "edges"):
            columns[size] = [values[size] for values in self._values]
        flat: list[float] = []
        if self._values:
            device = self._values[-1].tensor.device
            flat = read(torch.cat([values.tensor.to(device) for values in self._values]))
        numbers = iter(flat)
        rows = [{name: next(numbers) for name in names} for names in map(_find_names, self._values)]
        for name in dict.fromkeys(itertools.chain(self.names, *rows)):
            column = [row.get(name, math.nan) for row in rows]
            is_count = METRICS[name].is_count
            columns[name] = [int(value) if is_count and value == value else value for value in column]
        return columns

    def to_frame(self) -> Any:
        """Return a pandas DataFrame: a row a measurement with the step as its index, a column a metric."""
        try:
            import pandas as pd
        except ImportError:
            raise ImportError("to_frame() needs pandas: pip install 'topognn[study]'") from None
        return pd.DataFrame(self.to_dict()).set_index("step")

    def plot(self, metrics: Sequence[str] | None = None) -> Figure:
        """Return a matplotlib figure with a small diagram a metric over the steps; ``figure.savefig(path)`` writes it.

        Raises:
            UnknownNameError: A metric was not measured.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError:
            raise ImportError("plot() needs matplotlib: pip install 'topognn[study]'") from None
        columns = self.to_dict()
        names = list(self.names if metrics is None else metrics)
        for name in names:
            if name not in columns:
                raise unknown_name("metric", name, columns)
        across = min(3, max(1, len(names)))
        down = -(-len(names) // across)
        figure = Figure(figsize=(4 * across, 2.6 * down), layout="constrained")
        for place, name in enumerate(names):
            axes = figure.add_subplot(down, across, place + 1)
            axes.plot(columns["step"], columns[name], marker=".")
            axes.set_title(name.replace("_", " "), fontsize="medium")
            axes.set_xlabel("step")
        return figure


def _find_names(values: Topometrics) -> list[str]:
    return [name for name in values if name in METRICS]
