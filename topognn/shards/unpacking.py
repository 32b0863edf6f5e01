"""Weights from the layouts that sparse and quantised checkpoints store them in.

Sources: PyTorch, ``torch.sparse.to_sparse_semi_structured`` (CUTLASS's layout of metadata); NVIDIA, *CUTLASS*,
``host_reorder.h``; compressed-tensors (https://github.com/vllm-project/compressed-tensors), formats ``sparse-bitmask``,
``sparse-24-bitmask`` and ``pack-quantized``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from topognn.errors import CheckpointError
from topognn.kernels.host import read

_AT_ONCE = 2**21  # values that are spread at a time: their places take sixteen times their bytes


def spread_two_of_four(packed: Tensor, meta: Tensor) -> Tensor:
    """Return the matrix of which a 2:4 layout stores two values of every four (float32: one of every two).

    Args:
        packed: ``(rows, columns / 2)``.
        meta: int16 ``(rows, columns / 16)``, or int32 ``(rows, columns / 32)`` beside int8 values: four bits for every
            two values, the lower two the place of the first among four, the upper two that of the second; reordered
            as CUTLASS reads them.

    Raises:
        CheckpointError: Sizes that do not fit, or bits that no 2:4 matrix has.

    A float32 is stored as if it were two values of 16 bits, both kept.
    """
    rows, half = packed.shape
    bits = 8 * meta.dtype.itemsize
    wanted = torch.int32 if packed.dtype == torch.int8 else torch.int16
    group = 32 if wanted == torch.int16 else 16
    a_value = 2 if packed.dtype == torch.float32 else 1  # values of 16 bits that it counts for
    columns, rest = divmod(2 * half * a_value, bits)
    if meta.dtype != wanted or rows % group or tuple(meta.shape) != (rows, columns) or rest:
        raise CheckpointError(
            f"2:4 values of shape {tuple(packed.shape)} and {packed.dtype} do not go with metadata of shape "
            f"{tuple(meta.shape)} and {meta.dtype}: {wanted} of shape {(rows, columns)} and rows by {group} are needed"
        )
    words = meta.reshape(-1)[_reordered(rows, columns, group, meta.device)].view(rows, columns)
    shifts = torch.arange(0, bits, 4, device=meta.device)
    dense = torch.zeros(rows, 2 * half, dtype=packed.dtype, device=packed.device)
    sound = torch.ones((), dtype=torch.bool, device=meta.device)
    step = max(1, _AT_ONCE // max(1, half))
    for piece in (slice(start, start + step) for start in range(0, rows, step)):
        codes = words[piece, :, None].long() >> shifts & 15
        first, second = codes.flatten(1) & 3, codes.flatten(1) >> 2
        sound &= (first < second).all()
        places = torch.stack([first, second], 2) + 4 * torch.arange(first.shape[1], device=meta.device)[:, None]
        places = places[:, :, 0] // 2 if a_value == 2 else places.flatten(1)
        dense[piece].scatter_(1, places, packed[piece])
    (is_sound,) = read(sound.reshape(1))
    if not is_sound:
        raise CheckpointError("the metadata of 2:4 values name no two places of four: they are of another layout")
    return dense


def _reordered(rows: int, columns: int, group: int, device: torch.device) -> Tensor:
    """Return where CUTLASS puts each word of metadata ``(rows, columns)``: rows interleaved, columns by pairs."""
    row = torch.arange(rows, device=device)[:, None].expand(rows, columns)
    column = torch.arange(columns, device=device).expand(rows, columns)
    row = row // group * group + row % 8 * (group // 8) + row % group // 8
    # Of each block of 2 x 2 words, those off the diagonal change places.
    swap = (column % 2) - (row % 2)
    row, column = row + swap, column - swap
    return (column // 2 * 2 * rows + 2 * row + column % 2).flatten()


def spread_bitmask(values: Tensor, bitmask: Tensor, shape: Sequence[int]) -> Tensor:
    """Return the tensor whose values, row by row, stand where bits are set.

    Args:
        values: As many as there are bits, in any shape.
        bitmask: uint8 ``(..., ceil(columns / 8))``, the first column in the lowest bit of each row.
        shape: Of the tensor.

    Raises:
        CheckpointError: The bits do not fit the shape, or are more or fewer than the values.

    >>> spread_bitmask(torch.tensor([5.0, 7.0]), torch.tensor([[2], [1]], dtype=torch.uint8), (2, 3))
    tensor([[0., 5., 0.],
            [7., 0., 0.]])
    """
    wide = (*shape[:-1], -(-shape[-1] // 8))
    if bitmask.dtype != torch.uint8 or bitmask.numel() != math.prod(wide):
        raise CheckpointError(
            f"a bitmask of shape {tuple(bitmask.shape)} and {bitmask.dtype} is none of {tuple(shape)}: uint8 of shape "
            f"{wide} is needed"
        )
    shifts = torch.arange(8, dtype=torch.uint8, device=bitmask.device)
    bits = (bitmask.reshape(-1, wide[-1], 1) >> shifts & 1).flatten(1)[:, : shape[-1]].bool().reshape(tuple(shape))
    (count,) = read(bits.sum().reshape(1))
    if count != values.numel():
        raise CheckpointError(f"the bitmask has {int(count):,} bits for {values.numel():,} values")
    # fp8 cannot be scattered: its bytes can
    flat = values.reshape(-1)
    as_bytes = flat.view(torch.uint8) if flat.dtype.itemsize == 1 else flat
    dense = torch.zeros(bits.shape, dtype=as_bytes.dtype, device=bits.device).masked_scatter_(bits, as_bytes)
    return dense.view(values.dtype)


def unpack_integers(packed: Tensor, shape: Sequence[int], axis: int = 1) -> Tensor:
    """Return the signed integers that int32 words hold along an axis, the first in the lowest bits; int32 ``shape``.

    They have 4 or 8 bits, whichever fits, and are stored with half of their range added.

    Raises:
        CheckpointError: Neither fits.

    >>> unpack_integers(torch.tensor([[0x98]], dtype=torch.int32), (1, 5))
    tensor([[ 0,  1, -8, -8, -8]], dtype=torch.int32)
    """
    sizes = {bits: -(-shape[axis] * bits // 32) for bits in (4, 8)}
    fitting = [bits for bits, size in sizes.items() if packed.shape[axis] == size]
    other = packed.shape[1 - axis] == shape[1 - axis]
    if packed.dtype != torch.int32 or len(fitting) != 1 or not other:
        raise CheckpointError(
            f"integers in words of shape {tuple(packed.shape)} and {packed.dtype} are no {tuple(shape)} of 4 or 8 bits"
        )
    bits = fitting[0]
    shifts = torch.arange(0, 32, bits, dtype=torch.int32, device=packed.device)
    parts = (packed.movedim(axis, -1)[:, :, None] >> shifts & (1 << bits) - 1).flatten(1)[:, : shape[axis]]
    return (parts - (1 << bits - 1)).movedim(-1, axis)


def spread_scales(scale: Tensor, shape: Sequence[int], groups: Tensor | None = None) -> Tensor:
    """Return the scale (or zero point) of each weight ``(out, in)`` from one each, one a row, a block or a group.

    Args:
        scale: ``()``, ``(1,)``, ``(out,)``, or ``(rows of blocks, columns of blocks)``.
        shape: ``(out, in)``.
        groups: For each input the column of ``scale`` that is its own, where they are not in order.

    Raises:
        CheckpointError: It does not fit.
    """
    out, into = shape
    if scale.numel() == 1:
        return scale.reshape(1, 1)
    if scale.dim() == 1:
        scale = scale[:, None]
    if groups is not None and scale.dim() == 2 and groups.numel() == into:
        if scale.shape[0] == out:
            return scale[:, groups.long()]
    elif scale.dim() == 2:
        blocks = [_find_block(size, count) for size, count in zip(shape, scale.shape, strict=True)]
        if all(blocks):
            for axis, (size, block) in enumerate(zip(shape, blocks, strict=True)):
                if 1 < block < size:
                    scale = scale.repeat_interleave(block, axis).narrow(axis, 0, size)
            return scale
    raise CheckpointError(f"scales of shape {tuple(scale.shape)} do not go with weights of shape {tuple(shape)}")


def _find_block(size: int, count: int) -> int:
    """Return how many of ``size`` share one of ``count`` scales; 0 if none or more than one number is possible.

    Either all blocks are equal, or the last is smaller and the others are a power of two.
    """
    if not count or count > size:
        return 0
    power = 1 << (-(-size // count) - 1).bit_length()
    possible = {power} if -(-size // power) == count else set()
    if size % count == 0:
        possible.add(size // count)
    return possible.pop() if len(possible) == 1 or count == 1 else 0
