"""Wedges, triangles and cliques, from which the counts of all motifs on four nodes follow.

Rows are those of :mod:`topognn.kernels.ranking`, under whose order few wedges have their greatest node at an
end (Wang et al., VLDB 2019). ``splits[v]`` is where the entries of row ``v`` pass ``v``.
"""

from __future__ import annotations

import numpy as np

from topognn.kernels.launch import kernel
from topognn.kernels.primitives import atomic_add, lane_barrier

_SCRATCH = "int64, int64, int64, int64[::1], int64[::1], {0}[::1], int32[:, ::1], int32[::1], int64[::1], int64[::1]"


@kernel(_SCRATCH.format("int32"), _SCRATCH.format("int64"))
def count_wedges(  # type: ignore[no-untyped-def]
    i, lane, width, workers, block, limit, indptr, splits, indices, seen, shared, cycles_at, totals
):  # fmt: skip
    """Count, for every ``workers``-th block of nodes from ``i`` on, what has its greatest node there.

    Adds to ``totals`` the pairs of wedges with the same ends (4-cycles), twice the triangles, the
    4-cliques and the sum of (d - 1)(d' - 1) over edges. ``shared[k]`` becomes the number of triangles on
    the edge of entry ``k``, for entries before their row's split; ``cycles_at``, unless empty, twice the
    4-cycles at each node.

    ``seen[i, w]`` counts the wedges from the node at hand to ``w``: from ``base`` up, or from
    ``base + step`` up where ``w`` is its neighbour. Raising ``base`` thus clears the row, which is zero at
    first; it is cleared in earnest when ``base`` nears ``limit``.
    """
    counter = seen[i]
    nodes = indptr.size - 1
    one = np.uint64(1)
    cycles = triangles = cliques = paths = np.int64(0)
    base = np.int32(0)
    for start in range(i * block, nodes, workers * block):
        for top in range(start, min(start + block, nodes)):
            first, stop = indptr[top], splits[top]
            step = np.int32(stop - first + 1)
            if base > limit - 2 * step:
                for node in range(lane, nodes, width):
                    counter[node] = 0
                base = np.int32(0)
                lane_barrier(lane, width)
            for k in range(first + lane, stop, width):
                middle = np.uint64(indices[k])
                counter[middle] = base + step
                paths += (indptr[top + 1] - first - 1) * (indptr[middle + one] - indptr[middle] - 1)
            lane_barrier(lane, width)
            for k in range(first, stop):
                middle = np.uint64(indices[k])
                found = 0
                for entry in range(np.uint64(indptr[middle] + lane), np.uint64(indptr[middle + one]), np.uint64(width)):
                    if indices[entry] >= top:
                        break
                    end = np.uint64(indices[entry])
                    count = np.int32(max(counter[end], base))
                    counter[end] = count + np.int32(1)
                    count = np.int32(count - base)
                    cycles += count
                    if count >= step:  # a triangle
                        cycles -= step
                        found += 1
                        if end < middle:
                            atomic_add(shared, entry, 1)
                            for m in range(indptr[end], splits[end]):
                                if counter[indices[m]] - base >= step:
                                    low, high = indptr[middle], np.int64(entry)
                                    while low < high:
                                        probe = (low + high) // 2
                                        if indices[probe] < indices[m]:
                                            low = probe + 1
                                        else:
                                            high = probe
                                    cliques += indices[low] == indices[m]
                if found > 0:
                    atomic_add(shared, k, found)
                    triangles += found
                lane_barrier(lane, width)
            if cycles_at.size > 0:
                for k in range(first, stop):
                    middle = indices[k]
                    through = 0
                    for entry in range(indptr[middle] + lane, indptr[middle + 1], width):
                        if indices[entry] >= top:
                            break
                        others = counter[indices[entry]] - base - 1
                        if others >= step:
                            others -= step
                        through += others
                        if others > 0:
                            atomic_add(cycles_at, indices[entry], others)
                    atomic_add(cycles_at, middle, 2 * through)
                    atomic_add(cycles_at, top, through)
                lane_barrier(lane, width)
            base = np.int32(base + 2 * step)
    atomic_add(totals, 0, cycles)
    atomic_add(totals, 1, triangles)
    atomic_add(totals, 2, cliques)
    atomic_add(totals, 3, paths)


_SHARED = "int64[::1], int64[::1], {0}[::1], int32[::1], int64[::1], int64[::1]"


@kernel(_SHARED.format("int32"), _SHARED.format("int64"))
def sum_shared(i, lane, width, indptr, splits, indices, shared, triangles_at, totals):  # type: ignore[no-untyped-def]
    """Add up over the edges of row ``i``, t triangles on each: the pairs of them, t(d + d'); at nodes, t."""
    pairs = weighted = here = np.int64(0)
    for k in range(indptr[i] + lane, splits[i], width):
        count = np.int64(shared[k])
        if count > 0:
            other = indices[k]
            pairs += count * (count - 1) // 2
            weighted += count * (indptr[i + 1] - indptr[i] + indptr[other + 1] - indptr[other])
            here += count
            atomic_add(triangles_at, other, count)
    if here > 0:
        atomic_add(triangles_at, i, here)
        atomic_add(totals, 4, pairs)
        atomic_add(totals, 5, weighted)
