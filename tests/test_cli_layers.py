"""`topognn layers` and `topognn report --baselines`: the library's numbers, in files and tables."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
import torch

import topognn
from tests.test_cli import fail, invoke, report
from topognn.baselines.columns import PUBLISHED, PUBLISHED_RAMANUJAN
from topognn.baselines.scores import COLUMNS
from topognn.baselines.summary import SHARED, summarise_baselines

ARGS = ("resnet20", "--pruner", "erk", "--sparsity", 0.9, "--seed", 2)


def pruned(sparsity: float = 0.9) -> tuple[torch.nn.Module, dict[str, torch.Tensor]]:
    torch.manual_seed(2)
    model = topognn.get_model("resnet20")
    return model, topognn.prune(model, "erk", sparsity, seed=2, input_shape=(3, 32, 32))


@pytest.mark.parametrize("encoding", ["rolled", "rolled-channel"])
def test_files_hold_what_the_library_computes(encoding: str, tmp_path: Path) -> None:
    out = tmp_path / "layers.json"
    names = ["cut_edges", "wedges", "spectral_gap"]
    args = (*ARGS, "--encoding", encoding, "--metrics", ",".join(names), "--json", out)
    result = invoke("layers", *args, "--csv", "-")
    assert result.exit_code == 0 and result.stderr == ""
    model, masks = pruned()
    scores = topognn.ramanujan(model, encoding, masks)  # type: ignore[arg-type]
    values = topognn.layer_topometrics(model, encoding, masks, metrics=names)  # type: ignore[arg-type]
    found = json.loads(out.read_text())
    assert found["ramanujan"] == scores.to_dict() and found["topometrics"] == values.to_dict()
    assert found["ramanujan_published"] == scores.published.to_dict()
    assert found["topometrics_published"] == values.published.to_dict()
    assert found["arguments"]["sparsity"] == 0.9
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [row["layer"] for row in rows] == list(scores)
    assert set(rows[0]) == {"layer", *scores.columns, *values.columns, *values.published.columns, *PUBLISHED_RAMANUJAN}
    for row in rows:
        for table in (scores, values, scores.published, values.published):
            for name, value in table[row["layer"]].items():
                assert row[name] == ("" if value is None else str(value)), name


def test_the_table_shows_the_same_numbers() -> None:
    args = ("resnet20", "--pruner", "erk", "--sparsity", 0.98, "--seed", 2)
    result = invoke("layers", *args, "--metrics", "cut_edges,cut_nodes")
    assert result.exit_code == 0 and result.stderr == ""
    lines = {line.split()[0]: line.split()[1:] for line in result.stdout.splitlines() if line.strip()}
    model, masks = pruned(0.98)
    table = topognn.ramanujan(model, "rolled", masks)
    for layer, row in table.items():
        shown = lines[layer]
        assert shown[:2] == [f"{row['density']:.4g}", f"{row['edges']:,}"]
        assert shown[5] == ("-" if row["imdb"] is None else f"{row['imdb']:.4g}")
    assert lines["mean"][4] == f"{table.means['delta_r']:.4g}"
    assert lines["undefined"][1] == str(table.undefined["imdb"]) != "0"
    assert all(len(line) <= 120 for line in result.stdout.splitlines()[:-1])


def test_unrolled_layers(tmp_path: Path) -> None:
    lines = ["from torch import nn", "def make():"]
    lines += ["    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(64, 3))", ""]
    (tmp_path / "net.py").write_text("\n".join(lines))
    args = (f"{tmp_path / 'net.py'}:make", "--input", "1x6x6", "--pruner", "uniform", "--sparsity", 0.3)
    result = invoke("layers", *args, "--encoding", "unrolled", "--metrics", "one_hop", "--json", "-")
    found = json.loads(result.stdout)
    sizes = [layer["nodes"] for layer in found["topometrics"]["layers"]]
    assert sizes == [36 + 64, 64 + 3]
    assert all(layer["delta_r"] is not None for layer in found["ramanujan"]["layers"])


def test_every_layer_metric_by_default() -> None:
    result = invoke("layers", "conv6", "--pruner", "uniform", "--sparsity", 0.99, "--json", "-")
    found = json.loads(result.stdout)
    first = found["topometrics_published"]["layers"][0]
    assert set(first) == {"layer_name", *PUBLISHED} and first["layer_name"] == "convs1.0"
    assert set(found["ramanujan"]["layers"][0]) == {"layer", *COLUMNS}


def test_mistakes_are_told_in_one_line() -> None:
    assert "unknown encoding 'roled': did you mean 'rolled'" in fail("layers", "resnet20", "--encoding", "roled")
    assert "unknown metric 'wedge': did you mean 'wedges'" in fail("layers", "resnet20", "--metrics", "wedge")
    assert "--pruner needs --sparsity" in fail("layers", "resnet20", "--pruner", "er")
    assert "cannot both have stdout" in fail("layers", "resnet20", "--json", "-", "--csv", "-")
    assert "no/such" in fail("layers", "resnet20", "--json", "/no/such/folder/x.json")


def test_baselines_stand_beside_the_report(tmp_path: Path) -> None:
    found = report(*ARGS, "--metrics", "cut_edges", "--baselines")
    want = summarise_baselines(*pruned())
    assert found["baselines"] == [row._asdict() for row in want]
    assert "baselines" in found["seconds"]
    assert {row.name for row in want} == {*COLUMNS, *SHARED}
    columns = {row.column for row in want if row.group == "topometrics"}
    assert columns == {"bridges", "a_point", "motifs_count", "nei_one_hop", "strenght_all", "coreness_all"} | {
        *("strong_clusters", "mean_strong", "spectral_gap_weighted_undirected"),
        "spectral_radius_laplacian_weighted_undirected",
    }
    out = tmp_path / "report.csv"
    shown = invoke("report", *ARGS, "--metrics", "cut_edges", "--baselines", "--csv", out)
    rows = {row["metric"]: row for row in csv.DictReader(io.StringIO(out.read_text()))}
    for row in want:
        mean = "" if row.mean is None else str(row.mean)
        assert rows[f"{row.encoding}:{row.name}"]["value"] == mean
        assert rows[f"{row.encoding}:{row.name}"]["column"] == row.column
    (line,) = [line.split() for line in shown.stdout.splitlines() if line.split()[:2] == ["topometrics", "cut_edges"]]
    means = {row.encoding: row.mean for row in want if row.name == "cut_edges"}
    assert line[2:] == [f"{found['raw']['cut_edges']:,}", *(f"{means[e]:.6g}" for e in means)]


def test_no_baselines_unless_asked_for() -> None:
    assert report("resnet20", "--metrics", "sink_nodes")["baselines"] is None
