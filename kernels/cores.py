"""Core numbers by peeling: take all nodes with at most ``level`` neighbours left, then try the next level.

On a GPU in rounds, each a launch: every node of low degree is taken by the threads that share it, which then follow a
chain of short rows to its end. What a round leaves tells the next one its level, so the host need not look at it. On a
CPU by one thread, with a queue that tells which rows to fetch ahead: several threads, whose atomic operations wait for
each other, take longer.
"""

from __future__ import annotations

import numpy as np

from topognn.kernels.launch import kernel
from topognn.kernels.primitives import atomic_add, atomic_cas, atomic_min, lane_scan, lane_sum, prefetch

TOTAL = 9  # place in ``state`` of the number of nodes taken in all rounds; before it stand three rounds' notes
SHORT = 64  # neighbours of a node that is taken in the same round: chains are short rows, long ones go to many threads


@kernel(
    "int64, int64[::1], int32[::1], int32[::1], int32[::1], int64[::1]",
    "int64, int64[::1], int64[::1], int32[::1], int32[::1], int64[::1]",
)
def peel(i, lane, width, turn, indptr, indices, degrees, taken, state):  # type: ignore[no-untyped-def]
    """Take node ``i`` in round ``turn`` if it has at most ``level`` neighbours left; follow a chain that falls with it.

    ``degrees`` holds the neighbours left of a standing node and the core number of one taken. A round's three notes in
    ``state`` are its level, the number of nodes taken, and the least degree above the level that was met: the next
    level, unless a node was taken, since others may have come down then.
    """
    before = 3 * ((turn + 2) % 3)
    now = 3 * (turn % 3)
    after = 3 * ((turn + 1) % 3)
    level = state[before] if state[before + 1] > 0 else state[before + 2]
    if i == 0 and lane == 0:
        state[now] = level
        state[after + 1] = 0
        state[after + 2] = degrees.size
    v = i
    mine = False  # one lane decides for all: what it sees may change between their looks
    if lane == 0 and taken[v] == 0:
        degree = degrees[v]
        if degree > level:
            if degree < state[now + 2]:
                atomic_min(state, now + 2, degree)
        else:
            mine = atomic_cas(taken, v, 0, 1) == 0
    _, chosen = lane_scan(mine, lane, width)
    while chosen > 0:
        fallen = -1
        for k in range(indptr[v] + lane, indptr[v + 1], width):
            u = indices[np.uint64(k)]
            if degrees[np.uint64(u)] > level:
                left = atomic_add(degrees, u, -1) - 1
                if left < level:
                    atomic_add(degrees, u, 1)  # another took the last one above the level
                elif left == level and indptr[u + 1] - indptr[u] <= SHORT:
                    fallen = u
        if lane == 0:
            atomic_add(state, now + 1, 1)
            atomic_add(state, TOTAL, 1)
        earlier, _ = lane_scan(fallen >= 0, lane, width)
        mine = fallen >= 0 and earlier == 0 and atomic_cas(taken, fallen, 0, 1) == 0
        _, chosen = lane_scan(mine, lane, width)
        v = np.int64(lane_sum(np.float64(fallen) if mine else np.float64(0), lane, width))


@kernel(
    "int64[::1], int32[::1], int32[::1], int32[::1]",
    "int64[::1], int64[::1], int32[::1], int64[::1]",
    lanes=1,
)
def peel_alone(i, lane, width, indptr, indices, degrees, queue):  # type: ignore[no-untyped-def]
    """Take all nodes, level by level, as the only item: ``degrees`` become core numbers, ``queue`` the order."""
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
