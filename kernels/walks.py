"""Walks of two steps over channels, for signatures of pairs of rows and columns (:mod:`topognn.positions.walks`)."""

from __future__ import annotations

import numpy as np

from topognn.kernels.launch import kernel
from topognn.kernels.primitives import atomic_add, lane_barrier, lane_scan


@kernel("boolean[:, ::1], int64[::1], int32[::1]")
def list_joined(i, lane, width, joined, indptr, indices):  # type: ignore[no-untyped-def]
    """Write the numbers of the columns that are set in row ``i``."""
    position = indptr[i]
    for base in range(0, joined.shape[1], width):
        column = base + lane
        here = column < joined.shape[1] and joined[i, column]
        before, total = lane_scan(here, lane, width)
        if here:
            indices[position + before] = column
        position += total


_WORDS = "int64[::1], int64[:, ::1], int64[::1], "
_LISTS = "int64[::1], int32[::1], "


@kernel("int64, int64, int64, int64, int64[:, ::1], " + 2 * _WORDS + 3 * _LISTS + "int64[:, ::1], int64[::1]")
def count_ends(  # type: ignore[no-untyped-def]
    i, lane, width,
    workers, size, sources, across, ways, y_indptr, y_words, y_edges, x_indptr, x_words, x_edges,
    first_indptr, first_indices, second_indptr, second_indices, direct_indptr, direct_indices, seen, counts,
):  # fmt: skip
    """Count where walks of two steps end, for every ``workers``-th item from ``i`` on.

    Item ``(gy * nx + gx) * sources + c`` stands for source channel ``c`` and signatures ``gy`` and ``gx`` of ``nx``. To
    ``counts``, as ``(4, size)``, are added the target channels that a walk or an edge ends in, the pairs of walks with
    one end, the walks that end where an edge does, and the pairs of those.

    ``ways`` has a row for each middle partition: the first row in its lists of first steps, its kinds of x there, the
    first row in its lists of second steps, its kinds of x and middle channels there. Words ``(first kind, second
    kind, times)`` are listed by signature and way; an edge has one kind on each axis, or -1, of which ``across`` are
    x's. ``seen[i]`` counts walks from ``base`` up, which is raised after each item.
    """
    base = np.int64(0)
    number = ways.shape[0]
    nx = x_edges.size
    for item in range(i, size, workers):
        channel = item % sources
        gy = item // sources // nx
        gx = item // sources % nx
        reached = pairs = shared = doubled = np.int64(0)
        most = np.int64(0)
        for way in range(number):
            first_row, first_across = ways[way, 0] + channel, ways[way, 1]
            second_row, second_across, middles = ways[way, 2], ways[way, 3], ways[way, 4]
            for a in range(y_indptr[gy * number + way], y_indptr[gy * number + way + 1]):
                for b in range(x_indptr[gx * number + way], x_indptr[gx * number + way + 1]):
                    times = y_words[a, 2] * x_words[b, 2]
                    row = first_row + (y_words[a, 0] * first_across + x_words[b, 0]) * sources
                    start = second_row + (y_words[a, 1] * second_across + x_words[b, 1]) * middles
                    for k in range(first_indptr[row], first_indptr[row + 1]):
                        middle = np.uint64(start + first_indices[np.uint64(k)])
                        most += times
                        for m in range(second_indptr[middle] + lane, second_indptr[middle + np.uint64(1)], width):
                            end = np.uint64(second_indices[np.uint64(m)])
                            before = max(seen[i, end] - base, np.int64(0))
                            seen[i, end] = base + before + times
                            reached += before == 0
                            pairs += before * times + times * (times - 1) // 2
                        lane_barrier(lane, width)
        if y_edges[gy] >= 0 and x_edges[gx] >= 0:
            row = (y_edges[gy] * across + x_edges[gx]) * sources + channel
            for k in range(direct_indptr[row] + lane, direct_indptr[row + 1], width):
                before = max(seen[i, direct_indices[k]] - base, np.int64(0))
                reached += before == 0
                shared += before
                doubled += before * (before - 1) // 2
        base += most
        lane_barrier(lane, width)
        atomic_add(counts, item, reached)
        atomic_add(counts, size + item, pairs)
        atomic_add(counts, 2 * size + item, shared)
        atomic_add(counts, 3 * size + item, doubled)
