"""Tables of networks: the released files exactly, and every fault named."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.study_tables import make_table
from topognn.errors import TableError
from topognn.study.columns import FEATURE_SETS, GROUP, KEY
from topognn.study.tables import check_table, find_feature_sets, read_table, select_complete


@pytest.fixture(scope="module")
def released(shared: Path) -> Path:
    folder = shared / "data" / "mge-snn"
    if not folder.is_dir():
        pytest.skip("the released tables (../shared/data/mge-snn) are not here")
    return folder


def test_released_rows(released: Path) -> None:
    table = read_table(released)
    assert len(table) == 2_290
    assert table.attrs["notes"][0] == "47 exact duplicates dropped"
    assert "missing in 4 of 2,290 rows: sink_nodes, source_nodes, disc_nodes, r-out, r-in" in table.attrs["notes"]
    lost = table[table["sink_nodes"].isna()]
    assert (
        set(lost["model"]) == {"Resnet-32"} and set(lost["pruning"]) == {"prospr"} and set(lost["sparsity"]) == {0.98}
    )
    rows = select_complete(table)
    assert len(rows) == 1_222
    sizes = rows.groupby(GROUP).size()
    assert (len(sizes), sizes.min(), sizes.max()) == (12, 97, 105)
    assert rows["drop"].min() == 0 and rows["drop"].max() < 100
    assert list(find_feature_sets(table)) == [name for name in FEATURE_SETS if name != "BEYOND5"]


def test_released_layer_means(released: Path) -> None:
    """One network's means, added up without pandas' groups."""
    file = "rolled-tinyimagenet-CONV-6.csv.gz"  # one of the two with the other column names
    with gzip.open(released / "graph_metrics" / "rolled" / file, "rt") as lines:
        names, *rows = [line.rstrip("\n").split(",") for line in lines]
    is_ours = [row[1:6] == ["grasp", "0.98", "CONV-6", "tinyimagenet", "0"] for row in rows]
    with gzip.open(released / "ramanunjan_results" / "CONV-6" / file, "rt") as lines:
        beside_names, *beside = [line.rstrip("\n").split(",") for line in lines]
    table = read_table(released).set_index(KEY)
    row = table.loc[("CONV-6", "tinyimagenet", "grasp", 0.98, 0)]
    for column, name in (
        ("rolled:motif", "motif"),
        ("rolled:cut-nodes", "cut-nodes"),
        ("layer_density", "layer_sparsity"),
    ):
        values = [float(r[names.index(name)]) for r, ours in zip(rows, is_ours, strict=True) if ours]
        assert row[column] == pytest.approx(sum(values) / len(values), rel=1e-12)
    texts = [r[beside_names.index("degree_bound")] for r, ours in zip(beside, is_ours, strict=True) if ours]
    values = [float(text) for text in texts if text not in ("", "-inf")]
    assert row["degree_bound"] == pytest.approx(sum(values) / len(values), rel=1e-12)


def test_round_trip(tmp_path: Path) -> None:
    table = make_table()
    table.to_parquet(tmp_path / "networks.parquet")
    table.to_csv(tmp_path / "networks.csv", index=False)
    pd.testing.assert_frame_equal(read_table(tmp_path / "networks.parquet"), table)
    pd.testing.assert_frame_equal(read_table(tmp_path / "networks.csv"), table)
    (tmp_path / "sweep" / "rows").mkdir(parents=True)
    for number, part in enumerate((table.iloc[100:], table.iloc[:100])):
        part.to_parquet(tmp_path / "sweep" / "rows" / f"{number}.parquet")
    pd.testing.assert_frame_equal(read_table(tmp_path / "sweep"), table)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns=["seed", "edges"]), "lacks the columns seed, edges"),
        (lambda t: t.assign(accuracy=100 * t["accuracy"]), "looks like percent, divide it by 100"),
        (lambda t: t.assign(accuracy=-0.1), "accuracy is -0.1"),
        (lambda t: t.assign(accuracy=np.nan), "accuracy is nan"),
        (lambda t: t.assign(sparsity=100 * t["sparsity"]), "sparsity is 60.0"),
        (lambda t: t.assign(edges=0), "edges is not positive in 630 rows"),
        (lambda t: t.assign(edges=t["edges"].where(t.index != 4)), "edges is not positive in 1 rows, or empty"),
        (lambda t: t.assign(accuracy="78.3%"), r"accuracy is '78\.3%' in a row \(630 such\), which is text"),
        (lambda t: t.assign(sparsity=t["sparsity"].astype(str)), r"sparsity is '0\.6' in a row \(630 such\)"),
        (lambda t: t.assign(motif=["high", *["0.5"] * 629]), r"motif is 'high' in a row \(1 such\), which is text"),
        (lambda t: t.assign(motif=np.inf), "motif is infinite in 630 rows"),
        (lambda t: t.assign(pruning=None), "pruning is empty"),
        (lambda t: pd.concat([t, t.iloc[:2]]), "4 rows share their key with another, such as conv6, a, er, 0.6, 0"),
        (lambda t: t.iloc[:0], "no rows"),
    ],
)
def test_faults_are_named(change, message: str) -> None:
    with pytest.raises(TableError, match=message):
        check_table(change(make_table()))


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "sweep" / "rows").mkdir(parents=True)
    with pytest.raises(TableError, match=r"cannot read .*a\.parquet"):
        read_table(tmp_path / "a.parquet")
    with pytest.raises(TableError, match="a sweep without a finished row"):
        read_table(tmp_path / "sweep")
    with pytest.raises(TableError, match="is no table"):
        read_table(tmp_path / "nothing.csv")


def test_selection() -> None:
    table = make_table()
    table.loc[0, "motif"] = np.nan
    table.loc[1, "pruning"] = "rigl"
    rows = select_complete(table)
    assert len(rows) == len(table) - 2
    assert rows.groupby(GROUP)["drop"].min().eq(0).all()
    some = table.assign(layer_density=(1 - table["sparsity"]).where(table.index != 7))
    assert len(select_complete(some)) == len(rows) - 1  # a regression would end at what is not there
    numbered = check_table(table.assign(pruning=table["pruning"].astype("category").cat.codes))
    assert set(numbered["pruning"]) == set("01234567")  # names, whatever they look like
    with pytest.raises(TableError, match="complete"):
        select_complete(table.assign(pruning="rigl"))
    with pytest.raises(TableError, match="every accuracy"):
        select_complete(table.assign(accuracy=0.0))
