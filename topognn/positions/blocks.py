"""The edges from one piece to another: a block of the adjacency matrix, as a product of channels and two axes.

A *piece* is a partition, or some tokens of one: see :mod:`topognn.positions.pieces`.

A convolution's weight ``(o, i, ky, kx)`` joins node ``(i, y, x)`` to ``(o, oy, ox)`` if tap ``ky`` joins ``y`` to
``oy`` and tap ``kx`` joins ``x`` to ``ox``. So, for every pair of rows and every pair of columns, which channels are
joined depends only on which taps join the rows and which join the columns. Pairs of rows joined by the same set of taps
(of any of the layers between the two pieces) are of one *kind*, and there are few kinds: one a tap, unless pooling
windows overlap. A block is then one small table of kinds an axis, which no mask changes, and for every two kinds the
matrix of the channels that they join. Parallel edges are one edge there.

Proof: an edge from ``(i, y, x)`` to ``(o, oy, ox)`` is there iff some layer keeps a weight ``(o, i, ky, kx)`` whose
taps are in the two pairs' sets; only the sets, that is, the kinds, stand in this condition.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from topognn.encoding.kept import KeptWeights
from topognn.positions.grids import Bools, Grid, Ints, Maps, factor, to_device
from topognn.positions.pieces import Piece, find_pieces
from topognn.tracing.layout import Connection, Layout


class Use(NamedTuple):
    """What one connection adds to a block.

    Attributes:
        connection: Its number.
        inputs, sources: Its input channels, and the channels of the nodes that they stand for.
        outputs, targets: Its output channels, and those of the nodes that they are.
        y, x: For each tap of the kernel, the number of its relation on the axis among the block's; -1 = joins nothing.
    """

    connection: int
    inputs: Ints
    sources: Ints
    outputs: Ints
    targets: Ints
    y: tuple[int, ...]
    x: tuple[int, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Block:
    """All edges from one piece to another.

    Attributes:
        source, target: Numbers of the pieces.
        y: int64 ``(source rows, target rows)``: the kind of each pair, -1 where no tap joins it; ``x`` likewise.
        of_y: bool ``(kinds, relations)``: which relations a kind is made of; ``of_x`` likewise.
        uses: Of the connections between the two.
    """

    source: int
    target: int
    y: Ints
    x: Ints
    of_y: Bools
    of_x: Bools
    uses: tuple[Use, ...]


class Blocks(NamedTuple):
    """A layout's blocks; None where edges are no product, as after a transposition of rows and columns.

    Attributes:
        pieces: In the order of their nodes.
        grids: Theirs.
        blocks: By (source, target) piece.
        walks: What has been found out about two steps along the blocks: see :mod:`topognn.positions.walks`.
    """

    pieces: list[Piece]
    grids: list[Grid]
    blocks: dict[tuple[int, int], Block | None]
    walks: dict[object, object]

    @property
    def are_whole(self) -> bool:
        """Whether every edge is in a block, none within a piece and none back between the same two."""
        return None not in self.blocks.values() and not any((q, p) in self.blocks for p, q in self.blocks)

    @property
    def may_have_cliques(self) -> bool:
        """Whether any four pieces are joined in pairs: only there can four nodes be."""
        near: dict[int, set[int]] = {}
        for p, q in self.blocks:
            near.setdefault(p, set()).add(q)
            near.setdefault(q, set()).add(p)
        shared = (near[p] & near[q] for p, q in self.blocks)
        return any(near[r] & both for both in shared for r in both)


def find_blocks(layout: Layout) -> Blocks:
    """Return the blocks of a layout, found on the host at the first call and kept with it, for every device.

    A layout's tables are on the host, where it was traced; those of one that was read onto a device are copied, once.
    """
    if "blocks" not in layout.found:
        layout.found["blocks"] = _find_blocks(layout.to(torch.device("cpu")))
    found: Blocks = layout.found["blocks"]
    return found


def _find_blocks(layout: Layout) -> Blocks:
    pieces = find_pieces(layout)
    of: dict[int, list[int]] = {}
    for number, piece in enumerate(pieces):
        of.setdefault(piece.partition, []).append(number)
    drafts: dict[tuple[int, int], _Draft | None] = {}
    for number, c in enumerate(layout.connections):
        for source in (own for partition in c.sources for own in of[partition]):
            for target in of[c.target]:
                draft = drafts.setdefault((source, target), _Draft())
                if draft is not None and not draft.add(layout, number, pieces[source], pieces[target]):
                    drafts[source, target] = None
    grids = [piece.grid for piece in pieces]
    found = {key: None if draft is None else draft.finish(*key, grids) for key, draft in drafts.items()}
    return Blocks(pieces, grids, {key: block for key, block in found.items() if block is None or block.uses}, {})


class _Draft:
    """A block in the making: its relations on each axis, and the connections' uses of them."""

    def __init__(self) -> None:
        self.y: dict[bytes, Bools] = {}
        self.x: dict[bytes, Bools] = {}
        self.uses: list[Use] = []

    def add(self, layout: Layout, number: int, source: Piece, target: Piece) -> bool:
        """Add a connection; tell whether it is a product."""
        c = layout.connections[number]
        reading, writing = _read(c, source, target), _write(layout, c, target)
        if reading is None or writing is None:
            return False
        tables = _tables(c, target)
        for read in reading:
            for write in writing:
                y = tuple(_enter(self.y, _relate(read.rows, column, write.rows)) for column in tables[0].T)
                x = tuple(_enter(self.x, _relate(read.columns, column, write.columns)) for column in tables[1].T)
                self.uses.append(Use(number, read.channels, read.owners, write.channels, write.owners, y, x))
        return True

    def finish(self, source: int, target: int, grids: list[Grid]) -> Block:
        s, t = grids[source], grids[target]
        y, of_y = _find_kinds(list(self.y.values()), (s.height, t.height))
        x, of_x = _find_kinds(list(self.x.values()), (s.width, t.width))
        return Block(source, target, y, x, of_y, of_x, tuple(self.uses))


