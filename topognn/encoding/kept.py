"""A layer's kept weights in coordinate form, sorted by output channel and by input channel."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple, overload

import torch
from torch import Tensor

from topognn.kernels.taps import BLOCK, count_block, count_kept, find_taps, take_kept
from topognn.tracing.layout import Connection, Layout


class Taps(NamedTuple):
    """Kept weights grouped by one kind of channel, in the order in which a row of edges ascends.

    Attributes:
        indptr: int64 ``(channels + 1,)``.
        y, x: int32, the weight's place in the kernel.
        base: In the dtype of the rows' indices, what its channel on the other side adds to an element's index.
        weight: float32 ``|w|``; empty in an unweighted graph.
    """

    indptr: Tensor
    y: Tensor
    x: Tensor
    base: Tensor
    weight: Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class KeptWeights:
    """The kept weights of one connection: a byte a weight and four more a kept one.

    Attributes:
        mask: bool, in the connection's kernel form ``(out, in a group, kernel height, kernel width)``.
        values: float32 ``|w|`` of the kept weights, ``(count,)``, as they stand in the mask.
        count: Number of kept weights.
    """

    mask: Tensor
    values: Tensor
    count: int

    @property
    def magnitude(self) -> Tensor:
        """``|w|`` in the form of ``mask``, 0 where a weight is not kept; float32, made at each call."""
        dense = torch.zeros(self.mask.shape, dtype=torch.float32, device=self.mask.device)
        return dense.masked_scatter_(self.mask, self.values)

    def by_output(self, connection: Connection, dtype: torch.dtype, weighted: bool) -> Taps:
        """Return the taps that each output channel reads, ascending in the input element."""
        taps = self._find(connection, connection.channel_stride, dtype, turned=False, weighted=False)
        return taps._replace(weight=self.values) if weighted else taps

    def by_input(self, connection: Connection, dtype: torch.dtype, weighted: bool) -> Taps:
        """Return the taps that each input channel feeds, ascending in the output element."""
        return self._find(connection, connection.target_channel_stride, dtype, turned=True, weighted=weighted)

    def _find(self, connection: Connection, stride: int, dtype: torch.dtype, turned: bool, weighted: bool) -> Taps:
        groups, device, mask = connection.groups, self.mask.device, self.mask.flatten(2)
        rows = mask.shape[1] * groups if turned else mask.shape[0]
        work = mask.numel() / rows
        counts = torch.zeros(rows, dtype=torch.int64, device=device)
        count_kept.launch(rows, groups, turned, mask, counts, work=work)
        earlier = torch.zeros(-(-mask.numel() // BLOCK) if weighted else 0, dtype=torch.int64, device=device)
        count_block.launch(earlier.numel(), mask.view(-1), earlier, work=BLOCK)
        y, x = (torch.empty(self.count, dtype=torch.int32, device=device) for _ in range(2))
        base = torch.empty(self.count, dtype=dtype, device=device)
        weight = torch.empty(self.count if weighted else 0, dtype=torch.float32, device=device)
        taps = Taps(scan(counts), y, x, base, weight)
        find_taps.launch(
            *(rows, groups, self.mask.shape[3], stride, turned, mask, mask.view(-1)),
            *(scan(earlier), self.values, *taps),
            work=work,
        )
        return taps


def take_weight(connection: Connection, weight: Tensor, mask: Tensor) -> Tensor:
    """Return a parameter's weights in kernel form; where those are sums, of the magnitudes of the kept ones."""
    return connection.to_kernel(weight.abs() * mask if connection.is_pooled else weight)


def find_mask(layout: Layout, kept: Sequence[KeptWeights], weight: str) -> Tensor:
    """Return the mask of a weight, in its own shape, from what the connections that use it keep."""
    parts = [
        c.from_kernel(k.mask)
        for c, k in zip(layout.connections, kept, strict=True)
        if c.weight == weight and not c.is_pooled
    ]
    return torch.stack(parts).any(0)


class DenseWeights(Sequence[Tensor]):
    """The kept weights of all connections in the form of their masks, each made anew when it is read.

    A network's activations may be few beside its weights, so that no two layers' need be there at once.
    """

    def __init__(self, kept: Sequence[KeptWeights], dtype: torch.dtype, *, weighted: bool) -> None:
        """Take magnitudes if ``weighted``, else 1 where a weight is kept."""
        self._kept, self._dtype, self._weighted = kept, dtype, weighted

    def __len__(self) -> int:
        """Return the number of connections."""
        return len(self._kept)

    @overload
    def __getitem__(self, number: int) -> Tensor: ...
    @overload
    def __getitem__(self, number: slice) -> DenseWeights: ...
    def __getitem__(self, number: int | slice) -> Tensor | DenseWeights:
        """Return a connection's weights."""
        if isinstance(number, slice):
            return DenseWeights(self._kept[number], self._dtype, weighted=self._weighted)
        kept = self._kept[number]
        return (kept.magnitude if self._weighted else kept.mask).to(self._dtype)

    def __iter__(self) -> Iterator[Tensor]:
        """Return each connection's weights in turn."""
        return (self[number] for number in range(len(self)))


def take_values(mask: Tensor, weight: Tensor, count: int) -> Tensor:
    """Return ``|w|`` of the kept weights, ``(count,)``, as they stand in the mask; ``weight`` is float32."""
    rows, work = mask.flatten(1), mask[0].numel()
    weight = weight.reshape(rows.shape).contiguous()
    counts = torch.zeros(rows.shape[0], dtype=torch.int64, device=mask.device)
    count_kept.launch(rows.shape[0], 1, False, rows.unsqueeze(1), counts, work=work)
    values = torch.empty(count, dtype=torch.float32, device=mask.device)
    take_kept.launch(rows.shape[0], rows, weight, scan(counts), values, work=work)
    return values


def scan(counts: Tensor) -> Tensor:
    """Return the int64 row pointers of rows of the given lengths."""
    indptr = torch.zeros(counts.numel() + 1, dtype=torch.int64, device=counts.device)
    torch.cumsum(counts, 0, out=indptr[1:])
    return indptr
