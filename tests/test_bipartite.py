"""The three bipartite encodings of a layer against what the definitions say, weight by weight."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import topognn
from tests.architectures import NAMED
from tests.conftest import edges_of
from tests.naive import bare, responses
from tests.naive_layers import Edges, naive_rolled
from topognn.encoding.layer_graphs import KINDS
from topognn.errors import MaskError, TraceError, UnknownNameError, UnsupportedOperation
from topognn.kernels.host import count_syncs

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(5, 4), (5,)),
    "linear of tokens": (lambda: nn.Linear(5, 4), (3, 5)),
    "one input": (lambda: nn.Linear(1, 4), (1,)),
    "one output": (lambda: nn.Linear(5, 1), (5,)),
    "conv1d": (lambda: nn.Conv1d(3, 4, 3, stride=2, padding=1), (3, 7)),
    "conv2d": (lambda: nn.Conv2d(2, 3, (3, 2), stride=(1, 2), padding=(2, 1)), (2, 5, 4)),
    "conv2d, dilated": (lambda: nn.Conv2d(2, 3, 2, dilation=2), (2, 5, 4)),
    "conv3d": (lambda: nn.Conv3d(2, 3, (2, 1, 3)), (2, 3, 3, 3)),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2), (4, 4, 4)),
    "depthwise": (lambda: nn.Conv2d(4, 4, 3, padding=1, groups=4), (4, 4, 4)),
    "depthwise, twice": (lambda: nn.Conv1d(3, 6, 3, groups=3), (3, 5)),
    "grouped conv3d": (lambda: nn.Conv3d(4, 4, 2, groups=2), (4, 2, 2, 2)),
}
TRANSPOSED: dict[str, Callable[[], nn.Module]] = {
    "transposed": lambda: nn.ConvTranspose2d(3, 2, 2),
    "transposed, grouped": lambda: nn.ConvTranspose2d(4, 6, 2, groups=2),
}


class Cumulative(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.cumsum(-1)


def make(name: str, density: float) -> tuple[nn.Module, dict[str, Tensor], tuple[int, ...]]:
    torch.manual_seed(sum(map(ord, name)))
    layer, shape = LAYERS[name][0](), LAYERS[name][1]
    model = nn.Sequential(layer)
    weight: Any = layer.weight
    return model, {"0.weight": torch.rand(weight.shape) < density}, shape


def check(graph: topognn.MultipartiteGraph, left: int, right: int, edges: Edges) -> None:
    assert [p.size for p in graph.partitions] == [left, right]
    assert graph.num_edges == len(edges)
    for direction in ("out", "in"):
        assert edges_of(graph, direction) == pytest.approx(edges, rel=1e-5)
    degrees = [sum(pair[0] == v for pair in edges) for v in range(left + right)]
    assert graph.out_degrees.tolist() == degrees
    assert graph.undirected.num_entries == 2 * len(edges)
    assert graph.layout.outputs == (1,)


@pytest.mark.parametrize("density", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("kind", ["rolled", "rolled-channel"])
@pytest.mark.parametrize("name", LAYERS)
def test_rolled(name: str, kind: str, density: float) -> None:
    model, masks, _ = make(name, density)
    (found,) = topognn.bipartite(model, kind, masks).values()  # type: ignore[arg-type]
    check(found, *naive_rolled(model[0], masks["0.weight"], kind == "rolled-channel"))  # type: ignore[index]


@pytest.mark.parametrize("kind", ["rolled", "rolled-channel"])
@pytest.mark.parametrize("name", TRANSPOSED)
def test_transposed_convolutions(name: str, kind: str) -> None:
    torch.manual_seed(1)
    layer: Any = TRANSPOSED[name]()
    mask = torch.rand(layer.weight.shape) < 0.5
    (found,) = topognn.bipartite(layer, kind, {"weight": mask}).values()  # type: ignore[arg-type]
    check(found, *naive_rolled(layer, mask, kind == "rolled-channel"))


@pytest.mark.parametrize("density", [0.0, 0.4, 1.0])
@pytest.mark.parametrize("name", LAYERS)
def test_unrolled(name: str, density: float) -> None:
    model, masks, shape = make(name, density)
    (found,) = topognn.bipartite(model, "unrolled", masks, shape).values()
    response, out = responses(bare(model[0], masks["0.weight"]), shape)  # type: ignore[index]
    left, right = math.prod(shape), math.prod(out)
    edges = {(int(u), left + int(v)): float(response[u, v]) for u, v in response.nonzero()}
    check(found, left, right, edges)
    flat = [size if len(size) < 4 else (size[0], size[1] * size[2], size[3]) for size in (shape, out)]
    assert [p.shape for p in found.partitions] == flat


def layers_of(model: nn.Module, masks: dict[str, Tensor]) -> list[tuple[str, nn.Module]]:
    return [(path, module) for path, module in model.named_modules() if f"{path}.weight" in masks]


def note(sizes: dict[str, Any], path: str) -> Any:
    """A hook that writes down a layer's input shape and module."""

    def write(module: nn.Module, args: Any, out: Any) -> None:
        sizes[path] = (args[0].shape[1:], module)

    return write


