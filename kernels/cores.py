"""Core numbers by peeling: take all nodes with at most ``level`` neighbours left, then try the next level.

By many workers: within a level a worker follows what it sets off itself, so there is one launch a level however
long the chains are (PKC: Kabir and Madduri, IPDPS workshops 2017). A node that is taken is linked into its
worker's stack: ``following[v]`` is -1 while v stands, then the node below it in the stack, or v itself at the
bottom. Whoever sets ``following[v]`` has the node, and all stacks together take one entry a node.

By one worker: no atomics, and a queue that tells which rows to fetch ahead. An atomic operation waits for the one
before it, so a CPU thread alone is faster than two that share the work (20 ms and 29 ms on 4.8 million edges).
"""

from __future__ import annotations

import numpy as np

from topognn.kernels.launch import kernel
from topognn.kernels.primitives import atomic_add, atomic_cas, atomic_min, lane_barrier, prefetch


@kernel(
    "int64, int64, int64[::1], int32[::1], int32[::1], int32[::1], int32[::1], int64[::1]",
    "int64, int64, int64[::1], int64[::1], int32[::1], int64[::1], int64[::1], int64[::1]",
)
def peel(  # type: ignore[no-untyped-def]
    i, lane, width, level, chunk, indptr, indices, degrees, following, top, state
):  # fmt: skip
    """Take the nodes of chunk ``i`` with at most ``level`` neighbours left, and all that fall with them.

    ``degrees`` holds the neighbours left of a standing node and the core number of one taken. ``top[i]`` is
    -1 before and after. ``state[0]`` is raised by the number of nodes taken, ``state[1]`` lowered to the
    least degree above ``level`` that was met.
    """
    nodes = indptr.size - 1
    taken = 0
    least = nodes
    for v in range(i * chunk + lane, min(i * chunk + chunk, nodes), width):
        node = np.uint64(v)
        degree = degrees[node]
        if following[node] < 0:
            if degree > level:
                least = min(least, degree)
            elif atomic_cas(following, v, -1, v) < 0:
                taken += 1
                below = top[i]
                while True:  # push, while other lanes push too
                    following[v] = v if below < 0 else below
                    found = atomic_cas(top, i, below, v)
                    if found == below:
                        break
                    below = found
    lane_barrier(lane, width)
    v = top[i]
    while v >= 0:
        lane_barrier(lane, width)
        if lane == 0:
            below = following[v]
            top[i] = -1 if below == v else below
        lane_barrier(lane, width)
        for k in range(indptr[v] + lane, indptr[v + 1], width):
            u = indices[np.uint64(k)]
            if degrees[np.uint64(u)] > level:
                before = atomic_add(degrees, u, -1)
                if before <= level:  # another took the last one above the level
                    atomic_add(degrees, u, 1)
                elif before == level + 1 and atomic_cas(following, u, -1, u) < 0:
                    taken += 1
                    below = top[i]
                    while True:
                        following[u] = u if below < 0 else below
                        found = atomic_cas(top, i, below, u)
                        if found == below:
                            break
                        below = found
        lane_barrier(lane, width)
        v = top[i]
    if taken > 0:
        atomic_add(state, 0, taken)
    if least < state[1]:
        atomic_min(state, 1, least)


@kernel(
    "int64[::1], int32[::1], int32[::1], int32[::1]",
    "int64[::1], int64[::1], int32[::1], int64[::1]",
)
def peel_alone(i, lane, width, indptr, indices, degrees, queue):  # type: ignore[no-untyped-def]
    """Take all nodes, level by level, as the only item: ``degrees`` become core numbers, ``queue`` the order."""
    if lane > 0:
        return
    nodes = indptr.size - 1
    head = 0
    tail = 0
    level = np.int32(0)
    while tail < nodes:
        least = np.int32(2**31 - 1)
        for v in range(nodes):
            degree = degrees[np.uint64(v)]
            if degree == level:  # standing: all taken before have less
                queue[np.uint64(tail)] = v
                tail += 1
            elif degree > level:
                least = min(least, degree)
        if head == tail:
            level = least
            continue
        while head < tail:
            if head + 4 < tail:
                prefetch(indptr, queue[np.uint64(head + 4)])
            if head + 2 < tail:
                ahead = indptr[np.uint64(queue[np.uint64(head + 2)])]
                prefetch(indices, ahead)
                prefetch(indices, ahead + 16)
            node = np.uint64(queue[np.uint64(head)])
            head += 1
            for k in range(indptr[node], indptr[node + np.uint64(1)]):
                neighbour = indices[np.uint64(k)]
                u = np.uint64(neighbour)
                before = degrees[u]
                degrees[u] = before - np.int32(before > level)  # no branch: it could not be predicted
                if before == level + 1:
                    queue[np.uint64(tail)] = neighbour
                    tail += 1
        level += np.int32(1)
