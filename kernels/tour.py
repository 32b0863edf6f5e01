"""The nodes of a spanning forest in preorder, without a step whose length is the forest's height.

The Euler tour of the forest is one list of two arcs a node: node ``i`` owns the edge that hooked it or, if it
stayed the root of its set, an edge from a virtual node, ``nodes``, that all trees hang from. The list is
ranked from heads that are strewn over it: each walks to the next, and only heads jump by pointers (Helman and
JaJa, ALENEX 1999).
"""

from __future__ import annotations

import numpy as np

from topognn.kernels.launch import kernel
from topognn.kernels.primitives import atomic_add

SPACING = 64  # arcs, one of which is a head


_ENDS = "{0}[::1], {0}[::1], {0}[::1], "


@kernel((_ENDS + "{0}[::1]").format("int32"), (_ENDS + "{0}[::1]").format("int64"), lanes=1)
def count_arcs(i, lane, width, parent, one_end, other_end, degrees):  # type: ignore[no-untyped-def]
    """Count the arcs that leave each end of the edge of node ``i``, after making a root's edge."""
    if parent[i] == i:
        one_end[i] = parent.size
        other_end[i] = i
    atomic_add(degrees, one_end[i], 1)
    atomic_add(degrees, other_end[i], 1)


@kernel((_ENDS + "{0}[::1], {0}[::1]").format("int32"), (_ENDS + "{0}[::1], {0}[::1]").format("int64"), lanes=1)
def place_arcs(i, lane, width, one_end, other_end, cursor, one_arc, other_arc):  # type: ignore[no-untyped-def]
    """Give the two arcs of the edge of node ``i`` their places among those that leave the same node."""
    one_arc[i] = atomic_add(cursor, one_end[i], 1)
    other_arc[i] = atomic_add(cursor, other_end[i], 1)


@kernel(
    (_ENDS + "{0}[::1], {0}[::1], {0}[::1]").format("int32"),
    (_ENDS + "{0}[::1], {0}[::1], {0}[::1]").format("int64"),
    lanes=1,
)
def link_arcs(i, lane, width, one_end, other_end, starts, one_arc, other_arc, following):  # type: ignore[no-untyped-def]
    """Let each arc of the edge of node ``i`` be followed by the one after its twin; -1 ends the tour."""
    first = starts[starts.size - 2]
    one, other = one_end[i], other_end[i]
    after = other_arc[i] + 1
    if after == starts[other + 1]:
        after = starts[other]
    following[one_arc[i]] = after if after != first else -1
    after = one_arc[i] + 1
    if after == starts[one + 1]:
        after = starts[one]
    following[other_arc[i]] = after if after != first else -1


_WALK = "{0}[::1], {0}[::1], {0}[::1], {0}[::1]"


@kernel(_WALK.format("int32"), _WALK.format("int64"), lanes=1)
def walk_arcs(i, lane, width, starts, following, heads, steps):  # type: ignore[no-untyped-def]
    """Write the next head after head ``i`` (-1: none) and the steps to it; the last head starts the tour."""
    arcs = following.size
    arc = min(i * 64 + ((i * 2654435761) >> 13) % 64, arcs - 1)
    if i == steps.size - 1:
        arc = starts[starts.size - 2]
    count = 0
    block = np.int64(-1)
    while True:
        arc = following[arc]
        count += 1
        if arc < 0:
            break
        block = np.int64(arc) >> 6
        if arc == min(block * 64 + ((block * 2654435761) >> 13) % 64, arcs - 1):
            break
    heads[i] = block if arc >= 0 else -1
    steps[i] = count


@kernel(_WALK.format("int32"), _WALK.format("int64"), lanes=1)
def jump(i, lane, width, heads, steps, new_heads, new_steps):  # type: ignore[no-untyped-def]
    """Add the steps of the head that head ``i`` points to, and point where that one points."""
    ahead = heads[i]
    new_heads[i] = heads[ahead] if ahead >= 0 else -1
    new_steps[i] = steps[i] + (steps[ahead] if ahead >= 0 else 0)


@kernel(_WALK.format("int32"), _WALK.format("int64"), lanes=1)
def rank_arcs(i, lane, width, starts, following, steps, ranks):  # type: ignore[no-untyped-def]
    """Write the places in the tour of the arcs from head ``i`` to the next; ``steps`` lead to its end."""
    arcs = following.size
    arc = min(i * 64 + ((i * 2654435761) >> 13) % 64, arcs - 1)
    if i == steps.size - 1:
        arc = starts[starts.size - 2]
    rank = arcs - steps[i]
    while arc >= 0:
        ranks[arc] = rank
        rank += 1
        arc = following[arc]
        if arc >= 0:
            block = np.int64(arc) >> 6
            if arc == min(block * 64 + ((block * 2654435761) >> 13) % 64, arcs - 1):
                break


_DOWN = "{0}[::1], {0}[::1], {0}[::1], int8[::1]"


@kernel(_DOWN.format("int32"), _DOWN.format("int64"), lanes=1)
def mark_down(i, lane, width, one_arc, other_arc, ranks, down):  # type: ignore[no-untyped-def]
    """Put their places in the tour for the arcs of node ``i``; mark that of the one away from the root."""
    one_arc[i], other_arc[i] = ranks[one_arc[i]], ranks[other_arc[i]]
    down[min(one_arc[i], other_arc[i])] = 1


_NUMBER = _ENDS + _ENDS + "{0}[::1], {0}[::1], {0}[::1]"


@kernel(_NUMBER.format("int32"), _NUMBER.format("int64"), lanes=1)
def number_nodes(  # type: ignore[no-untyped-def]
    i, lane, width, one_end, other_end, one_arc, other_arc, before, number, node_at, above, last
):  # fmt: skip
    """Number the lower end of the edge of node ``i``; write whose number it is, who is above, the last below.

    ``before`` counts the arcs down up to each place in the tour; ``one_arc`` and ``other_arc`` are such
    places. ``above`` of a root is the root.
    """
    one, other = one_arc[i], other_arc[i]
    upper, lower = one_end[i], other_end[i]
    if other < one:
        upper, lower = lower, upper
    place = before[min(one, other)] - 1
    number[lower] = place
    node_at[place] = lower
    above[place] = upper if upper < number.size else lower
    last[place] = before[max(one, other)] - 1
