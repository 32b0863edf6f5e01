"""The released tables, re-analysed: what an independent program found from the same recipe (../shared/STUDY.md)."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from topognn.study import ranking
from topognn.study.analysis import Analysis, analyse
from topognn.study.columns import CELL, GROUP
from topognn.study.nulls import get_indices
from topognn.study.tables import read_table

WANT = {  # adjusted R2 pooled, within; Kendall's tau
    "MGE16": (0.973, 0.898, 0.556),
    "MGE13": (0.961, 0.839, 0.513),
    "MGE10": (0.922, 0.807, None),
    "BGE-R10": (0.929, 0.698, 0.523),
    "BGE-RC10": (0.943, 0.752, 0.541),
    "RAM3": (0.568, 0.245, 0.063),
    "DENS1": (0.565, 0.070, 0.195),
    "DENS3": (0.851, 0.101, None),
    "FLOPS2": (0.679, 0.288, 0.379),
    "SPARSITY": (0.841, None, None),
    "ELSEWHERE": (None, None, 0.560),
}
CONV6_CIFAR10 = {
    "MGE16": (0.9927, 0.9728),
    "MGE13": (0.9859, 0.9487),
    "BGE-R10": (0.9596, 0.8717),
    "BGE-RC10": (0.9713, 0.9061),
    "RAM3": (0.5783, 0.5024),
    "DENS1": (0.6222, 0.2489),
    "SPARSITY": (0.8056, None),
}


@pytest.fixture(scope="module")
def found(shared: Path) -> Analysis:
    folder = shared / "data" / "mge-snn"
    if not folder.is_dir():
        pytest.skip("the released tables (../shared/data/mge-snn) are not here")
    return analyse(read_table(folder), permutations=60)


def test_rows(found: Analysis) -> None:
    assert len(found.rows) == 1_222
    sizes = found.rows.groupby(GROUP).size()
    assert (len(sizes), sizes.min(), sizes.max()) == (12, 97, 105)


@pytest.mark.parametrize(("name", "want"), WANT.items())
def test_mean_over_groups(found: Analysis, name: str, want: tuple[float | None, ...]) -> None:
    table = found.regression.query("features == @name and model == 'all'").set_index("kind")["adjusted_r2"]
    for kind, value in zip(("pooled", "within"), want, strict=False):
        if value is not None:
            assert abs(table[kind] - value) < 0.00051


@pytest.mark.parametrize(("name", "want"), CONV6_CIFAR10.items())
def test_one_group(found: Analysis, name: str, want: tuple[float | None, ...]) -> None:
    table = found.regression.query("features == @name and model == 'CONV-6' and dataset == 'CIFAR-10'")
    for kind, value in zip(("pooled", "within"), want, strict=True):
        if value is not None:
            assert table.set_index("kind")["adjusted_r2"][kind] == pytest.approx(value, abs=0.000051)


def test_ranking(found: Analysis) -> None:
    """Four of the 60 cells have two algorithms with exactly equal mean accuracy.

    Here they are ties; the program that made STUDY.md left them to rounding, one way or the other. Ours are within
    what that can do, and one way of breaking the four ties gives its numbers to the third decimal. (All but DENS1,
    where predictions are tied as well: uniform pruning has the same density everywhere.)
    """
    table = found.ranking.query("model == 'all'").set_index("features")
    assert (table["cells"] == 60).all()
    want = {name: values[2] for name, values in WANT.items() if values[2] is not None}
    for name, value in want.items():
        assert table["tau"][name] == pytest.approx(value, abs=0.002)
    best = max(break_ties(found), key=lambda taus: sum(round(taus[name], 3) == want[name] for name in want))
    assert {name for name in want if round(best[name], 3) == want[name]} >= set(want) - {"DENS1"}


def break_ties(found: Analysis) -> list[dict[str, float]]:
    """Return the mean tau of each set of features for every way of breaking or leaving the ties of the truth."""
    rows = found.rows
    cells, groups = get_indices(rows, CELL), get_indices(rows, GROUP)
    response = ranking.standardise(rows[["drop"]].to_numpy(float), cells)
    truth = ranking._average_items(rows, rows[["drop"]].to_numpy(float), cells)
    predicted = {"ELSEWHERE": ranking._average_elsewhere(rows, ranking._average_items(rows, response, cells), cells)}
    for name in ("MGE16", "MGE13", "BGE-R10", "BGE-RC10", "RAM3", "DENS1", "FLOPS2"):
        features = ranking.standardise(rows[found.sets[name]].to_numpy(float), cells)
        guesses = ranking._predict_elsewhere(rows, features, response, groups)
        predicted[name] = ranking._average_items(rows, guesses, cells)
    ties = []
    for number, values in enumerate(truth):
        for a, b in itertools.combinations(range(len(values)), 2):
            if abs(values[a, 0] - values[b, 0]) < 1e-9:
                ties.append((number, a))
    assert len(ties) == 4
    results = []
    for signs in itertools.product((-1, 0, 1), repeat=4):
        moved = [values.copy() for values in truth]
        for (number, a), sign in zip(ties, signs, strict=True):
            moved[number][a] += sign * 1e-6
        results.append(
            {
                name: float(np.mean([ranking.kendall_tau(p, t)[0] for p, t in zip(items, moved, strict=True)]))
                for name, items in predicted.items()
            }
        )
    return results


def test_ceiling(found: Analysis) -> None:
    """STUDY.md's .700 is over the cells that have all seven algorithms; over all 60 it is a little more."""
    cells = get_indices(found.rows, CELL)
    scores = [score[0][0] for score in ranking._score_ceiling(found.rows, cells)]
    whole = [found.rows["pruning"].iloc[members].nunique() == 7 for members in cells]
    assert round(float(np.mean(np.array(scores)[whole])), 3) == 0.700
    assert found.ranking.set_index(["features", "model"]).loc[("CEILING", "all"), "tau"] == pytest.approx(
        np.mean(scores)
    )


def test_what_it_says(found: Analysis) -> None:
    """The sentences of STUDY.md, as far as they are numbers."""
    within = found.regression.query("kind == 'within' and model != 'all'")
    within = within.pivot(index=GROUP, columns="features", values="adjusted_r2")
    for other in ("BGE-R10", "BGE-RC10", "RAM3", "DENS3"):
        assert (within["MGE16"] > within[other]).sum() == 12, other
    skill = found.prediction.query("model == 'all'").set_index(["features", "scheme"])["skill"]
    for name in ("MGE16", "MGE13", "MGE10", "BGE-R10", "BGE-RC10", "RAM3", "FLOPS2"):
        assert skill[name, "algorithm"] < 0, name  # no set predicts an algorithm that it never saw
        assert skill[name, "random"] > 0
    regression = found.regression.query("model == 'all' and features not in ('SPARSITY',)")
    assert (regression.query("kind == 'within'")["adjusted_r2"] > regression.query("kind == 'within'")["null_95"]).all()
    ranking_table = found.ranking.query("model == 'all'").set_index("features")
    assert ranking_table["p"]["RAM3"] > 0.05 and ranking_table["p"]["MGE16"] < 0.02


def test_null_of_few_permutations_is_that_of_many(found: Analysis) -> None:
    """Two decimals of the null: its mean over groups hardly moves between seeds."""
    again = ranking.rank_algorithms(found.rows, {"MGE16": found.sets["MGE16"]}, permutations=400, seed=1)
    again = again.query("model == 'all'").set_index("features")
    assert again["null_mean"]["MGE16"] == pytest.approx(0, abs=0.02)
