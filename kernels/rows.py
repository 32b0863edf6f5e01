"""Rows of a sparse matrix from connections: fill, sort, combine.

A row's length is known before it is filled (count -> scan -> fill), so no item waits for another and
nothing is sorted that comes out sorted. ``cursor[row]`` is where the row's next entry goes: connections
that share rows are filled one after the other.
"""

from __future__ import annotations

import numpy as np

from topognn.kernels.launch import kernel
from topognn.kernels.primitives import lane_barrier, lane_scan

EXCHANGES = 16  # of all neighbours, at most

_GEOMETRY = "int64, int64, int64, int64, int64, int64[:, ::1], int64[:, ::1], "
_TAPS = "int64[::1], int32[::1], int32[::1], {0}[::1], float32[::1], "
_ROWS = "int64, {0}[::1], int64[::1], {0}[::1], float32[::1]"
_FILL_IN = _GEOMETRY + _TAPS + "int64, {0}[:, ::1], " + _ROWS
_FILL_OUT = _GEOMETRY + _TAPS + "int64, int64[::1], int64[::1], " + _ROWS


@kernel(_FILL_IN.format("int32"), _FILL_IN.format("int64"))
def fill_in(  # type: ignore[no-untyped-def]
    i, lane, width,
    channels, channel_stride, places, place_stride, columns, table_y, table_x,
    tap_indptr, tap_y, tap_x, tap_base, tap_weight,
    source, support, target, target_map, cursor, indices, weights,
):  # fmt: skip
    """Write the in-edges of output element ``i``: one entry a kept weight and node that it reads there."""
    channel = (i // channel_stride) % channels
    place = (i // place_stride) % places
    row_y = place // columns
    row_x = place % columns
    row = target + i
    if target_map.size > 0:
        row = target_map[i]
    start = tap_indptr[channel]
    count = tap_indptr[channel + 1] - start
    position = cursor[row]
    depth = support.shape[0]
    if depth == 0:
        for base in range(0, count, width):
            step = start + base + lane
            inside = False
            y = x = 0
            if base + lane < count:
                y = table_y[row_y, tap_y[step]]
                x = table_x[row_x, tap_x[step]]
                inside = (y | x) >= 0
            before, total = lane_scan(inside, lane, width)
            if inside:
                indices[position + before] = source + tap_base[step] + y + x
                if weights.size > 0:
                    weights[position + before] = tap_weight[step]
            position += total
    else:
        for base in range(0, count, width):
            step = start + base + lane
            inside = False
            y = x = 0
            if base + lane < count:
                y = table_y[row_y, tap_y[step]]
                x = table_x[row_x, tap_x[step]]
                inside = (y | x) >= 0
            for layer in range(depth):
                node = -1
                if inside:
                    node = support[layer, tap_base[step] + y + x]
                before, total = lane_scan(node >= 0, lane, width)
                if node >= 0:
                    indices[position + before] = node
                    if weights.size > 0:
                        weights[position + before] = tap_weight[step]
                position += total
    if lane == 0:
        cursor[row] = position


@kernel(_FILL_OUT.format("int32"), _FILL_OUT.format("int64"))
def fill_out(  # type: ignore[no-untyped-def]
    i, lane, width,
    channels, channel_stride, places, place_stride, columns, table_y, table_x,
    tap_indptr, tap_y, tap_x, tap_base, tap_weight,
    source, holders_indptr, holders, target, target_map, cursor, indices, weights,
):  # fmt: skip
    """Write the out-edges of node ``source + i``: for each element it stands in, one a kept weight and place."""
    row = source + i
    start_holder = i
    stop_holder = i + 1
    if holders_indptr.size > 0:
        start_holder = holders_indptr[i]
        stop_holder = holders_indptr[i + 1]
    position = cursor[row]
    for holder in range(start_holder, stop_holder):
        element = holder
        if holders_indptr.size > 0:
            element = holders[holder]
        channel = (element // channel_stride) % channels
        place = (element // place_stride) % places
        row_y = place // columns
        row_x = place % columns
        start = tap_indptr[channel]
        count = tap_indptr[channel + 1] - start
        for base in range(0, count, width):
            step = start + base + lane
            inside = False
            y = x = 0
            if base + lane < count:
                y = table_y[row_y, tap_y[step]]
                x = table_x[row_x, tap_x[step]]
                inside = (y | x) >= 0
            before, total = lane_scan(inside, lane, width)
            if inside:
                output = tap_base[step] + y + x
                if target_map.size > 0:
                    indices[position + before] = target_map[output]
                else:
                    indices[position + before] = target + output
                if weights.size > 0:
                    weights[position + before] = tap_weight[step]
            position += total
    if lane == 0:
        cursor[row] = position


@kernel(
    "int64, int64[::1], int32[::1], float32[::1]",
    "int64, int64[::1], int64[::1], float32[::1]",
)
def exchange_neighbors(i, lane, width, first, indptr, indices, weights):  # type: ignore[no-untyped-def]
    """Exchange neighbouring entries of row ``first + i`` that are in the wrong order, weights along, a few times over.

    Sorts most rows, since what a pooling window holds comes out a few places from where it belongs: :func:`sort_row`
    alone would keep one thread of a GPU busy with each row.
    """
    begin = indptr[first + i]
    end = indptr[first + i + 1]
    unsorted = 1
    left = EXCHANGES
    while unsorted > 0 and left > 0:
        left -= 1
        moved = False
        for parity in range(2):
            for k in range(begin + parity + 2 * lane, end - 1, 2 * width):
                if indices[k] > indices[k + 1]:
                    indices[k], indices[k + 1] = indices[k + 1], indices[k]
                    if weights.size > 0:
                        weights[k], weights[k + 1] = weights[k + 1], weights[k]
                    moved = True
            lane_barrier(lane, width)
        _, unsorted = lane_scan(moved, lane, width)


@kernel(
    "int64, int64[::1], int32[::1], float32[::1], int64[::1]",
    "int64, int64[::1], int64[::1], float32[::1], int64[::1]",
    lanes=1,
)
def sort_row(i, lane, width, first, indptr, indices, weights, distinct):  # type: ignore[no-untyped-def]
    """Sort row ``first + i`` by index, its weights along; then count its distinct indices.

    By insertion while that is cheap, since most rows are nearly sorted, else by heapsort.
    """
    begin = indptr[first + i]
    count = indptr[first + i + 1] - begin
    weighted = weights.size > 0
    patience = 16 * count
    done = 1
    while done < count and patience > 0:
        index = indices[begin + done]
        weight = weights[begin + done] if weighted else np.float32(0)
        place = begin + done
        while place > begin and indices[place - 1] > index:
            indices[place] = indices[place - 1]
            if weighted:
                weights[place] = weights[place - 1]
            place -= 1
        indices[place] = index
        if weighted:
            weights[place] = weight
        patience -= begin + done - place
        done += 1
    if done < count:
        heap_end = count
        root_next = count // 2
        while heap_end > 1:
            if root_next > 0:  # build the heap first
                root_next -= 1
            else:  # then move its largest entry behind it
                heap_end -= 1
                indices[begin], indices[begin + heap_end] = indices[begin + heap_end], indices[begin]
                if weighted:
                    weights[begin], weights[begin + heap_end] = weights[begin + heap_end], weights[begin]
            root = root_next
            while 2 * root + 1 < heap_end:
                child = 2 * root + 1
                if child + 1 < heap_end and indices[begin + child] < indices[begin + child + 1]:
                    child += 1
                if indices[begin + root] >= indices[begin + child]:
                    break
                indices[begin + root], indices[begin + child] = indices[begin + child], indices[begin + root]
                if weighted:
                    weights[begin + root], weights[begin + child] = (
                        weights[begin + child],
                        weights[begin + root],
                    )
                root = child
    different = 0
    for k in range(begin, begin + count):
        if k == begin or indices[k] != indices[k - 1]:
            different += 1
    distinct[first + i] = different


@kernel(
    "int64[::1], int32[::1], float32[::1], int64[::1], int32[::1], float32[::1]",
    "int64[::1], int64[::1], float32[::1], int64[::1], int64[::1], float32[::1]",
    lanes=1,
)
def combine_row(i, lane, width, indptr, indices, weights, new_indptr, new_indices, new_weights):  # type: ignore[no-untyped-def]
    """Copy row ``i``, writing equal neighbouring indices once and adding up their weights in float64."""
    position = new_indptr[i] - 1
    total = np.float64(0)
    for k in range(indptr[i], indptr[i + 1]):
        if k == indptr[i] or indices[k] != indices[k - 1]:
            position += 1
            total = np.float64(0)
            new_indices[position] = indices[k]
        if weights.size > 0:
            total += weights[k]
            new_weights[position] = total
