"""Where the nodes and edges of a small graph go in a picture, in pixels from the upper left."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

from topognn.tracing.layout import Partition

RADIUS = 7
STEP = 26  # between neighbouring nodes of a map
PAD = 5  # around a map's nodes, within its frame
MAP_GAP = 26  # between the maps of two channels
COLUMN_GAP = 120
MAX_VECTOR, MAX_MAPS = 14 * STEP, 20 * STEP  # height of a column, before it grows sideways
LANE = 5  # between the edges that pass below a column


class Point(NamedTuple):
    """A place in the picture."""

    x: float
    y: float


@dataclasses.dataclass(frozen=True)
class Column:
    """A partition in the picture.

    Attributes:
        nodes: Place of each node.
        frames: Corners of each feature map's frame.
        left, right, bottom: How far it reaches.
    """

    partition: Partition
    nodes: list[Point]
    frames: list[list[Point]]
    left: float
    right: float
    bottom: float

    @property
    def center(self) -> float:
        """The middle from left to right."""
        return (self.left + self.right) / 2


def arrange(partition: Partition) -> Column:
    """Lay out a partition at the origin: a vector as a block, else a slanted grid a feature map.

    The slant is such that a level line to a node passes between the others of its map, where there is room.

    >>> arrange(Partition("linear", (2,), 0)).nodes
    [Point(x=7, y=7), Point(x=7, y=33)]
    """
    if len(partition.shape) == 1:
        width = math.ceil(partition.size * STEP / MAX_VECTOR)
        height = math.ceil(partition.size / width)
        block = [Point(RADIUS + x * STEP, RADIUS + y * STEP) for y in range(height) for x in range(width)]
        return _column(partition, block[: partition.size], [])
    *channels, height, width = partition.shape
    slant = min(13.0, max(5.0, STEP / width)) if width > 1 else 0.0
    rise, down, across = (width - 1) * slant, (height - 1) * STEP, (width - 1) * STEP
    stacked = max(1, int((MAX_MAPS + MAP_GAP) // (rise + down + 2 * RADIUS + MAP_GAP)))
    nodes: list[Point] = []
    frames = []
    for channel in range(math.prod(channels)):
        right, below = divmod(channel, stacked)
        left = RADIUS + right * (across + 2 * RADIUS + MAP_GAP)
        top = RADIUS + below * (rise + down + 2 * RADIUS + MAP_GAP) + rise
        nodes += [Point(left + x * STEP, top + y * STEP - x * slant) for y in range(height) for x in range(width)]
        frames.append(_frame(Point(left, top), across, down, slant))
    return _column(partition, nodes, frames)


def _frame(first: Point, across: float, down: float, slant: float) -> list[Point]:
    pad = RADIUS + PAD
    lean = pad * slant / STEP
    left, right = first.x - pad, first.x + across + pad
    top, bottom, rise = first.y - pad, first.y + down + pad, across * slant / STEP
    corners = (
        (left, top + lean),
        (right, top - rise - lean),
        (right, bottom - rise - lean),
        (left, bottom + lean),
    )
    return [Point(x, y) for x, y in corners]


def _column(partition: Partition, nodes: list[Point], frames: list[list[Point]]) -> Column:
    right, bottom = max(p.x for p in nodes) + RADIUS, max(p.y for p in nodes) + RADIUS
    return Column(partition, nodes, frames, 0.0, right, bottom)


def set_side_by_side(columns: Sequence[Column], widths: Sequence[float], corner: Point) -> list[Column]:
    """Return columns from left to right, each centred in its width and all on one middle line."""
    inner = max(column.bottom for column in columns)
    x = corner.x
    placed = []
    for column, width in zip(columns, widths, strict=True):
        width = max(width, column.right)
        dx, dy = x + (width - column.right) / 2, corner.y + (inner - column.bottom) / 2
        nodes, *frames = ([Point(p.x + dx, p.y + dy) for p in points] for points in (column.nodes, *column.frames))
        moved = dataclasses.replace(column, nodes=nodes, frames=frames, left=dx, right=dx + column.right)
        placed.append(dataclasses.replace(moved, bottom=dy + column.bottom))
        x += width + COLUMN_GAP
    return placed


def route(columns: Sequence[Column], edges: Sequence[tuple[int, int]]) -> tuple[list[str], float]:
    """Return the SVG path of each edge ``(source, target)``, and how low the lowest goes.

    Edges to the next column are curves. Those that skip columns pass below them, on a lane of their source's
    own, so that no edge seems to end in a node that it only passes.
    """
    places = [place for column in columns for place in column.nodes]
    number_of = [number for number, column in enumerate(columns) for _ in column.nodes]
    skipping = {source for source, target in edges if abs(number_of[source] - number_of[target]) > 1}
    lanes = {source: lane for lane, source in enumerate(sorted(skipping))}  # in this order they do not cross
    lowest = max(column.bottom for column in columns)
    paths = []
    for source, target in edges:
        a, b = places[source], places[target]
        first, last = sorted((number_of[source], number_of[target]))
        between = columns[first + 1 : last]
        if not between:
            paths.append(f"M{a.x:.1f},{a.y:.1f}{_curve(a, b)}")
            continue
        y = max(column.bottom for column in between) + 2 * RADIUS + LANE * lanes[source]
        start, stop = Point(between[0].left - PAD, y), Point(between[-1].right + PAD, y)
        if a.x > b.x:
            start, stop = stop, start
        lowest = max(lowest, y)
        paths.append(f"M{a.x:.1f},{a.y:.1f}{_curve(a, start)}H{stop.x:.1f}{_curve(stop, b)}")
    return paths, lowest


def _curve(a: Point, b: Point) -> str:
    bend = (b.x - a.x) * 0.45
    return f"C{a.x + bend:.1f},{a.y:.1f},{b.x - bend:.1f},{b.y:.1f},{b.x:.1f},{b.y:.1f}"
