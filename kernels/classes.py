"""Which nodes look alike within two steps, so that one of them may be counted for all.

A convolution repeats itself: away from the border, the rows of one channel's nodes are the same list of
targets, shifted. Rows are compared by fingerprint first and entry by entry afterwards, so a class never holds a
node that differs from its representative.
"""

from __future__ import annotations

import numpy as np

from topognn.kernels.launch import kernel
from topognn.kernels.primitives import atomic_add

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


@kernel(
    "int64[::1], int32[::1], int64[::1]",
    "int64[::1], int64[::1], int64[::1]",
)
def hash_row(i, lane, width, indptr, indices, hashes):  # type: ignore[no-untyped-def]
    """Add up a fingerprint of the gaps between row ``i``'s entries and its first one."""
    begin = indptr[i]
    count = indptr[i + 1] - begin
    total = np.uint64(count)
    first = np.int64(indices[begin]) if count > 0 else np.int64(0)
    for k in range(lane, count, width):
        gap = np.uint64(np.int64(indices[np.uint64(begin + k)]) - first)
        h = gap + np.uint64(k + 1) * _GOLDEN
        h = (h ^ (h >> np.uint64(30))) * _FIRST
        h = (h ^ (h >> np.uint64(27))) * _SECOND
        total += h ^ (h >> np.uint64(31))
    atomic_add(hashes, i, np.int64(total))


@kernel(
    "int64[::1], int32[::1], int32[::1], int32[::1]",
    "int64[::1], int64[::1], int64[::1], int64[::1]",
)
def check_row(i, lane, width, indptr, indices, like, same):  # type: ignore[no-untyped-def]
    """Make ``same[i]`` be ``i`` unless row ``i`` is row ``like[i]``, shifted."""
    if like[i] == i:
        return
    begin = indptr[i]
    other = indptr[like[i]]
    count = indptr[i + 1] - begin
    if count != indptr[like[i] + 1] - other:
        same[i] = i
        return
    shift = indices[begin] - indices[other] if count > 0 else 0
    for k in range(lane, count, width):
        if indices[np.uint64(begin + k)] - indices[np.uint64(other + k)] != shift:
            same[i] = i


_STEPS = "int64[::1], {0}[::1], {0}[::1], {0}[::1], boolean[::1], int64[::1]"


@kernel(_STEPS.format("int32"), _STEPS.format("int64"))
def hash_steps(i, lane, width, indptr, indices, same, firsts, tied, hashes):  # type: ignore[no-untyped-def]
    """Add up a fingerprint of how the rows of node ``i``'s neighbours lie to each other.

    ``same`` is each row's class, ``firsts`` its first entry (-1: none). For a ``tied`` node, whose neighbours may
    also be reached in two steps, where it and they lie counts too.
    """
    begin = indptr[i]
    count = indptr[i + 1] - begin
    total = np.uint64(count)
    anchor = np.int64(0)
    for k in range(count):
        anchor = np.int64(firsts[indices[begin + k]])
        if anchor >= 0:
            break
    for k in range(lane, count, width):
        node = np.uint64(indices[np.uint64(begin + k)])
        first = np.int64(firsts[node])
        h = np.uint64(same[node]) * _SECOND + np.uint64(k + 1) * _GOLDEN
        if first >= 0:
            h += np.uint64(first - anchor)
        if tied[i]:
            h += np.uint64(np.int64(node) - anchor) * _FIRST + np.uint64(i - anchor)
        h = (h ^ (h >> np.uint64(30))) * _FIRST
        h = (h ^ (h >> np.uint64(27))) * _SECOND
        total += h ^ (h >> np.uint64(31))
    atomic_add(hashes, i, np.int64(total))


_CHECK = "int64[::1], {0}[::1], {0}[::1], {0}[::1], boolean[::1], {0}[::1], {0}[::1]"


@kernel(_CHECK.format("int32"), _CHECK.format("int64"))
def check_steps(i, lane, width, indptr, indices, same, firsts, tied, like, alike):  # type: ignore[no-untyped-def]
    """Make ``alike[i]`` be ``i`` unless nodes ``i`` and ``like[i]`` look the same within two steps."""
    if like[i] == i:
        return
    begin = indptr[i]
    other = indptr[like[i]]
    count = indptr[i + 1] - begin
    if count != indptr[like[i] + 1] - other or tied[i] != tied[like[i]]:
        alike[i] = i
        return
    anchor = np.int64(0)
    twin_anchor = np.int64(0)
    for k in range(count):  # empty rows, which have no place, stand at the same k in both, or same[] differs
        anchor = np.int64(firsts[indices[begin + k]])
        twin_anchor = np.int64(firsts[indices[other + k]])
        if anchor >= 0:
            break
    shift = anchor - twin_anchor
    for k in range(lane, count, width):
        node = np.uint64(indices[np.uint64(begin + k)])
        twin = np.uint64(indices[np.uint64(other + k)])
        first = np.int64(firsts[node])
        differs = same[node] != same[twin]
        if first >= 0 and first - np.int64(firsts[twin]) != shift:
            differs = True
        if tied[i] and (np.int64(node) - np.int64(twin) != shift or i - like[i] != shift):
            differs = True
        if differs:
            alike[i] = i
