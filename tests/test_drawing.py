"""Pictures: every node and edge of the graph stands in them once, where and as it should."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from torch import Tensor, nn

import topognn
from topognn import MultipartiteGraph
from topognn.drawing import arranging
from topognn.drawing.arranging import RADIUS, arrange
from topognn.drawing.svg import KINDS, DrawingError, draw
from topognn.errors import CheckpointError
from topognn.kernels.host import count_syncs
from topognn.metrics.local import find_disconnected, find_sinks, find_sources
from topognn.tracing.layout import Partition

SVG = "{http://www.w3.org/2000/svg}"
FILLS = {fill: word for word, fill, _ in KINDS}


class Skipping(nn.Module):
    """Three layers, and an input of the last that skips the second: edges over a column."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 4), nn.Linear(4, 4), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        return self.c(torch.cat([x, self.b(x)], 1))  # type: ignore[no-any-return]


def convolutions() -> MultipartiteGraph:
    """A graph with feature maps, a vector, and nodes of every kind."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(27, 6), nn.Linear(6, 3))
    masks = topognn.prune(model, "uniform", 0.8, seed=3)
    masks["0.weight"][1] = False
    return topognn.encode(model, (2, 5, 5), masks)


def skipping() -> MultipartiteGraph:
    torch.manual_seed(0)
    model = Skipping()
    return topognn.encode(model, (3,), topognn.prune(model, "uniform", 0.3))


GRAPHS = {"example": topognn.example_graph, "convolutions": convolutions, "skipping": skipping}


@pytest.fixture(params=GRAPHS)
def graph(request: Any) -> MultipartiteGraph:
    return GRAPHS[request.param]()


def parse(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def nodes_of(root: ElementTree.Element) -> list[ElementTree.Element]:
    return [circle for circle in root.iter(f"{SVG}circle") if circle.get("class") == "node"]


def place_of(circle: ElementTree.Element) -> tuple[float, float]:
    return float(circle.get("cx", "")), float(circle.get("cy", ""))


def edges_of(root: ElementTree.Element) -> list[tuple[list[float], float]]:
    """Return the numbers of each edge's path, and its opacity."""
    paths = [path for path in root.iter(f"{SVG}path") if path.get("class") == "edge"]
    return [
        (
            [float(n) for n in re.findall(r"-?[\d.]+", path.get("d", ""))],
            float(path.get("stroke-opacity", "")),
        )
        for path in paths
    ]


def test_each_edge_joins_the_circles_of_its_nodes(graph: MultipartiteGraph) -> None:
    root = parse(draw(graph))
    node_at = {place_of(circle): node for node, circle in enumerate(nodes_of(root))}
    assert len(node_at) == graph.num_nodes
    drawn = [(node_at[n[0], n[1]], node_at[n[-2], n[-1]]) for n, _ in edges_of(root)]
    rows = graph.csr
    sources = torch.repeat_interleave(torch.arange(graph.num_nodes), rows.indptr.diff())
    assert sorted(drawn) == sorted(zip(sources.tolist(), rows.indices.tolist(), strict=True))


def test_colours_tell_the_kinds(graph: MultipartiteGraph) -> None:
    root = parse(draw(graph))
    words = [FILLS[circle.get("fill", "")] for circle in nodes_of(root)]
    found = zip(find_sinks(graph), find_sources(graph), find_disconnected(graph), strict=True)
    kinds = [sink + 2 * source + 3 * alone for sink, source, alone in (map(int, kind) for kind in found)]
    assert words == [KINDS[kind][0] for kind in kinds]
    legend = [circle.get("fill", "") for circle in root.iter(f"{SVG}circle") if circle.get("class") == "legend"]
    assert {FILLS[fill] for fill in legend} == set(words) and len(legend) == len(set(words))


def test_all_kinds_occur_in_these_tests() -> None:
    svg = draw(convolutions())
    for _, fill, _ in KINDS:
        assert re.search(f"class='node'[^>]*fill='{fill}'", svg)
    assert svg.count("stroke-dasharray") == int(find_disconnected(convolutions()).sum()) + 1


def test_opacity_grows_with_weight() -> None:
    graph = convolutions()
    opacities = [opacity for _, opacity in edges_of(parse(draw(graph)))]
    assert opacities == sorted(opacities) and 0 < opacities[0] < opacities[-1] <= 0.8
    model, masks = topognn.example_model()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1)
    assert "large weight" in draw(graph) and "large weight" not in draw(topognn.encode(model, (1, 3, 3), masks))


def test_nodes_tell_their_names_and_degrees() -> None:
    graph = convolutions()
    titles = [circle.findtext(f"{SVG}title") for circle in nodes_of(parse(draw(graph)))]
    for node in (0, 49, 50, 77, 82, graph.num_nodes - 1):
        name, coordinates = graph.element_of(node)
        degrees = f"in {int(graph.in_degrees[node])}, out {int(graph.out_degrees[node])}"
        title = titles[node]
        assert title is not None and title.startswith(f"node {node}: {name} {coordinates}, {degrees}, ")


