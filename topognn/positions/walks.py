"""Walks of two steps between two partitions, counted for all of their nodes at once.

Source: where a walk from ``(c, y, x)`` may end is again a product (see :mod:`topognn.positions.blocks`). For a pair of
rows ``(y, z)``, let its *signature* be how many rows between them join them by each pair of kinds, on the way through
each middle partition; likewise for a pair of columns. The number of walks from ``(c, y, x)`` to ``(d, z, w)`` through
one middle partition is the sum, over two kinds a step, of

    (rows between y and z of these kinds) * (columns between x and w of these) * (channels between c and d of these)

so nodes' coordinates count by their signatures alone. A convolution has few signatures, at any resolution: seven for
two 3x3 kernels, two of which are the border's. So one matrix of counts a pair of signatures, ``(channels, channels)``,
holds what there is to know of all pairs of nodes; and how often a signature occurs among the pairs of a row says how
often such a matrix counts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from topognn.positions.blocks import Block, Blocks
from topognn.positions.grids import Ints


class Step(NamedTuple):
    """A step from one partition to another, along the edges of a block or, ``turned``, against them."""

    block: Block
    turned: bool

    @property
    def y(self) -> Ints:
        """The kinds of pairs of rows, from the step's first partition to its second."""
        return self.block.y.T if self.turned else self.block.y

    @property
    def x(self) -> Ints:
        """The same of columns."""
        return self.block.x.T if self.turned else self.block.x

    @property
    def ends(self) -> tuple[int, int]:
        """Numbers of the partitions where it begins and ends."""
        pair = (self.block.source, self.block.target)
        return pair[::-1] if self.turned else pair


class Signatures(NamedTuple):
    """The different signatures of the pairs of coordinates of one axis that something joins.

    Attributes:
        steps: For each way through a middle partition, int64 ``(signatures, kinds of first step, of second step)``.
        edges: int64 ``(signatures,)``: the kind of the edge between the two; -1 = none.
        counts: int64 ``(coordinates, signatures)``: how often each occurs among the pairs of a coordinate.
        words: int64 ``(words, 3)``: first kind, second kind and how many steps go there, by signature and then by way.
        indptr: int64 ``(signatures * ways + 1,)``: where in ``words`` each signature's of each way begin.
    """

    steps: tuple[Ints, ...]
    edges: Ints
    counts: Ints
    words: Ints
    indptr: Ints


@dataclasses.dataclass(frozen=True, eq=False)
class Walks:
    """All ways of two steps from one partition to another, and the edges between them.

    Attributes:
        source, target: Numbers of the partitions.
        ways: The two steps through each middle partition.
        direct: Edges between the two, if there are any.
        y, x: Signatures.
    """

    source: int
    target: int
    ways: tuple[tuple[Step, Step], ...]
    direct: Step | None
    y: Signatures
    x: Signatures


def find_walks(found: Blocks, undirected: bool) -> list[Walks]:
    """Return the walks between all partitions that two steps join, or one.

    With ``undirected`` steps may go against edges, and each pair of partitions comes once; twice, from either side,
    where there can be triangles.
    """
    key = "undirected" if undirected else "directed"
    if key not in found.walks:
        blocks = [b for b in found.blocks.values() if b is not None and b.of_y.size and b.of_x.size]
        steps = [Step(block, False) for block in blocks]
        if undirected:
            steps += [Step(block, True) for block in blocks]
        leaving: dict[int, list[Step]] = {}
        for step in steps:
            leaving.setdefault(step.ends[0], []).append(step)
        walks = []
        for source in sorted(leaving):
            ways: dict[int, list[tuple[Step, Step]]] = {step.ends[1]: [] for step in leaving[source]}
            for first in leaving[source]:
                for second in leaving.get(first.ends[1], ()):
                    ways.setdefault(second.ends[1], []).append((first, second))
            for target in sorted(ways):
                direct = next((step for step in leaving[source] if step.ends[1] == target), None)
                if not undirected or target >= source or (ways[target] and direct):
                    made = _make_walks(found, source, target, ways[target], direct)
                    if made.y.counts.shape[1] and made.x.counts.shape[1]:  # not all that is read is padding
                        walks.append(made)
        found.walks[key] = walks
    result: list[Walks] = found.walks[key]  # type: ignore[assignment]
    return result


