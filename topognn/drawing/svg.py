"""Pictures of small graphs, as SVG text that needs nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

import torch

from topognn.drawing.arranging import RADIUS, Column, Point, arrange, route, set_side_by_side
from topognn.errors import TopognnError
from topognn.files import check_writable, write_text
from topognn.graph import MultipartiteGraph
from topognn.kernels.host import read
from topognn.metrics.local import find_disconnected, find_sinks, find_sources
from topognn.tracing.layout import Partition

MAX_NODES, MAX_EDGES = 400, 4000

MARGIN = 28
TITLES = 46  # height of the partitions' names
LEGEND = 44

INK, FAINT, EDGE, FRAME = "#1f2933", "#64748b", "#334155", "fill='#f1f5f9' stroke='#dbe3ec'"
# A kind of node: its word in the legend, fill and outline. The hues stay apart for colour-blind eyes.
KINDS = (
    ("connected", "#4c8fd6", "#2563a8"),
    ("sink: leads nowhere", "#e8590c", "#a63c06"),
    ("source: comes from nowhere", "#12a67c", "#0b7355"),
    ("disconnected", "#ffffff", "#94a3b8"),
)


class DrawingError(TopognnError, ValueError):
    """A graph that is too large to be drawn."""


class Drawn(NamedTuple):
    """What is drawn of a graph, on the host: a kind and degrees a node; source, target and weight an edge."""

    kinds: list[int]
    in_degrees: list[int]
    out_degrees: list[int]
    edges: list[tuple[int, int, float]]


def draw(graph: MultipartiteGraph, path: str | os.PathLike[str] | None = None) -> str:
    """Return a picture of a small graph as SVG: a column a partition, a grid of circles a feature map.

    Sinks, sources and disconnected nodes have colours of their own, edges are the darker the larger their
    weight, and each node tells its name and degrees under the mouse. Makes one host sync (one more on graphs
    with parallel edges).

    Args:
        graph: A graph of at most 400 nodes and 4,000 edges.
        path: Also write the picture there, whole or not at all.

    Raises:
        DrawingError: The graph is larger than that.
        CheckpointError: The file cannot be put there.

    Source:
        Cunegatti et al., TMLR 2024, section 3 (the encoding that is drawn).

    >>> from topognn.example import example_graph
    >>> draw(example_graph()).count("<circle class='node'")
    19
    """
    if path is not None:
        check_writable(path)
    if graph.num_nodes > MAX_NODES or graph.num_uses > MAX_EDGES:
        raise DrawingError(
            f"a graph of {graph.num_nodes:,} nodes and {graph.num_uses:,} edges is too large to draw "
            f"(at most {MAX_NODES} and {MAX_EDGES:,}): encode a smaller model, a smaller input shape or a "
            "higher sparsity"
        )
    svg = _compose(graph, _fetch(graph))
    if path is not None:
        write_text(path, svg)
    return svg


def _fetch(graph: MultipartiteGraph) -> Drawn:
    """Bring all that is drawn to the host at once; light edges come first, so that dark ones lie on top."""
    rows = graph.csr
    kinds = find_sinks(graph) + 2 * find_sources(graph) + 3 * find_disconnected(graph)
    parts = (kinds, graph.in_degrees, graph.out_degrees, rows.indices, rows.weights)
    values = iter(read(torch.cat([part.double() for part in parts])))
    kind, inward, outward = ([int(next(values)) for _ in range(graph.num_nodes)] for _ in range(3))
    targets = [int(next(values)) for _ in range(rows.num_entries)]
    sources = [node for node, degree in enumerate(outward) for _ in range(degree)]
    edges = sorted(zip(sources, targets, values, strict=True), key=lambda edge: edge[2])
    return Drawn(kind, inward, outward, edges)


def _compose(graph: MultipartiteGraph, drawn: Drawn) -> str:
    titles = [_title(partition) for partition in graph.partitions]
    widths = [max(7.4 * len(line) for line in title) for title in titles]
    columns = [arrange(partition) for partition in graph.partitions]
    columns = set_side_by_side(columns, widths, Point(MARGIN, MARGIN + TITLES))
    paths, lowest = route(columns, [(source, target) for source, target, _ in drawn.edges])
    legend, end = _legend(drawn, lowest + LEGEND)
    right = max(
        column.center + max(column.right - column.left, w) / 2 for column, w in zip(columns, widths, strict=True)
    )
    width, height = max(right, end) + MARGIN, lowest + LEGEND + MARGIN
    lines = [
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width:.0f}' height='{height:.0f}' "
        f"viewBox='0 0 {width:.0f} {height:.0f}' role='img' font-size='12' "
        "font-family='system-ui, -apple-system, Segoe UI, DejaVu Sans, sans-serif'>",
        f"<title>Multipartite graph of {graph.num_nodes} nodes and {len(drawn.edges)} edges</title>",
        "<rect width='100%' height='100%' rx='8' fill='#ffffff'/>",
    ]
    for column, title in zip(columns, titles, strict=True):
        lines += _texts(Point(column.center, MARGIN + 10), title)
        lines += [f"<polygon points='{' '.join(f'{p.x:.1f},{p.y:.1f}' for p in f)}' {FRAME}/>" for f in column.frames]
    lines += _edges(drawn, paths)
    lines += _nodes(drawn, columns)
    return "\n".join([*lines, *legend, "</svg>\n"])


def _title(partition: Partition) -> tuple[str, str]:
    shape = " x ".join(map(str, partition.shape))
    nodes = f"{partition.size} node{'s' if partition.size > 1 else ''}"
    return partition.name, nodes if len(partition.shape) == 1 else f"{shape} = {nodes}"


def _texts(place: Point, lines: Sequence[str]) -> Iterator[str]:
    for number, line in enumerate(lines):
        style = f"fill='{FAINT}'" if number else f"font-weight='600' fill='{INK}'"
        y = place.y + 16 * number
        yield f"<text x='{place.x:.1f}' y='{y:.1f}' text-anchor='middle' {style}>{escape(line)}</text>"


def _opacities(drawn: Drawn) -> tuple[float, float]:
    """Return those of the smallest and the largest weight: lower where many edges lie over each other."""
    crowd = min(1.0, (300 / max(1, len(drawn.edges))) ** 0.5)
    return max(0.06, 0.2 * crowd), max(0.2, 0.8 * crowd)


def _edges(drawn: Drawn, paths: Sequence[str]) -> Iterator[str]:
    light, dark = _opacities(drawn)
    largest = max((weight for *_, weight in drawn.edges), default=0.0)
    for path, (_, _, weight) in zip(paths, drawn.edges, strict=True):
        opacity = light + (dark - light) * (weight / largest if largest else 1.0)
        yield f"<path class='edge' d='{path}' fill='none' stroke='{EDGE}' stroke-opacity='{opacity:.2f}'/>"


def _nodes(drawn: Drawn, columns: Sequence[Column]) -> Iterator[str]:
    for column in columns:
        part = column.partition
        for node, place in enumerate(column.nodes, part.offset):
            kind = drawn.kinds[node]
            element = f"{part.name} {_coordinates(part, node - part.offset)}"
            degrees = f"in {drawn.in_degrees[node]}, out {drawn.out_degrees[node]}"
            name = escape(f"node {node}: {element}, {degrees}, {KINDS[kind][0]}")
            yield _circle(place, kind, "node", f"<title>{name}</title>")


def _coordinates(partition: Partition, index: int) -> tuple[int, ...]:
    found: list[int] = []
    for size in reversed(partition.shape):
        index, coordinate = divmod(index, size)
        found.insert(0, coordinate)
    return tuple(found)


def _circle(place: Point, kind: int, role: str, inside: str = "") -> str:
    _, fill, outline = KINDS[kind]
    dashes = " stroke-dasharray='2.5 2'" if kind == 3 else ""
    return (
        f"<circle class='{role}' cx='{place.x:.1f}' cy='{place.y:.1f}' r='{RADIUS}' fill='{fill}' "
        f"stroke='{outline}' stroke-width='1.5'{dashes}>{inside}</circle>"
    )


def _legend(drawn: Drawn, y: float) -> tuple[list[str], float]:
    """Return a line of the kinds of nodes that occur and of what an edge's shade means, and where it ends."""
    parts: list[str] = []
    x = float(MARGIN)

    def add(mark: str, width: float, word: str) -> None:
        nonlocal x
        parts.extend((mark, f"<text x='{x + width + 6:.1f}' y='{y + 4:.1f}' fill='{INK}'>{word}</text>"))
        x += width + 6 + 6.6 * len(word) + 22

    for kind, (word, *_) in enumerate(KINDS):
        if kind in drawn.kinds:
            add(_circle(Point(x + RADIUS, y), kind, "legend"), 2 * RADIUS, word)
    if drawn.edges and drawn.edges[0][2] < drawn.edges[-1][2]:
        for opacity, word in zip(_opacities(drawn), ("small weight", "large weight"), strict=True):
            stroke = f"stroke='{EDGE}' stroke-opacity='{opacity:.2f}' stroke-width='1.5'"
            add(f"<path d='M{x:.1f},{y:.1f}h22' {stroke}/>", 22, word)
    return parts, x - 22
