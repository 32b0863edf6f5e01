"""The multipartite graph: partitions and connections at once, its matrices when asked for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from topognn.encoding.degrees import add_in, add_out
from topognn.encoding.kept import DenseWeights, KeptWeights
from topognn.encoding.rows import Direction, Rows, build_rows, repeats
from topognn.errors import GraphMemoryError, UnknownNameError
from topognn.kernels.host import read
from topognn.memory import format_bytes, get_free_memory, return_freed_memory
from topognn.positions.channels import Channels
from topognn.positions.counting import are_cheap
from topognn.storage import load_parts, save_parts
from topognn.tracing.layout import Connection, Layout, Partition


class MemoryEstimate(NamedTuple):
    """Bytes that a graph's matrices take, and the bytes free on its device (None: unknown)."""

    csr: int
    csc: int
    undirected: int
    free: int | None


class Earlier(NamedTuple):
    """The graph before in a series of graphs of one layout.

    Attributes:
        remembered: What it remembers.
        same: For each connection, whether its kept weights are the same in both.
    """

    remembered: dict[str, Any]
    same: tuple[bool, ...]


class MultipartiteGraph:
    """A network's Multipartite Graph Encoding. Made by :func:`topognn.encode`.

    Nodes are elements of tensors, edges are uses of kept weights, edge weights are ``|weight|`` (definitions:
    section 1 of Cunegatti et al., TMLR 2024). The matrices are built when first asked for, on the device of the
    masks; degrees and strengths need none of them.
    """

    def __init__(self, layout: Layout, kept: Sequence[KeptWeights], in_degrees: Tensor, num_uses: int) -> None:
        self._layout = layout
        self._kept = tuple(kept)
        self._raw_in_degrees = in_degrees
        self._num_uses = num_uses
        self._rows: dict[Direction, Rows] = {}
        self._num_edges = None if repeats(layout) else num_uses
        # In a series (encoding/again.py): analyses by name for the next graph to begin from, and the graph before.
        self.remembered: dict[str, Any] | None = None
        self.earlier: Earlier | None = None

    @property
    def device(self) -> torch.device:
        """The device that everything of this graph is on."""
        return self._raw_in_degrees.device

    @property
    def layout(self) -> Layout:
        """The layout that the graph was encoded from."""
        return self._layout

    @property
    def partitions(self) -> tuple[Partition, ...]:
        """The partitions in execution order; number 0 is the network's input."""
        return self._layout.partitions

    @property
    def connections(self) -> tuple[Connection, ...]:
        """The layers' uses, and the shortcuts, that edges come from."""
        return self._layout.connections

    @property
    def kept(self) -> tuple[KeptWeights, ...]:
        """The kept weights of each connection."""
        return self._kept

    @property
    def num_nodes(self) -> int:
        """The number of nodes."""
        return self._layout.num_nodes

    @property
    def num_edges(self) -> int:
        """The number of edges, parallel ones combined (which takes a host sync, once, where they are possible)."""
        if self._num_edges is None:
            by_rows = "in" in self._rows or not self.channels.found.are_whole
            self._num_edges = self.rows("in").num_entries if by_rows else int(read(self.in_degrees.sum()[None])[0])
        return self._num_edges

    @property
    def num_uses(self) -> int:
        """The number of edges with parallel ones counted apart: each use of a weight on a node is one."""
        return self._num_uses

    @cached_property
    def has_parallel_edges(self) -> bool:
        """Whether two weights may join the same pair of nodes, as they do behind overlapping pooling windows."""
        return repeats(self._layout)

    # -- matrices -------------------------------------------------------------------------------------------

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
        """The neighbours of each node, directions forgotten; every edge stands twice."""
        return self.rows("both", weighted=True)

    def rows(self, direction: Direction, weighted: bool = False) -> Rows:
        """Return the rows of out-edges (``"out"``), in-edges (``"in"``) or neighbours (``"both"``).

        Built at the first call and kept. Without weights they take half the memory.

        Raises:
            GraphMemoryError: They would not fit in the memory that is free.
        """
        have = self._rows.get(direction)
        if have is None or (weighted and have.weights.numel() < have.num_entries):
            self._rows.pop(direction, None)  # those without weights: the new ones have all that they have
            self._check_memory(direction, weighted)
            entries = self._num_uses * (2 if direction == "both" else 1)
            degrees = self._raw_degrees(direction)
            have = build_rows(self._layout, self._kept, direction, weighted, degrees, entries)
            self._rows[direction] = have
        return have

    def has_rows(self, direction: Direction, weighted: bool = False) -> bool:
        """Tell whether the rows of a direction are in memory already."""
        have = self._rows.get(direction)
        return have is not None and (not weighted or have.weights.numel() == have.num_entries)

    def _raw_degrees(self, direction: Direction) -> Tensor:
        if direction == "in":
            return self._raw_in_degrees
        out = add_out(self._layout, [k.mask for k in self._kept], self.device).to(torch.int64)
        return out if direction == "out" else out + self._raw_in_degrees

    @cached_property
    def channels(self) -> Channels:
        """Its edges as products of channels, rows and columns, as far as they are: see :mod:`topognn.positions`."""
        return Channels(self._layout, self._kept)

    def is_counted_by_channels(self, undirected: bool) -> bool:
        """Tell whether to count walks of two steps by channels: that can be done, and rows are dearer or too large."""
        if not self.channels.found.are_whole:
            return False
        if are_cheap(self.channels, undirected, self._num_uses):
            return True
        estimate = self.memory_estimate()
        need = 2 * (estimate.undirected if undirected else estimate.csr)  # sorted or combined rows besides
        return estimate.free is not None and need > estimate.free

    # -- degrees and strengths ------------------------------------------------------------------------------

    @property
    def raw_in_degrees(self) -> Tensor:
        """The number of in-edges of each node, parallel ones counted apart; int64 ``(nodes,)``."""
        return self._raw_in_degrees

    @cached_property
    def in_degrees(self) -> Tensor:
        """The number of in-edges of each node; int64 ``(nodes,)``."""
        if not self.has_parallel_edges:
            return self._raw_in_degrees
        by_rows = "in" in self._rows or not self.channels.found.are_whole
        return self.rows("in").indptr.diff() if by_rows else self.channels.count_sources()

    @cached_property
    def out_degrees(self) -> Tensor:
        """The number of out-edges of each node; int64 ``(nodes,)``."""
        if not self.has_parallel_edges:
            return self._raw_degrees("out")
        by_rows = "out" in self._rows or not self.channels.found.are_whole
        return self.rows("out").indptr.diff() if by_rows else self.channels.count_targets()

    @cached_property
    def has_in_edges(self) -> Tensor:
        """Which nodes have in-edges; bool ``(nodes,)``."""
        return self._raw_in_degrees.bool()

    @cached_property
    def has_out_edges(self) -> Tensor:
        """Which nodes have out-edges; bool ``(nodes,)``."""
        return self.out_degrees.bool()

    @cached_property
    def in_strengths(self) -> Tensor:
        """The sum of the weights of the in-edges of each node; float64 ``(nodes,)``."""
        return add_in(self._layout, DenseWeights(self._kept, torch.float32, weighted=True), self.device)

    @cached_property
    def out_strengths(self) -> Tensor:
        """The sum of the weights of the out-edges of each node; float64 ``(nodes,)``."""
        return add_out(self._layout, DenseWeights(self._kept, torch.float32, weighted=True), self.device)

    @cached_property
    def is_output(self) -> Tensor:
        """Which nodes are in an output partition; bool ``(nodes,)``."""
        marked = torch.zeros(self.num_nodes, dtype=torch.bool, device=self.device)
        for number in self._layout.outputs:
            marked[self.partitions[number].offset : self.partitions[number].end] = True
        return marked

    @cached_property
    def is_input(self) -> Tensor:
        """Which nodes are in an input partition; bool ``(nodes,)``."""
        marked = torch.zeros(self.num_nodes, dtype=torch.bool, device=self.device)
        for number in self._layout.inputs:
            marked[self.partitions[number].offset : self.partitions[number].end] = True
        return marked

    # -- names of nodes -------------------------------------------------------------------------------------

    def node_of(self, partition: str | int, index: int | Sequence[int]) -> int:
        """Return the id of element ``index`` (a number, or one coordinate an axis) of a partition.

        Raises:
            UnknownNameError: There is no such partition.
            IndexError: The partition has no such element.
        """
        part = self._layout.partition(partition)
        coordinates = (index,) if isinstance(index, int) else tuple(index)
        shape = (part.size,) if isinstance(index, int) else part.shape
        if len(coordinates) != len(shape) or not all(0 <= c < s for c, s in zip(coordinates, shape, strict=True)):
            raise IndexError(f"partition {part.name!r} of shape {part.shape} has no element {index}")
        local = 0
        for coordinate, size in zip(coordinates, shape, strict=True):
            local = local * size + coordinate
        return part.offset + local

    def element_of(self, node: int) -> tuple[str, tuple[int, ...]]:
        """Return (partition name, coordinates) of a node: the inverse of :meth:`node_of`."""
        for part in self.partitions:
            if part.offset <= node < part.end:
                local, coordinates = node - part.offset, []
                for size in reversed(part.shape):
                    local, coordinate = divmod(local, size)
                    coordinates.append(coordinate)
                return part.name, tuple(reversed(coordinates))
        raise UnknownNameError(f"node {node} does not exist: nodes are 0 to {self.num_nodes - 1}")

    # -- memory ---------------------------------------------------------------------------------------------

    def memory_estimate(self) -> MemoryEstimate:
        """Return the bytes that each matrix would take, parallel edges counted apart, and the bytes free."""
        itemsize = 4 if self._layout.index_dtype == torch.int32 else 8
        one = 8 * (self.num_nodes + 1) + self._num_uses * (itemsize + 4)
        both = 8 * (self.num_nodes + 1) + 2 * self._num_uses * (itemsize + 4)
        return MemoryEstimate(one, one, both, get_free_memory(self.device))

    def _check_memory(self, direction: Direction, weighted: bool) -> None:
        estimate = self.memory_estimate()
        need = estimate.undirected if direction == "both" else estimate.csr
        if not weighted:
            need -= 4 * self._num_uses * (2 if direction == "both" else 1)
        if self.has_parallel_edges:
            need *= 2  # before and after combining
        free = estimate.free
        if free is not None and need > free:
            self.forget()
            free = get_free_memory(self.device)
        if free is not None and need > free:
            raise GraphMemoryError(
                f"the rows of {self._num_uses:,} edges need {format_bytes(need)} on {self.device}, and "
                f"{format_bytes(free)} are free. Degrees, strength, paths, components and spectra need no rows, nor do "
                "two_hop and motifs in most networks; otherwise encode at a smaller input shape or a higher sparsity"
            )

    def forget_rows(self) -> None:
        """Drop the rows that were built; they are built anew when they are asked for again."""
        self._rows.clear()

    def forget(self) -> None:
        """Drop all that was found of the graph and can be found again: rows, degrees, strengths, joined channels."""
        self.forget_rows()
        for name in ("in_degrees", "out_degrees", "has_in_edges", "has_out_edges", "in_strengths", "out_strengths"):
            self.__dict__.pop(name, None)
        self.__dict__.pop("channels", None)
        return_freed_memory()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the graph to a safetensors file. Matrices are left out: they are built faster than they are read."""
        save_parts(Path(path), self._layout, self._kept, self._num_uses)

    @classmethod
    def load(cls, path: str | os.PathLike[str], device: str | torch.device = "cpu") -> MultipartiteGraph:
        """Read a graph that :meth:`save` wrote; it has no model, so its layout cannot be encoded anew.

        Raises:
            CheckpointError: The file is missing, damaged, or holds something else.
        """
        layout, kept, num_uses = load_parts(Path(path), device)
        in_degrees = add_in(layout, [k.mask for k in kept], kept[0].mask.device).to(torch.int64)
        return cls(layout, kept, in_degrees, num_uses)

    def __repr__(self) -> str:
        edges = f"{self._num_uses:,} edges" + (" before combining" if self.has_parallel_edges else "")
        return f"MultipartiteGraph({self.num_nodes:,} nodes, {edges}, {len(self.partitions)} partitions, {self.device})"
