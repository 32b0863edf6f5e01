"""The figures of a study, as SVG: narrow enough for a phone."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from topognn.study.analysis import Analysis
from topognn.study.prediction import SCHEMES

WIDTH = 4.4  # inches: what a phone shows without shrinking the text
STYLE = {
    "font.size": 8,
    "svg.fonttype": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 8,
    "axes.axisbelow": True,
}
BLUE, ORANGE, GREY = "#2b6cb0", "#c05621", "#9aa5b1"
SCATTERED = 600  # points of a scatter plot: more would make the page heavy and no clearer


def draw_figures(analysis: Analysis) -> dict[str, tuple[str, str]]:
    """Return title -> (SVG, description) of every figure that the analysis has results for."""
    figures: dict[str, tuple[Callable[[Analysis], Figure | None], str]] = {
        "Adjusted R2 by set of features": (
            _draw_r2,
            "Dots: mean over groups, with 95 % intervals. Vertical marks: 95 % quantile under permuted labels.",
        ),
        "Prediction of networks not seen": (
            _draw_skill,
            "Skill against sparsity alone; left of 0 the features mislead. Values below -1 stand at -1.",
        ),
        "Predicted and true drop in accuracy": (
            _draw_predictions,
            "Out-of-fold predictions of the first set of features, in percent of the best accuracy.",
        ),
        "Rank agreement": (
            _draw_ranks,
            "Kendall's tau between predicted and true order of algorithms. Vertical marks: 95 % quantile of the null.",
        ),
        "Importance by sparsity and architecture": (
            _draw_importance,
            "Correlation with the drop in accuracy at equal sparsity; a dot marks q < 0.05.",
        ),
        "Topometrics against sparsity": (
            _draw_curves,
            "Mean over data sets and seeds of one architecture, a line an algorithm.",
        ),
    }
    drawn = {}
    with matplotlib.rc_context(STYLE):
        for title, (draw, text) in figures.items():
            if (figure := draw(analysis)) is not None:
                drawn[title] = (_to_svg(figure, title), text)
    return drawn


def _to_svg(figure: Figure, title: str) -> str:
    out = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": title}):  # the same file every time
        figure.savefig(out, format="svg", metadata={"Date": None}, bbox_inches="tight")
    return out.getvalue()


def _draw_forest(panels: list[tuple[str, Any, str]], names: list[str], limits: tuple[float, float]) -> Figure:
    """Return dots with intervals and null marks, a row a set, a colour a panel."""
    figure = Figure(figsize=(WIDTH, 0.6 + 0.3 * len(names)))
    axes = figure.subplots()
    height = 0.3
    for k, (label, table, value) in enumerate(panels):
        offset = (k - (len(panels) - 1) / 2) * height
        colour = (BLUE, ORANGE, "#2f855a", "#6b46c1")[k]
        for y, name in enumerate(names):
            if name not in table.index:
                continue
            row = table.loc[name].clip(*limits)
            axes.plot([row["low"], row["high"]], [y + offset] * 2, color=colour, lw=1.2, alpha=0.6)
            axes.plot(row[value], y + offset, "o", ms=3.5, color=colour, label=label if y == 0 else None)
            axes.plot(row["null_95"], y + offset, "|", ms=7, color="black")
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlim(*limits)
    axes.axvline(0, color="black", lw=0.6)
    axes.grid(axis="x", color="#e2e8f0")
    if len(panels) > 1:
        axes.legend(loc="upper center", bbox_to_anchor=(0.4, 1.14), ncol=2, frameon=False)
    return figure


def _mean_rows(table: Any, **where: str) -> Any:
    chosen = table[table["model"] == "all"]
    for column, wanted in where.items():
        chosen = chosen[chosen[column] == wanted]
    return chosen.set_index("features").select_dtypes("number")


def _draw_r2(analysis: Analysis) -> Figure:
    panels = [(kind, _mean_rows(analysis.regression, kind=kind), "adjusted_r2") for kind in ("pooled", "within")]
    return _draw_forest(panels, [*analysis.sets, "SPARSITY", "ALGORITHM"], (-0.2, 1))


def _list_drawn(analysis: Analysis) -> list[str]:
    """Return the schemes of cross-validation that are drawn, of those that could be done."""
    return [scheme for scheme in ("random", "algorithm") if scheme in set(analysis.prediction["scheme"])]


def _draw_skill(analysis: Analysis) -> Figure | None:
    if not len(analysis.prediction):
        return None
    schemes = _list_drawn(analysis)
    panels = [(SCHEMES[scheme], _mean_rows(analysis.prediction, scheme=scheme), "skill") for scheme in schemes]
    return _draw_forest(panels, [*analysis.sets, "ALGORITHM"], (-1, 1))


def _draw_ranks(analysis: Analysis) -> Figure | None:
    if not len(analysis.ranking):
        return None
    names = [name for name in (*analysis.sets, "ELSEWHERE", "CEILING") if name in set(analysis.ranking["features"])]
    return _draw_forest([("tau", _mean_rows(analysis.ranking), "tau")], names, (-0.3, 1))


def _draw_predictions(analysis: Analysis) -> Figure | None:
    if not len(analysis.prediction):
        return None
    name = next(iter(analysis.sets))
    figure = Figure(figsize=(WIDTH, 2.5), layout="constrained")
    chosen = np.linspace(0, len(analysis.rows) - 1, min(SCATTERED, len(analysis.rows))).astype(int)
    truth = analysis.rows["drop"].to_numpy()[chosen]
    schemes = _list_drawn(analysis)  # random at least: a group has more than three rows
    for axes, scheme in zip(figure.subplots(1, len(schemes), sharey=True, squeeze=False)[0], schemes, strict=True):
        predicted = analysis.predicted[f"{name} / {scheme}"].to_numpy()[chosen]
        top = max(truth.max(), 1)
        axes.plot([0, top], [0, top], color="black", lw=0.6)
        axes.plot(truth, np.clip(predicted, -0.2 * top, 1.2 * top), ".", ms=2.5, color=BLUE, alpha=0.5)
        axes.set(title=f"{name}, {SCHEMES[scheme]}", xlabel="true drop, %")
    figure.axes[0].set_ylabel("predicted drop, %")
    return figure


def _draw_importance(analysis: Analysis) -> Figure:
    table = analysis.importance
    wide = table.pivot(index="metric", columns=["model", "sparsity"], values="correlation").reindex(analysis.metrics)
    sure = table.pivot(index="metric", columns=["model", "sparsity"], values="q").reindex(analysis.metrics) < 0.05
    figure = Figure(figsize=(max(WIDTH, 1.6 + 0.17 * wide.shape[1]), 1.4 + 0.19 * len(wide)))
    axes = figure.subplots()
    image = axes.imshow(wide.to_numpy(float), cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
    y, x = np.nonzero(sure.to_numpy())
    axes.plot(x, y, ".", ms=2, color="black")
    axes.set_yticks(range(len(wide)), wide.index)
    axes.set_xticks(range(wide.shape[1]), [f"{s:g}" for _, s in wide.columns], rotation=90, fontsize=6)
    models = [model for model, _ in wide.columns]
    for model in dict.fromkeys(models):
        where = [k for k, other in enumerate(models) if other == model]
        axes.text(sum(where) / len(where), -0.8, model, ha="center", va="bottom", fontsize=6.5)
        if where[0]:
            axes.axvline(where[0] - 0.5, color="black", lw=0.8)
    axes.set_xlabel("sparsity")
    bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02)
    bar.set_label("more of it, more accuracy lost")
    return figure


def _draw_curves(analysis: Analysis) -> Figure:
    rows = analysis.rows
    model = rows["model"].iloc[0]
    means = rows[rows["model"] == model].groupby(["pruning", "sparsity"])[analysis.metrics].mean()
    by_metric = analysis.importance.query("model == @model").groupby("metric")["correlation"]
    strength = by_metric.agg(lambda v: np.abs(v).mean()).sort_values(ascending=False)
    chosen = list(strength.index[:6])
    figure = Figure(figsize=(WIDTH, 1.6 * -(-len(chosen) // 2) + 0.5), layout="constrained")
    panels = np.atleast_1d(figure.subplots(-(-len(chosen) // 2), min(2, len(chosen)), sharex=True)).ravel()
    algorithms = sorted(rows["pruning"].unique())
    colours = matplotlib.colormaps["tab10"](np.arange(len(algorithms)) % 10)
    for axes, metric in zip(panels, chosen, strict=False):
        for algorithm, colour in zip(algorithms, colours, strict=True):
            if algorithm not in means.index.get_level_values(0):
                continue
            line = means.loc[algorithm, metric].sort_index()
            ticks = range(len(line))
            axes.plot(ticks, line, ".-", ms=3, lw=1, color=colour, label=algorithm)
            axes.set_xticks(ticks, [f"{s:g}" for s in line.index])
        axes.set_title(metric)
    for axes in panels[len(chosen) :]:
        axes.remove()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncol=4, frameon=False, title=model)
    return figure
