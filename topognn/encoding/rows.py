"""Build a graph's rows (CSR, CSC, undirected CSR) from its connections: count -> scan -> fill."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from topognn.encoding.kept import KeptWeights, scan
from topognn.kernels.host import read
from topognn.kernels.rows import combine_row, exchange_neighbors, fill_in, fill_out, sort_row
from topognn.memory import ask_for_huge_pages
from topognn.tracing.layout import Connection, Layout

Direction = Literal["in", "out", "both"]


@dataclasses.dataclass(frozen=True, eq=False)
class Rows:
    """A sparse matrix by rows: those of the neighbours that each node has.

    Attributes:
        indptr: int64 ``(nodes + 1,)``.
        indices: int32 (int64 from 2**31 nodes on) ``(entries,)``, ascending within a row, without repeats.
        weights: float32 ``(entries,)``; empty if the rows were built without weights.
    """

    indptr: Tensor
    indices: Tensor
    weights: Tensor

    @property
    def num_entries(self) -> int:
        """The number of entries."""
        return self.indices.numel()


def allocate_rows(indptr: Tensor, num_entries: int, index_dtype: torch.dtype, weighted: bool) -> Rows:
    """Return rows whose entries are still to be filled in, in memory that is cheap to touch."""
    indices = torch.empty(num_entries, dtype=index_dtype, device=indptr.device)
    weights = torch.empty(num_entries if weighted else 0, dtype=torch.float32, device=indptr.device)
    return Rows(indptr, ask_for_huge_pages(indices), ask_for_huge_pages(weights))


def build_rows(
    layout: Layout,
    kept: Sequence[KeptWeights],
    direction: Direction,
    weighted: bool,
    degrees: Tensor,
    num_entries: int,
) -> Rows:
    """Return the rows of a graph.

    ``degrees`` (int64, a node's number of entries in the wanted direction) and ``num_entries`` count parallel
    edges apart. Makes no host sync unless parallel edges are possible, and one then.
    """
    indptr = scan(degrees)
    cursor = indptr[:-1].clone()
    rows = allocate_rows(indptr, num_entries, layout.index_dtype, weighted)
    # Within a row, in-edges ascend with the source and come before out-edges, which ascend with the target.
    order = range(len(kept))
    if direction != "out":
        for number in sorted(order, key=lambda n: layout.connections[n].sources):
            _fill_in(layout.connections[number], kept[number], cursor, rows)
    if direction != "in":
        for number in sorted(order, key=lambda n: layout.connections[n].target):
            _fill_out(layout.connections[number], kept[number], cursor, rows)
    unsorted = find_unsorted(layout, direction)
    return _tidy(layout, rows, unsorted) if unsorted else rows


def _fill_in(connection: Connection, kept: KeptWeights, cursor: Tensor, rows: Rows) -> None:
    c, taps = connection, kept.by_output(connection, rows.indices.dtype, rows.weights.numel() > 0)
    fill_in.launch(
        c.num_targets,
        *(c.kernel[0], c.target_channel_stride, c.positions[0] * c.positions[1]),
        *(c.target_place_stride, c.positions[1], c.source_y, c.source_x, *taps),
        *(
            c.source,
            _or_empty(c.support, rows.indices, 2),
            c.target_first,
            _or_empty(c.target_map, rows.indices),
        ),
        *(cursor, rows.indices, rows.weights),
        work=kept.count / c.kernel[0],
    )


def _fill_out(connection: Connection, kept: KeptWeights, cursor: Tensor, rows: Rows) -> None:
    c, taps = connection, kept.by_input(connection, rows.indices.dtype, rows.weights.numel() > 0)
    fill_out.launch(
        c.num_sources,
        *(c.in_channels, c.channel_stride, c.input_positions[0] * c.input_positions[1]),
        *(c.place_stride, c.input_positions[1], c.target_y, c.target_x, *taps),
        *(c.source, _or_empty(c.holders_indptr, cursor), _or_empty(c.holders, cursor)),
        *(c.target_first, _or_empty(c.target_map, rows.indices)),
        *(cursor, rows.indices, rows.weights),
        work=kept.count / c.in_channels,
    )


def _or_empty(tensor: Tensor | None, like: Tensor, dims: int = 1) -> Tensor:
    """Return ``tensor`` in the dtype of ``like``, or an empty one where there is none."""
    if tensor is None:
        return torch.empty((0,) * dims, dtype=like.dtype, device=like.device)
    return tensor.to(like.dtype)


def find_unsorted(layout: Layout, direction: Direction) -> list[int]:
    """Return the partitions whose rows do not come out sorted when they are filled connection by connection."""
    unsorted: set[int] = set()
    for number in range(len(layout.partitions)):
        entering = sorted((c for c in layout.connections if c.target == number and c.sources), key=lambda c: c.sources)
        leaving = sorted((c for c in layout.connections if number in c.sources), key=lambda c: c.target)
        if direction != "out":
            mixed = any(max(a.sources) >= min(b.sources) for a, b in pairwise(entering))
            if mixed or not all(c.ascends_in for c in entering):
                unsorted.add(number)
        if direction != "in":
            mixed = any(a.target == b.target for a, b in pairwise(leaving))
            if mixed or not all(c.ascends_out for c in leaving):
                unsorted.add(number)
        if direction == "both" and any(s >= number for c in entering for s in c.sources):  # an edge to a lower id
            unsorted.update((number, *(s for c in entering for s in c.sources)))
    return sorted(unsorted)


def repeats(layout: Layout) -> bool:
    """Tell whether two weights may join the same pair of nodes, so that edges must be combined."""
    if "repeats" not in layout.found:
        layout.found["repeats"] = any(
            a.may_repeat
            or any(b.target == a.target and set(a.sources) & set(b.sources) for b in layout.connections[:k])
            for k, a in enumerate(layout.connections)
        )
    found: bool = layout.found["repeats"]
    return found


def _tidy(layout: Layout, rows: Rows, unsorted: Sequence[int]) -> Rows:
    """Sort the rows of some partitions and, where parallel edges are possible, combine them."""
    distinct = rows.indptr.diff()
    work = rows.num_entries / layout.num_nodes
    for number in unsorted:
        part = layout.partitions[number]
        if distinct.device.type == "cuda":
            exchange_neighbors.launch(part.size, part.offset, rows.indptr, rows.indices, rows.weights, work=work)
        sort_row.launch(part.size, part.offset, rows.indptr, rows.indices, rows.weights, distinct, work=work)
    if not repeats(layout):
        return rows
    indptr = scan(distinct)
    (num_entries,) = read(indptr[-1:])
    combined = allocate_rows(indptr, int(num_entries), rows.indices.dtype, rows.weights.numel() > 0)
    combine_row.launch(
        layout.num_nodes,
        *(rows.indptr, rows.indices, rows.weights),
        *(combined.indptr, combined.indices, combined.weights),
        work=work,
    )
    return combined
