"""Bad input: one clear error that names what was wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import topognn
from topognn import graph as graph_module

KEPT = {"0.weight": torch.ones(2, 1, 2, 2), "2.weight": torch.ones(2, 8)}


def small() -> nn.Module:
    """Return the example model, without zeros in its weights."""
    model = topognn.example_model()[0]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1)
    return model


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) if x.sum() > 0 else x


class Calling(nn.Module):
    """A layer, then any function of its output."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.inner(x))


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (
            {"0.weight": torch.ones(1, 1, 3, 3)},
            r"mask '0.weight' has shape \(1, 1, 3, 3\), its weight \(2, 1, 2, 2\)",
        ),
        ({"1.weight": torch.ones(1)}, r"unknown mask '1.weight': did you mean"),
        ({"0.weight": torch.full((2, 1, 2, 2), torch.nan)}, r"mask '0.weight' holds the value nan"),
        ({"0.weight": torch.full((2, 1, 2, 2), 0.5)}, r"mask '0.weight' holds the value 0.5: use 0 .* and 1"),
        ([torch.ones(2, 1, 2, 2)], r"1 masks for 2 weights"),
    ],
)
def test_bad_masks(masks: object, message: str) -> None:
    with pytest.raises(topognn.MaskError, match=message):
        topognn.encode(small(), (1, 3, 3), masks)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (None, "input_shape is missing"),
        ((0, 3, 3), r"input_shape must be .* not \(0, 3, 3\)"),
        ((), "input_shape must be"),
        ((1.5,), "input_shape must be"),
        ((3, 3, 3), r"torch.export cannot trace the model at input shape \(3, 3, 3\): .*channels"),
        ((1, 5, 5), r"cannot trace the model at input shape \(1, 5, 5\)"),
    ],
)
def test_bad_input_shape(shape: tuple[int, ...] | None, message: str) -> None:
    with pytest.raises(topognn.TraceError, match=message):
        topognn.encode(small(), shape, KEPT)


def test_meta_device() -> None:
    with torch.device("meta"):
        model = nn.Linear(4, 4)
    with pytest.raises(topognn.TraceError, match="meta device"):
        topognn.encode(model, (4,))


@pytest.mark.parametrize("model", [nn.ReLU(), nn.BatchNorm2d(3)], ids=["none", "norm only"])
def test_no_parametric_layer(model: nn.Module) -> None:
    with pytest.raises(topognn.TraceError, match=r"no parametric layer|no convolution or linear layer"):
        topognn.encode(model, (3, 4, 4))


@pytest.mark.filterwarnings("ignore:no weight is zero")
def test_a_layout_at_another_shape() -> None:
    layout = topognn.trace(small(), (1, 3, 3))
    assert topognn.encode(layout, (1, 3, 3)).num_nodes == topognn.encode(layout, torch.ones(1, 1, 3, 3)).num_nodes
    for shape in ((1, 4, 4), torch.ones(1, 1, 4, 4), (torch.ones(1, 1, 4, 4),)):
        message = r"was traced at input shape \(1, 3, 3\), not \(1, 4, 4\): leave input_shape out, or trace the model"
        with pytest.raises(topognn.TraceError, match=message):
            topognn.encode(layout, shape)
    words = topognn.trace(nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 2)), (5,))  # whose nodes are no tokens
    assert topognn.encode(words, (5,)).num_edges == topognn.encode(words).num_edges
    with pytest.raises(topognn.TraceError, match=r"was traced at input shape \(5,\), not \(6,\)"):
        topognn.encode(words, (6,))


@pytest.mark.filterwarnings("ignore:no weight is zero")
@pytest.mark.parametrize("device", ["cudaa", "tape:0", object()])
def test_no_device(device: object) -> None:
    with pytest.raises(topognn.DeviceError, match=r"is no device: give 'cpu', 'cuda' or 'cuda:NUMBER'"):
        topognn.encode(small(), (1, 3, 3), device=device)  # type: ignore[arg-type]


