"""Biconnected components by one depth-first search, as one work item."""

from __future__ import annotations

import numpy as np

from topognn.kernels.launch import kernel

_SEARCH = "int64[::1], {0}[::1], int64[::1], {0}[::1], {0}[::1], {0}[::1], {0}[::1], {0}[::1]"


@kernel(_SEARCH.format("int32"), _SEARCH.format("int64"), lanes=1)
def search_depth_first(i, lane, width, indptr, indices, cursor, number, node_at, parent, low, group):  # type: ignore[no-untyped-def]
    """Number all nodes in the preorder of one depth-first search, and group them, in one pass (Tarjan, 1972).

    ``number`` is -1 before. A depth-first tree has no cross edges, so the lowest number that a subtree's
    edges reach tells whether the edge above it is in one component with the next.
    """
    count = 0
    for root in range(indptr.size - 1):
        if number[root] >= 0:
            continue
        node = root
        here = above = count
        lowest = count
        k = indptr[node]
        number[root] = parent[here] = count
        node_at[here] = root
        count += 1
        while True:
            stop = indptr[node + 1]
            other = node
            seen = here
            while k < stop:
                other = indices[np.uint64(k)]
                k += 1
                seen = number[np.uint64(other)]
                if seen < 0:
                    break
                lowest = min(lowest, seen)
            if seen < 0:
                cursor[node] = k
                low[here] = lowest
                above = here
                here = lowest = count
                number[other] = here
                node_at[here] = other
                parent[here] = above
                count += 1
                node = other
                k = indptr[node]
            else:
                low[here] = lowest
                above = parent[here]
                if above == here:
                    break
                here = above
                lowest = min(low[here], lowest)
                node = node_at[here]
                k = cursor[node]
    for here in range(count):
        group[here] = group[parent[here]] if low[here] < parent[here] else here
