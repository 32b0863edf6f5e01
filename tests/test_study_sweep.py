"""Sweeps: the same rows however often killed, by whomever made; errors kept; nothing made twice."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests import sweep_tasks
from tests.sweep_tasks import SETTINGS, TASKS
from topognn.checkpoints import pack_bits, unpack_bits
from topognn.errors import SweepError, UnknownNameError
from topognn.study.config import read_config
from topognn.study.folder import SweepFolder
from topognn.study.grid import Settings, Task
from topognn.study.sweeping import run_task, sweep

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that tells which networks were begun, in order."""
    file = tmp_path / "made.log"
    monkeypatch.setenv("SWEEP_LOG", str(file))
    return file


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The table of a sweep that was never interrupted."""
    path = tmp_path_factory.mktemp("whole")
    os.environ["SWEEP_LOG"] = str(path / "made.log")
    results = sweep(TASKS, SETTINGS, SweepFolder(path / "sweep"), sweep_tasks.make)
    assert [(result.task, result.state) for result in results] == [(task, "done") for task in TASKS]
    return pd.read_parquet(path / "sweep" / "networks.parquet")


def count(made: Path) -> Counter[str]:
    return Counter(made.read_text().split()) if made.exists() else Counter()


def test_rows_and_masks(whole: pd.DataFrame, tmp_path: Path, made: Path) -> None:
    folder = SweepFolder(tmp_path / "sweep")
    shown = []
    sweep(TASKS[:3], SETTINGS, folder, sweep_tasks.make, show=lambda result, link: shown.append(result.task))
    assert sorted(shown) == sorted(TASKS[:3])
    for task in TASKS[:3]:
        row, masks = folder.read_row(task), folder.read_masks(task)
        want = sweep_tasks.make(task, SETTINGS)
        assert {key: row[key] for key in task.key} == task.key
        assert row["accuracy"] == want[0]["accuracy"]
        assert masks.keys() == {"weight"} and torch.equal(masks["weight"], want[1]["weight"])
    assert len(whole) == len(TASKS)
    again = sweep(TASKS[:4], SETTINGS, folder, sweep_tasks.make)
    assert [result.state for result in again] == ["there", "there", "there", "done"]


def test_killed_at_twenty_moments(
    whole: pd.DataFrame, tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWEEP_SECONDS", "0.1")
    path = tmp_path / "sweep"
    command = [sys.executable, "-m", "tests.sweep_tasks", str(path), "20"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    finished = [int(line) for line in done.stdout.split()]
    assert len(finished) == 20 and finished == sorted(finished) and finished[-1] > 3
    assert len(set(finished)) > 3  # it was killed while it worked, not before or after
    folder = SweepFolder(path)
    before, there = count(made), [task for task in TASKS if folder.row(task).is_file()]
    results = sweep(TASKS, SETTINGS, folder, sweep_tasks.make)
    assert [result.state for result in results] == ["there" if task in there else "done" for task in TASKS]
    assert all(count(made)[task.name] == before[task.name] for task in there)  # nothing that finished was made again
    pd.testing.assert_frame_equal(pd.read_parquet(path / "networks.parquet"), whole)
    assert {file.suffix for part in ("rows", "masks") for file in (path / part).iterdir()} == {
        ".parquet",
        ".safetensors",
    }


def test_cluster_of_two_workers_one_of_which_dies(
    whole: pd.DataFrame, tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from distributed import LocalCluster

    monkeypatch.chdir(ROOT)  # so that workers can import tests.sweep_tasks
    path = tmp_path / "sweep"
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", silence_logs=50) as cluster:
        results = sweep(
            TASKS, SETTINGS, SweepFolder(path), sweep_tasks.make_or_die, scheduler=cluster.scheduler_address
        )
    assert {result.state for result in results} <= {"done", "there"}  # there: told again of what the dead one finished
    assert made.with_suffix(".died").read_text() == TASKS[4].name
    pd.testing.assert_frame_equal(pd.read_parquet(path / "networks.parquet"), whole)
    assert set(count(made).values()) == {1}


def test_failures_are_kept_and_tried_again(
    whole: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = SweepFolder(tmp_path / "sweep")
    results = sweep(TASKS, SETTINGS, folder, sweep_tasks.make_or_fail)
    failed = [task for task in TASKS if task.seed == 1]
    assert [result.task for result in results if result.state == "failed"] == failed
    assert {result.error for result in results if result.state == "failed"} == {"RuntimeError: the loss is NaN"}
    kept = json.loads(folder.error(failed[0]).read_text())
    assert kept["error"] == "RuntimeError: the loss is NaN" and "make_or_fail" in kept["traceback"]
    assert {key: kept[key] for key in failed[0].key} == failed[0].key
    assert len(pd.read_parquet(folder.path / "networks.parquet")) == len(TASKS) - len(failed)
    monkeypatch.setenv("SWEEP_MENDED", "yes")
    sweep(TASKS, SETTINGS, folder, sweep_tasks.make_or_fail)
    assert not list((folder.path / "errors").iterdir())
    pd.testing.assert_frame_equal(pd.read_parquet(folder.path / "networks.parquet"), whole)


def test_two_sweeps_on_one_folder(
    whole: pd.DataFrame, tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SWEEP_SECONDS", "0.15")
    path = tmp_path / "sweep"
    code = "import sys; from tests.sweep_tasks import *; sweep(TASKS, SETTINGS, SweepFolder(sys.argv[1]), make)"
    other = subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=ROOT)
    while not made.exists() and other.poll() is None:
        time.sleep(0.01)
    results = sweep(TASKS, SETTINGS, SweepFolder(path), sweep_tasks.make)
    assert other.wait(60) == 0
    assert {result.state for result in results} == {"done", "there"}  # both had a share
    assert count(made) == Counter(task.name for task in TASKS)
    pd.testing.assert_frame_equal(pd.read_parquet(path / "networks.parquet"), whole)


def test_task_of_another_sweep_is_left_to_it_then_awaited(tmp_path: Path, made: Path) -> None:
    folder = SweepFolder(tmp_path / "sweep")
    with folder.working(SETTINGS):
        pass
    rest = (SETTINGS, folder, sweep_tasks.make, None)
    with folder.lock(TASKS[0].name):
        assert run_task(TASKS[0], False, *rest).state == "busy"
        waiting: list[str] = []
        thread = threading.Thread(target=lambda: waiting.append(run_task(TASKS[0], True, *rest).state))
        thread.start()
        thread.join(0.2)
        assert thread.is_alive() and not count(made)
    thread.join(10)
    assert waiting == ["done"]
    assert run_task(TASKS[0], False, *rest).state == "there"


def test_metrics_added_from_masks(tmp_path: Path, made: Path) -> None:
    folder = SweepFolder(tmp_path / "sweep")
    sweep(TASKS[:3], SETTINGS, folder, sweep_tasks.make)
    before = count(made)
    results = sweep(TASKS[:4], SETTINGS, folder, sweep_tasks.make, add=sweep_tasks.add)
    assert [result.state for result in results] == ["done", "done", "done", "failed"]
    assert "no row to add to" in results[3].error and count(made) == before
    table = pd.read_parquet(folder.path / "networks.parquet")
    assert (table["kept"] == table["edges"] - 1).all()
    results = sweep(TASKS[:3], SETTINGS, folder, sweep_tasks.make, add=sweep_tasks.add)
    assert {result.state for result in results} == {"there"}


def test_full_disk_stops_the_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = SweepFolder(tmp_path / "sweep")

    def fill(self: SweepFolder, path: Path, write: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    sweep(TASKS[:1], SETTINGS, folder, sweep_tasks.make)
    monkeypatch.setattr(SweepFolder, "write", fill)
    with pytest.raises(SweepError, match=r"No space left on device.*What is finished is safe"):
        sweep(TASKS, SETTINGS, folder, sweep_tasks.make)
    monkeypatch.undo()
    assert not list((folder.path / "errors").iterdir()) and folder.row(TASKS[0]).is_file()


def test_folder_of_other_settings(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path / "sweep")
    three, four = Settings(training={"epochs": 3}), Settings(training={"epochs": 4})
    refusal = r"other settings \(training \{'epochs': 3\} there, \{'epochs': 4\} here\): its rows would not compare"
    sweep(TASKS[:1], three, folder, sweep_tasks.make)
    sweep(TASKS[:1], Settings(training={"epochs": 3}, metrics=("sink_nodes",)), folder, sweep_tasks.make)
    with pytest.raises(SweepError, match=refusal):
        sweep(TASKS[:1], four, folder, sweep_tasks.make)
    with pytest.raises(SweepError, match=refusal):  # as a worker sees it
        run_task(TASKS[1], False, four, folder, sweep_tasks.make, None)


def test_settings_are_corrected_where_nothing_is_finished(tmp_path: Path, made: Path) -> None:
    folder = SweepFolder(tmp_path / "sweep")
    wrong, right = Settings(training={"epochs": 3}), Settings(training={"epochs": 4})
    assert [result.state for result in sweep(TASKS[1:2], wrong, folder, sweep_tasks.make_or_fail)] == ["failed"]
    with folder.working(wrong), pytest.raises(SweepError, match="others are at work with them"):
        sweep(TASKS[1:2], right, folder, sweep_tasks.make)
    assert not count(made)
    with folder.working(right), pytest.raises(SweepError, match="others are at work"):  # a worker that comes too late
        run_task(TASKS[1], False, wrong, folder, sweep_tasks.make, None)
    assert not count(made)
    assert [result.state for result in sweep(TASKS[1:2], right, folder, sweep_tasks.make)] == ["done"]
    assert json.loads((folder.path / "settings.json").read_text())["training"] == {"epochs": 4}


def test_settings_of_all_rows_are_the_same_whoever_comes_first(tmp_path: Path) -> None:
    """Eight sweeps with settings of their own begin at once: one is let in, or some in turn that write nothing."""
    folder, start = SweepFolder(tmp_path / "sweep"), threading.Barrier(8)
    file, rows = folder.path / "settings.json", folder.path / "rows"

    def work(number: int) -> None:
        start.wait()
        for turn in range(20):
            with contextlib.suppress(SweepError), folder.working(Settings(side=number)):
                before = file.read_text()
                assert json.loads(before)["side"] == number
                if turn > 9:
                    (rows / f"{number}.parquet").touch()
                assert file.read_text() == before

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert [row.stem for row in rows.iterdir()] == [str(json.loads(file.read_text())["side"])]


def test_no_scheduler(tmp_path: Path) -> None:
    with pytest.raises(SweepError, match="no Dask scheduler answers at 'nonsense"):
        sweep(TASKS, SETTINGS, SweepFolder(tmp_path / "sweep"), sweep_tasks.make, scheduler="nonsense://here")


@given(st.lists(st.integers(0, 5), min_size=0, max_size=3), st.integers(0, 2**31))
def test_packed_bits(shape: list[int], seed: int) -> None:
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) > 0.5
    packed = pack_bits(mask)
    assert packed.dtype == torch.uint8 and packed.numel() == -(-mask.numel() // 8)
    assert torch.equal(unpack_bits(packed, list(mask.shape)), mask)


GRID = """
[grid]
models = ["conv6"]
data = ["synthetic"]
pruners = ["erk", "erk#1", "rigl"]
sparsities = [0.5, 0.9]
seeds = [0, 1]
[training]
epochs = 2
milestones = [0.5]
[measure]
metrics = ["sink_nodes"]
"""


def test_config(tmp_path: Path) -> None:
    (tmp_path / "grid.toml").write_text(GRID)
    tasks, settings = read_config(tmp_path / "grid.toml")
    assert len(tasks) == 12 and len({task.name for task in tasks}) == 12
    assert tasks[4] == Task("conv6", "synthetic", "erk#1", 0.5, 0) and tasks[4].algorithm == ("erk", 1)
    assert settings == Settings({"epochs": 2, "milestones": [0.5]}, metrics=("sink_nodes",))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"erk", ', '"erc", ', "unknown pruner 'erc': did you mean"),
        ("erk#1", "erk#x", "number of a redraw"),
        ('"conv6"', '"conv7"', "unknown model 'conv7'"),
        ('"synthetic"', '"mnist"', "unknown dataset 'mnist'"),
        ("0.9]", "90]", "sparsity 90.0 is not from 0"),
        ("seeds = [0, 1]", "seeds = []", "needs seeds"),
        ("epochs", "epoch", r"\[training\] has 'epoch'"),
        ('"sink_nodes"', '"sinks"', "unknown metric 'sinks'"),
        ("[measure]", "[measures]", "the file has 'measures'"),
        ("[grid]", "[grid", "is no TOML"),
        ("[0.5, 0.9]", '["a"]', r"\[grid\] sparsities has 'a': give a number"),
        ("[0.5, 0.9]", "[nan]", r"\[grid\] sparsities has nan: give a number"),
        ("[0, 1]", '["x"]', r"\[grid\] seeds has 'x': give a whole number"),
        ("[0, 1]", "[0.5]", r"\[grid\] seeds has 0.5: give a whole number"),
        ('"conv6"', "6", r"\[grid\] models has 6: give text in quotes"),
        (GRID, "grid = 3", r"grid = 3 is no table: write \[grid\]"),
        ('["sink_nodes"]', "3", r"\[measure\] metrics = 3 is no list"),
        (
            "metrics",
            'bipartite = "rolled"\nmetrics',
            r"bipartite = 'rolled' is no list: write \[...\], even around one",
        ),
        ("epochs = 2", 'epochs = "1"', r"\[training\] epochs has '1': give a whole number"),
        ("epochs = 2", "epochs = 0", r"\[training\] epochs=0 trains nothing"),
        ("epochs = 2", "batch_size = 0", r"\[training\] batch_size=0 trains nothing"),
        ("epochs = 2", "decay = true", r"\[training\] decay has True: give a number"),
        ("[0.5]", "3", r"\[training\] milestones = 3 is no list"),
        ("[0.5]", '["late"]', r"\[training\] milestones has 'late': give a number"),
        ("[measure]", "[data]\nroot = 5\n[measure]", r"\[data\] root has 5: give text in quotes"),
        ("[measure]", "[data]\nside = 1.5\n[measure]", r"\[data\] side has 1.5: give a whole number"),
        ("[measure]", "[data]\nside = -1\n[measure]", r"\[data\] side = -1: give a whole number, 0"),
        ('"conv6"', '"nope.py:net"', r"models has '.*nope\.py:net': there is no file '.*nope\.py'"),
        ('"conv6"', '"net.py:big"', r"models has '.*net\.py:big': unknown callable 'big': Known: tiny"),
        ('"conv6"', '"bad.py:net"', r"models has '.*bad\.py:net': cannot import '.*bad\.py': NameError"),
    ],
)
def test_bad_config(tmp_path: Path, old: str, new: str, message: str) -> None:
    (tmp_path / "grid.toml").write_text(GRID.replace(old, new))
    (tmp_path / "net.py").write_text("def tiny(): return None\n")
    (tmp_path / "bad.py").write_text("net = none\n")
    with pytest.raises((SweepError, UnknownNameError), match=message):
        read_config(tmp_path / "grid.toml")
    with pytest.raises(SweepError, match="there is no file"):
        read_config(tmp_path / "none.toml")