def test_one_metric_may_be_named_alone() -> None:
    graph = topognn.example_graph()
    assert topognn.topometrics(graph, "sink_nodes").to_dict() == topognn.topometrics(graph, ["sink_nodes"]).to_dict()
    model, masks = topognn.example_model()
    topognn.apply_masks(model, masks)
    monitor = topognn.TopometricsMonitor(model, (1, 3, 3), "sink_nodes", every=1)
    assert list(monitor.measure(1)) == ["nodes", "edges", "sink_nodes"]
    assert list(topognn.layer_topometrics(model, "rolled", metrics="one_hop").columns)[-1] == "one_hop"
    for measure in (lambda: topognn.topometrics(graph, "sinks"), lambda: monitor.__class__(model, (1, 3, 3), "sinks")):
        with pytest.raises(topognn.UnknownNameError, match="unknown metric 'sinks'"):
            measure()


@pytest.mark.parametrize("name", ["uniform", "er", "erk", "magnitude", "synflow", "phew"])
@pytest.mark.parametrize("sparsity", ["0.5", None])
def test_a_sparsity_that_is_no_number(name: str, sparsity: object) -> None:
    with pytest.raises(topognn.SparsityError, match=f"sparsity {sparsity!r} is no number: give the fraction"):
        topognn.prune(small(), name, sparsity, input_shape=(1, 3, 3))  # type: ignore[arg-type]


def test_no_module() -> None:
    with pytest.raises(topognn.TraceError, match=r"expected a torch.nn.Module, not int"):
        topognn.encode(3, (3, 4, 4))  # type: ignore[arg-type]


def test_data_dependent_control_flow() -> None:
    with pytest.raises(topognn.TraceError, match="control flow depends on data"):
        topognn.encode(Branching(), (4,))


def test_of_data_dependent_control_flow_stderr_has_what_the_model_says_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Talking(Branching):
        def forward(self, x: Tensor) -> Tensor:
            print("the model's own words", file=sys.stderr)
            return super().forward(x)

    with pytest.raises(topognn.TraceError, match="control flow depends on data"):
        topognn.trace(Talking(), (4,))
    said = capsys.readouterr()
    assert said.out == "" and set(said.err.splitlines()) == {"the model's own words"}


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda x: x.cumsum(-1), "cumsum"),
        (lambda x: x / (1 + x.relu()), "div"),
        (lambda x: x.matmul(x.T).matmul(x.matmul(x.T)), "matmul"),
        (lambda x: x.topk(2).values, "topk"),
        (lambda x: x.sort().values, "sort"),
    ],
)
def test_unsupported_operation_is_named(function: Callable[[Tensor], Tensor], name: str) -> None:
    model = nn.Sequential(Calling(function))
    with pytest.raises(topognn.UnsupportedOperation, match=rf"operation '{name}' in 0 .* Supported:"):
        topognn.encode(model, (4,))


