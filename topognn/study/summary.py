"""An analysis in one table and a few sentences."""

from __future__ import annotations

from typing import Any

import pandas as pd

from topognn.study.analysis import Analysis
from topognn.study.prediction import SCHEMES

MEANINGS = {
    "MGE16": "16 topometrics of the MGE",
    "MGE13": "those of the mask alone",
    "MGE10": "those that bipartite encodings have too",
    "BGE-R10": "the same ten, layer means of rolled BGEs",
    "BGE-RC10": "the same ten, layer means of rolled-channel BGEs",
    "RAM3": "layer means of Ramanujan metrics",
    "DENS1": "mean layer density",
    "DENS3": "layer and global density",
    "FLOPS2": "edges, which are multiply-accumulates",
    "BEYOND5": "effective density, paths, conductance ...",
    "SPARSITY": "no graph: sparsity alone",
    "ALGORITHM": "no graph: which algorithm",
    "ELSEWHERE": "no graph: the algorithm's mean elsewhere",
    "CEILING": "one seed against the others",
}


def summarise(analysis: Analysis) -> Any:
    """Return a row a set of features: adjusted R2, skill, tau, each a mean over groups or cells, nulls beside them.

    What does not apply to a set is missing (NaN).
    """

    def pick(table: Any, value: str, **where: str) -> Any:
        if not len(table):
            return pd.Series(dtype=float)
        chosen = table[(table["model"] == "all")]
        for column, wanted in where.items():
            chosen = chosen[chosen[column] == wanted]
        return chosen.set_index("features")[value]

    columns = {
        "pooled": pick(analysis.regression, "adjusted_r2", kind="pooled"),
        "within": pick(analysis.regression, "adjusted_r2", kind="within"),
        "within_null_95": pick(analysis.regression, "null_95", kind="within"),
        **{f"skill_{s}": pick(analysis.prediction, "skill", scheme=s) for s in SCHEMES},
        "tau": pick(analysis.ranking, "tau"),
        "tau_null_95": pick(analysis.ranking, "null_95"),
        "rbo": pick(analysis.ranking, "rbo"),
    }
    known = {name for column in columns.values() for name in column.index}
    names = [name for name in MEANINGS if name in known]
    table = pd.DataFrame({title: column.reindex(names) for title, column in columns.items()}, index=names)
    table = table.dropna(how="all")
    return table.assign(meaning=[MEANINGS[name] for name in table.index]).rename_axis("features").reset_index()


def describe(analysis: Analysis) -> list[str]:
    """Return what the results say, in sentences made from their numbers."""
    graphs = list(analysis.sets)
    lines = []
    within = analysis.regression.query("model == 'all' and kind == 'within' and features in @graphs")
    best = within.loc[within["adjusted_r2"].idxmax()]
    lines.append(
        f"At equal sparsity, {best['features']} explains most of the loss in accuracy: adjusted R2 "
        f"{best['adjusted_r2']:.3f} (95 % interval {best['low']:.3f} to {best['high']:.3f}); with the algorithms' "
        f"names permuted the same columns reach {best['null_mean']:.3f} on average."
    )
    ranking = analysis.ranking
    if len(ranking):
        ranking = ranking.query("model == 'all'").set_index("features")
        ranking = ranking[ranking["tau"].notna()]
    if ranked := [name for name in graphs if name in ranking.index]:
        first = ranking.loc[ranked, "tau"].idxmax()
        top = ranking.loc[first]
        line = f"{first} ranks algorithms best, Kendall's tau {top['tau']:.3f} ({top['low']:.3f} to {top['high']:.3f})"
        if "ELSEWHERE" in ranking.index:
            plain = ranking.loc["ELSEWHERE", "tau"]
            better = "more" if top["low"] > plain else "less" if top["high"] < plain else "no more and no less for sure"
            line += f": {better} than the algorithm's mean elsewhere, which needs no graph, {plain:.3f}"
        if "CEILING" in ranking.index:
            line += f"; one seed against the others reaches {ranking.loc['CEILING', 'tau']:.3f}"
        lines.append(f"{line}.")
    if "algorithm" in set(analysis.prediction.get("scheme", ())):
        unseen = analysis.prediction.query("model == 'all' and scheme == 'algorithm' and features in @graphs")
        first = unseen.loc[unseen["skill"].idxmax()]
        if first["low"] > 0:
            verdict = f"{first['features']} predicts an algorithm that was not seen better than sparsity does"
        elif first["skill"] > 0:
            verdict = f"whether {first['features']} predicts an algorithm that was not seen is open"
        else:
            verdict = "no set of features predicts an algorithm that was not seen: sparsity alone does better"
        interval = f"{first['low']:.3f} to {first['high']:.3f}"
        lines.append(f"{verdict[0].upper()}{verdict[1:]} (best skill {first['skill']:.3f}, {interval}).")
    return lines
