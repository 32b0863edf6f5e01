"""How much weight a cut gains and loses as nodes cross it one after another."""

from __future__ import annotations

import numpy as np

from topognn.kernels.launch import kernel
from topognn.kernels.primitives import lane_sum


@kernel(
    "int64[::1], int32[::1], float32[::1], int64[::1], float64[::1]",
    "int64[::1], int64[::1], float32[::1], int64[::1], float64[::1]",
)
def weigh_crossing(i, lane, width, indptr, indices, weights, rank, change):  # type: ignore[no-untyped-def]
    """Set ``change[rank[i]]`` to the weight from node ``i`` to nodes of higher rank minus that to lower ones.

    Without weights every entry is 1.
    """
    own = rank[i]
    total = np.float64(0)
    for k in range(indptr[i] + lane, indptr[i + 1], width):
        weight = np.float64(weights[k]) if weights.size > 0 else np.float64(1)
        total += weight if rank[indices[k]] > own else -weight
    total = lane_sum(total, lane, width)
    if lane == 0:
        change[own] = total


_TAPS = (
    "int64, int64, int64, int64, int64, int64[:, ::1], int64[:, ::1], "
    "int64[::1], int32[::1], int32[::1], {0}[::1], float32[::1], "
    "int64, int64[::1], int64[::1], int64[::1], int64, int64[:, ::1], int64[::1], float64[::1]"
)


@kernel(_TAPS.format("int32"), _TAPS.format("int64"))
def weigh_taps(  # type: ignore[no-untyped-def]
    i, lane, width,
    channels, channel_stride, places, place_stride, columns, table_y, table_x,
    tap_indptr, tap_y, tap_x, tap_base, tap_weight,
    first, nodes, holders_indptr, holders, other, others, rank, change,
):  # fmt: skip
    """Add to ``change`` at a node's rank the weight to neighbours of higher rank minus that to lower ones.

    The neighbours are those in one direction of one connection, found as :mod:`topognn.kernels.rows` finds them, and
    forgotten.
    """
    row = first + i
    if nodes.size > 0:
        row = nodes[i]
    own = rank[row]
    start_holder = i
    stop_holder = i + 1
    if holders_indptr.size > 0:
        start_holder = holders_indptr[i]
        stop_holder = holders_indptr[i + 1]
    depth = others.shape[0]
    total = np.float64(0)
    for holder in range(start_holder, stop_holder):
        element = holder
        if holders_indptr.size > 0:
            element = holders[holder]
        channel = (element // channel_stride) % channels
        place = (element // place_stride) % places
        row_y = place // columns
        row_x = place % columns
        for step in range(tap_indptr[channel] + lane, tap_indptr[channel + 1], width):
            y = table_y[row_y, tap_y[step]]
            x = table_x[row_x, tap_x[step]]
            if (y | x) < 0:
                continue
            end = tap_base[step] + y + x
            weight = np.float64(tap_weight[step]) if tap_weight.size > 0 else np.float64(1)
            if depth == 0:
                total += weight if rank[other + end] > own else -weight
            for layer in range(depth):
                node = others[layer, end]
                if node >= 0:
                    total += weight if rank[node] > own else -weight
    total = lane_sum(total, lane, width)
    if lane == 0:
        change[own] += total
