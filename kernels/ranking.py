"""Rows renumbered by rank: nodes by the bit length of their degree first, then as before.

So hubs come last, while rows stay nearly sorted. Rows become simple: without repeats and self-loops.
"""

from __future__ import annotations

from topognn.kernels.launch import kernel

RANK_BITS = 40


@kernel("int64[::1], int32[::1], int64[::1]", "int64[::1], int64[::1], int64[::1]", lanes=1)
def count_neighbors(i, lane, width, indptr, indices, degrees):  # type: ignore[no-untyped-def]
    """Count the distinct other nodes in row ``i``, which ascends."""
    found = 0
    last = i
    for k in range(indptr[i], indptr[i + 1]):
        found += indices[k] != i and indices[k] != last
        last = indices[k]
    degrees[i] = found


_RANKED = "int64[::1], {0}[::1], int64[::1], int64[::1], int64[::1], {0}[::1], int64[::1]"


@kernel(_RANKED.format("int32"), _RANKED.format("int64"), lanes=1)
def rank_row(i, lane, width, indptr, indices, order, keys, new_indptr, new_indices, splits):  # type: ignore[no-untyped-def]
    """Write the row of rank ``i``: the ranks of its distinct neighbours, ascending.

    ``keys`` is class * 2**40 + rank. Within a class ranks ascend with node numbers, so one pass over the row
    for each class in it leaves it sorted.
    """
    node = order[i]
    position = new_indptr[i]
    split = position
    current = 0
    while current < 64:
        following = 64
        last = node
        for k in range(indptr[node], indptr[node + 1]):
            other = indices[k]
            if other != node and other != last:
                key = keys[other]
                group = key >> RANK_BITS
                if group == current:
                    rank = key & ((1 << RANK_BITS) - 1)
                    new_indices[position] = rank
                    position += 1
                    split += rank < i
                elif current < group < following:
                    following = group
            last = other
        current = following
    splits[i] = split
