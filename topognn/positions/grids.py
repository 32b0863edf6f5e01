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
    return [_find_grid(layout, number, part) for number, part in enumerate(layout.partitions)]


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
    """
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
