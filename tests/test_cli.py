"""The command line: its numbers are the library's, its failures one line and an exit code."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.utils import prune as torch_prune
from typer.testing import CliRunner

import topognn
from topognn.cli import main as cli
from topognn.cli import measuring
from topognn.cli.display import format_number
from topognn.cli.measuring import pick_device
from topognn.cli.sources import ArgumentError, find_source, parse_shape
from topognn.cli.weights import load_weights
from topognn.errors import DeviceError, GraphMemoryError, UnsupportedOperation
from topognn.masks import prunable_weights

NET = '''
"""A small network in a file."""
import dataclasses
from torch import nn
from width import WIDTH  # a module that lies beside this one

@dataclasses.dataclass
class Sizes:
    out: int = 3

def make():
    return nn.Sequential(nn.Conv2d(1, WIDTH, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * WIDTH, Sizes().out))

def number():
    return 3

def broken():
    raise RuntimeError("no weights\\nhere")

def recurrent():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.LSTM(6, 4, batch_first=True)
        def forward(self, x):
            return self.cell(x)[0]
    return Model()

def wait():
    print("waiting", flush=True)
    import time
    time.sleep(60)
'''


@pytest.fixture
def net(tmp_path: Path) -> str:
    """A MODEL argument for a network in a file, which reads 1x6x6."""
    (tmp_path / "width.py").write_text("WIDTH = 4\n")
    (tmp_path / "net.py").write_text(NET)
    sys.modules.pop("width", None)
    return f"{tmp_path / 'net.py'}:make"


def invoke(*args: object) -> Any:
    return CliRunner().invoke(cli.app, list(map(str, args)))


def report(*args: object) -> dict[str, Any]:
    """Run a report to JSON on stdout; whatever else comes out is an error."""
    result = invoke("report", *args, "--json", "-")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)  # type: ignore[no-any-return]


def fail(*args: object, code: int = 2) -> str:
    """Run what must fail with ``code``; return its one line on stderr."""
    result = invoke(*args)
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line.removeprefix("error: ")


def topognn_process(*args: object, **options: Any) -> subprocess.Popen[str]:
    listens = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # where tests run side by side,
    command = [sys.executable, "-c", f"{listens}; from topognn.cli.main import main; main()", *map(str, args)]  # too
    return subprocess.Popen(
        command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8", **options
    )


# -- numbers ------------------------------------------------------------------------------------------------


def test_json_holds_what_the_library_computes() -> None:
    found = report("resnet20", "--pruner", "erk", "--sparsity", 0.95, "--seed", 3, "--layers")
    torch.manual_seed(3)
    model = topognn.get_model("resnet20")
    masks = topognn.prune(model, "erk", 0.95, seed=3, input_shape=(3, 32, 32))
    graph = topognn.encode(model, (3, 32, 32), masks=masks)
    values = topognn.topometrics(graph)
    assert found["raw"] == pytest.approx(values.to_dict(), rel=1e-12)
    assert found["normalized"] == pytest.approx(values.normalized(), rel=1e-12)
    assert found["layers"] == [{**row._asdict(), "shape": list(row.shape)} for row in topognn.layer_table(graph)]
    assert sum(layer["edges"] for layer in found["layers"]) == found["raw"]["edges"]
    assert found["kept_weights"] == sum(int(mask.sum()) for mask in masks.values())
    assert found["sparsity"] == pytest.approx(0.95, abs=1e-5)
    assert found["arguments"]["pruner"] == "erk" and found["arguments"]["seed"] == 3
    assert list(found["seconds"]) == ["build", "trace", "prune", "encode", "metrics"]
    assert found["peak_bytes"] > 2**20


def test_tables_show_the_same_numbers(net: str, tmp_path: Path) -> None:
    out = tmp_path / "a.json"
    args = ("report", net, "--input", "1x6x6", "--pruner", "uniform", "--sparsity", 0.5, "--json", out)
    shown = invoke(*args, "--layers")
    assert shown.exit_code == 0 and shown.stderr == ""
    found = json.loads(out.read_text())
    lines = [line.split() for line in shown.stdout.splitlines()]
    for row in (name for name in found["raw"] if name in topognn.METRICS):
        (line,) = [line for line in lines if row in line[:2]]
        assert format_number(found["raw"][row]) in line
        if column := topognn.METRICS[row].column:
            assert format_number(found["normalized"][column]) == line[-1]
    for layer in found["layers"]:
        (line,) = [line for line in lines if line[:1] == [layer["layer"]]]
        assert line[2:5] == [f"{layer['kept']:,}", f"{layer['density']:.4f}", f"{layer['edges']:,}"]
        assert line[5] == f"{layer['effective']:,}" and line[7] == format_number(layer["expansion"])
    header, costs = shown.stdout.splitlines()[0], shown.stdout.splitlines()[-1]
    assert "input 1x6x6, random weights (seed 0), uniform at sparsity 0.5 (reached 0.5, " in header
    assert f"{found['raw']['nodes']:,} nodes" in header and header.endswith("on cpu")
    assert costs.startswith("build ") and "peak memory" in costs
    assert "log10 paths" in shown.stdout and "log10 paths" not in invoke(*args).stdout


def test_metrics_are_chosen_and_csv_has_a_row_each(net: str, tmp_path: Path) -> None:
    args = ("report", net, "--input", "1x6x6", "--metrics", "strength, sink_nodes,strength")
    result = invoke(*args, "--csv", "-")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [row["metric"] for row in rows] == ["nodes", "edges", "strength", "sink_nodes"]
    assert rows[2]["column"] == "avg_node_strength" and rows[2]["group"] == "strength"
    assert float(rows[2]["normalized"]) == float(rows[2]["value"]) / int(rows[1]["value"])
    assert invoke(*args, "--csv", tmp_path / "a.csv").exit_code == 0
    assert (tmp_path / "a.csv").read_text() == result.stdout


def test_undefined_values_are_null_in_json_and_said_in_tables(net: str, tmp_path: Path) -> None:
    torch.save({"0.weight": torch.zeros(4, 1, 3, 3), "3.weight": torch.zeros(3, 64)}, tmp_path / "none.pt")
    args = (net, "--input", "1x6x6", "--masks", tmp_path / "none.pt")
    found = report(*args)
    assert found["raw"]["edges"] == 0 and found["normalized"]["r-out"] is None
    assert found["sparsity"] == 1 and found["kept_weights"] == 0
    assert "undefined" in invoke("report", *args).stdout


def test_seed_sets_the_weights(net: str) -> None:
    strengths = [
        report(net, "--input", "1x6x6", "--metrics", "strength", "--seed", seed)["raw"]["strength"]
        for seed in (1, 1, 2)
    ]
    assert strengths[0] == strengths[1] != strengths[2]


def test_a_dense_network_is_called_dense(net: str) -> None:
    result = invoke("report", net, "--input", "1x6x6", "--metrics", "strength")
    assert "(dense; --pruner or --masks make it sparse)" in result.stdout and result.stderr == ""


# -- models -------------------------------------------------------------------------------------------------


def test_torchvision_models_run() -> None:
    found = report(
        *("torchvision:resnet18", "--input", "3x64x64", "--pruner", "er", "--sparsity", 0.99, "--layers"),
        *("--metrics", "sink_nodes,spectral_gap"),
    )
    assert found["raw"]["nodes"] > 3 * 64 * 64 and found["input_shape"] == [3, 64, 64]
    assert found["weights"] == 11_678_912  # 11,689,512 parameters less batch norm and one bias
    assert found["layers"][-1]["shape"] == [1000, 512]


def test_torchvision_models_are_made_for_224_and_take_classes() -> None:
    source = find_source("torchvision:resnet18", classes=7)
    assert source.input_shape == (3, 224, 224)
    assert source.build().fc.out_features == 7


def test_a_file_can_import_its_neighbours_and_hides_no_module(net: str) -> None:
    before = list(sys.path)
    model = find_source(net, "1x6x6").build()
    assert isinstance(model, torch.nn.Module) and model[0].out_channels == 4
    assert sys.path == before and "net" not in sys.modules
    assert find_source(net, "1x6x6").build() is not model


def test_our_models_follow_input_and_classes() -> None:
    found = report("resnet20", "--input", "1x16x16", "--classes", 3, "--metrics", "sink_nodes", "--layers")
    assert found["layers"][0]["shape"] == [16, 1, 3, 3] and found["layers"][-1]["shape"] == [3, 64]
    assert parse_shape("64") == (64,)


@pytest.mark.parametrize("form", ["plain", "pruned", "wrapped", "parallel"])
def test_checkpoints_of_all_forms_give_their_weights_and_masks(form: str, net: str, tmp_path: Path) -> None:
    torch.manual_seed(5)
    model = find_source(net, "1x6x6").build()
    masks = topognn.prune(model, "uniform", 0.75)
    for number in (0, 3):
        torch_prune.custom_from_mask(model[number], "weight", masks[f"{number}.weight"])  # type: ignore[index]
    expected = topognn.topometrics(topognn.encode(model, (1, 6, 6))).to_dict()
    if form != "pruned":
        for number in (0, 3):
            torch_prune.remove(model[number], "weight")  # type: ignore[index]
    state = model.state_dict()
    assert ("0.weight_mask" in state) == (form == "pruned")
    if form == "parallel":
        state = {f"module.{name}": value for name, value in state.items()}
    content = {"epoch": 3, "state_dict": state, "masks": masks} if form == "wrapped" else state
    torch.save(content, tmp_path / "net.pt")
    found = report(net, "--input", "1x6x6", "--checkpoint", tmp_path / "net.pt")
    assert found["raw"] == pytest.approx(expected, rel=1e-6)


def test_masks_of_a_file_are_used(net: str, tmp_path: Path) -> None:
    model = find_source(net, "1x6x6").build()
    masks = topognn.prune(model, "erk", 0.6, seed=2)
    topognn.save_masks(tmp_path / "masks.safetensors", masks)
    found = report(net, "--input", "1x6x6", "--masks", tmp_path / "masks.safetensors")
    assert found["kept_weights"] == sum(int(mask.sum()) for mask in masks.values())
    assert found["sparsity"] == pytest.approx(0.6, abs=0.01)


def test_a_dense_checkpoint_is_warned_of_in_one_line(net: str, tmp_path: Path) -> None:
    torch.save(find_source(net, "1x6x6").build().state_dict(), tmp_path / "net.pt")
    result = invoke("report", net, "--input", "1x6x6", "--checkpoint", tmp_path / "net.pt")
    assert result.exit_code == 0 and "(dense)" in result.stdout
    (line,) = result.stderr.splitlines()
    assert line.startswith("warning: no weight is zero and there are no masks")


def test_checkpoints_of_other_models_are_refused(net: str, tmp_path: Path) -> None:
    model = find_source(net, "1x6x6").build()
    state = model.state_dict()
    del state["3.bias"]
    torch.save({**state, "head.weight": torch.ones(2)}, tmp_path / "net.pt")
    line = fail("report", net, "--input", "1x6x6", "--checkpoint", tmp_path / "net.pt")
    assert "lacks '3.bias' and has 'head.weight'" in line
    torch.save({**state, "3.bias": torch.ones(5)}, tmp_path / "net.pt")
    with pytest.raises(topognn.CheckpointError, match=r"'3.bias' in .* has shape \(5,\), in the model \(3,\)"):
        load_weights(model, tmp_path / "net.pt")
    torch.save([torch.ones(2)], tmp_path / "net.pt")
    with pytest.raises(topognn.CheckpointError, match="is a list without names"):
        load_weights(model, tmp_path / "net.pt")


def test_checkpoints_of_models_inside_others_and_of_rigl_torch_are_loaded(net: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    state = find_source(net, "1x6x6").build().state_dict()
    inside = {f"model.{name}": value for name, value in state.items()}
    for content in (
        {"state_dict": inside, "epoch": 3},  # Lightning
        {**inside, "mask_0___weight": torch.ones_like(state["0.weight"])},  # open_lth
        {"model": state, "pruner": {"backward_masks": [torch.ones_like(state["0.weight"]), None]}},
    ):
        torch.save(content, tmp_path / "net.pt")
        torch.manual_seed(2)
        model = find_source(net, "1x6x6").build()
        load_weights(model, tmp_path / "net.pt")
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


# -- failures -----------------------------------------------------------------------------------------------

BAD = {
    "resnet19": "unknown model 'resnet19': did you mean",
    "": "Missing argument 'MODEL'",
    "resnet20 --foo": "No such option: --foo",
    "resnet20 --sparsity much": "Invalid value for '--sparsity'",
    "resnet20 --pruner erk": "--pruner needs --sparsity",
    "resnet20 --sparsity 0.5": "--sparsity needs --pruner",
    "resnet20 --pruner erx --sparsity 0.5": "unknown pruner 'erx': did you mean 'er' or 'erk'?",
    "NET --input 1x6x6 --pruner erk --sparsity 1.5": "sparsity 1.5 is outside [0, 1)",
    "NET --input 1x6x6 --pruner erk --sparsity nan": "sparsity nan is outside [0, 1)",
    "resnet20 --pruner erk --sparsity 0.5 --masks a.pt": "--pruner and --masks both say",
    "resnet20 --metrics sinks": "unknown metric 'sinks': did you mean 'sink_nodes'?",
    "resnet20 --metrics ,": "unknown metric ''",
    "resnet20 --input 3by3": "--input '3by3' is no shape",
    "resnet20 --input 0x3x3": "--input '0x3x3' is no shape",
    "resnet20 --input 64": "resnet20 reads images",
    "NET --input 1x7x6": "torch.export cannot trace the model at input shape (1, 7, 6)",
    "resnet20 --device tape": "--device 'tape' is no device",
    "NET --input 1x6x6 --shortcuts some": "shortcuts must be 'parametric' or 'all', not 'some'",
    "NET --input 1x6x6 --attention some": "attention must be 'all' or 'values', not 'some'",
    "resnet20 --checkpoint no.pt": "there is no file 'no.pt'",
    "resnet20 --checkpoint TMP/junk.pt": "is truncated or was not written by torch.save",
    "resnet20 --masks no.safetensors": "there is no file 'no.safetensors'",
    "resnet20 --json TMP/nowhere/a.json": "there is no folder",
    "resnet20 --csv TMP": "it is a folder",
    "resnet20 --json - --csv -": "cannot both have stdout",
    "torchvision:resnet19": "unknown torchvision model 'resnet19': did you mean 'resnet18'",
    "torchvision:fasterrcnn_resnet50_fpn": "unknown torchvision model",
    "TMP/net.py": "net.py:NAME",
    "NET": "--input",
    "TMP/no.py:make --input 1x6x6": "there is no file",
    "TMP/no.py:made": "there is no file",
    "TMP/net.py:mak --input 1x6x6": "unknown callable 'mak': did you mean 'make'?",
    "NET --input 1x6x6 --classes 3": "--classes means nothing to",
    "TMP/net.py:number --input 1x6x6": "returned an object of type int",
    "TMP/net.py:broken --input 1x6x6": "failed when called without arguments: RuntimeError: no weights here",
    "TMP/junk.py:x --input 1x6x6": "ZeroDivisionError: division by zero",
    "resnet20 --seed -1": "Invalid value for '--seed'",
    "resnet20 --classes 0": "Invalid value for '--classes'",
    "resnet20 more": "unexpected extra argument",
}


@pytest.mark.parametrize("text", BAD)
def test_bad_arguments_are_told_in_one_line_with_code_2(text: str, net: str, tmp_path: Path) -> None:
    (tmp_path / "junk.pt").write_text("junk")
    (tmp_path / "junk.py").write_text("1 / 0")
    line = fail("report", *text.replace("NET", net).replace("TMP", str(tmp_path)).split())
    assert BAD[text] in line


def test_unknown_commands_are_guessed() -> None:
    assert "Did you mean 'report'?" in fail("reprot")


@pytest.mark.parametrize(
    "error",
    [
        GraphMemoryError("too large"),
        DeviceError("no GPU"),
        UnsupportedOperation("lstm"),
        OSError("disk full"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_cannot_be_done_here_has_code_1(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(*_: object) -> None:
        raise error

    monkeypatch.setattr(measuring, "measure", raises)
    assert fail("report", "resnet20", code=1).endswith(str(error))


def test_unsupported_operations_have_code_1(net: str) -> None:
    line = fail("report", net.replace(":make", ":recurrent"), "--input", "5x6", code=1)
    assert "lstm" in line


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_has_code_1() -> None:
    assert "finds no CUDA driver or GPU" in fail("report", "resnet20", "--device", "cuda", code=1)
    assert pick_device() == torch.device("cpu")


def test_bugs_are_told_in_one_line_and_traced_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(*_: object) -> None:
        raise RuntimeError("first\nsecond")

    monkeypatch.setattr(measuring, "measure", raises)
    line = fail("report", "resnet20", code=1)
    assert line == "RuntimeError: first second (unexpected; --debug shows where)"
    result = invoke("report", "resnet20", "--debug")
    assert result.exit_code == 1 and "Traceback (most recent call last)" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: RuntimeError")


def test_debug_keeps_the_exit_code() -> None:
    result = invoke("report", "resnet19", "--debug")
    assert result.exit_code == 2 and "Traceback" in result.stderr


def test_an_interrupt_has_code_130_and_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(measuring, "measure", raises)
    result = invoke("report", "resnet20")
    assert (result.exit_code, result.output) == (130, "")


@pytest.mark.parametrize("suffix", ["json", "csv"])
def test_files_are_whole_or_as_before(suffix: str, net: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / f"out.{suffix}"
    out.write_text("before")
    args = ("report", net, "--input", "1x6x6", f"--{suffix}", out)

    def raises(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", raises)
        assert fail(*args, code=1) == "OSError: disk full"
    assert out.read_text() == "before"
    assert invoke(*args).exit_code == 0
    assert out.read_text() != "before"
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".tmp"]


# -- other commands -----------------------------------------------------------------------------------------


def test_models_lists_each_with_its_weights() -> None:
    result = invoke("models")
    assert result.exit_code == 0
    rows = {line.split()[0]: line for line in result.stdout.splitlines() if line}
    for name in topognn.MODELS:
        weights = prunable_weights(topognn.get_model(name))
        assert f"{sum(weight.numel() for weight in weights.values()):,}" in rows[name]


def test_pruners_lists_each_with_its_source() -> None:
    result = invoke("pruners")
    assert result.exit_code == 0
    for name in topognn.PRUNERS:
        assert any(line.startswith(f"{name} ") and ", " in line for line in result.stdout.splitlines())


def test_a_pruner_that_needs_data_is_refused() -> None:
    assert "snip needs data" in fail("report", "resnet20", "--pruner", "snip", "--sparsity", 0.5)
    lines = [line.split()[:3] for line in invoke("pruners").stdout.splitlines()]
    assert ["snip", "yes", "Lee,"] in lines and any(line[:2] == ["synflow", "no"] for line in lines)


def test_info_names_versions_and_devices() -> None:
    result = invoke("info")
    assert result.exit_code == 0
    told = dict(line.split(maxsplit=1) for line in result.stdout.splitlines())
    assert told["topognn"] == topognn.__version__ and told["torch"] == torch.__version__.split("+")[0]
    assert "GiB free" in told["cpu"] and f"{topognn.get_num_threads()} threads" in told["cpu"]
    assert told["report"].removeprefix("runs on").strip() == str(pick_device())


def test_version_and_help() -> None:
    assert invoke("--version").stdout == f"topognn {topognn.__version__}\n"
    assert invoke().exit_code == 0 and "report" in invoke().stdout
    assert "--checkpoint" in invoke("report", "--help").stdout


def test_shapes_that_are_none_are_refused() -> None:
    for text in ("", "x", "3x", "x3", "-3x3", "3X3", "3x 3", "1.5x2", "9" * 30, "3x32x32\n"):
        with pytest.raises(ArgumentError, match="is no shape"):
            parse_shape(text)


# -- processes ----------------------------------------------------------------------------------------------


def test_piped_output_is_plain_and_stderr_is_silent(net: str) -> None:
    args = ("report", net, "--input", "1x6x6", "--pruner", "uniform", "--sparsity", 0.5, "--layers")
    process = topognn_process(*args, env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "40"})
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert "\x1b" not in out and "removable_out_edges" in out


def test_an_interrupted_process_leaves_without_a_traceback(net: str) -> None:
    process = topognn_process("report", net.replace(":make", ":wait"), "--input", "1x6x6")
    assert process.stdout is not None and process.stdout.readline() == "waiting\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "")


def test_help_needs_no_torch() -> None:
    code = (
        "import sys, types\n"
        "package = types.ModuleType('topognn')\n"  # without what the real one imports
        f"package.__path__ = {topognn.__path__!r}\n"
        "sys.modules['topognn'] = package\n"
        "from topognn.cli.main import main\n"
        "sys.argv = ['topognn', 'report', '--help']\n"
        "try:\n"
        "    main()\n"
        "finally:\n"
        "    assert not {'torch', 'numba', 'numpy'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "") and "--sparsity" in done.stdout
