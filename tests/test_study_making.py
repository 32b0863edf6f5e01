"""Networks of a sweep: what a row says is what the library says of the same network."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

import topognn
from tests.study_models import tiny
from topognn.cli.main import app
from topognn.study.columns import FEATURE_SETS, SHARED
from topognn.study.config import read_config
from topognn.study.folder import SweepFolder
from topognn.study.grid import Settings, Task
from topognn.study.making import add_metrics, build_model, load_data, make_network, make_recipe, shrink
from topognn.study.measuring import OURS, measure
from topognn.study.tables import check_table, find_feature_sets

MODEL = f"{Path(__file__).with_name('study_models.py')}:tiny"
CHEAP = ("sink_nodes", "removable_in_edges", "one_hop", "strength", "effective_density")
SETTINGS = Settings({"epochs": 1}, side=8, train=200, test=50, metrics=CHEAP)
TASK = Task(MODEL, "synthetic", "erk", 0.5, 3)


@pytest.fixture(scope="module")
def made() -> tuple[dict[str, object], dict[str, torch.Tensor]]:
    return make_network(TASK, SETTINGS)


def test_row_is_what_the_library_says(made: tuple[dict[str, object], dict[str, torch.Tensor]]) -> None:
    row, masks = made
    torch.manual_seed(3)
    model = tiny()
    want = topognn.prune(model, "erk", 0.5, seed=3)
    assert all(torch.equal(masks[name].cpu(), mask) for name, mask in want.items()) and masks.keys() == want.keys()
    values = topognn.topometrics(topognn.encode(model, (3, 8, 8), want), CHEAP)
    assert (row["nodes"], row["edges"]) == (values["nodes"], values["edges"])
    for column, value in values.normalized().items():
        assert row[column] == pytest.approx(value, rel=1e-12)
    assert row["effective_density"] == values["effective_density"]
    kept = sum(int(mask.sum()) for mask in want.values())
    assert row["density"] == pytest.approx(kept / sum(mask.numel() for mask in want.values()))
    assert row["reached_sparsity"] == pytest.approx(1 - float(row["density"]))
    ramanujan = topognn.ramanujan(model, "rolled", want).means
    assert row["degree_bound"] == ramanujan["delta_r"] and row["layer_density"] == ramanujan["density"]
    layers = topognn.layer_topometrics(model, "rolled-channel", want).means
    for column in SHARED:
        assert row[f"rolled_channel:{column}"] == pytest.approx(layers[OURS[column]], rel=1e-6)
    data = load_data("synthetic", SETTINGS)
    torch.manual_seed(3)
    model = tiny()
    history = topognn.training.train(model, data, make_recipe(TASK, SETTINGS), masks=want)
    assert row["accuracy"] == history[-1]["test_accuracy"]
    trained = topognn.topometrics(topognn.encode(model, (3, 8, 8), want), ["strength"]).normalized()
    assert row["trained:avg_node_strength"] == pytest.approx(trained["avg_node_strength"], rel=1e-6)


def test_row_fits_the_schema() -> None:
    everything = Settings({"epochs": 1}, side=8, train=200, test=50)
    row, masks = make_network(TASK, everything)
    table = check_table(pd.DataFrame([{**TASK.key, **row}]))
    assert list(find_feature_sets(table)) == list(FEATURE_SETS)
    assert add_metrics(TASK, everything, row, masks) == {}


def test_same_task_same_row(made: tuple[dict[str, object], dict[str, torch.Tensor]]) -> None:
    row, _ = make_network(TASK, SETTINGS)
    assert row.keys() == made[0].keys()
    for name, value in row.items():
        if not name.startswith("seconds:"):
            assert value == made[0][name] or (math.isnan(value) and math.isnan(made[0][name])), name


def test_added_metrics_are_those_measured_at_once(made: tuple[dict[str, object], dict[str, torch.Tensor]]) -> None:
    row, masks = made
    more = Settings({"epochs": 1}, side=8, train=200, test=50, metrics=(*CHEAP, "motifs", "spectral_gap"))
    new = add_metrics(TASK, more, row, masks)
    assert set(new) == {"nodes", "edges", "motif", "spectral_gap"}
    whole = measure(build_model(TASK, load_data("synthetic", more)), masks, (3, 8, 8), more)
    assert all(new[name] == pytest.approx(whole[name], rel=1e-6) for name in new)
    assert add_metrics(TASK, more, {**row, **new}, masks) == {}


def test_redraw_changes_masks_and_not_weights() -> None:
    redraw = TASK._replace(pruner="erk#1")
    data = load_data("synthetic", SETTINGS)
    models = [build_model(task, data) for task in (TASK, redraw)]
    assert all(torch.equal(a, b) for a, b in zip(*(m.state_dict().values() for m in models), strict=True))
    one, other = (make_network(task, SETTINGS)[1] for task in (TASK, redraw))
    assert [int(mask.sum()) for mask in one.values()] == [int(mask.sum()) for mask in other.values()]
    assert any(not torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("pruner", ["prospr", "rigl"])
def test_pruners_that_need_data_or_training(pruner: str) -> None:
    row, masks = make_network(TASK._replace(pruner=pruner), SETTINGS)
    assert row["reached_sparsity"] == pytest.approx(0.5, abs=0.01)
    graph = topognn.encode(build_model(TASK, load_data("synthetic", SETTINGS)), (3, 8, 8), masks)
    assert row["edges"] == graph.num_edges


def test_reduced_data() -> None:
    data = load_data("synthetic", SETTINGS)
    assert data.train.images.shape == (200, 3, 8, 8) and data.test.images.shape == (50, 3, 8, 8)
    values = data.train.images.double() / 255
    assert data.mean == pytest.approx(values.mean(dim=(0, 2, 3)).tolist())
    assert data.std == pytest.approx(values.std(dim=(0, 2, 3)).tolist())
    images = data.train.images
    assert shrink(images, 0) is images and shrink(images, 8) is images


GRID = """
[grid]
models = ["study_models.py:tiny", "study_models.py:broken"]
data = ["synthetic"]
pruners = ["erk"]
sparsities = [0.5]
seeds = [0]
[training]
epochs = 1
[data]
side = 8
train = 200
test = 50
[measure]
metrics = ["sink_nodes"]
bipartite = []
"""


def test_command(tmp_path: Path) -> None:
    (tmp_path / "study_models.py").write_text(Path(__file__).with_name("study_models.py").read_text())
    (tmp_path / "grid.toml").write_text(GRID)
    result = CliRunner().invoke(app, ["sweep", str(tmp_path / "grid.toml")])
    assert result.exit_code == 1, result.output
    assert "1 done, 0 there before, 1 failed, of 2" in result.output and "no such luck" in result.output
    table = pd.read_parquet(tmp_path / "grid" / "networks.parquet")
    assert list(table["model"]) == ["tiny"] and 0 <= table["accuracy"].iloc[0] <= 1 and "motif" not in table
    (tmp_path / "grid.toml").write_text(
        GRID.replace(', "study_models.py:broken"', "").replace('"sink', '"motifs", "sink')
    )
    result = CliRunner().invoke(app, ["sweep", str(tmp_path / "grid.toml"), "--add-metrics"])
    assert result.exit_code == 0, result.output
    assert pd.read_parquet(tmp_path / "grid" / "networks.parquet")["motif"].notna().all()
    result = CliRunner().invoke(app, ["sweep", str(tmp_path / "grid.toml"), "--out", str(tmp_path / "grid.toml")])
    assert result.exit_code == 2 and "Not a directory" in result.stderr
    (tmp_path / "broken.toml").write_text(GRID.replace('"study_models.py:tiny", ', ""))
    result = CliRunner().invoke(app, ["sweep", str(tmp_path / "broken.toml")])
    assert result.exit_code == 1 and "0 done, 0 there before, 1 failed, of 1\n" in result.output, result.output
    result = CliRunner().invoke(app, ["sweep", str(tmp_path / "none.toml")])
    assert result.exit_code == 2 and "there is no file" in result.stderr
    config = read_config(tmp_path / "grid.toml")
    assert SweepFolder(tmp_path / "grid").row(config.tasks[0]).is_file()
