"""A layer's kept weights in coordinate form, sorted by output channel and by input channel."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import torch
from torch import Tensor

from topognn.kernels.rows import find_kept
from topognn.tracing.layout import Connection


class Taps(NamedTuple):
    """Kept weights grouped by one kind of channel, in the order in which a row of edges ascends.

    Attributes:
        indptr: int64 ``(channels + 1,)``.
        y, x: int64, the weight's place in the kernel.
        base: int64, what its channel on the other side adds to an element's index.
        weight: float32 ``|w|``; empty in an unweighted graph.
    """

    indptr: Tensor
    y: Tensor
    x: Tensor
    base: Tensor
    weight: Tensor


@dataclasses.dataclass(frozen=True, eq=False)
class KeptWeights:
    """The kept weights of one connection.

    Attributes:
        mask: bool, in the connection's kernel form ``(out, in a group, kernel height, kernel width)``.
        magnitude: float32 ``|w|`` in the same form.
        count: Number of kept weights.
    """

    mask: Tensor
    magnitude: Tensor
    count: int

    def by_output(self, connection: Connection) -> Taps:
        """Return the taps that each output channel reads, ascending in the input element."""
        out, inner, height, width = connection.kernel
        rows = self.mask.reshape(out, -1)
        index, indptr = self._find(rows)
        group = index // (inner * height * width * (out // connection.groups))
        channel = (index // (height * width)) % inner + group * inner
        return Taps(
            indptr,
            (index // width) % height,
            index % width,
            channel * connection.channel_stride,
            self.magnitude.reshape(-1)[index],
        )

    def by_input(self, connection: Connection) -> Taps:
        """Return the taps that each input channel feeds, ascending in the output element."""
        out, inner, height, width = connection.kernel
        groups = connection.groups

        def turned(weights: Tensor) -> Tensor:
            parts = weights.view(groups, out // groups, inner, height, width).transpose(1, 2)
            return parts.flip(3, 4).reshape(groups * inner, -1).contiguous()  # later taps lead to earlier outputs

        index, indptr = self._find(turned(self.mask))
        group = index // ((out // groups) * inner * height * width)
        channel = (index // (height * width)) % (out // groups) + group * (out // groups)
        return Taps(
            indptr,
            height - 1 - (index // width) % height,
            width - 1 - index % width,
            channel * connection.target_channel_stride,
            turned(self.magnitude).view(-1)[index],
        )

    def _find(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        indptr = scan(rows.sum(1))
        index = torch.empty(self.count, dtype=torch.int64, device=rows.device)
        find_kept.launch(rows.shape[0], rows, indptr, index, work=rows.shape[1])
        return index, indptr


def scan(counts: Tensor) -> Tensor:
    """Return the int64 row pointers of rows of the given lengths."""
    indptr = torch.zeros(counts.numel() + 1, dtype=torch.int64, device=counts.device)
    torch.cumsum(counts, 0, out=indptr[1:])
    return indptr
