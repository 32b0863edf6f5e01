"""Rows that someone else made: look for mistakes, and forget directions."""

from __future__ import annotations

import numpy as np

from topognn.kernels.launch import kernel
from topognn.kernels.primitives import atomic_add, atomic_min

PRIME = 2**31 - 1


@kernel(
    "boolean, int64[::1], int32[::1], float32[::1], int64[::1]",
    "boolean, int64[::1], int64[::1], float32[::1], int64[::1]",
)
def inspect_row(i, lane, width, fingerprint, indptr, indices, weights, found):  # type: ignore[no-untyped-def]
    """Look at row ``i``, which may be broken in any way.

    ``found`` holds the first row whose bounds are wrong and the first with an index out of range (both are
    lowered), the numbers (raised) of descents, self-loops and NaN weights, and a fingerprint of the entries
    above the diagonal minus that of those below, mirrored: 0 if the matrix is symmetric.
    """
    nodes = indptr.size - 1
    begin = indptr[i]
    end = indptr[i + 1]
    if begin < 0 or end < begin or end > indices.size:
        atomic_min(found, 0, i)
        return
    descents = 0
    loops = 0
    missing = 0
    balance = 0
    for k in range(begin + lane, end, width):
        u = np.int64(indices[k])
        if u < 0 or u >= nodes:
            atomic_min(found, 1, i)
            continue
        if k > begin and u < indices[k - 1]:
            descents += 1
        if u == i:
            loops += 1
        if weights.size > 0 and weights[k] != weights[k]:
            missing += 1
        if fingerprint and u != i:
            x = (min(i, u) % PRIME * 1103515245 + max(i, u) % PRIME * 362436069) % PRIME
            x = x * x % PRIME * x % PRIME + 1
            balance += x if i < u else -x
    if descents > 0:
        atomic_add(found, 2, descents)
    if loops > 0:
        atomic_add(found, 3, loops)
    if missing > 0:
        atomic_add(found, 4, missing)
    if balance != 0:
        atomic_add(found, 5, balance)


@kernel("int64[::1], int32[::1]", "int64[::1], int64[::1]")
def repeat_row(i, lane, width, indptr, sources):  # type: ignore[no-untyped-def]
    """Write the number of row ``i`` at each of its entries."""
    for k in range(indptr[i] + lane, indptr[i + 1], width):
        sources[k] = i


_ROWS = "int64[::1], {0}[::1], float32[::1], "
_MERGE = (_ROWS * 3).rstrip(", ")


@kernel(_MERGE.format("int32"), _MERGE.format("int64"), lanes=1)
def merge_row(  # type: ignore[no-untyped-def]
    i, lane, width,
    out_indptr, out_indices, out_weights, in_indptr, in_indices, in_weights, indptr, indices, weights,
):  # fmt: skip
    """Write the entries of row ``i`` of two matrices into one ascending row, self-loops left out."""
    a = out_indptr[i]
    b = in_indptr[i]
    a_end = out_indptr[i + 1]
    b_end = in_indptr[i + 1]
    position = indptr[i]
    while a < a_end or b < b_end:
        if b >= b_end or (a < a_end and out_indices[a] <= in_indices[b]):
            u = out_indices[a]
            if u != i and weights.size > 0:
                weights[position] = out_weights[a]
            a += 1
        else:
            u = in_indices[b]
            if u != i and weights.size > 0:
                weights[position] = in_weights[b]
            b += 1
        if u != i:
            indices[position] = u
            position += 1
