"""Plans and memory limits: what is promised is what happens."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import topognn
from tests.memory import peak_bytes
from topognn.cli.main import main as cli
from topognn.cli.measuring import parse_bytes
from topognn.cli.sources import ArgumentError
from topognn.kernels.host import answering
from topognn.memory import get_held_memory, return_freed_memory
from topognn.metrics.registry import METRICS
from topognn.needs import NEEDS
from topognn.report import group_needs

CPU = torch.device("cpu")
MB = 10**6


def held() -> int:
    """What is in use: not what the C library keeps of memory that other tests freed."""
    return_freed_memory()
    return get_held_memory(CPU)


def encode(name: str, sparsity: float, side: int = 32) -> topognn.MultipartiteGraph:
    torch.manual_seed(0)
    model = topognn.get_model(name)
    return topognn.encode(model, (3, side, side), topognn.prune(model, "erk", sparsity))


@pytest.fixture(scope="module")
def dense() -> topognn.MultipartiteGraph:
    return encode("resnet20", 0.0)  # 37 million edges: 303 MB of rows


def test_every_topometric_is_in_a_plan() -> None:
    steps = topognn.plan(topognn.example_graph()).steps
    assert sorted(name for step in steps for name in step.metrics) == sorted(METRICS)
    assert all(step.bytes > 0 and 0 < step.seconds < 1 and step.fits for step in steps)


def test_a_plan_makes_no_sync_and_no_rows(dense: topognn.MultipartiteGraph) -> None:
    with answering():
        plan = topognn.plan(dense)
    assert not any(dense.has_rows(direction) for direction in ("in", "out", "both"))  # type: ignore[arg-type]
    assert plan.nodes == dense.num_nodes
    assert plan.edges == dense.num_uses
    assert plan.bytes == max(step.bytes for step in plan.steps)
    assert json.loads(plan.to_json())["steps"][0]["metrics"][0] == "sink_nodes"


def test_a_layout_and_masks_have_the_plan_of_their_graph() -> None:
    model, masks = topognn.example_model()
    layout = topognn.trace(model, (1, 3, 3))
    of_layout, of_graph = topognn.plan(layout, masks=masks), topognn.plan(topognn.encode(layout, masks=masks))
    assert of_layout.steps == of_graph.steps


OVERLAP = nn.Sequential(nn.Conv2d(3, 8, 3), nn.MaxPool2d(3, 2), nn.Conv2d(8, 16, 3, padding=1), nn.Flatten())
SLACK = 2 * MB  # kernels that are compiled, arrays that do not grow


@pytest.mark.parametrize(
    ("name", "sparsity", "side"), [("resnet20", 0.97, 20), ("resnet20", 0.5, 12), ("parallel edges", 0.3, 40)]
)
def test_bytes_and_routes_are_those_that_are_met(name: str, sparsity: float, side: int) -> None:
    """What torch holds at most is what was told, give or take; and rows are built only if that was told."""
    model = OVERLAP if name == "parallel edges" else topognn.get_model(name)
    layout, masks = topognn.trace(model, (3, side, side)), topognn.prune(model, "erk", sparsity)
    for step in topognn.plan(topognn.encode(layout, masks=masks)).steps:
        if METRICS[step.metrics[0]].group == "expansion" and step.metrics[0] != "spectral_radius":
            continue  # the same search with more vectors, at length
        graph = topognn.encode(layout, masks=masks)
        _ = graph.num_edges  # of which every table has the number
        at_first = [graph.has_rows(direction) for direction in ("in", "out", "both")]  # type: ignore[arg-type]
        want = next(s for s in topognn.plan(graph, step.metrics).steps)
        most, _ = peak_bytes(lambda graph=graph, step=step: topognn.topometrics(graph, step.metrics))  # type: ignore[misc]
        after = [graph.has_rows(direction) for direction in ("in", "out", "both")]  # type: ignore[arg-type]
        if want.route != "rows":
            assert after == at_first, step
        assert most <= want.bytes + SLACK, step
        if step.metrics[0] != "motifs":
            assert want.bytes <= 3 * most + SLACK, step


def test_named_topometrics_beyond_the_limit_are_an_error_before_anything_is_done(
    dense: topognn.MultipartiteGraph,
) -> None:
    with topognn.memory_limit(held() + 150 * MB):
        assert [s.fits for s in topognn.plan(dense, ["k_core", "strength"]).steps] == [False, True]
        match = "k_core of 37,259,968 edges needs 30. MB on cpu, and 1.* MB are free: leave it out"
        with pytest.raises(topognn.GraphMemoryError, match=match):
            topognn.topometrics(dense, ["strength", "k_core"])
        with pytest.raises(topognn.GraphMemoryError, match="cut_nodes of"):
            topognn.trouble_table(dense)
    assert not dense.has_rows("both")
    assert "in_strengths" not in dense.__dict__


def test_by_default_what_is_beyond_the_limit_is_left_out(
    dense: topognn.MultipartiteGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ("one_hop", "k_core", "cut_nodes", "cut_edges", "components", "effective_edges")
    monkeypatch.setattr("topognn.metrics.registry.METRICS", {name: METRICS[name] for name in few})
    with topognn.memory_limit(held() + 150 * MB):
        values = topognn.topometrics(dense)
    assert {"k_core", "cut_nodes", "cut_edges"} <= values.left_out.keys()
    assert all(size > 150 * MB for size in values.left_out.values())
    assert {"one_hop", "components", "effective_edges"} <= set(values)
    assert values["effective_edges"] == dense.num_edges
    assert values["components"] == 1
    with pytest.raises(topognn.UnknownNameError, match=r"k_core was left out: it needs 30. MB, more than was free"):
        values["k_core"]
    assert values.get("k_core") is None


def refuse_rows(*_: object) -> None:
    raise topognn.GraphMemoryError("no room")


def test_what_does_not_fit_when_its_turn_comes_is_left_out_and_the_rest_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(topognn.MultipartiteGraph, "_check_memory", refuse_rows)
    values = topognn.topometrics(topognn.example_graph())
    assert values.left_out.keys() == {"k_core", "cut_edges", "cut_nodes"}
    assert set(values) == {"nodes", "edges"} | METRICS.keys() - values.left_out.keys()
    with pytest.raises(topognn.GraphMemoryError, match="no room"):
        topognn.topometrics(topognn.example_graph(), ["strength", "k_core"])


def test_what_can_be_made_again_makes_room() -> None:
    graph = encode("resnet20", 0.9)  # 5 million edges: 42 MB of rows
    want = topognn.topometrics(graph, ["strength"])["strength"]
    graph.__dict__["out_strengths"] = torch.ones(5 * MB, dtype=torch.float64)
    with topognn.memory_limit(held() + 30 * MB):
        assert topognn.topometrics(graph, ["k_core"])["k_core"] > 1
    assert topognn.topometrics(graph, ["strength"])["strength"] == want


EFFECTIVE = ["effective_nodes", "effective_edges", "effective_density", "layer_collapse"]


def test_what_fits_does_not_go_with_what_is_found_together_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    graph = topognn.encode(OVERLAP, (3, 20, 20), topognn.prune(OVERLAP, "erk", 0.3))
    sizes = [topognn.plan(graph, [name]).bytes for name in EFFECTIVE]
    want = topognn.topometrics(graph, EFFECTIVE)
    graph.forget()
    few = {name: METRICS[name] for name in (*EFFECTIVE, "strength")}
    with monkeypatch.context() as little:
        little.setattr("topognn.planning.get_free_memory", lambda device: 1000)
        paths = topognn.plan(graph, ["paths", "log10_paths", "paths_per_weight"]).steps
    assert [step.metrics for step in paths] == [("paths", "log10_paths"), ("paths_per_weight",)]
    assert paths[0].bytes < 0.6 * paths[1].bytes  # rows of one direction, not of both
    monkeypatch.setattr("topognn.metrics.registry.METRICS", few)
    monkeypatch.setattr("topognn.report.is_free", lambda size, device: size < sizes[1])
    monkeypatch.setattr("topognn.planning.get_free_memory", lambda device: sizes[1] - 1)
    steps = topognn.plan(graph, EFFECTIVE).steps
    assert [(step.metrics, step.fits) for step in steps] == [
        (("effective_nodes", "effective_density", "layer_collapse"), True),
        (("effective_edges",), False),
    ]
    values = topognn.topometrics(graph)
    assert values.left_out["effective_edges"] == sizes[1]
    assert [values[name] for name in steps[0].metrics] == [want[name] for name in steps[0].metrics]
    assert set(values) == {"nodes", "edges"} | few.keys() - {"effective_edges"}


def test_edges_that_cannot_be_counted_are_left_out_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topognn.MultipartiteGraph, "num_edges", property(refuse_rows))
    values = topognn.topometrics(topognn.example_graph(), ["sink_nodes", "one_hop"])
    assert list(values) == ["nodes", "sink_nodes", "one_hop"]
    assert values.left_out.keys() == {"edges"}
    assert values.normalized()["sink_nodes"] > 0
    assert math.isnan(values.normalized()["1-hop_nei"])


def test_a_spectrum_that_is_not_found_leaves_the_others(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(graph: topognn.MultipartiteGraph) -> torch.Tensor:
        raise topognn.ConvergenceError("3.8e-06 after 2001 products")

    monkeypatch.setitem(NEEDS, fail, NEEDS[METRICS["spectral_gap"].function])
    monkeypatch.setitem(METRICS, "spectral_gap", METRICS["spectral_gap"]._replace(function=fail))
    values = topognn.topometrics(topognn.example_graph())
    assert values.not_found == {"spectral_gap": "3.8e-06 after 2001 products"}
    assert set(values) == {"nodes", "edges"} | METRICS.keys() - {"spectral_gap"}
    with pytest.raises(topognn.UnknownNameError, match=r"spectral_gap was not found: 3\.8e-06 after"):
        values["spectral_gap"]
    with pytest.raises(topognn.ConvergenceError, match=r"3\.8e-06"):
        topognn.topometrics(topognn.example_graph(), ["spectral_gap"])
    args = ("resnet20", "--pruner", "erk", "--sparsity", "0.98", "--input", "3x8x8")
    code, out, err = run(capsys, monkeypatch, *args)
    assert (code, err) == (0, "")
    assert "spectral_gap was not found: 3.8e-06 after 2001 products" in out
    code, out, _ = run(capsys, monkeypatch, *args, "--json", "-")
    assert json.loads(out)["not_found"] == values.not_found


def test_rows_of_other_steps_make_room() -> None:
    graph = encode("resnet20", 0.5)  # 28 million edges: 112 MB of out-edges, 224 MB of both
    rows = graph.rows("out")
    with topognn.memory_limit(held() + 180 * MB):
        with pytest.raises(topognn.GraphMemoryError, match="free"):  # they are held here
            graph.rows("both")
        assert not graph.has_rows("out")
        del rows
        assert topognn.topometrics(graph, ["k_core"])["k_core"] > 1
    assert graph.has_rows("both")


def test_spectra_take_the_route_that_fits() -> None:
    graph = encode("resnet20", 0.8, 16)
    free = topognn.topometrics(graph, ["spectral_radius"])["spectral_radius"]
    assert graph.has_rows("both", weighted=True)
    graph.forget()
    with topognn.memory_limit(held() + 20 * MB):
        assert topognn.plan(graph, ["spectral_radius"]).steps[0].route == "connections"
        assert topognn.topometrics(graph, ["spectral_radius"])["spectral_radius"] == pytest.approx(free, rel=1e-5)
    assert not graph.has_rows("both")


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_of_nothing_is_refused(limit: int) -> None:
    with pytest.raises(topognn.GraphMemoryError, match=f"a memory limit of {limit} bytes"), topognn.memory_limit(limit):
        pass


@pytest.mark.parametrize(("text", "size"), [("8GB", 8 * 10**9), ("512MiB", 2**29), ("1.5k", 1500), ("77", 77)])
def test_sizes(text: str, size: int) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["8XB", "0", "0GB", "", "-1GB", "GB", "8 8GB", "1e9", "0.1"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ArgumentError, match=r"--memory .*: give a size such as 8GB"):
        parse_bytes(text)


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *args: str) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["topognn", "report", *args])
    with pytest.raises(SystemExit) as stopped:
        cli()
    out, err = capsys.readouterr()
    return int(stopped.value.code or 0), out, err


def test_the_command_plans(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    args = ("resnet20", "--plan", "--memory", "1GB", "--metrics", "strength,k_core,cut_edges", "--json")
    code, out, err = run(capsys, monkeypatch, *args, str(tmp_path / "plan.json"))
    assert (code, err) == (0, "")
    assert "k_core" in out
    assert "303 MB" in out
    steps = json.loads((tmp_path / "plan.json").read_text())["steps"]
    assert [step["metrics"] for step in steps] == [["strength"], ["k_core"], ["cut_edges"]]
    code, out, _ = run(capsys, monkeypatch, "resnet20", "--plan", "--metrics", "strength", "--csv", "-")
    assert (code, out.splitlines()[0]) == (0, "metric,route,bytes,seconds,fits")
    assert out.splitlines()[1].startswith("strength,masks,")


def test_the_command_keeps_to_its_limit(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    few = ("one_hop", "k_core", "components")
    monkeypatch.setattr("topognn.metrics.registry.METRICS", {name: METRICS[name] for name in few})
    limit = f"{held() // MB + 200}MB"
    code, out, err = run(capsys, monkeypatch, "resnet20", "--memory", limit)
    assert (code, err) == (0, "")
    assert "needs 30" in next(line for line in out.splitlines() if "k_core" in line)
    code, out, _ = run(capsys, monkeypatch, "resnet20", "--memory", limit, "--json", "-")
    assert list(json.loads(out)["left_out"]) == ["k_core"]
    assert "components" in json.loads(out)["raw"]
    code, _, err = run(capsys, monkeypatch, "resnet20", "--memory", limit, "--metrics", "k_core")
    assert code == 1
    assert "k_core of 37,259,968 edges needs" in err
    code, _, err = run(capsys, monkeypatch, "resnet20", "--memory", "8XB")
    assert (code, err.count("\n")) == (2, 1)


def test_a_report_is_not_thrown_away_for_what_else_was_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(topognn, "trouble_table", refuse_rows)
    args = ("resnet20", "--pruner", "erk", "--sparsity", "0.98", "--input", "3x8x8", "--where", "--layers")
    monkeypatch.setattr("topognn.metrics.registry.METRICS", {"one_hop": METRICS["one_hop"]})
    code, out, err = run(capsys, monkeypatch, *args)
    assert (code, err) == (0, "")
    assert "one_hop" in out
    assert "log10 paths" in out
    assert "--where is left out: no room" in out
    code, out, _ = run(capsys, monkeypatch, *args, "--json", "-")
    assert json.loads(out)["refused"] == {"where": "no room"}
    assert json.loads(out)["where"] is None


def test_a_limit_within_which_nothing_fits_is_an_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, err = run(capsys, monkeypatch, "resnet20", "--input", "3x8x8", "--memory", "50MB")
    assert (code, out) == (1, "")
    assert "no topometric of" in err
    assert re.search(r"within a limit of 50 MB: .* are held already, and \w+, which needs least, takes .*: allow", err)


def test_topometrics_that_share_an_analysis_are_one_step() -> None:
    groups = [names for names in group_needs(METRICS).values() if len(names) > 1]
    shared = {tuple(METRICS[name].of for name in names) for names in groups}
    assert all(len(set(ofs)) == 1 for ofs in shared)