def _read(c: Connection, source: Piece, target: Piece) -> list[Maps] | None:
    """Return which nodes of a piece the elements stand for that a connection reads to make another."""
    grid = source.grid
    own = target.whole if c.weight is None else Grid(c.in_channels, *c.input_positions, c.channel_stride == 1)
    if c.support is None:
        whole = c.source == source.offset and target.tokens is None
        if whole and own[:3] == grid[:3] and (own.last == grid.last or own.height * own.width == 1):
            every = np.arange(grid.channels)
            return [Maps(every, every, np.eye(grid.height, dtype=bool), np.eye(grid.width, dtype=bool))]
        ids = np.arange(c.source, c.source + c.num_elements)[None]
    else:
        ids = np.asarray(c.support)
    inside = (ids >= source.nodes.start) & (ids < source.nodes.stop)
    return factor(target.cut(own.spread(np.where(inside, ids - source.offset, -1))), grid)


def _write(layout: Layout, c: Connection, target: Piece) -> list[Maps] | None:
    """Return which nodes of a piece a connection's output elements are."""
    grid, offset = target.grid, layout.partitions[target.partition].offset
    own = target.whole if c.weight is None else Grid(c.kernel[0], *c.positions, c.target_channel_stride == 1)
    if c.target_map is None:
        same = own[:3] == grid[:3] and (own.last == grid.last or own.height * own.width == 1)
        if same or target.tokens is not None:  # which only layers make that write each token for itself
            every = np.arange(grid.channels)
            return [Maps(every, every, np.eye(grid.height, dtype=bool), np.eye(grid.width, dtype=bool))]
        ids = np.arange(c.num_targets)
    else:
        ids = np.asarray(c.target_map) - offset
    return factor(own.spread(ids[None]), grid)


def _tables(c: Connection, target: Piece) -> tuple[Ints, Ints]:
    """Return ``(output rows, taps)`` and ``(output columns, taps)``: which row or column is read; -1 = outside."""
    if c.weight is None or target.tokens is not None:  # an element is joined to itself
        return np.arange(target.grid.height)[:, None], np.arange(target.grid.width)[:, None]
    steps = (c.input_positions[1] * c.place_stride, c.place_stride)
    return np.asarray(c.source_y) // steps[0], np.asarray(c.source_x) // steps[1]


def _relate(read: Bools, table: Ints, write: Bools) -> Bools:
    """Return which coordinates of the source one tap joins to which of the target."""
    joined = np.where((table >= 0)[:, None], read[table], False)
    if write.shape[0] == write.shape[1] == np.count_nonzero(write) and write.diagonal().all():
        return joined.T  # as nearly always: each output element is the node at its own coordinate
    return (joined.T.astype(np.float32) @ write.astype(np.float32)) > 0


