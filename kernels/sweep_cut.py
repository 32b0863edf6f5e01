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
