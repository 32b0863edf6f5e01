"""Convolutions with few weights, one after the other: each adds a shifted image to another.

A dense convolution multiplies by zeros, and a row of a matrix fetches an index and a weight an edge. Here a kept weight
is read once for all the edges that it gives: in images with margins as wide as the kernel reaches, what it reads lies
side by side, from the first row to the last, and so does what it adds to.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple, overload

import torch
import torch.nn.functional as F
from torch import Tensor

from topognn.encoding.kept import DenseWeights, KeptWeights, Taps
from topognn.kernels.products import add_shifted
from topognn.tracing.layout import Connection

_SPAN = {"cpu": 2048, "cuda": 32}  # places at a time: a CPU keeps them at hand while the weights pass
_PLACES_A_STEP = 64  # of the inner steps that a launch counts
# On a CPU a weight costs as much as so many places, and a place as much as these weights of a dense convolution.
_PLACES_A_WEIGHT = 64
_DENSE_A_PLACE = 0.4


class Shifts(NamedTuple):
    """How one image is made of shifted ones.

    Attributes:
        channels, sizes: Of what is made: how many, and their ``(height, width)``.
        shape: Of what is read: ``(channels, height, width)``.
        margins: What is read has these beside it: left, right, top, bottom.
        indptr: int64 ``(channels + 1,)``.
        offsets: int64, where each weight's first place reads.
        weights: float32; empty if all are 1.
    """

    channels: int
    sizes: tuple[int, int]
    shape: tuple[int, int, int]
    margins: tuple[int, int, int, int]
    indptr: Tensor
    offsets: Tensor
    weights: Tensor

    def apply(self, x: Tensor) -> Tensor:
        """Return what is made of each row of ``(batch, elements)``."""
        batch, (height, width) = x.shape[0], self.sizes
        image = F.pad(x.reshape(batch, *self.shape), self.margins)
        row = image.shape[3]
        y = x.new_zeros(batch, self.channels, height, row)
        run, span = (height - 1) * row + width, _SPAN[x.device.type]
        add_shifted.launch(
            self.channels * -(-run // span),
            *(span, run, height * row, self.indptr, self.offsets, self.weights),
            *(image.view(batch, -1), y.view(batch, -1)),
            work=batch * min(run, span) * self.offsets.numel() / self.channels / _PLACES_A_STEP,
        )
        return y[..., :width].reshape(batch, -1)


@dataclasses.dataclass(frozen=True, eq=False)
class SparseWeights:
    """The kept weights of a connection, to convolve with as :func:`topognn.operators.products.convolve` does.

    Attributes:
        connection: One that :func:`is_shifted`.
        kept: Its kept weights.
        dtype: float32 or float64, of what is convolved.
        weighted: Whether they count with their magnitudes, or each as 1.
    """

    connection: Connection
    kept: KeptWeights
    dtype: torch.dtype
    weighted: bool

    @property
    def device(self) -> torch.device:
        """The device that everything is on."""
        return self.kept.mask.device

    @cached_property
    def forward(self) -> Shifts:
        """From input elements to output elements."""
        c = self.connection
        taps = self.kept.by_output(c, torch.int64, self.weighted)
        return _find_shifts(c, taps, c.kernel[0], c.positions, c.in_channels, c.input_positions, 1)

    @cached_property
    def backward(self) -> Shifts:
        """From output elements to input elements."""
        c = self.connection
        taps = self.kept.by_input(c, torch.int64, self.weighted)
        return _find_shifts(c, taps, c.in_channels, c.input_positions, c.kernel[0], c.positions, -1)


def _find_shifts(
    c: Connection,
    taps: Taps,
    channels: int,
    sizes: tuple[int, int],
    read: int,
    read_sizes: tuple[int, int],
    sign: int,
) -> Shifts:
    first, margins = [], []
    for axis in (1, 0):
        ends = sorted(sign * (tap * c.dilation[axis] - c.padding[axis]) for tap in (0, c.kernel[2 + axis] - 1))
        before = max(0, -ends[0])
        margins += [before, max(0, ends[1] + sizes[axis] - read_sizes[axis])]
        first.append(before - sign * c.padding[axis])
    row = read_sizes[1] + margins[0] + margins[1]
    area = row * (read_sizes[0] + margins[2] + margins[3])
    y, x = (first[1 - axis] + sign * c.dilation[axis] * taps[1 + axis] for axis in (0, 1))
    offsets = taps.base // (read_sizes[0] * read_sizes[1]) * area + y * row + x
    left, right, top, bottom = margins
    return Shifts(channels, sizes, (read, *read_sizes), (left, right, top, bottom), taps.indptr, offsets, taps.weight)


def is_shifted(connection: Connection) -> bool:
    """Tell whether each weight of a connection joins places of two images, channels first, that move in step."""
    c = connection
    steps = c.stride == (1, 1) and c.place_stride == c.target_place_stride == 1
    return steps and not c.transposed and c.weight is not None


def prefers_sparse(connection: Connection, kept: KeptWeights) -> bool:
    """Tell whether products with a connection's weights are cheaper weight by weight than by dense convolutions."""
    if kept.mask.device.type != "cpu" or not is_shifted(connection):
        return False
    places = connection.positions[0] * connection.positions[1]
    return kept.count * (_PLACES_A_WEIGHT + places) <= _DENSE_A_PLACE * places * connection.num_weights


def pick_weights(
    connection: Connection, kept: KeptWeights, dtype: torch.dtype, weighted: bool
) -> Tensor | SparseWeights:
    """Return a connection's weights in the form in which many products with them are cheapest."""
    if prefers_sparse(connection, kept):
        return SparseWeights(connection, kept, dtype, weighted)
    return (kept.magnitude if weighted else kept.mask).to(dtype)


class LayerWeights(Sequence[Tensor | SparseWeights]):
    """The kept weights of all connections, each in the form in which many products with it are cheapest.

    Dense ones are made anew when they are read, as in :class:`~topognn.encoding.kept.DenseWeights`.
    """

    def __init__(self, dense: DenseWeights, sparse: Sequence[SparseWeights | None]) -> None:
        """Take the sparse form where there is one."""
        self._dense, self._sparse = dense, sparse

    def __len__(self) -> int:
        """Return the number of connections."""
        return len(self._dense)

    @overload
    def __getitem__(self, number: int) -> Tensor | SparseWeights: ...
    @overload
    def __getitem__(self, number: slice) -> LayerWeights: ...
    def __getitem__(self, number: int | slice) -> Tensor | SparseWeights | LayerWeights:
        """Return a connection's weights."""
        if isinstance(number, slice):
            return LayerWeights(self._dense[number], self._sparse[number])
        return self._sparse[number] or self._dense[number]
