"""Products of a graph's rows and vectors, by a kernel."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from topognn.encoding.rows import Direction, Rows
from topognn.graph import MultipartiteGraph
from topognn.kernels.products import multiply_row, multiply_row_pair
from topognn.plain_graph import Graph, get_simple_rows

_BLOCK_BITS, _NO_GAPS = 6, 63


class Spread(NamedTuple):
    """Vectors as the rows' kernels want them: number ``j`` stands at ``j + (j >> bits)``, two side by side.

    Attributes:
        values: One-dimensional.
        bits: Of a number's place, that count from one gap to the next.
    """

    values: Tensor
    bits: int


def spread(vectors: Tensor) -> Spread:
    """Return one vector, ``(1, nodes)``, or two side by side, ``(2, nodes)``; on a CPU with gaps, one after every 64.

    Feature maps are often 4 KB apart, where numbers take each other's place in a CPU's cache: a row of the matrix reads
    the same pixel of many maps.
    """
    if vectors.device.type != "cpu":
        columns = vectors[0] if len(vectors) == 1 else torch.view_as_real(torch.complex(*vectors)).flatten()
        return Spread(columns, _NO_GAPS)
    block = 1 << _BLOCK_BITS
    whole, rest = divmod(vectors.shape[1], block)
    held = vectors.new_empty(whole + 1, block + 1, len(vectors))  # what stands in gaps is never read
    for j, vector in enumerate(vectors):
        held[:whole, :block, j] = vector[: whole * block].view(whole, block)
        held[whole, :rest, j] = vector[whole * block :]
    return Spread(held.flatten(), _BLOCK_BITS)


class RowProducts:
    """Products by a kernel over a graph's rows, one work item a row.

    Attributes:
        partitions, nodes: Numbers of those that vectors have values for.
    """

    def __init__(self, graph: Graph, weighted: bool, partitions: range | None = None) -> None:
        """Take ``partitions`` to leave out all others, with their edges."""
        self._graph, self._weighted = graph, weighted
        self.partitions, self.nodes = range(0), range(graph.num_nodes)
        if isinstance(graph, MultipartiteGraph):
            self.partitions = range(len(graph.partitions)) if partitions is None else partitions
            first, last = (graph.partitions[self.partitions[end]] for end in (0, -1))
            self.nodes = range(first.offset, last.end)
        self._held: dict[Direction, Rows] = {}

    def narrow(self, partitions: range) -> RowProducts:
        """Return the products of the graph that some partitions induce."""
        return RowProducts(self._graph, self._weighted, partitions)

    def out(self, x: Tensor) -> Tensor:
        """Return A x for each row of ``x``."""
        return self._multiply("out", x)

    def into(self, x: Tensor) -> Tensor:
        """Return A' x for each row of ``x``."""
        return self._multiply("in", x)

    def adjacency(self, x: Tensor, side: Sequence[int] | None = None) -> Tensor:
        """Return (A + A') x for each row of ``x``; if ``side`` is given, at the nodes of those partitions alone."""
        return self._multiply("both", x, side)

    def _multiply(self, direction: Direction, x: Tensor, side: Sequence[int] | None = None) -> Tensor:
        rows, nodes = self._rows(direction), self._graph.num_nodes
        before, after = self.nodes.start, nodes - self.nodes.stop
        if before or after:  # rows name all nodes
            x = F.pad(x, (before, after))
        y = torch.empty_like(x) if side is None else torch.zeros_like(x)
        work = rows.num_entries / max(1, nodes)
        ranges = [(self.nodes.start, self.nodes.stop)] if side is None else self._ranges(side)
        for j in range(0, x.shape[0], 2):
            some, found = spread(x[j : j + 2]), y[j : j + 2]
            multiply = multiply_row_pair if len(found) == 2 else multiply_row
            for first, end in ranges:
                args = (first, rows.indptr, rows.indices, rows.weights, *some, found)
                multiply.launch(end - first, *args, work=work * len(found))
        return y[:, before : nodes - after].contiguous()

    def _rows(self, direction: Direction) -> Rows:
        if direction not in self._held:
            rows = self._graph.rows(direction, weighted=self._weighted)
            if not self._weighted:
                rows = get_simple_rows(self._graph) if direction == "both" else rows
                rows = dataclasses.replace(rows, weights=rows.weights.new_empty(0))
            self._held[direction] = rows
        return self._held[direction]

    def _ranges(self, side: Sequence[int]) -> list[tuple[int, int]]:
        """Return the ranges of nodes of some partitions, neighbouring ones joined."""
        assert isinstance(self._graph, MultipartiteGraph)
        ranges: list[tuple[int, int]] = []
        for number in sorted(set(side).intersection(self.partitions)):
            part = self._graph.partitions[number]
            first = ranges.pop()[0] if ranges and ranges[-1][1] == part.offset else part.offset
            ranges.append((first, part.end))
        return ranges
