"""How many nodes lie within two steps of each node."""

from __future__ import annotations

import numpy as np

from topognn.kernels.launch import kernel
from topognn.kernels.primitives import atomic_add, lane_barrier, set_bit

_ARGS = "int64, int64[::1], {0}[::1], {0}[::1], int32[:, ::1], int64[::1]"


@kernel(_ARGS.format("int32"), _ARGS.format("int64"))
def count_two_hop(i, lane, width, workers, indptr, indices, like, seen, counts):  # type: ignore[no-untyped-def]
    """Count the distinct nodes at up to two steps, for every ``workers``-th node from ``i`` on.

    Nodes that another stands for (``like[node] != node``) are passed over. ``seen[i]`` holds a bit a node; it is
    all zero before and after. Rows ascend, so what two steps reach lies between the least first and the greatest
    last entry of the neighbours' rows: where that is short, it is cleared whole.
    """
    for node in range(i, indptr.size - 1, workers):
        if like[node] != node:
            continue
        found = 0
        steps = 0
        low = np.int64(indptr.size)
        high = np.int64(-1)
        if lane == 0 and set_bit(seen, i, node):
            found += 1
        for first in range(indptr[node], indptr[node + 1]):
            middle = np.int64(indices[first])
            if lane == 0 and set_bit(seen, i, middle):
                found += 1
            begin, end = indptr[middle], indptr[middle + 1]
            if begin < end:
                steps += end - begin
                low = min(low, np.int64(indices[begin]))
                high = max(high, np.int64(indices[end - 1]))
            for second in range(begin + lane, end, width):
                if set_bit(seen, i, indices[np.uint64(second)]):
                    found += 1
        lane_barrier(lane, width)
        seen[i, node >> 5] = 0
        for first in range(indptr[node] + lane, indptr[node + 1], width):
            seen[i, indices[first] >> 5] = 0
        if (high - low) >> 5 < steps:
            for word in range((low >> 5) + lane, (high >> 5) + 1, width):
                seen[i, word] = 0
        else:
            for first in range(indptr[node], indptr[node + 1]):
                middle = np.int64(indices[first])
                for second in range(indptr[middle] + lane, indptr[middle + 1], width):
                    seen[i, indices[second] >> 5] = 0
        lane_barrier(lane, width)
        atomic_add(counts, node, found)
