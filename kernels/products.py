"""Products of sparse matrices and vectors: a row times vectors, and what a node gets from the elements it stands in."""

from __future__ import annotations

import numpy as np

from topognn.kernels.dots import dot_row, dot_row_pair
from topognn.kernels.launch import kernel
from topognn.kernels.primitives import lane_sum

_MULTIPLY = [
    f"int64, int64[::1], {index}[::1], float32[::1], {value}[::1], int64, {value}[:, ::1]"
    for index in ("int32", "int64")
    for value in ("float32", "float64")
]


@kernel(*_MULTIPLY, stride=4)
def multiply_row(i, lane, width, first, indptr, indices, weights, x, bits, y):  # type: ignore[no-untyped-def]
    """Set entry ``first + i`` of row 0 of ``y`` to that row of the matrix times ``x``, added up in float64.

    ``x`` is spread (:func:`topognn.operators.row_products.spread`), ``y`` is not. Without weights every entry is 1.
    """
    row = np.uint64(first + i)  # unsigned: no test for numbers that count from the end
    begin, end = np.uint64(indptr[row] + lane), np.uint64(indptr[row + np.uint64(1)])
    total = dot_row(indices, weights, x, np.uint64(bits), begin, end, np.uint64(width))
    total = lane_sum(total, lane, width)
    if lane == 0:
        y[0, row] = total


@kernel(*_MULTIPLY, stride=4)
def multiply_row_pair(i, lane, width, first, indptr, indices, weights, x, bits, y):  # type: ignore[no-untyped-def]
    """Do the same for two vectors, spread side by side: what is fetched for one of them is there for the other."""
    row = np.uint64(first + i)
    begin, end = np.uint64(indptr[row] + lane), np.uint64(indptr[row + np.uint64(1)])
    one, other = dot_row_pair(indices, weights, x, np.uint64(bits), begin, end, np.uint64(width))
    one, other = lane_sum(one, lane, width), lane_sum(other, lane, width)
    if lane == 0:
        y[0, row] = one
        y[1, row] = other


@kernel(
    "int64, int64[:, ::1], float32[:, ::1], float32[:, ::1]",
    "int64, int64[:, ::1], float64[:, ::1], float64[:, ::1]",
)
def add_support(i, lane, width, first, support, nodes, elements):  # type: ignore[no-untyped-def]
    """Set element ``i`` of each row of ``elements`` to the sum of the nodes that it stands for.

    Column 0 of ``nodes`` is node ``first``; an entry of ``support`` below 0 is none.
    """
    for j in range(nodes.shape[0]):
        total = np.float64(0)
        for k in range(lane, support.shape[0], width):
            if support[k, i] >= 0:
                total += nodes[j, support[k, i] - first]
        total = lane_sum(total, lane, width)
        if lane == 0:
            elements[j, i] = total


@kernel(
    "int64[::1], int64[::1], float32[:, ::1], float32[:, ::1]",
    "int64[::1], int64[::1], float64[:, ::1], float64[:, ::1]",
    lanes=1,
)
def add_holders(i, lane, width, holders_indptr, holders, elements, nodes):  # type: ignore[no-untyped-def]
    """Set node ``i`` of each row of ``nodes`` to the sum of the elements that it stands in."""
    for j in range(elements.shape[0]):
        total = np.float64(0)
        for k in range(holders_indptr[i], holders_indptr[i + 1]):
            total += elements[j, holders[k]]
        nodes[j, i] = total


@kernel(
    *(
        f"int64, int64, int64, int64[::1], int64[::1], float32[::1], {value}[:, ::1], {value}[:, ::1]"
        for value in ("float32", "float64")
    ),
    fastmath=True,
)
def add_shifted(i, lane, width, span, run, area, indptr, offsets, weights, x, y):  # type: ignore[no-untyped-def]
    """Add to ``span`` places of a channel of ``y`` its taps' weights times the places of ``x`` from their offsets on.

    A channel of ``y`` has ``area`` places, of which the first ``run`` are made. Without weights each is 1.
    """
    blocks = (run + span - 1) // span
    channel = i // blocks
    begin = i % blocks * span
    count = np.uint64(min(span, run - begin))
    target = np.uint64(channel * area + begin)
    for j in range(x.shape[0]):
        read = x[j]
        written = y[j]
        for t in range(indptr[channel], indptr[channel + 1]):
            source = np.uint64(offsets[t] + begin)
            weight = x.dtype.type(1)
            if weights.size > 0:
                weight = x.dtype.type(weights[t])
            for k in range(np.uint64(lane), count, np.uint64(width)):  # a lane meets none but its own places
                written[target + k] += weight * read[source + k]