def _enter(relations: dict[bytes, Bools], relation: Bools) -> int:
    """Return a relation's number, a new one if it is new; -1 if it is empty."""
    if not relation.any():
        return -1
    key = np.packbits(relation).tobytes()
    relations.setdefault(key, relation)
    return list(relations).index(key)


def _find_kinds(relations: list[Bools], shape: tuple[int, int]) -> tuple[Ints, Bools]:
    """Return the kind of each pair of coordinates, and which relations each kind is made of."""
    table = np.full(shape, -1)
    if not relations:
        return table, np.zeros((0, 0), dtype=bool)
    sets = np.stack(relations, -1)
    joined = sets.any(-1)
    kinds, numbers = np.unique(sets[joined], axis=0, return_inverse=True)
    order = np.lexsort(~kinds.T[::-1])  # a kernel's first tap first, so that kinds are taps where they can be
    table[joined] = np.argsort(order)[numbers.reshape(-1)]
    return table, kinds[order]


def join_channels(found: Blocks, block: Block, layout: Layout, kept: tuple[KeptWeights, ...]) -> Tensor:
    """Return which channels each two kinds join; bool ``(kinds of y, kinds of x, source channels, target channels)``.

    A view of the mask where that is possible.
    """
    shape = (found.grids[block.source].channels, found.grids[block.target].channels)
    spreads = [_spread(u, layout.connections[u.connection], kept[u.connection].mask, shape) for u in block.uses]
    if len(spreads) == 1 and _are_taps(block.of_y, block.uses[0].y) and _are_taps(block.of_x, block.uses[0].x):
        return spreads[0]
    sizes = (block.of_y.shape[0], block.of_x.shape[0])
    joined = torch.zeros(*sizes, *shape, dtype=torch.bool, device=kept[0].mask.device)
    for use, spread in zip(block.uses, spreads, strict=True):
        for ky, y in enumerate(use.y):
            for kx, x in enumerate(use.x):
                if min(y, x) < 0:
                    continue
                for kind_y in np.flatnonzero(block.of_y[:, y]):
                    for kind_x in np.flatnonzero(block.of_x[:, x]):
                        joined[kind_y, kind_x] |= spread[ky, kx]
    return joined


def _are_taps(kinds: Bools, relations: tuple[int, ...]) -> bool:
    """Tell whether each kind is one tap of a kernel, in order."""
    return np.array_equal(kinds, np.eye(len(relations), dtype=bool)) and relations == tuple(range(len(relations)))


def _spread(use: Use, c: Connection, mask: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return the kept weights of a use by channels of nodes; bool ``(kernel height, kernel width, *shape)``."""
    if c.weight is None:
        spread = torch.zeros(1, 1, *shape, dtype=torch.bool, device=mask.device)
        spread[0, 0, to_device(use.sources, mask.device), to_device(use.inputs, mask.device)] = True
        return spread
    height, width = c.kernel[2:]
    if c.groups > 1:
        inner, outer = c.kernel[1], c.kernel[0] // c.groups
        dense = torch.zeros(height, width, c.groups, inner, c.groups, outer, dtype=torch.bool, device=mask.device)
        each = torch.arange(c.groups, device=mask.device)
        dense[:, :, each, :, each, :] = mask.view(c.groups, outer, inner, height, width).permute(0, 3, 4, 2, 1)
        dense = dense.view(height, width, c.in_channels, c.kernel[0])
    else:
        dense = mask.permute(2, 3, 1, 0)
    if not _are_all(use.inputs, c.in_channels):
        dense = dense.index_select(2, to_device(use.inputs, mask.device))
    if not _are_all(use.sources, shape[0]):
        dense = _scatter(dense, 2, use.sources, shape[0])
    if not _are_all(use.outputs, c.kernel[0]):
        dense = dense.index_select(3, to_device(use.outputs, mask.device))
    return dense if _are_all(use.targets, shape[1]) else _scatter(dense, 3, use.targets, shape[1])


def _are_all(channels: Ints, count: int) -> bool:
    return np.array_equal(channels, np.arange(count))


def _scatter(values: Tensor, dim: int, index: Ints, size: int) -> Tensor:
    """Return a tensor that has, at ``index[k]`` of a dimension, what ``values`` has at k: any of it, where several."""
    shape = list(values.shape)
    shape[dim] = size
    made = torch.zeros(shape, dtype=torch.int32, device=values.device)
    return made.index_add_(dim, to_device(index, values.device), values.to(torch.int32)) > 0
