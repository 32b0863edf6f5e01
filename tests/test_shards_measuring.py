"""Layers of a checkpoint alone: the same numbers as a model's, in rows that a killed run keeps."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn
from torch.sparse._semi_structured_conversions import sparse_semi_structured_from_dense_cutlass as torch_cutlass

import topognn
from tests.memory import peak_bytes
from tests.shard_files import save, sparse, two_of_four
from tests.shard_tasks import LAYERS, METRICS, make_checkpoint
from tests.test_cli import fail, invoke
from topognn.baselines.layers import LAYER_METRICS
from topognn.errors import CheckpointError, GraphMemoryError, UnknownNameError
from topognn.shards import measuring, unpacking
from topognn.shards.loading import load_layer
from topognn.shards.measuring import CHEAP, SIZES, TEXTS, estimate_bytes, measure_checkpoint, measure_layer
from topognn.shards.planning import plan_checkpoint
from topognn.shards.rows import RowFolder

ROOT = Path(__file__).parents[1]


def make_model() -> nn.Sequential:
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Flatten(), nn.Linear(24, 12), nn.Linear(12, 9))
    for seed, weight in enumerate(topognn.masks.prunable_weights(model).values()):
        weight.copy_(sparse(*weight.shape, keep=0.4, seed=seed))
    model[4].weight.data[:, 5] = 0
    model[4].weight.data[2] = 0
    return model


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Sequential, str]:
    model, folder = make_model(), tmp_path_factory.mktemp("shards")
    state = model.state_dict()
    save(folder / "a.safetensors", {name: state[name] for name in state if name[0] in "01"})
    save(folder / "b.safetensors", {name: state[name] for name in state if name[0] not in "01"})
    return model, f"{folder}/*.safetensors"


@pytest.mark.parametrize("kind", ["rolled", "rolled-channel"])
def test_numbers_are_those_of_the_model(stored: tuple[nn.Sequential, str], kind: str) -> None:
    model, pattern = stored
    found = measure_checkpoint(pattern, kind, metrics=LAYER_METRICS)  # type: ignore[arg-type]
    want = topognn.ramanujan(model, kind), topognn.layer_topometrics(model, kind)  # type: ignore[arg-type]
    for table, other in zip((found.tables["ramanujan"], found.tables["topometrics"]), want, strict=True):
        assert list(table) == ["0", "3", "4"] and table.columns == other.columns
        for layer in table:
            for name in table.columns:
                theirs, ours = other[layer][name], table[layer][name]
                assert type(ours) is type(theirs) and ours == (theirs and pytest.approx(theirs, rel=1e-9)), name
        assert table.published_names == other.published_names


def test_sizes_by_numpy(stored: tuple[nn.Sequential, str]) -> None:
    model, pattern = stored
    found = measure_checkpoint(pattern, metrics=["mean_degree"])
    for row, weight in zip(found.rows, topognn.masks.prunable_weights(model).values(), strict=True):
        kept = weight.numpy().reshape(weight.shape[0], -1) != 0
        sides = kept.sum(0), kept.sum(1)
        want = [kept.size, kept.sum(), *map(len, sides), *((side == 0).sum() for side in sides)]
        want += [pick(side) for side in sides for pick in (np.min, np.max)]
        assert [row[name] for name in SIZES] == want
        assert row["shape"] == "x".join(map(str, weight.shape)) and row["dtype"] == "F32" and row["form"] == "dense"
        assert row["density"] == pytest.approx(kept.mean(), rel=1e-12)
    assert [row["file"] for row in found.rows] == ["a.safetensors", "b.safetensors", "b.safetensors"]
    assert found.rows[2]["isolated_left"] == 1 and found.rows[2]["isolated_right"] == 1
    sums = {name: sum(row[name] for row in found.rows) for name in SIZES[:2]}
    assert found.summary == {
        **{"layers": 3, **sums, "density": sums["kept"] / sums["weights"]},
        **{name: sum(row[name] for row in found.rows) for name in ("isolated_left", "isolated_right")},
    }


def test_empty_layers(tmp_path: Path) -> None:
    save(tmp_path / "net.safetensors", {"a.weight": torch.zeros(3, 4), "b.weight": torch.zeros(0, 4)})
    found = measure_checkpoint(f"{tmp_path}/net.safetensors", out=str(tmp_path / "out"))
    (first,) = found.rows
    assert (first["kept"], first["isolated_left"], first["isolated_right"], first["delta_r"]) == (0, 4, 3, None)
    assert found.plan.left_out == {"b.weight": "no weights"}
    assert pq.read_table(tmp_path / "out" / "layers.parquet").to_pylist() == [first]


def test_cheap_metrics_make_no_list_of_edges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "net.safetensors", {"fc.weight": sparse(40, 30)})
    monkeypatch.setattr(topognn.MultipartiteGraph, "rows", lambda *args, **more: pytest.fail("rows were built"))
    monkeypatch.setattr("topognn.operators.matrix._EDGES_A_CONNECTION", {"cpu": 0})  # a layer too small would take rows
    measure_checkpoint(f"{tmp_path}/net.safetensors")
    assert set(CHEAP) < set(LAYER_METRICS)


@pytest.mark.parametrize("form", ["dense", "2:4"])
def test_memory_of_one_layer(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = two_of_four(384, 2048).bfloat16()
    parts = dict(zip(("packed", "meta"), torch_cutlass(weight), strict=True)) if form == "2:4" else {}
    stored = {f"fc.weight.{name}": tensor for name, tensor in parts.items()} or {"fc.weight": weight}
    save(tmp_path / "net.safetensors", stored)
    monkeypatch.setattr(unpacking, "_AT_ONCE", 2**15)  # as small, beside this layer, as it is beside large ones
    (layer,) = plan_checkpoint(f"{tmp_path}/net.safetensors").layers
    assert layer.form == form
    measure_layer(layer, "rolled", CHEAP, torch.device("cpu"))
    most, _ = peak_bytes(lambda: measure_layer(layer, "rolled", CHEAP, torch.device("cpu")))
    assert most < estimate_bytes(layer)
    most, _ = peak_bytes(lambda: load_layer(layer))
    assert most < 16 * weight.numel()


def test_layer_that_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "net.safetensors", {"fc.weight": sparse(40, 30), "out.weight": sparse(3, 3)})
    monkeypatch.setattr(measuring, "get_free_memory", lambda device: 24 * 1200 + 24 * 900 - 1)
    with pytest.raises(GraphMemoryError, match=r"layer 'fc' of shape \(40, 30\) takes about .* GiB.*--skip"):
        measure_checkpoint(f"{tmp_path}/net.safetensors")
    measure_checkpoint(f"{tmp_path}/net.safetensors", skip=["fc"])


def test_names_that_do_not_exist(stored: tuple[nn.Sequential, str]) -> None:
    with pytest.raises(UnknownNameError, match=r"layers 'unrolled'.*Known: rolled, rolled-channel"):
        measure_checkpoint(stored[1], "unrolled")
    with pytest.raises(UnknownNameError, match="unknown metric 'wedge': did you mean 'wedges'"):
        measure_checkpoint(stored[1], metrics=["wedge"])


def test_killed_at_eight_moments(tmp_path: Path) -> None:
    pattern = make_checkpoint(tmp_path)
    whole = measure_checkpoint(pattern, metrics=METRICS, out=str(tmp_path / "whole"))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "tests.shard_tasks", pattern, str(out), "8"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    finished = [int(line) for line in done.stdout.split()]
    assert len(finished) == 8 and finished == sorted(finished) and len(set(finished)) > 3
    states = {file: file.stat().st_mtime_ns for file in (out / "rows").glob("*.parquet")}
    again = measure_checkpoint(pattern, metrics=METRICS, out=str(out))
    assert all(file.stat().st_mtime_ns == state for file, state in states.items())  # what is there is not made again
    assert again.rows == whole.rows and len(whole.rows) == LAYERS
    ours, theirs = (pq.read_table(path / "layers.parquet") for path in (out, tmp_path / "whole"))
    assert ours.equals(theirs) and ours.to_pylist() == whole.rows
    assert ours.column_names == list(measuring.get_types(METRICS)) and ours.column_names[:5] == list(TEXTS)
    assert {file.suffix for file in (out / "rows").iterdir()} == {".parquet"}


def test_folder_of_other_rows(tmp_path: Path) -> None:
    pattern, out = make_checkpoint(tmp_path), str(tmp_path / "out")
    measure_checkpoint(pattern, metrics=METRICS, layers=["*.1.*"], out=out)
    measure_checkpoint(pattern, metrics=METRICS, layers=["*.1.*", "*.2.*"], out=out)
    assert pq.read_table(f"{out}/layers.parquet")["layer"].to_pylist() == ["layers.1.fc", "layers.2.fc"]
    with pytest.raises(CheckpointError, match=r"other settings \(encoding rolled there, rolled-channel here\)"):
        measure_checkpoint(pattern, "rolled-channel", metrics=METRICS, out=out)
    with pytest.raises(CheckpointError, match=r"other settings \(metrics "):
        measure_checkpoint(pattern, metrics=["wedges"], out=out)
    with RowFolder(out, {}).lock("work"), pytest.raises(CheckpointError, match="another process is at work on"):
        measure_checkpoint(pattern, metrics=METRICS, out=out)
    save(tmp_path / "0.safetensors", {"layers.1.fc.weight": sparse(12, 16, seed=5)})
    with pytest.raises(CheckpointError, match=r"other settings \(checkpoint 3 files, "):
        measure_checkpoint(pattern, metrics=METRICS, out=out)


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pattern, out = make_checkpoint(tmp_path), tmp_path / "out"
    written = []

    def fill(self: RowFolder, path: Path, write: object) -> None:
        written.append(path)
        if len(written) > 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sound(self, path, write)  # type: ignore[arg-type]

    sound = RowFolder.write
    monkeypatch.setattr(RowFolder, "write", fill)
    with pytest.raises(CheckpointError, match=r"cannot write to .*: No space left on device.*What is finished is safe"):
        measure_checkpoint(pattern, metrics=METRICS, out=str(out))
    monkeypatch.undo()
    assert len(list((out / "rows").iterdir())) == 2
    assert len(measure_checkpoint(pattern, metrics=METRICS, out=str(out)).rows) == LAYERS
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match=r"cannot make the folder '.*file/out': Not a directory"):
        measure_checkpoint(pattern, out=str(tmp_path / "file" / "out"))


def test_command(stored: tuple[nn.Sequential, str], tmp_path: Path) -> None:
    _, pattern = stored
    out = tmp_path / "layers.json"
    result = invoke(
        "layers", "--checkpoint", pattern, "--skip", "3", "--json", out, "--csv", "-", "--out", tmp_path / "d"
    )
    assert result.exit_code == 0, result.stderr
    found = measure_checkpoint(pattern, skip=["3"])
    content = json.loads(out.read_text())
    assert content["summary"] == found.summary and content["left_out"]["3.weight"] == "among --skip"
    assert content["seconds"] > 0 and content["peak_bytes"] > 2**20
    for name, table in found.tables.items():
        assert content[name] == table.to_dict()
    assert content["ramanujan_published"] == found.tables["ramanujan"].published.to_dict()
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    for row, want in zip(rows, found.rows, strict=True):
        assert {name: row[name] for name in want} == {n: "" if v is None else str(v) for n, v in want.items()}
    assert pq.read_table(tmp_path / "d" / "layers.parquet").to_pylist() == found.rows
    assert "2 layers in 2 files, rolled" in result.stderr  # stdout has the table alone


def test_command_shows_plan_and_network(stored: tuple[nn.Sequential, str]) -> None:
    result = invoke("layers", "--checkpoint", stored[1], "--metrics", "wedges")
    assert result.exit_code == 0 and result.stderr == ""
    found = measure_checkpoint(stored[1], metrics=["wedges"])
    lines = [line.split() for line in result.stdout.splitlines() if line.strip()]
    assert ["*", "1", "6x3x3x3", "F32", "dense"] in lines and ["*", "1", "12x24", "F32", "dense"] in lines
    (mean,) = [line for line in lines if line[0] == "mean"]
    assert mean[1] == f"{found.tables['ramanujan'].means['density']:.4g}"
    assert f"kept {found.summary['kept']}," in result.stdout
    assert "left out, one axis: 0.bias, 1.bias, 1.running_mean, ... (7)" in result.stdout
    assert all(len(line) <= 120 for line in result.stdout.splitlines() if "also have" not in line)


def test_every_metric_on_demand(stored: tuple[nn.Sequential, str]) -> None:
    found = json.loads(invoke("layers", "--checkpoint", stored[1], "--metrics", "all", "--json", "-").stdout)
    assert set(found["topometrics"]["layers"][0]) == {"layer", "nodes", "edges", "density", *LAYER_METRICS}


def test_mistakes_are_told_in_one_line(stored: tuple[nn.Sequential, str]) -> None:
    assert "say what to measure: MODEL" in fail("layers")
    assert "--sparsity needs a MODEL beside it" in fail("layers", "--checkpoint", stored[1], "--sparsity", 0.5)
    assert "--seed needs a MODEL beside it" in fail("layers", "--checkpoint", stored[1], "--seed", 3)
    assert "--out is for a --checkpoint without MODEL" in fail("layers", "resnet20", "--out", "x")
    assert "no file matches 'no-such-*'" in fail("layers", "--checkpoint", "no-such-*")
    assert "no tensor of" in fail("layers", "--checkpoint", stored[1], "--layers", "fc*")
    assert "unknown metric 'wedge'" in fail("layers", "--checkpoint", stored[1], "--metrics", "wedge")
