"""What single topometrics tell of an algorithm that was never seen, and of a seed; on all 270 networks.

    python benchmarks/studies/fashion_mnist/alone.py [--permutations 1000]

Prints, and writes to alone.csv beside it, the skill of ridge regression on one metric against sparsity alone, mean over
the two architectures: with a bootstrap interval, and the 95th percentile under permuted names of algorithms.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from topognn.files import replacing
from topognn.study.columns import BEYOND, MGE, RAMANUJAN
from topognn.study.prediction import predict
from topognn.study.tables import read_table, select_complete

HERE = Path(__file__).parent
SCHEMES = ["algorithm", "seed"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--permutations", type=int, default=1000)
    options = parser.parse_args()
    # Ramanujan metrics are undefined where no layer is dense enough: without them, every network takes part.
    rows = select_complete(read_table(HERE / "networks.parquet").drop(columns=RAMANUJAN))
    found, _ = predict(rows, {metric: [metric] for metric in [*BEYOND, *MGE]}, options.permutations)
    found = found[(found["model"] == "all") & found["scheme"].isin(SCHEMES)].drop(columns=["model", "dataset"])
    columns = [f"{scheme}: {text}" for scheme in SCHEMES for text in ("skill", "interval", "null 95")]
    table = Table("metric", *columns, title=f"skill on what was not seen, {len(rows)} networks")
    for metric, skills in found.groupby("features", sort=False):
        cells = [
            (f"{r.skill:.3f}", f"{r.low:.3f} to {r.high:.3f}", f"{r.null_95:.3f}")
            for r in skills.set_index("scheme").loc[SCHEMES].itertuples()
        ]
        table.add_row(str(metric), *(text for cell in cells for text in cell))
    Console().print(table)
    with replacing(HERE / "alone.csv") as path:
        found.to_csv(path, index=False, float_format="%.6g")


if __name__ == "__main__":
    main()
