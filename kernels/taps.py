"""A layer's kept weights from its mask: how many, which ones, and in which order a row of edges needs them.

``mask`` is ``(out channels, in channels a group, kernel area)``. Row ``i`` holds what output channel ``i`` reads,
ascending in the input; or, ``turned``, what input channel ``i`` feeds, ascending in the output: there a kernel's
later weights lead to earlier places. Kept weights are numbered as they stand in the mask.
"""

from __future__ import annotations

import numpy as np

from topognn.kernels.launch import kernel
from topognn.kernels.primitives import atomic_add, lane_scan

BLOCK = 64  # weights, whose kept ones are counted together


@kernel("int64, boolean, boolean[:, :, ::1], int64[::1]")
def count_kept(i, lane, width, groups, turned, mask, counts):  # type: ignore[no-untyped-def]
    """Count the kept weights of row ``i``."""
    out, inner, area = mask.shape
    found = 0
    if turned:
        first = i // inner * (out // groups)
        for row in range(first + lane, first + out // groups, width):
            for place in range(area):
                found += mask[row, i % inner, place]
    else:
        for column in range(lane, inner, width):
            for place in range(area):
                found += mask[i, column, place]
    atomic_add(counts, i, found)


@kernel("boolean[::1], int64[::1]")
def count_block(i, lane, width, mask, counts):  # type: ignore[no-untyped-def]
    """Count the kept weights of block ``i`` of the flat mask."""
    found = 0
    for k in range(i * BLOCK + lane, min(mask.size, (i + 1) * BLOCK), width):
        found += mask[k]
    atomic_add(counts, i, found)


@kernel("boolean[:, ::1], float32[:, ::1], int64[::1], float32[::1]")
def take_kept(i, lane, width, mask, weights, indptr, values):  # type: ignore[no-untyped-def]
    """Write the magnitudes of the kept weights of row ``i``."""
    position = indptr[i]
    for base in range(0, mask.shape[1], width):
        column = base + lane
        kept = column < mask.shape[1] and mask[i, column]
        before, total = lane_scan(kept, lane, width)
        if kept:
            values[position + before] = abs(weights[i, column])
        position += total


_ARGS = (
    "int64, int64, int64, boolean, boolean[:, :, ::1], boolean[::1], int64[::1], float32[::1], int64[::1], "
    "int32[::1], int32[::1], {0}[::1], float32[::1]"
)


@kernel(_ARGS.format("int32"), _ARGS.format("int64"))
def find_taps(  # type: ignore[no-untyped-def]
    i, lane, width,
    groups, columns, stride, turned, mask, flat, earlier, values, indptr, tap_y, tap_x, tap_base, tap_weight,
):  # fmt: skip
    """Write the kept weights of row ``i``: place in the kernel, element that the other side's channel begins at, value.

    ``earlier`` counts the kept weights before each block of the mask. Values are left out where ``tap_weight`` is
    empty; they are in order already unless ``turned``.
    """
    out, inner, area = mask.shape
    outs = out // groups
    group = i // inner if turned else i // outs
    slices = outs if turned else inner
    row, column = i, i % inner
    position = indptr[i]
    part, place = lane // area, lane % area  # of the row's next weight: which channel, where in its kernel
    for _ in range(0, slices * area, width):
        kept = False
        spot = place
        if part < slices:
            if turned:
                row = group * outs + part
                spot = area - 1 - place
            else:
                column = part
            kept = mask[row, column, spot]
        before, total = lane_scan(kept, lane, width)
        if kept:
            tap = position + before
            tap_y[tap] = spot // columns
            tap_x[tap] = spot % columns
            tap_base[tap] = (group * slices + part) * stride
            if tap_weight.size > 0:
                index = (row * inner + column) * area + spot
                number = earlier[index // BLOCK]
                for k in range(index // BLOCK * BLOCK, index):
                    number += flat[np.uint64(k)]
                tap_weight[tap] = values[number]
        position += total
        place += width
        if place >= area:
            part += place // area
            place %= area