@pytest.mark.parametrize(("cell", "name"), [(nn.LSTM, "lstm"), (nn.GRU, "gru"), (nn.LSTMCell, "lstm_cell")])
def test_recurrent_cells_are_unsupported(cell: type[nn.Module], name: str) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.memory = cell(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.memory(x)[0]

    with pytest.raises(topognn.UnsupportedOperation, match=rf"operation '{name}' in memory .* Supported: conv1d"):
        topognn.encode(Net(), (3,) if "Cell" in cell.__name__ else (2, 3))


def test_shortcuts_value() -> None:
    with pytest.raises(topognn.TraceError, match="shortcuts must be 'parametric' or 'all', not 'none'"):
        topognn.trace(small(), (1, 3, 3), shortcuts="none")  # type: ignore[arg-type]


def test_input_padding_nodes_need_a_convolution() -> None:
    with pytest.raises(topognn.TraceError, match="two-dimensional convolution that reads the network's input"):
        topognn.trace(nn.Linear(4, 4), (4,), input_padding_nodes=True)


@pytest.mark.parametrize("sparsity", [1.0, -0.1, float("nan")])
def test_sparsity_out_of_range(sparsity: float) -> None:
    with pytest.raises(topognn.SparsityError):
        topognn.prune(small(), "magnitude", sparsity)


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(topognn.UnknownNameError, match=r"unknown model 'resnet21': did you mean .*'resnet20'"):
        topognn.get_model("resnet21")
    with pytest.raises(topognn.UnknownNameError, match="unknown pruner 'synflo': did you mean 'synflow'"):
        topognn.prune(small(), "synflo", 0.5)
    graph = topognn.example_graph()
    with pytest.raises(topognn.UnknownNameError, match="unknown metric 'sink_node': did you mean 'sink_nodes'"):
        topognn.topometrics(graph, ["sink_node"])
    with pytest.raises(topognn.UnknownNameError, match="unknown metric 'one_hop'"):
        topognn.topometrics(graph, ["strength"])["one_hop"]
    with pytest.raises(topognn.UnknownNameError, match="unknown partition '3'"):
        graph.node_of("3", 0)


def test_nodes_and_elements() -> None:
    graph = topognn.example_graph()
    assert graph.node_of("input", (0, 1, 2)) == 5
    assert graph.node_of("2", 1) == 18
    assert [graph.element_of(v) for v in (5, 18)] == [("input", (0, 1, 2)), ("2", (1,))]
    for node in range(graph.num_nodes):
        assert graph.node_of(*graph.element_of(node)) == node
    with pytest.raises(IndexError, match=r"partition 'input' of shape \(1, 3, 3\) has no element \(0, 3, 0\)"):
        graph.node_of("input", (0, 3, 0))
    with pytest.raises(topognn.UnknownNameError, match="node 19 does not exist: nodes are 0 to 18"):
        graph.element_of(19)


def test_more_edges_than_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = topognn.example_graph()
    estimate = graph.memory_estimate()
    assert estimate.csr == 8 * 20 + 13 * 8
    monkeypatch.setattr(graph_module, "get_free_memory", lambda device: 100)
    with pytest.raises(topognn.GraphMemoryError, match=r"13 edges need 212 B on cpu, and 100 B are free.*strength"):
        graph.rows("out")
    assert topognn.topometrics(graph, ["sink_nodes", "strength", "one_hop"])["sink_nodes"] >= 0
    assert isinstance(topognn.GraphMemoryError("x"), MemoryError)


@pytest.mark.parametrize("model", topognn.MODELS)
def test_a_fully_pruned_network_is_no_error(model: str) -> None:
    made = topognn.get_model(model)
    none = {name: torch.zeros_like(mask) for name, mask in topognn.prune(made, "uniform", 0.5).items()}
    graph = topognn.encode(made, (3, 32, 32), none)
    values = topognn.topometrics(graph)
    assert values["edges"] == values["sink_nodes"] == values["strength"] == 0
    assert values["disconnected_nodes"] == values["nodes"]
    assert values["one_hop"] == values["two_hop"] == 1


def test_dense_model_warns() -> None:
    with pytest.warns(UserWarning, match="taken as dense"):
        graph = topognn.encode(small(), (1, 3, 3))
    assert graph.num_edges == 2 * 4 * 4 + 2 * 8


def test_layout_from_file_cannot_be_encoded(tmp_path: Path) -> None:
    topognn.example_graph().save(tmp_path / "graph.safetensors")
    loaded = topognn.MultipartiteGraph.load(tmp_path / "graph.safetensors")
    with pytest.raises(topognn.TraceError, match="has no model"):
        topognn.encode(loaded.layout, masks=KEPT)


def test_model_changed_after_tracing() -> None:
    model = small()
    layout = topognn.trace(model, (1, 3, 3))
    del model[2]  # type: ignore[attr-defined]
    with pytest.raises(topognn.MaskError, match=r"no longer has '2.weight': it changed after tracing"):
        topognn.encode(layout, masks={"0.weight": KEPT["0.weight"]})
