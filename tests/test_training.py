"""Training learns, keeps masks at zero, and ends with the same weights however it is interrupted."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import topognn
from topognn.cli import main as cli
from topognn.data import Dataset, Images, get_data
from topognn.errors import CheckpointError, DataError, MaskError, TrainingError
from topognn.pruning.applying import get_pruned, plain_parameters
from topognn.pruning.dynamic import DSR, RigL
from topognn.training import Progress, Recipe, evaluate, loop, paper_recipe, train

NET = """
from torch import nn

def make():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.1),
        nn.Conv2d(8, 8, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(392, 10),
    )
"""


def make_net() -> nn.Sequential:
    torch.manual_seed(0)
    space: dict[str, Any] = {}
    exec(NET, space)
    return space["make"]()  # type: ignore[no-any-return]


def small_data() -> Dataset:
    """Four batches of 32 synthetic images."""
    data = get_data("synthetic")
    return data._replace(train=Images(*(t[:128] for t in data.train)), test=Images(*(t[:50] for t in data.test)))


QUICK = Recipe(epochs=3, batch_size=32)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


# -- training -----------------------------------------------------------------------------------------------


def test_a_sparse_network_learns_and_reports(tmp_path: Path) -> None:
    net, data = make_net(), get_data("synthetic")
    masks = topognn.prune(net, "erk", 0.5)
    monitor = topognn.TopometricsMonitor(net, (3, 32, 32), ["sink_nodes", "strength"], every=20)
    logged: list[tuple[int, set[str]]] = []
    rows = train(
        *(net, data, Recipe(epochs=4)),
        masks=masks,
        monitor=monitor,
        folder=tmp_path / "run",
        logs=[lambda step, numbers: logged.append((step, set(numbers)))],
    )
    assert rows[-1]["test_accuracy"] > 0.3 > rows[0]["test_accuracy"] and rows[-1]["train_loss"] < rows[0]["train_loss"]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4] and rows[-1]["step"] == 64
    assert all(row["sparsity"] == pytest.approx(0.5, abs=1e-4) for row in rows)
    assert [round(row["rate"], 9) for row in rows] == [0.1, 0.1, 0.01, 0.001]
    for name, mask in masks.items():
        assert (net.get_parameter(name)[~mask] == 0).all() and (net.get_parameter(name)[mask] != 0).any()
    table = list(csv.DictReader((tmp_path / "run" / "metrics.csv").read_text().splitlines()))
    assert [float(row["test_accuracy"]) for row in table] == [row["test_accuracy"] for row in rows]
    measured = list(csv.DictReader((tmp_path / "run" / "topometrics.csv").read_text().splitlines()))
    assert [int(row["step"]) for row in measured] == [20, 40, 60] == monitor.history.steps
    assert (16, set(rows[0])) in logged and any(step == 20 and "topo/sink_nodes" in names for step, names in logged)
    loss, accuracy = evaluate(net, topognn.data.Loader(data.test, 100, data.mean, data.std))
    assert (loss, accuracy) == pytest.approx((rows[-1]["test_loss"], rows[-1]["test_accuracy"]), rel=1e-5)
    # The checkpoint is one that reports can read.
    found = topognn.get_masks(make_net(), tmp_path / "run" / "checkpoint.pt")
    assert same(found, masks)


@pytest.mark.parametrize("kind", ["masks", "rigl"])
def test_pruned_weights_are_zero_after_every_step(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "LOOK_EVERY", 1)
    net = make_net()
    masks = topognn.prune(net, "erk", 0.8)
    schedulers: list[RigL] = []
    seen = []

    def grow(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> RigL:
        schedulers.append(RigL(model, optimizer, 0.8, total_steps=steps, every=2))
        return schedulers[0]

    def check(progress: Progress) -> None:
        kept = schedulers[0].masks if schedulers else masks
        assert all((net.get_parameter(name)[~mask] == 0).all() for name, mask in kept.items())
        assert sum(int(mask.sum()) for mask in kept.values()) == round(0.2 * 4712)
        seen.append(progress.step)

    how: dict[str, Any] = {"grow": grow} if kind == "rigl" else {"masks": masks}
    train(net, small_data(), QUICK, show=check, **how)
    assert seen == list(range(1, 13))


def test_training_is_a_function_of_model_data_and_recipe() -> None:
    random = torch.get_rng_state()
    results = []
    for seed in (1, 1, 2):
        net = make_net()
        torch.manual_seed(len(results))
        train(net, small_data(), Recipe(epochs=1, batch_size=32, seed=seed))
        results.append(weights(net))
    assert same(results[0], results[1]) and not same(results[0], results[2])
    torch.set_rng_state(random)
    train(make_net(), small_data(), QUICK)
    torch.manual_seed(0)
    make_net()
    expected = torch.get_rng_state()
    net = make_net()
    train(net, small_data(), QUICK)
    assert torch.equal(torch.get_rng_state(), expected)


def test_one_step_is_that_of_plain_sgd() -> None:
    net, data = make_net(), small_data()
    net[3] = nn.Identity()  # no dropout
    twin = make_net()
    twin[3] = nn.Identity()
    recipe = Recipe(epochs=1, batch_size=32, weight_decay=1e-2, milestones=(0.5,))
    train(net, data, recipe)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-2)
    loader = topognn.data.Loader(data.train, 32, data.mean, data.std, train=True, shift=data.shift)
    twin.to(memory_format=torch.channels_last)
    for step, (x, y) in enumerate(loader.epoch(0)):
        optimizer.param_groups[0]["lr"] = 0.1 if step < 2 else 0.1 * 0.1
        optimizer.zero_grad()
        nn.functional.cross_entropy(twin(x), y).backward()
        optimizer.step()
    assert same(weights(net), weights(twin))


def test_half_precision_trains_too() -> None:
    rows = train(make_net(), small_data(), Recipe(epochs=2, batch_size=32, precision="bfloat16"))
    assert rows[1]["train_loss"] < rows[0]["train_loss"]


def test_the_recipe_of_the_guide_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    guide = (Path(__file__).parents[1] / "docs" / "training.md").read_text()
    recipe = guide.split("## Recipe")[1].split("```python\n")[1].split("```")[0]
    for long, short in (("epochs = 160", "epochs = 1"), ("every=100", "every=2"), ("128", "32")):
        assert long in recipe
        recipe = recipe.replace(long, short)
    monkeypatch.setattr("topognn.data.get_data", lambda name: small_data())
    monkeypatch.chdir(tmp_path)
    space: dict[str, Any] = {}
    exec(recipe, space)
    assert list(space["frame"].index) == [2, 4] and space["frame"]["effective_density"].iloc[0] == pytest.approx(
        0.05, abs=1e-5
    )
    assert (tmp_path / "topology.png").stat().st_size > 5000


def test_recipes_of_the_study() -> None:
    assert paper_recipe("resnet20", "cifar10") == Recipe(160, 128, 0.1, 0.9, 1e-4, (0.5, 0.75))
    assert paper_recipe("wide_resnet28_2", "cifar100").weight_decay == 5e-4
    tiny = paper_recipe("resnet32", "tiny-imagenet")
    rates = [tiny.rate(epoch * 782, 100 * 782) for epoch in (0, 29, 30, 59, 60, 80, 99)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 1e-3, 1e-4, 1e-4])


def test_evaluation_leaves_modes() -> None:
    net = make_net()
    net[1].eval()
    data = small_data()
    evaluate(net, [(torch.zeros(2, 3, 32, 32), data.test.labels[:2])])
    assert net.training and not net[1].training and net[3].training
    with pytest.raises(DataError, match="no batch to evaluate on"):
        evaluate(net, [])


# -- interruptions ------------------------------------------------------------------------------------------


class Interruption(Exception):
    """Stands for a kill."""


def grow_rigl(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> RigL:
    return RigL(model, optimizer, 0.7, total_steps=steps, every=2)


def grow_dsr(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> DSR:
    return DSR(model, optimizer, 0.7, total_steps=steps, every=2, threshold=0.02)


@pytest.mark.parametrize("kind", ["dense", "masks", "rigl", "dsr"])
def test_interrupted_at_any_step_it_ends_with_the_same_weights(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "LOOK_EVERY", 1)
    monkeypatch.setattr(loop, "SAVE_EVERY", 3)
    data = small_data()

    def go(folder: Path | None, stop: int | None) -> tuple[nn.Module, list[dict[str, float]], Any]:
        net = make_net()
        how: dict[str, Any] = {
            "dense": {},
            "masks": {"masks": topognn.prune(net, "erk", 0.7)},
            "rigl": {"grow": grow_rigl},
            "dsr": {"grow": grow_dsr},
        }[kind]
        monitor = topognn.TopometricsMonitor(net, (3, 32, 32), ["strength", "sink_nodes"], every=2)

        def show(progress: Progress) -> None:
            if progress.step == stop:
                raise Interruption

        rows = train(net, data, QUICK, folder=folder, monitor=monitor, show=show, **how)
        return net, rows, monitor.history.to_dict()

    whole, whole_rows, whole_history = go(None, None)
    for stop in (2, 5, 7, 11):
        with pytest.raises(Interruption):
            go(tmp_path, stop)
    net, rows, history = go(tmp_path, None)
    assert same(weights(net), weights(whole)) and history == whole_history
    for row, expected in zip(rows, whole_rows, strict=True):
        assert {**row, "seconds": 0} == {**expected, "seconds": 0}
    (tmp_path / "metrics.csv").unlink()
    finished, rows_again, _ = go(tmp_path, None)  # a finished one has nothing to do but its tables
    assert (tmp_path / "metrics.csv").is_file()
    assert same(weights(finished), weights(whole)) and rows_again == rows


def test_killed_and_resumed_it_ends_with_the_same_weights(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NET)
    command = "train NET --data synthetic --pruner set --sparsity 0.7 --epochs 7 --batch-size 250 --seed 3 --out OUT"

    def arguments(out: str) -> list[str]:
        names = {"NET": f"{tmp_path / 'net.py'}:make", "OUT": str(tmp_path / out)}
        return [names.get(word, word) for word in command.split()]

    # Each in a process of its own, as a user has it: sums depend on how a process set up its threads.
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    start = [sys.executable, "-c", "from topognn.cli.main import main; main()"]
    process = subprocess.Popen([*start, *arguments("killed")], env=environment, stdout=subprocess.DEVNULL)
    checkpoint = tmp_path / "killed" / "checkpoint.pt"
    deadline = time.monotonic() + 60
    while not checkpoint.is_file() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert torch.load(checkpoint, weights_only=True)["step"] < 56  # it was killed on the way

    def run(out: str, *more: str) -> dict[str, Tensor]:
        subprocess.run([*start, *arguments(out), *more], env=environment, stdout=subprocess.DEVNULL, check=True)
        content = torch.load(tmp_path / out / "checkpoint.pt", weights_only=True)
        assert content["step"] == 56
        return content["model"] | content["masks"]  # type: ignore[no-any-return]

    assert same(run("killed", "--resume"), run("whole"))


# -- bad input ----------------------------------------------------------------------------------------------


def test_labels_that_the_model_has_no_outputs_for() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(3072, 7))
    with pytest.raises(DataError, match=r"label 9 is out of range: the model has 7 outputs, for labels 0 to 6"):
        train(net, small_data(), QUICK)
    with pytest.raises(DataError, match=r"outputs have shape \(2, 4, 15, 15\): scores"):
        train(nn.Conv2d(3, 4, 3, 2), small_data(), QUICK)
    with pytest.raises(DataError, match=r"does not run on a batch of shape \(2, 3, 32, 32\)"):
        train(nn.Sequential(nn.Flatten(), nn.Linear(9, 10)), small_data(), QUICK)


def test_a_loss_that_is_nan_ends_the_training_and_spoils_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "LOOK_EVERY", 1)
    net = make_net()

    def spoil(progress: Progress) -> None:
        if progress.step == 6:
            with torch.no_grad():
                net[0].weight.fill_(torch.nan)

    with pytest.raises(TrainingError, match=r"the loss is nan at step 7 of 12: lower the learning rate \(0.1\)"):
        train(net, small_data(), QUICK, folder=tmp_path, show=spoil)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state["step"] == 4 and all(value.isfinite().all() for value in state["model"].values())


def test_masks_changed_by_hand_between_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "LOOK_EVERY", 1)
    net = make_net()
    masks = topognn.prune(net, "erk", 0.7)

    def lift(progress: Progress) -> None:
        topognn.apply_masks(net, topognn.prune(net, "uniform", 0.5))()

    for how in ({"masks": masks}, {"grow": grow_rigl}):
        with pytest.raises(MaskError, match=r"the mask of '0.weight' was changed by hand since the last step"):
            train(net, small_data(), QUICK, show=lift, **how)  # type: ignore[arg-type]

    def fill(*_: object) -> None:
        net[4].weight.data.fill_(1.0)

    def set_one(progress: Progress) -> None:
        if progress.step == 3:
            net[4].register_forward_pre_hook(fill)

    with pytest.raises(TrainingError, match=r"pruned weights of '4.weight' are not zero: something set them"):
        train(net, small_data(), QUICK, masks=masks, show=set_one)


def test_checkpoints_that_do_not_fit(tmp_path: Path) -> None:
    net, data = make_net(), small_data()
    one = Recipe(epochs=1, batch_size=32)
    masks = topognn.prune(net, "erk", 0.7)
    train(net, data, one, masks=masks, folder=tmp_path)
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: train(make_net(), data, Recipe(epochs=2, batch_size=32), masks=masks, folder=tmp_path),
         r"was trained with epochs=1, now it is 2: go on with the same arguments"),
        (lambda: train(make_net(), data, one, folder=tmp_path), r"was trained with masks, now dense"),
        (lambda: train(make_net(), data, one, grow=grow_rigl, folder=tmp_path), r"now with a scheduler that drops"),
        (lambda: train(make_net(), data, one, masks=topognn.prune(net, "uniform", 0.7), folder=tmp_path),
         r"was trained with its masks, now with others"),
        (lambda: train(nn.Sequential(*make_net(), nn.BatchNorm1d(10)), data, one, masks=masks, folder=tmp_path),
         r"is of another model"),
    ]  # fmt: skip
    for run, message in cases:
        with pytest.raises(CheckpointError, match=message):
            run()
    grown = tmp_path / "grown"
    train(make_net(), data, one, grow=grow_rigl, folder=grown)
    with pytest.raises(CheckpointError, match="this is the state of RigL, and the scheduler is DSR: go on as it began"):
        train(make_net(), data, one, grow=grow_dsr, folder=grown)
    path = tmp_path / "checkpoint.pt"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"checkpoint.pt' is truncated"):
        train(make_net(), data, one, masks=masks, folder=tmp_path)
    torch.save({"weight": torch.ones(1)}, path)
    with pytest.raises(CheckpointError, match=r"is no checkpoint of a training of this version"):
        train(make_net(), data, one, masks=masks, folder=tmp_path)


def test_a_training_goes_on_with_other_metrics(tmp_path: Path) -> None:
    def go(metrics: list[str], stop: int | None) -> Any:
        net = make_net()
        monitor = topognn.TopometricsMonitor(net, (3, 32, 32), metrics, every=1)

        def show(progress: Progress) -> None:
            if progress.row is not None and progress.row["epoch"] == stop:
                raise Interruption

        train(net, small_data(), Recipe(epochs=3, batch_size=64), folder=tmp_path, monitor=monitor, show=show)
        return monitor.history

    with pytest.raises(Interruption):
        go(["sink_nodes", "strength"], 1)
    with pytest.raises(Interruption):
        go(["source_nodes", "strength"], 2)
    history = go(["log10_paths", "sink_nodes"], None)
    found = history.to_dict()
    assert list(found) == ["step", "nodes", "edges", "log10_paths", "sink_nodes", "source_nodes", "strength"]
    third = len(found["step"]) // 3
    assert found["step"] == list(range(1, 3 * third + 1)) and third > 0
    present = {name: [number == number for number in numbers] for name, numbers in found.items()}
    assert present["log10_paths"] == [False] * 2 * third + [True] * third
    assert present["sink_nodes"] == [True] * third + [False] * third + [True] * third
    assert present["strength"] == [True] * 2 * third + [False] * third
    assert present["source_nodes"] == [False] * third + [True] * third + [False] * third
    assert [type(number) for number in found["sink_nodes"][:1]] == [int]
    rows = (tmp_path / "topometrics.csv").read_text().splitlines()
    assert rows[0] == "step,nodes,edges,log10_paths,sink_nodes,source_nodes,strength" and len(rows) == 3 * third + 1
    with pytest.raises(topognn.UnknownNameError, match="unknown metric 'sources'"):
        history.plot(["sources"])


def test_what_a_killed_writer_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".checkpoint.pt.123.tmp").write_bytes(b"half")
    train(make_net(), small_data(), Recipe(epochs=1, batch_size=64), folder=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.pt", "metrics.csv"]


def test_recipes_that_make_no_sense() -> None:
    for options, message in (
        ({"epochs": 0}, "epochs=0 trains nothing"),
        ({"batch_size": 0}, "batch_size=0 trains nothing"),
        ({"learning_rate": 0.0}, "learning_rate=0.0, momentum=0.9"),
        ({"momentum": 1.0}, "momentum=1.0"),
        ({"precision": "int8"}, "precision must be 'auto', 'float32' or 'bfloat16', not 'int8'"),
    ):
        with pytest.raises(TrainingError, match=message):
            Recipe(**options)  # type: ignore[arg-type]
    with pytest.raises(TrainingError, match="masks and grow both say"):
        train(make_net(), small_data(), QUICK, masks={}, grow=grow_rigl)


# -- the command line ---------------------------------------------------------------------------------------


def invoke(*args: object) -> Any:
    return CliRunner().invoke(cli.app, ["train", *map(str, args)])


@pytest.fixture
def net(tmp_path: Path) -> str:
    (tmp_path / "net.py").write_text(NET)
    return f"{tmp_path / 'net.py'}:make"


def test_the_command_trains_with_data_driven_masks_and_watches(net: str, tmp_path: Path) -> None:
    args = (net, "--data", "synthetic", "--pruner", "snip", "--sparsity", 0.6, "--epochs", 1, "--out", tmp_path / "run")
    result = invoke(*args, "--metrics", "sink_nodes, log10_paths", "--every", 8)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("epoch 1: train loss 2.") and "; sparsity 0.6" in lines[0]
    assert (
        lines[-1]
        == f"weights and masks: {tmp_path / 'run' / 'checkpoint.pt'}; tables: {tmp_path / 'run' / 'metrics.csv'}"
    )
    assert (tmp_path / "run" / "topometrics.csv").read_text().splitlines()[
        0
    ] == "step,nodes,edges,sink_nodes,log10_paths"
    again = invoke(*args)
    assert again.exit_code == 2 and "holds a training already: give --resume to go on" in again.stderr
    other = invoke(*args[:-4], "--epochs", 2, *args[-2:], "--resume")
    assert other.exit_code == 2 and "was trained with epochs=1, now it is 2" in other.stderr
    assert invoke(*args, "--resume").exit_code == 0


BAD = {
    "resnet19 --data synthetic": "unknown model 'resnet19'",
    "resnet20": "Missing option '--data'",
    "resnet20 --data imagenet": "unknown dataset 'imagenet'",
    "resnet20 --data synthetic --pruner rigl": "--pruner needs --sparsity beside it",
    "resnet20 --data synthetic --sparsity 0.5": "--sparsity needs --pruner beside it",
    "resnet20 --data synthetic --pruner rigel --sparsity 0.5": "unknown pruner 'rigel': did you mean 'rigl'",
    "resnet20 --data synthetic --pruner erk --sparsity 1.5": "sparsity 1.5 is outside [0, 1)",
    "resnet20 --data synthetic --pruner set --sparsity 1.5": "sparsity 1.5 is outside [0, 1)",
    "resnet20 --data synthetic --metrics sinks": "unknown metric 'sinks'",
    "resnet20 --data synthetic --lr nan": "--lr or --weight-decay: learning_rate=nan, ",
    "resnet20 --data synthetic --lr inf": "--lr or --weight-decay: learning_rate=inf, ",
    "resnet20 --data synthetic --epochs 0": "Invalid value for '--epochs'",
    "resnet20 --data cifar10 --root nowhere": "run `topognn data get cifar10`",
}


@pytest.mark.parametrize("text", BAD)
def test_bad_arguments_are_told_in_one_line(text: str, tmp_path: Path) -> None:
    result = invoke(*text.split(), "--out", tmp_path / "run")
    assert result.exit_code == 2 and result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert BAD[text] in line


def test_a_folder_that_is_a_file_is_told_before_anything_is_trained(net: str, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    for out in (tmp_path / "taken", tmp_path / "taken" / "run"):
        result = invoke(net, "--data", "synthetic", "--epochs", 1, "--out", out)
        assert result.exit_code == 2 and result.stdout == ""
        (line,) = result.stderr.splitlines()
        assert f"{str(tmp_path / 'taken')!r} is a file, and cannot be a folder too: give another one." in line
        with pytest.raises(CheckpointError, match="is a file, and cannot be a folder too"):
            train(make_net(), small_data(), QUICK, folder=out)


def test_a_model_of_which_all_is_frozen() -> None:
    with pytest.raises(TrainingError, match=r"all parameters of the model are frozen: unfreeze .* \(requires_grad_"):
        train(make_net().requires_grad_(False), small_data(), QUICK)


def test_loggers_that_are_not_installed(net: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.setitem(sys.modules, "wandb", None)
    for option, what in ((("--tensorboard",), "tensorboard"), (("--wandb", "project"), "wandb")):
        result = invoke(net, "--data", "synthetic", "--epochs", 1, "--out", tmp_path / "run", *option)
        assert result.exit_code == 1 and f"pip install {what}" in result.stderr


def test_loggers_hand_numbers_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import types

    from topognn.training.loggers import log_to_tensorboard, log_to_wandb

    seen: list[Any] = []

    class Writer:
        def __init__(self, folder: str) -> None:
            seen.append(folder)

        def add_scalar(self, *args: object) -> None:
            seen.append(args)

        def flush(self) -> None:
            seen.append("flush")

    run = types.SimpleNamespace(log=lambda numbers, step: seen.append((step, numbers)))
    fake: Any = types.ModuleType("wandb")
    fake.init = lambda project, config: seen.append((project, config)) or run
    monkeypatch.setitem(sys.modules, "wandb", fake)
    board: Any = types.ModuleType("torch.utils.tensorboard")
    board.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    log_to_tensorboard(tmp_path)(3, {"loss": 0.5})
    log_to_wandb("study", {"lr": 0.1})(4, {"loss": 0.25})
    assert seen == [str(tmp_path), ("loss", 0.5, 3), "flush", ("study", {"lr": 0.1}), (4, {"loss": 0.25})]


NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, NEEDS_GPU])])
def test_it_learns_with_the_monitor_watching(device: str) -> None:
    net = make_net().to(device)
    monitor = topognn.TopometricsMonitor(net, (3, 32, 32), ["sink_nodes", "log10_paths", "strength"], every=10)
    rows = train(net, get_data("synthetic"), Recipe(epochs=4), grow=grow_rigl, monitor=monitor)
    assert rows[-1]["test_accuracy"] > 0.15 > rows[0]["test_accuracy"]
    assert rows[-1]["train_loss"] < rows[0]["train_loss"] and monitor.history[-1].tensor.device.type == device
    kept = {name: ~get_pruned(parameter) for name, parameter in plain_parameters(net).items()}
    fresh = topognn.topometrics(topognn.encode(net, (3, 32, 32), kept), ["sink_nodes", "log10_paths"])
    found = monitor.measure(99)
    assert found["sink_nodes"] == fresh["sink_nodes"] and found["log10_paths"] == pytest.approx(fresh["log10_paths"])