def _make_walks(
    found: Blocks, source: int, target: int, ways: Sequence[tuple[Step, Step]], direct: Step | None
) -> Walks:
    s, t = found.grids[source], found.grids[target]
    y = _sign(found, [(a.y, b.y) for a, b in ways], direct.y if direct else None, (s.height, t.height))
    x = _sign(found, [(a.x, b.x) for a, b in ways], direct.x if direct else None, (s.width, t.width))
    return Walks(source, target, tuple(ways), direct, y, x)


def _sign(found: Blocks, ways: Sequence[tuple[Ints, Ints]], direct: Ints | None, shape: tuple[int, int]) -> Signatures:
    """Return the signatures of an axis; those of equal tables, as height and width often have, are made once."""
    tables = [t for way in ways for t in way] + ([] if direct is None else [direct])
    key = (shape, direct is None, *((t.shape, t.tobytes()) for t in tables))
    if key not in found.walks:
        found.walks[key] = _find_signatures(ways, direct, shape)
    result: Signatures = found.walks[key]  # type: ignore[assignment]
    return result


def _find_signatures(ways: Sequence[tuple[Ints, Ints]], direct: Ints | None, shape: tuple[int, int]) -> Signatures:
    columns, sizes = [], []
    for first, second in ways:
        a, b = int(first.max(initial=-1)) + 1, int(second.max(initial=-1)) + 1
        one = (first[:, None] == np.arange(a)[:, None]).reshape(-1, first.shape[1])
        two = (second[..., None] == np.arange(b)).reshape(second.shape[0], -1)
        between = (one.astype(np.float32) @ two.astype(np.float32)).astype(np.int64)
        columns.append(
            between.reshape(shape[0], a, shape[1], b).transpose(0, 2, 1, 3).reshape(shape[0] * shape[1], a * b)
        )
        sizes.append((a, b))
    columns.append(np.zeros((shape[0] * shape[1], 1), np.int64) if direct is None else direct.reshape(-1, 1) + 1)
    signature = np.concatenate(columns, 1)
    pairs = np.flatnonzero(signature.any(1))
    distinct, numbers = _find_distinct(signature[pairs])
    counts = np.zeros((shape[0], len(distinct)), dtype=np.int64)
    np.add.at(counts, (pairs // shape[1], numbers), 1)
    steps, begin = [], 0
    for a, b in sizes:
        steps.append(distinct[:, begin : begin + a * b].reshape(len(distinct), a, b))
        begin += a * b
    return Signatures(tuple(steps), distinct[:, -1] - 1, counts, *_list_words(steps, len(distinct)))


def _find_distinct(rows: Ints) -> tuple[Ints, Ints]:
    """Return the different rows of a table, and which of them each row is: by fingerprints, which are then checked."""
    odd = np.random.default_rng(0).integers(1, 2**62, rows.shape[1]) | 1
    _, first, numbers = np.unique(rows @ odd, return_index=True, return_inverse=True)
    distinct, numbers = rows[first], numbers.reshape(-1)
    if np.array_equal(distinct[numbers], rows):
        return distinct, numbers
    distinct, numbers = np.unique(rows, axis=0, return_inverse=True)
    return distinct, numbers.reshape(-1)


def _list_words(ways: Sequence[Ints], signatures: int) -> tuple[Ints, Ints]:
    lengths = np.zeros((signatures, len(ways)), dtype=np.int64)
    parts = [np.zeros((0, 5), dtype=np.int64)]
    for way, steps in enumerate(ways):
        signature, first, second = np.nonzero(steps)
        lengths[:, way] = (steps > 0).sum((1, 2))
        parts.append(np.stack([signature, np.full_like(first, way), first, second, steps[steps > 0]], 1))
    words = np.concatenate(parts)
    words = words[np.lexsort((words[:, 1], words[:, 0]))]
    return np.ascontiguousarray(words[:, 2:]), np.concatenate([[0], lengths.reshape(-1).cumsum()])
