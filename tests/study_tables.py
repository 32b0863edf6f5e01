"""Small tables of made-up networks whose truth is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from topognn.study.columns import MGE
from topognn.study.tables import check_table

ALGORITHMS = ("er", "erk", "grasp", "prospr", "snip", "synflow", "uniform")
SPARSITIES = (0.6, 0.8, 0.9, 0.95, 0.98)


def make_table(
    seed: int = 0,
    signal: float = 1.0,
    models: tuple[str, ...] = ("conv6", "resnet20"),
    datasets: tuple[str, ...] = ("a", "b", "c"),
    features: tuple[str, ...] = tuple(MGE),
) -> Any:
    """Return networks whose accuracy falls with sparsity, and with ``signal`` times one topometric of theirs."""
    rng = np.random.default_rng(seed)
    rows = []
    for model in models:
        for dataset in datasets:
            for algorithm in ALGORITHMS:
                for sparsity in SPARSITIES:
                    offset = rng.normal()
                    for number in range(3):
                        row = {"model": model, "dataset": dataset, "pruning": algorithm, "sparsity": sparsity}
                        values = rng.normal(size=len(features)) + offset
                        row |= {"seed": number, **dict(zip(features, values, strict=True))}
                        accuracy = 0.9 - 0.3 * sparsity**4 - 0.02 * signal * values[0] + 0.005 * rng.normal()
                        row |= {"accuracy": float(np.clip(accuracy, 0.01, 1)), "nodes": 1000}
                        row["edges"] = int(1e6 * (1 - sparsity)) + int(rng.integers(1000))
                        rows.append(row)
    return check_table(pd.DataFrame(rows))
