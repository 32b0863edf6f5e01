"""The study's statistics against statsmodels, scikit-learn, SciPy and brute force, and against made-up truth."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from scipy import stats
from sklearn.linear_model import Ridge

from tests.study_tables import ALGORITHMS, SPARSITIES, make_table
from topognn.errors import TableError
from topognn.study.analysis import analyse
from topognn.study.columns import CELL, KEY, MGE
from topognn.study.importance import find_importance
from topognn.study.nulls import estimate, get_indices, permute_labels, resample, resample_mean
from topognn.study.prediction import SCHEMES, make_folds, predict
from topognn.study.ranking import kendall_tau, rank_algorithms, rank_biased_overlap, standardise
from topognn.study.regression import find_unique, regress
from topognn.study.ridge import PENALTIES, choose_penalty, predict_chosen, predict_nested, predict_path
from topognn.study.summary import describe, summarise
from topognn.study.tables import select_complete

SMALL = ["sink_nodes", "r-out", "motif"]


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return select_complete(make_table())


def test_adjusted_r2_is_that_of_statsmodels(rows: pd.DataFrame) -> None:
    found = regress(rows, {"MGE16": MGE}, permutations=0).query("features == 'MGE16'")
    found = found.set_index(["kind", "model", "dataset"])["adjusted_r2"].sort_index()
    for (model, dataset), group in rows.groupby(["model", "dataset"]):
        features = group[MGE].to_numpy(float)
        fit = sm.OLS(group["drop"].to_numpy(), sm.add_constant(features)).fit()
        assert found["pooled", model, dataset] == pytest.approx(fit.rsquared_adj, abs=1e-10)
        dummies = pd.get_dummies(group["sparsity"]).to_numpy(float)
        both = sm.OLS(group["drop"].to_numpy(), np.hstack([dummies, features])).fit()
        alone = sm.OLS(group["drop"].to_numpy(), dummies).fit()
        within = 1 - (both.ssr / both.df_resid) / (alone.ssr / alone.df_resid)
        assert found["within", model, dataset] == pytest.approx(within, abs=1e-10)
        for kind, base in (("pooled3", np.ones((len(group), 1))), ("within3", dummies)):
            centred = features - base @ np.linalg.lstsq(base, features, rcond=None)[0]
            scores = sm.multivariate.PCA(centred, ncomp=3, standardize=True, demean=True).factors
            fit = sm.OLS(group["drop"].to_numpy(), np.hstack([base, scores])).fit()
            alone = sm.OLS(group["drop"].to_numpy(), base).fit()
            want = 1 - (fit.ssr / fit.df_resid) / (alone.ssr / alone.df_resid)
            assert found[kind, model, dataset] == pytest.approx(want, abs=1e-10)
    assert found["within", "all", "all"] == pytest.approx(found["within"].drop(("all", "all")).mean(), abs=1e-12)


def test_ridge_is_its_closed_form() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 6)) * np.arange(1, 7), rng.normal(size=(40, 3))
    codes = rng.integers(3, size=40)
    train, test = np.arange(30), np.arange(30, 40)
    path = predict_path(x, y, None, train, test)
    with_intercepts = predict_path(x, y, codes, train, test)
    scaled = x / x[train].std(axis=0)
    dummies = np.eye(3)[codes]
    for k, penalty in enumerate(PENALTIES):
        closed = np.linalg.solve(x[train].T @ x[train] + penalty * 30 * np.eye(6), x[train].T @ y[train])
        assert path[k] == pytest.approx(x[test] @ closed, abs=1e-9)
        assert path[k] == pytest.approx(
            Ridge(alpha=penalty * 30, fit_intercept=False).fit(x[train], y[train]).predict(x[test]), abs=1e-6
        )
        whole = np.hstack([dummies, scaled])
        weights = np.diag([0.0] * 3 + [penalty * 30] * 6)
        closed = np.linalg.solve(whole[train].T @ whole[train] + weights, whole[train].T @ y[train])
        assert with_intercepts[k] == pytest.approx(whole[test] @ closed, abs=1e-9)


def test_nested_cross_validation_is_that_of_loops() -> None:
    rng = np.random.default_rng(1)
    x, folds = rng.normal(size=(30, 4)), np.arange(30) % 5
    y = (x[:, 0] + rng.normal(size=30))[:, None]
    codes = np.zeros(30, np.int64)
    want = np.empty(30)
    for fold in range(5):
        train = np.flatnonzero(folds != fold)
        errors = []
        for penalty in PENALTIES:
            error = 0.0
            for inner in set(range(5)) - {fold}:
                fit, held = train[folds[train] != inner], train[folds[train] == inner]
                scale = x[fit].std(axis=0)
                model = Ridge(alpha=penalty * len(fit)).fit(x[fit] / scale, y[fit, 0])
                error += ((model.predict(x[held] / scale) - y[held, 0]) ** 2).sum()
            errors.append(error)
        best = PENALTIES[int(np.argmin(errors))]
        scale = x[train].std(axis=0)
        model = Ridge(alpha=best * len(train)).fit(x[train] / scale, y[train, 0])
        want[folds == fold] = model.predict(x[folds == fold] / scale)
    assert predict_nested(x, y, codes, folds)[:, 0] == pytest.approx(want, abs=1e-8)


def test_penalty_of_a_tie_is_the_largest() -> None:
    y = np.random.default_rng(2).normal(size=(12, 1))
    rows, folds = np.arange(12), np.arange(12) % 3
    assert choose_penalty(np.zeros((12, 2)), y, None, rows, folds) == [len(PENALTIES) - 1]
    constant = predict_chosen(np.ones((12, 1)), y, np.zeros(12, np.int64), rows[:9], rows[9:], folds)
    assert constant == pytest.approx(np.full((3, 1), y[:9].mean()))  # a constant column adds nothing to an intercept


def brute_tau(a: list[float], b: list[float]) -> float:
    agree = one = two = 0
    for (p, q), (r, s) in itertools.combinations(zip(a, b, strict=True), 2):
        agree += int(np.sign(p - r) * np.sign(q - s))
        one += p != r
        two += q != s
    return agree / (one * two) ** 0.5


def brute_overlap(a: list[float], b: list[float], p: float = 0.9) -> float:
    """Equation 32 of Webber et al. for two lists of the same items: sets at every depth."""
    first, second = (sorted(range(len(x)), key=lambda i: x[i]) for x in (a, b))
    k = len(a)
    shared = [len(set(first[:d]) & set(second[:d])) for d in range(1, k + 1)]
    return shared[-1] / k * p**k + (1 - p) / p * sum(x / d * p**d for d, x in enumerate(shared, 1))


def test_tau_and_overlap_are_those_of_brute_force() -> None:
    rng = np.random.default_rng(3)
    for size in (2, 3, 7, 12):
        a, b = rng.integers(4, size=(size, 20)).astype(float), rng.integers(4, size=(size, 20)).astype(float)
        for k, tau in enumerate(kendall_tau(a, b)):
            if len(set(a[:, k])) > 1 and len(set(b[:, k])) > 1:
                assert tau == pytest.approx(brute_tau(a[:, k], b[:, k]), abs=1e-12)
                assert tau == pytest.approx(stats.kendalltau(a[:, k], b[:, k]).statistic, abs=1e-12)
            else:
                assert np.isnan(tau)
        a, b = rng.normal(size=(size, 20)), rng.normal(size=(size, 20))
        want = [brute_overlap(a[:, k], b[:, k]) for k in range(20)]
        assert rank_biased_overlap(a, b) == pytest.approx(want, abs=1e-12)
    a = np.arange(5.0)[:, None]
    assert (kendall_tau(a, a), kendall_tau(a, -a), rank_biased_overlap(a, a)) == (1, -1, pytest.approx(1))
    assert kendall_tau(np.array([[1.0], [np.nan], [2.0]]), a[:3]) == 1  # what was not predicted takes no part


def test_permuted_labels_keep_seeds_and_cells(rows: pd.DataFrame) -> None:
    orders = permute_labels(rows, 50)
    key = rows[KEY].to_numpy()
    for order in orders:
        assert sorted(order) == list(range(len(rows)))
        moved = key[order]
        assert (moved[:, [0, 1, 3, 4]] == key[:, [0, 1, 3, 4]]).all()  # model, dataset, sparsity, seed
        pairs = pd.DataFrame({"cell": list(map(str, rows[CELL].values)), "was": key[:, 2], "now": moved[:, 2]})
        assert (pairs.groupby(["cell", "was"])["now"].nunique() == 1).all()
    firsts = orders[:, get_indices(rows, CELL)[0][0]]
    assert len(set(firsts)) == len(ALGORITHMS)
    assert (permute_labels(rows, 50) == orders).all()


def test_resampling() -> None:
    rng = np.random.default_rng(4)
    values = rng.normal(3, 1, size=400)
    again = resample(values, np.ones(400), 4000, rng)
    assert again.mean() == pytest.approx(values.mean(), abs=0.01)
    assert again.std() == pytest.approx(values.std() / 20, rel=0.1)
    groups = [np.full(2000, float(k)) for k in range(9)]
    means = resample_mean(groups, rng)
    assert means.std() == pytest.approx(np.arange(9).std() / 3, rel=0.1)
    assert resample_mean(groups[1:2], rng) == pytest.approx(1)
    assert np.isnan(estimate(np.array([1.0])).p)


def test_planted_signal_is_found() -> None:
    rows = select_complete(make_table())
    sets = {"planted": ["sink_nodes"], "noise": ["spectral_gap"]}
    regression = regress(rows, sets, permutations=99).query("model == 'all'").set_index(["features", "kind"])
    assert regression.loc[("planted", "within"), "adjusted_r2"] > 0.8
    assert regression.loc[("planted", "within"), "p"] == 0.01
    assert (regression["low"] <= regression["adjusted_r2"]).all() and (
        regression["adjusted_r2"] <= regression["high"]
    ).all()
    skill, predicted = predict(rows, sets, permutations=19)
    skill = skill.query("model == 'all'").set_index(["features", "scheme"])
    assert all(skill.loc[("planted", scheme), "skill"] > 0.7 for scheme in SCHEMES)
    assert all(skill.loc[("planted", scheme), "p"] == 0.05 for scheme in SCHEMES)
    assert list(predicted.columns) == [f"{s} / {k}" for s in ("planted", "noise", "ALGORITHM") for k in SCHEMES]
    ranking = rank_algorithms(rows, sets, permutations=99).query("model == 'all'").set_index("features")
    assert ranking.loc["planted", "tau"] > 0.5 and ranking.loc["planted", "p"] == 0.01
    assert ranking.loc["planted", "rbo"] > ranking.loc["planted", "rbo_null_mean"] + 0.1
    importance = find_importance(rows, MGE, permutations=199)
    strongest = importance.sort_values("correlation").groupby(["model", "sparsity"])["metric"].last()
    assert (strongest == "sink_nodes").mean() > 0.8  # its twins share an offset with it
    unique = find_unique(rows, MGE).set_index(["model", "metric"])["lost"]
    assert unique.groupby("model").idxmax().tolist() == [("conv6", "sink_nodes"), ("resnet20", "sink_nodes")]


def test_nulls_hold_their_level() -> None:
    """200 tables in which topology says nothing: p <= 0.05 in about 5 % of them, whichever the statistic."""
    hits = {"within": 0, "skill": 0, "tau": 0, "importance": 0}
    base = select_complete(make_table(models=("a",), datasets=("b", "c"), features=tuple(SMALL)))
    base = base[base["sparsity"] < 0.85].reset_index(drop=True)
    for draw in range(200):
        rng = np.random.default_rng(draw)
        offset = rng.normal(size=len(base) // 3).repeat(3)  # seeds of an algorithm are alike
        rows = base.assign(drop=offset + 0.3 * rng.normal(size=len(base)))
        sets = {"small": SMALL}
        found = regress(rows, sets, permutations=39, draws=2, seed=draw).query("model == 'all'")
        hits["within"] += float(found.query("features == 'small' and kind == 'within'")["p"].iloc[0]) <= 0.05
        ranking = rank_algorithms(rows, sets, permutations=39, draws=2, seed=draw).query("model == 'all'")
        hits["tau"] += float(ranking["p"].iloc[0]) <= 0.05
        importance = find_importance(rows, SMALL[:1], permutations=39, draws=2, seed=draw)
        hits["importance"] += float(importance["p"].iloc[0]) <= 0.05
        if draw < 40:
            skill, _ = predict(rows, sets, permutations=19, draws=2, seed=draw)
            skill = skill.query("model == 'all' and features == 'small' and scheme == 'algorithm'")
            hits["skill"] += float(skill["p"].iloc[0]) <= 0.05
    most = stats.binom.ppf(0.999, 200, 0.05)
    assert all(hits[name] <= most for name in ("within", "tau", "importance")), hits
    assert hits["skill"] <= stats.binom.ppf(0.999, 40, 0.05), hits


def test_folds() -> None:
    group = select_complete(make_table(models=("a",), datasets=("b",)))
    assert len(set(make_folds(group, "algorithm"))) == 7 and len(set(make_folds(group, "seed"))) == 3
    cells = group.assign(fold=make_folds(group, "cell")).groupby(["pruning", "sparsity"])["fold"]
    assert (cells.nunique() == 1).all()
    assert cells.first()["grasp", SPARSITIES[4]] == (2 + 4) % 5


def test_standardised_cells(rows: pd.DataFrame) -> None:
    values = standardise(rows[SMALL].assign(constant=0.1).to_numpy(float), get_indices(rows, CELL))
    for members in get_indices(rows, CELL):
        assert values[members].mean(axis=0) == pytest.approx(0, abs=1e-12)
        assert values[members].std(axis=0) == pytest.approx([1, 1, 1, 0], abs=1e-12)


def test_one_group() -> None:
    rows = select_complete(make_table(models=("a",), datasets=("b",)))
    with pytest.raises(TableError, match="all rows are a on b: ranking is fitted elsewhere"):
        rank_algorithms(rows, {"small": SMALL})
    found = analyse(make_table(models=("a",), datasets=("b",)), permutations=9)
    assert not len(found.ranking) and any(note.startswith("no ranking: all rows are a on b") for note in found.notes)
    assert set(found.tables()) == {"regression", "prediction", "importance", "unique"}


def test_one_data_set_is_ranked_from_other_models() -> None:
    rows = select_complete(make_table(datasets=("b",)))
    ranking = rank_algorithms(rows, {"small": SMALL}, permutations=0).set_index(["features", "model"])
    assert ranking.loc[("small", "all"), "tau"] > 0.5 and ranking.loc[("small", "all"), "cells"] == 10


def test_constant_column_changes_nothing(rows: pd.DataFrame) -> None:
    sets = {"plain": SMALL, "constant": [*SMALL, "constant"]}
    found = regress(rows.assign(constant=0.1), sets, permutations=0)
    plain, constant = (found.loc[found["features"] == name, "adjusted_r2"] for name in sets)
    assert constant.to_numpy() == pytest.approx(plain.to_numpy(), abs=1e-12)


@pytest.mark.filterwarnings("error")
def test_few_seeds_leave_out_what_needs_seeds_only() -> None:
    table = make_table(models=("a",), datasets=("b", "c"))
    whole, _ = predict(select_complete(table), {"small": SMALL}, permutations=3)
    short = table[(table["dataset"] == "b") | (table["seed"] < 2)]  # c has two seeds
    found, predicted = predict(select_complete(short), {"small": SMALL}, permutations=3)
    of_b = [
        result.query("dataset == 'b'").reset_index(drop=True)[["features", "scheme", "skill"]]
        for result in (whole, found)
    ]
    pd.testing.assert_frame_equal(*of_b)
    assert set(found.query("dataset == 'c'")["scheme"]) == set(SCHEMES) - {"seed"}
    lacking = predicted["small / seed"].isna().to_numpy()
    assert (lacking == (select_complete(short)["dataset"] == "c")).all() and predicted["small / cell"].notna().all()
    (note,) = found.attrs["notes"]
    assert note.startswith("no prediction of a seed not seen in a on c: cross-validation needs at least three folds")

    one = analyse(table[table["seed"] == 0], permutations=3)
    assert set(one.prediction["scheme"]) == set(SCHEMES) - {"seed"} and len(one.ranking)
    assert any(note.startswith("no prediction of a seed not seen in any group") for note in one.notes)
    assert "CEILING" not in set(one.ranking["features"]) | set(summarise(one)["features"])
    assert len(describe(one)) == 3 and not any("one seed against" in line or "nan" in line for line in describe(one))


def test_what_nothing_ranks_is_undefined() -> None:
    """A sparsity that no other group has, and a feature that is the same for all algorithms: no tau, not one of 0."""
    table = make_table(models=("a",), datasets=("b", "c"), features=("layer_density", "r-in"))
    table = table.assign(layer_density=1 - table["sparsity"])
    table.loc[(table["dataset"] == "c") & (table["sparsity"] == 0.6), "sparsity"] = 0.7
    table = table[(table["dataset"] == "b") | (table["sparsity"] == 0.7)]
    ranking = rank_algorithms(select_complete(table), {"DENS1": ["layer_density"]}, permutations=3)
    ranking = ranking.set_index(["features", "dataset"])
    assert ranking.loc["DENS1", ["tau", "low", "null_mean", "null_95", "p"]].isna().all(axis=None)
    assert ranking.loc["ELSEWHERE", ["tau", "rbo"]].isna().all(axis=None)
    assert ranking.loc[("CEILING", "all"), "tau"] > 0


def test_unfinished_groups_are_set_aside() -> None:
    """One group has 12 rows for 16 features, one a single accuracy: the other two are what they are without them."""
    table = make_table(datasets=("a", "b"))
    small = (table["model"] == "resnet20") & (table["dataset"] == "b")
    flat = (table["model"] == "resnet20") & (table["dataset"] == "a")
    unfinished = table.drop(index=table.index[small][12:])
    unfinished.loc[flat, "accuracy"] = 0.5
    found, want = analyse(unfinished, permutations=3), analyse(table[~small & ~flat], permutations=3)
    for name, results in want.tables().items():
        pd.testing.assert_frame_equal(found.tables()[name], results)
    assert found.notes[:2] == [
        "set aside: accuracy is the same in all 105 rows of resnet20 on a: nothing to explain.",
        "set aside: resnet20 on b has 12 rows for 16 features and 1 intercepts: measure more networks or take fewer "
        "features.",
    ]
    assert found.notes[2] == "210 rows in 2 groups take part, 117 do not"
    with pytest.raises(TableError, match="resnet20 on b has 12 rows for 16 features"):
        analyse(table[small].iloc[:12], permutations=3)


def test_too_small_or_flat() -> None:
    table = make_table()
    few = select_complete(table[(table["seed"] == 0) & table["pruning"].isin(["er", "erk"])])
    with pytest.raises(TableError, match="conv6 on a has 10 rows for 16 features and 1 intercepts"):
        regress(few, {"MGE16": MGE}, permutations=0)
    flat = select_complete(table.assign(accuracy=0.5))
    with pytest.raises(TableError, match="accuracy is the same in all 105 rows of conv6 on a"):
        regress(flat, {"small": SMALL}, permutations=0)
    two = table[(table["seed"] < 2) & (table["sparsity"] == 0.6) & table["pruning"].isin(["er", "erk"])]
    with pytest.raises(TableError, match="at least three folds"):
        predict(select_complete(two).groupby(["model", "dataset"]).head(2), {"small": SMALL}, permutations=0)
    with pytest.raises(TableError, match="none of the sets of features"):
        analyse(table[[*KEY, "accuracy", "edges"]].rename(columns={}), permutations=0)