def test_unrolled_layers_are_alone_behind_pools_and_in_sums() -> None:
    """Pooled elements are nodes here, not their windows; layers that end in one partition are two graphs."""
    for name in ("pool before conv", "residual projection", "overlapping pool before conv", "permuted sum"):
        architecture = NAMED[name]
        model, masks = architecture.build(), architecture.masks()
        sizes: dict[str, Any] = {}
        hooks = [module.register_forward_hook(note(sizes, path)) for path, module in layers_of(model, masks)]
        model(torch.zeros(1, *architecture.input_shape))
        for hook in hooks:
            hook.remove()
        graphs = topognn.bipartite(model, "unrolled", masks, architecture.input_shape)
        assert graphs.keys() == sizes.keys()
        for path, graph in graphs.items():
            shape, module = sizes[path]
            response, out = responses(bare(module, masks[f"{path}.weight"]), tuple(shape))
            left = math.prod(shape)
            edges = {(int(u), left + int(v)): float(response[u, v]) for u, v in response.nonzero()}
            check(graph, left, math.prod(out), edges)


def test_a_layer_used_twice() -> None:
    architecture = NAMED["shared conv"]
    model, masks = architecture.build(), architecture.masks()
    first, second, *_ = topognn.bipartite(model, "unrolled", masks, architecture.input_shape)
    assert second == f"{first}#2"
    assert list(topognn.bipartite(model, "rolled", masks)) == [w.rpartition(".")[0] for w in masks]


def test_a_layout_serves_every_kind() -> None:
    architecture = NAMED["residual projection"]
    model, masks = architecture.build(), architecture.masks()
    layout = topognn.trace(model, architecture.input_shape)
    for kind in KINDS:
        straight = topognn.bipartite(model, kind, masks, architecture.input_shape)  # type: ignore[arg-type]
        traced = topognn.bipartite(layout, kind, masks)  # type: ignore[arg-type]
        assert straight.keys() == traced.keys()
        for path, graph in straight.items():
            assert edges_of(graph, "out") == edges_of(traced[path], "out")


def test_a_dense_chain_of_layers_is_the_whole_graph_in_pieces() -> None:
    """Unrolled edges of a network without pools and sums are those of its MGE, layer by layer."""
    architecture = NAMED["one layer emptied"]
    model, masks = architecture.build(), architecture.masks()
    whole = topognn.encode(model, architecture.input_shape, masks)
    pieces = topognn.bipartite(model, "unrolled", masks, architecture.input_shape)
    edges: Edges = {}
    for number, graph in enumerate(pieces.values()):
        first = whole.partitions[number].offset
        edges |= {(u + first, v + first): w for (u, v), w in edges_of(graph, "out").items()}
    assert edges == edges_of(whole, "out")


def test_topometrics_of_a_bipartite_graph() -> None:
    mask = torch.tensor([[1, 1, 0], [1, 1, 0]])
    (graph,) = topognn.bipartite(nn.Linear(3, 2), "rolled", {"weight": mask}).values()
    values = topognn.topometrics(graph, ["motifs", "motif_cycle", "k_core", "components", "cut_edges", "one_hop"])
    assert [values[name] for name in values] == [5, 4, 1, 1, 8 / 5, 2, 0, 1.8]
    assert graph.node_of("input", 2) == 2 and graph.node_of("", 1) == 4


def test_one_host_sync_for_all_layers() -> None:
    model = topognn.get_model("resnet20")
    masks = topognn.prune(model, "uniform", 0.9)
    before = count_syncs()
    assert len(topognn.bipartite(model, "rolled", masks)) == len(masks)
    assert count_syncs() == before + 1


def test_mistakes_are_named() -> None:
    with pytest.raises(UnknownNameError, match="unknown bipartite encoding 'rolled_channel': did you mean 'rolled-ch"):
        topognn.bipartite(nn.Linear(2, 2), "rolled_channel")  # type: ignore[arg-type]
    with pytest.raises(TraceError, match="input_shape is missing: an unrolled layer"):
        topognn.bipartite(nn.Linear(2, 2), "unrolled", {"weight": torch.ones(2, 2)})
    with pytest.raises(TraceError, match="no convolution or linear layer"):
        topognn.bipartite(nn.ReLU())
    with pytest.raises(MaskError, match=r"shape \(3, 2\)"):
        topognn.bipartite(nn.Linear(2, 2), "rolled", {"weight": torch.ones(3, 2)})
    cumulative = nn.Sequential(nn.Linear(2, 2), Cumulative(), nn.Linear(2, 2))
    with pytest.raises(UnsupportedOperation, match="cumsum"):
        topognn.bipartite(cumulative, "unrolled", {"0.weight": torch.ones(2, 2)}, (2,))
