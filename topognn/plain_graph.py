"""Graphs that are not neural networks, with the rows that metrics ask for."""

from __future__ import annotations

import dataclasses
from functools import cached_property

import torch
from torch import Tensor

from topognn.encoding.kept import scan
from topognn.encoding.rows import Direction, Rows, allocate_rows
from topognn.graph import MultipartiteGraph
from topognn.kernels.host import read
from topognn.kernels.plain_rows import merge_row, repeat_row
from topognn.kernels.rows import combine_row, sort_row


class PlainGraph:
    """A graph with any edges, directed or not. Made by :func:`topognn.plain.from_csr` and its like.

    It has the rows of a :class:`MultipartiteGraph`, which may here hold self-loops and parallel edges:

    - ``rows("out")`` and ``rows("in")`` hold every edge as it was given; they are the same if undirected.
    - ``rows("both")`` holds every edge in both ends' rows, but no self-loop. Parallel edges, and the edges
      ``u -> v`` and ``v -> u`` of a directed graph, are repeated entries there: an edge with a parallel one
      is no bridge.
    - :attr:`simple` holds each neighbour once. Cores, motifs and articulation points are those of the simple
      graph; for components it makes no difference.
    """

    def __init__(self, out: Rows, directed: bool, num_loops: int) -> None:
        self._rows: dict[Direction, Rows] = {"out": out} if directed else {"out": out, "in": out}
        self._directed = directed
        self._num_loops = num_loops

    @property
    def device(self) -> torch.device:
        """The device that everything of this graph is on."""
        return self._rows["out"].indptr.device

    @property
    def is_directed(self) -> bool:
        """Whether edges have a direction."""
        return self._directed

    @property
    def num_nodes(self) -> int:
        """The number of nodes."""
        return self._rows["out"].indptr.numel() - 1

    @property
    def num_edges(self) -> int:
        """The number of edges: self-loops and parallel edges count, an undirected edge counts once."""
        entries = self._rows["out"].num_entries
        return entries if self._directed else (entries + self._num_loops) // 2

    @property
    def num_loops(self) -> int:
        """The number of self-loops."""
        return self._num_loops

    @property
    def csr(self) -> Rows:
        """The out-edges: row ``u`` lists the targets of node ``u``."""
        return self.rows("out", weighted=True)

    @property
    def csc(self) -> Rows:
        """The in-edges: row ``v`` lists the sources of node ``v``."""
        return self.rows("in", weighted=True)

    @property
    def undirected(self) -> Rows:
        """The neighbours of each node, directions forgotten; every edge stands twice, but for self-loops."""
        return self.rows("both", weighted=True)

    @cached_property
    def out_degrees(self) -> Tensor:
        """The number of out-edges of each node; int64 ``(nodes,)``."""
        return self.rows("out").indptr.diff()

    @cached_property
    def in_degrees(self) -> Tensor:
        """The number of in-edges of each node; int64 ``(nodes,)``."""
        return self.rows("in").indptr.diff()

    def rows(self, direction: Direction, weighted: bool = False) -> Rows:
        """Return the rows of out-edges (``"out"``), in-edges (``"in"``) or neighbours (``"both"``).

        Built at the first call and kept, without a host sync. If the graph was given no weights, each is 1.
        """
        if direction not in self._rows:
            out = self._rows["out"]
            self._rows[direction] = transpose(out) if direction == "in" else self._forget_directions(out)
        have = self._rows[direction]
        if weighted and have.weights.numel() < have.num_entries:
            have = dataclasses.replace(have, weights=torch.ones_like(have.indices, dtype=torch.float32))
        return have

    @cached_property
    def simple(self) -> Rows:
        """The neighbours of each node, each once, without itself and without weights. Takes one host sync."""
        rows = self.rows("both")
        rows = dataclasses.replace(rows, weights=rows.weights.new_empty(0))
        work = rows.num_entries / max(1, self.num_nodes)
        distinct = torch.zeros_like(rows.indptr[1:])
        sort_row.launch(self.num_nodes, 0, rows.indptr, rows.indices, rows.weights, distinct, work=work)
        indptr = scan(distinct)
        num_entries = int(read(indptr[-1:])[0])
        if num_entries == rows.num_entries:
            return rows
        made = allocate_rows(indptr, num_entries, rows.indices.dtype, False)
        combine_row.launch(
            self.num_nodes,
            *(rows.indptr, rows.indices, rows.weights),
            *(made.indptr, made.indices, made.weights),
            work=work,
        )
        return made

    def _forget_directions(self, out: Rows) -> Rows:
        if not self._directed and not self._num_loops:
            return out
        if self._directed:
            back = self.rows("in")
        else:
            back = Rows(torch.zeros_like(out.indptr), out.indices[:0], out.weights[:0])
        degrees = out.indptr.diff() + back.indptr.diff()
        times = 2 if self._directed else 1
        if self._num_loops:
            own = get_sources(out)
            degrees.scatter_add_(0, own.long(), (own == out.indices) * -times)
        num_entries = times * (out.num_entries - self._num_loops)
        made = allocate_rows(scan(degrees), num_entries, out.indices.dtype, out.weights.numel() > 0)
        merge_row.launch(
            self.num_nodes,
            *(out.indptr, out.indices, out.weights),
            *(back.indptr, back.indices, back.weights),
            *(made.indptr, made.indices, made.weights),
            work=num_entries / max(1, self.num_nodes),
        )
        return made

    def __repr__(self) -> str:
        """Return sizes, kind and device."""
        kind = "directed" if self._directed else "undirected"
        return f"PlainGraph({self.num_nodes:,} nodes, {self.num_edges:,} edges, {kind}, {self.device})"


Graph = MultipartiteGraph | PlainGraph


def get_simple_rows(graph: Graph) -> Rows:
    """Return the neighbours of each node, each once, without itself (a network's graph has no others).

    Takes one host sync the first time for a :class:`PlainGraph`, none otherwise.
    """
    return graph.simple if isinstance(graph, PlainGraph) else graph.rows("both")


def get_sources(rows: Rows) -> Tensor:
    """Return the row of each entry, in the dtype of the indices; ``(entries,)``."""
    sources = torch.empty_like(rows.indices)
    nodes = rows.indptr.numel() - 1
    repeat_row.launch(nodes, rows.indptr, sources, work=rows.num_entries / max(1, nodes))
    return sources


def transpose(rows: Rows) -> Rows:
    """Return the rows of the transposed matrix; equal entries keep their order."""
    columns, order = torch.sort(rows.indices, stable=True)
    bounds = torch.arange(rows.indptr.numel(), dtype=columns.dtype, device=columns.device)
    weights = rows.weights[order] if rows.weights.numel() else rows.weights
    return Rows(torch.searchsorted(columns, bounds), get_sources(rows)[order], weights)
