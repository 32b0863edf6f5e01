"""How many nodes lie within two steps of each node."""

from __future__ import annotations

from topognn.kernels.launch import kernel
from topognn.kernels.primitives import atomic_add, lane_barrier, set_bit


@kernel(
    "int64, int64[::1], int32[::1], int64[::1], int32[:, ::1], int64[::1]",
    "int64, int64[::1], int64[::1], int64[::1], int32[:, ::1], int64[::1]",
)
def count_two_hop(i, lane, width, workers, indptr, indices, like, seen, counts):  # type: ignore[no-untyped-def]
    """Count the distinct nodes at up to two steps, for every ``workers``-th node from ``i`` on.

    Nodes that another stands for (``like[node] != node``) are passed over. ``seen[i]`` holds a bit a node; it is
    all zero before and after.
    """
    for node in range(i, indptr.size - 1, workers):
        if like[node] != node:
            continue
        found = 0
        if lane == 0 and set_bit(seen, i, node):
            found += 1
        for first in range(indptr[node], indptr[node + 1]):
            middle = indices[first]
            if lane == 0 and set_bit(seen, i, middle):
                found += 1
            for second in range(indptr[middle] + lane, indptr[middle + 1], width):
                if set_bit(seen, i, indices[second]):
                    found += 1
        lane_barrier(lane, width)
        seen[i, node >> 5] = 0
        for first in range(indptr[node], indptr[node + 1]):
            middle = indices[first]
            seen[i, middle >> 5] = 0
            for second in range(indptr[middle] + lane, indptr[middle + 1], width):
                seen[i, indices[second] >> 5] = 0
        lane_barrier(lane, width)
        atomic_add(counts, node, found)
