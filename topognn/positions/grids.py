"""Partitions as grids of channels, rows and columns, and tables of node numbers as products of maps on each.

All of this follows from a layout alone, and lives on the host as NumPy arrays.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from topognn.tracing.layout import Layout, Partition

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_MOST_MAPS = 1024  # in one table: more, and it is no product in any useful sense
_SPARSEST = 4  # entries of a table for each node that an element stands for


class Grid(NamedTuple):
    """How a partition's nodes are numbered: ``(channels, height, width)``, or with ``last`` the channel last."""

    channels: int
    height: int
    width: int
    last: bool

    @property
    def size(self) -> int:
        """The number of nodes."""
        return self.channels * self.height * self.width

    def split(self, nodes: Ints) -> tuple[Ints, Ints, Ints]:
        """Return channel, row and column of nodes, which are numbered from the partition's first one."""
        places = self.height * self.width
        channel, place = (nodes % self.channels, nodes // self.channels) if self.last else divmod(nodes, places)
        return channel, place // self.width, place % self.width

    def spread(self, values: Ints) -> Ints:
        """Return values of nodes, ``(depth, nodes)``, as ``(depth, channels, height, width)``."""
        depth = values.shape[0]
        if self.last:
            return np.moveaxis(values.reshape(depth, self.height, self.width, self.channels), -1, 1)
        return values.reshape(depth, self.channels, self.height, self.width)

    def flatten(self, values: Tensor) -> Tensor:
        """Return ``(channels, height, width)`` values by node."""
        return (values.permute(1, 2, 0) if self.last else values).reshape(-1)

    def unflatten(self, values: Tensor) -> Tensor:
        """Return values by node as ``(channels, height, width)``."""
        if self.last:
            return values.view(self.height, self.width, self.channels).permute(2, 0, 1)
        return values.view(self.channels, self.height, self.width)


def to_device(array: npt.NDArray[np.generic], device: torch.device) -> Tensor:
    """Return an array of the host as a tensor on a device."""
    return torch.as_tensor(array.copy(), device=device)


def spread_over_nodes(grid: Grid, values: Tensor, y: Ints, x: Ints) -> Tensor:
    """Return, for every node of a grid, the sum of values over all pairs of a kind of rows and a kind of columns.

    Args:
        grid: The grid.
        values: int64 ``(kinds of rows, kinds of columns, channels)``.
        y: How often each kind counts at each coordinate, int64 ``(height, kinds)``; ``x`` likewise.

    Returns:
        int64 ``(nodes,)``; exact as long as sums stay below 2**53.
    """
    by_y, by_x = (to_device(counts.astype(np.float64), values.device) for counts in (y, x))
    rows = (by_y @ values.double().reshape(values.shape[0], -1)).view(len(y), *values.shape[1:])
    return grid.flatten((by_x @ rows).permute(2, 0, 1)).to(torch.int64)


def add_over_nodes(values: Tensor, y: Ints, x: Ints) -> Tensor:
    """Return the sum of what :func:`spread_over_nodes` returns; int64 scalar, exact below 2**63."""
    times = to_device(np.outer(y.sum(0), x.sum(0)), values.device)
    return (values.sum(2) * times).sum()


class Maps(NamedTuple):
    """Elements of some channels stand for a product of rows and columns, the same for all of these channels.

    Attributes:
        channels: Numbers of the channels of elements.
        owners: For each, the channel of the nodes that it stands for.
        rows: bool ``(element rows, node rows)``; ``columns`` likewise.
    """

    channels: Ints
    owners: Ints
    rows: Bools
    columns: Bools


def find_grids(layout: Layout) -> list[Grid]:
    """Return the grid of each partition: as the layer that makes it has it, else as a reader, else by its shape."""
    grids: list[Grid] = []
    for number, part in enumerate(layout.partitions):
        grid = _find_grid(layout, number, part)
        grids.append(grid if _is_fed_by_channel(layout, number, grid, grids) else Grid(part.size, 1, 1, False))
    return grids


def _is_fed_by_channel(layout: Layout, number: int, grid: Grid, before: list[Grid]) -> bool:
    """Tell whether a grid suits what feeds its nodes one by one; hubs of attention are all channels, at one place."""
    feeding = [c for c in layout.connections if c.target == number]
    if grid.last or any(c.weight is not None for c in feeding):  # a layer that makes or reads it tells
        return True
    for c in feeding:
        if c.support is not None and c.num_elements == grid.size:
            for source in (number for number in c.sources if number < len(before)):
                inside = np.asarray(c.support) - layout.partitions[source].offset
                inside[(inside < 0) | (inside >= before[source].size)] = -1
                if _factor_owned(grid.spread(inside), before[source]) is None:
                    return False
    return True


def _find_grid(layout: Layout, number: int, part: Partition) -> Grid:
    for c in layout.connections:
        if c.target == number and c.weight is not None and c.target_map is None and c.num_targets == part.size:
            last = c.target_channel_stride == 1 and c.positions != (1, 1)
            return Grid(c.kernel[0], *c.positions, last)
    shape = part.shape
    if len(shape) == 3:
        return Grid(shape[0], shape[1], shape[2], False)
    for c in layout.connections:
        whole = c.support is None and c.source == part.offset and c.num_elements == part.size
        if c.weight is not None and whole and c.in_channels < part.size:
            return Grid(c.in_channels, *c.input_positions, c.channel_stride == 1)
    if len(shape) <= 1:
        return Grid(part.size, 1, 1, False)
    return Grid(shape[0], part.size // shape[0] // shape[-1], shape[-1], False)


def factor(ids: Ints, grid: Grid) -> list[Maps] | None:
    """Return which nodes of a grid elements stand for, as maps; None if that is no product.

    ``ids`` is ``(K, channels, height, width)``: node numbers from the partition's first on; -1 where there is none.
    An element may stand for nodes of several channels, as a score hub does: then it is in several maps.
    """
    found = _factor_owned(ids, grid)
    if found is None:
        separate = _separate(ids, grid)
        if separate is not None:
            found = _factor_owned(separate[0], grid)
            found = None if found is None else [maps._replace(channels=separate[1][maps.channels]) for maps in found]
    return found


def _separate(ids: Ints, grid: Grid) -> tuple[Ints, Ints] | None:
    """Return ids with a channel for each pair of a channel of elements and one of nodes, and the former of each pair.

    None where that is no help, as where no two elements of a channel stand for nodes of the same one.
    """
    height, width = ids.shape[2:]
    places = height * width
    _, element, y, x = np.nonzero(ids >= 0)
    nodes = ids[ids >= 0]
    pair = element * grid.channels + grid.split(nodes)[0]
    entries = np.sort((pair * places + y * width + x) * grid.size + nodes)
    groups, node = np.divmod(entries[np.diff(entries, prepend=-1) > 0], grid.size)  # each node once
    begins = np.flatnonzero(np.diff(groups, prepend=-1))
    rank = np.arange(groups.size) - np.repeat(begins, np.diff(begins, append=groups.size))
    own = groups // places
    new = np.diff(own, prepend=-1) > 0
    pairs, numbers = own[new], new.cumsum() - 1
    most = int(rank.max(initial=0)) + 1
    if most * pairs.size * places > _SPARSEST * groups.size:
        return None
    separate = np.full((most, pairs.size, places), -1)
    separate[rank, numbers, groups % places] = node
    return separate.reshape(most, pairs.size, height, width), pairs // grid.channels


def _factor_owned(ids: Ints, grid: Grid) -> list[Maps] | None:
    """Return what :func:`factor` does, if every channel of elements stands for nodes of one channel."""
    depth, channels, height, width = ids.shape
    step = 1 if grid.last else grid.height * grid.width
    flat = np.ascontiguousarray(np.moveaxis(ids, 1, 0)).reshape(channels, -1)
    valid = flat >= 0
    left = np.flatnonzero(valid.any(1))
    first = flat[np.arange(channels), valid.argmax(1)]
    owners = grid.split(first)[0]
    found: list[Maps] = []
    while left.size:
        model, rest = left[0], left[1:]
        alike = np.ones(left.size, dtype=bool)
        if rest.size:
            relative = np.where(valid[model], flat[model] - owners[model] * step, -1)
            shifted = flat[rest] - (owners[rest] * step)[:, None]
            alike[1:] = ((shifted == relative) | ~valid[rest]).all(1) & (valid[rest] == valid[model]).all(1)
        maps = _factor_channel(flat[model].reshape(depth, height, width), grid)
        if maps is None or len(found) == _MOST_MAPS:
            return None
        found.append(Maps(left[alike], owners[left[alike]], *maps))
        left = left[~alike]
    return found


def _factor_channel(ids: Ints, grid: Grid) -> tuple[Bools, Bools] | None:
    """Return the maps of rows and of columns of one channel's elements, ``(K, height, width)``."""
    _, height, width = ids.shape
    ordered = np.sort(ids, 0)
    ordered[1:][ordered[1:] == ordered[:-1]] = -1  # each node once
    layer, y, x = np.nonzero(ordered >= 0)
    channel, row, column = grid.split(ordered[layer, y, x])
    if (channel != channel[0]).any():
        return None
    rows, columns = np.zeros((height, grid.height), dtype=bool), np.zeros((width, grid.width), dtype=bool)
    rows[y, row] = True
    columns[x, column] = True
    counts = (ordered >= 0).sum(0)
    return (rows, columns) if np.array_equal(counts, np.outer(rows.sum(1), columns.sum(1))) else None
