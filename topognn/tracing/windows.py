"""Windows that slide over axes: which coordinates each position reads, in convolutions and pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from topognn.tracing.operations import unite


def pool(name: str, ids: Tensor, output: Sequence[int], args: Sequence[Any]) -> Tensor:
    """Return the ids of a pooling's output: each element stands for all nodes of its window.

    ``output`` is the output's shape, ``args`` what follows the input in the operation's arguments.
    """
    axes = int(name[name.index("pool") + 4])
    if "adaptive" in name:
        windows = [_adaptive(size, out) for size, out in zip(ids.shape[-axes:], output[-axes:], strict=True)]
    else:
        kernel = _per_axis(args[0], axes)
        stride = _per_axis(args[1] if len(args) > 1 and args[1] else args[0], axes)
        padding = _per_axis(args[2] if len(args) > 2 else 0, axes)
        dilation = _per_axis(args[3] if name.startswith("max") and len(args) > 3 else 1, axes)
        windows = [
            window_table(ids.shape[a - axes], output[a - axes], kernel[a], stride[a], padding[a], dilation[a])
            for a in range(axes)
        ]
    return unite(gather_windows(ids, windows))


def window_table(size: int, out: int, kernel: int, stride: int, padding: int, dilation: int) -> Tensor:
    """Return int64 ``(out, kernel)``: the input coordinate of each output position and tap; -1 = outside.

    >>> window_table(4, 2, 3, 2, 1, 1)
    tensor([[-1,  0,  1],
            [ 1,  2,  3]])
    """
    table = torch.arange(out)[:, None] * stride - padding + torch.arange(kernel) * dilation
    return table.masked_fill((table < 0) | (table >= size), -1)


def transposed_table(size: int, out: int, kernel: int, stride: int, padding: int, dilation: int) -> Tensor:
    """Return the same of a transposed convolution, whose kernel is turned round: its last tap comes first.

    >>> transposed_table(2, 4, 3, 2, 1, 1)
    tensor([[-1,  0, -1],
            [ 0, -1,  1],
            [-1,  1, -1],
            [ 1, -1, -1]])
    """
    first = padding - dilation * (kernel - 1)
    spread = torch.arange(out)[:, None] + first + torch.arange(kernel) * dilation
    table = spread.div(stride, rounding_mode="floor")
    return table.masked_fill((spread < 0) | (spread % stride != 0) | (table >= size), -1)


def gather_windows(ids: Tensor, windows: Sequence[Tensor]) -> Tensor:
    """Gather windows over the last axes of ``ids``; each window position becomes a layer of K."""
    for i, window in enumerate(windows):
        axis = ids.dim() - len(windows) + i
        out, kernel = window.shape
        padded = torch.cat([ids, ids.new_full((*ids.shape[:axis], 1, *ids.shape[axis + 1 :]), -1)], axis)
        taken = padded.index_select(axis, window.flatten() % (ids.shape[axis] + 1))  # -1 -> the padding
        taken = taken.reshape(*ids.shape[:axis], out, kernel, *ids.shape[axis + 1 :]).movedim(axis + 1, 1)
        ids = taken.flatten(0, 1)
    return ids


def _adaptive(size: int, out: int) -> Tensor:
    starts = torch.arange(out) * size // out
    ends = -(-(torch.arange(1, out + 1) * size) // out)
    table = starts[:, None] + torch.arange(int((ends - starts).max()))
    return table.masked_fill(table >= ends[:, None], -1)


def _per_axis(value: Any, axes: int) -> list[int]:
    values = list(value) if isinstance(value, list | tuple) else [value]
    return values * axes if len(values) == 1 else values