def test_columns_are_named_and_stand_from_left_to_right(graph: MultipartiteGraph) -> None:
    root = parse(draw(graph))
    texts = [text.text for text in root.iter(f"{SVG}text")]
    circles = nodes_of(root)
    spans = []
    for part in graph.partitions:
        assert part.name in texts and any(text and f"{part.size} node" in text for text in texts)
        across = [place_of(circle)[0] for circle in circles[part.offset : part.end]]
        spans.append((min(across), max(across)))
    assert all(left[1] + 2 * RADIUS < right[0] for left, right in pairwise(spans))


def test_circles_are_apart_and_all_lies_in_the_picture(graph: MultipartiteGraph) -> None:
    root = parse(draw(graph))
    width, height = float(root.get("width", "")), float(root.get("height", ""))
    assert root.get("viewBox") == f"0 0 {width:.0f} {height:.0f}"
    places = torch.tensor([place_of(circle) for circle in nodes_of(root)])
    apart = torch.cdist(places, places) + torch.eye(len(places)) * 100
    assert apart.min() > 2 * RADIUS + 2
    for numbers, _ in edges_of(root):
        assert max(numbers) < max(width, height) and min(numbers) > 0
    assert places.min() > RADIUS and (places.amax(0) < torch.tensor([width, height]) - RADIUS).all()
    background = root.find(f"{SVG}rect")
    assert background is not None and background.get("fill") == "#ffffff"


def test_edges_that_skip_a_column_pass_below_it() -> None:
    graph = skipping()
    root = parse(draw(graph))
    bottom = max(place_of(circle)[1] for circle in nodes_of(root)[7:11]) + RADIUS
    skips = [numbers for numbers, _ in edges_of(root) if len(numbers) > 8]
    # The concatenation is [a, b]: the first four inputs of c are nodes of a.
    expected = int(graph.out_degrees[3:7].sum()) - int(graph.in_degrees[7:11].sum())
    assert len(skips) == expected > 0
    for numbers in skips:
        assert numbers[7] > bottom  # the lane
    lanes = {(numbers[0], numbers[1]): numbers[7] for numbers in skips}
    assert len(set(lanes.values())) == len(lanes)


@pytest.mark.parametrize("shape", [(1,), (40,), (3, 7), (1, 1), (5, 4, 4), (2, 3, 1), (9, 1, 1), (2, 2, 2, 3)])
def test_partitions_of_every_shape_have_a_place_a_node(shape: tuple[int, ...]) -> None:
    part = Partition("x", shape, 5)
    column = arrange(part)
    assert len(set(column.nodes)) == part.size
    assert all(RADIUS <= p.x <= column.right - RADIUS for p in column.nodes)
    assert all(RADIUS <= p.y <= column.bottom - RADIUS for p in column.nodes)
    if len(shape) == 1:
        assert column.frames == [] and column.bottom <= arranging.MAX_VECTOR + 2 * RADIUS
    else:
        height, width = shape[-2:]
        assert len(column.frames) == part.size // (height * width)
        assert [p.x for p in column.nodes[: width * height]] == [p.x for p in column.nodes[:width]] * height


def test_large_graphs_are_refused_with_advice() -> None:
    model = nn.Linear(300, 101)
    with pytest.raises(DrawingError, match=r"401 nodes and 30,300 edges is too large .* encode a smaller"):
        draw(topognn.encode(model, (300,), {"weight": torch.ones(101, 300)}))
    model = nn.Linear(100, 41)
    with pytest.raises(DrawingError, match="4,100 edges"):
        draw(topognn.encode(model, (100,), {"weight": torch.ones(41, 100)}))
    assert issubclass(DrawingError, topognn.TopognnError) and issubclass(DrawingError, ValueError)


def test_a_graph_without_edges_is_drawn() -> None:
    graph = topognn.encode(nn.Linear(3, 2), (3,), {"weight": torch.zeros(2, 3)})
    root = parse(draw(graph))
    assert len(nodes_of(root)) == 5 and edges_of(root) == []


def test_odd_names_are_escaped() -> None:
    model = nn.Sequential()
    model.add_module("<a> & 'b'", nn.Linear(2, 1))
    svg = draw(topognn.encode(model, (2,), [torch.ones(1, 2)]))
    assert "<a> & 'b'" in [text.text for text in parse(svg).iter(f"{SVG}text")]


def test_files_hold_the_same_and_are_whole_or_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = topognn.example_graph()
    path = tmp_path / "graph.svg"
    svg = draw(graph, path)
    assert path.read_text(encoding="utf-8") == svg == draw(graph)
    path.write_text("before")

    def raises(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", raises)
    with pytest.raises(OSError, match="disk full"):
        draw(graph, path)
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(CheckpointError, match="there is no folder"):
        draw(graph, tmp_path / "nowhere" / "graph.svg")


def test_drawing_makes_one_host_sync() -> None:
    graph = convolutions()
    before = count_syncs()
    draw(graph)
    assert count_syncs() == before + 1
