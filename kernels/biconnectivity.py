"""Sets of tree edges that lie in one biconnected component, from a spanning forest in preorder.

Nodes go by their number in preorder here: the descendants of ``p`` are ``p`` to ``last[p]``. A node stands
for the tree edge to its parent (FAST-BCC: Dong, Wang, Gu and Sun, PPoPP 2023). ``group[p]`` is the least node
in the set of ``p``; a root, its own parent, is alone in its set.
"""

from __future__ import annotations

import numpy as np

from topognn.kernels.launch import kernel
from topognn.kernels.primitives import atomic_add, atomic_cas, atomic_max, atomic_min

_ROWS = "int64[::1], {0}[::1], "
_ROWED = (("int32", "int32"), ("int32", "int64"), ("int64", "int64"))


def _signatures(text: str) -> tuple[str, ...]:
    return tuple((_ROWS.format(index) + text.format(node)) for index, node in _ROWED)


@kernel(*_signatures("{0}[::1], {0}[::1], {0}[::1], {0}[::1], {0}[::1]"))
def join_across(i, lane, width, indptr, indices, number, last, low, high, group):  # type: ignore[no-untyped-def]
    """Join node ``i`` with the neighbours that are numbered after its subtree; write how far its edges reach.

    ``low`` and ``high`` are trees in arrays: leaf ``p`` is at ``nodes + p``, and holds ``p`` before.
    """
    here = number[i]
    end = last[here]
    lowest = highest = here
    for k in range(np.uint64(indptr[i] + lane), np.uint64(indptr[i + 1]), np.uint64(width)):
        seen = number[np.uint64(indices[k])]
        lowest = min(lowest, seen)
        highest = max(highest, seen)
        if group[np.uint64(seen)] != group[here] and seen > end:
            one, other = here, seen
            while True:
                above, above_other = group[one], group[other]
                if above == above_other:
                    break
                if above < above_other:
                    one, other = other, one
                    above, above_other = above_other, above
                if above == one:
                    above = atomic_cas(group, one, one, above_other)
                    if above == one:
                        break
                elif group[above] != above:
                    group[one] = group[above]
                one = above
    leaf = number.size + here
    if width == 1:
        low[leaf] = lowest
        high[leaf] = highest
    else:
        atomic_min(low, leaf, lowest)
        atomic_max(high, leaf, highest)


@kernel("int64, int32[::1], int32[::1]", "int64, int64[::1], int64[::1]", lanes=1)
def fold(i, lane, width, first, low, high):  # type: ignore[no-untyped-def]
    """Write the least and the greatest of the two leaves or subtrees below place ``first + i``."""
    place = first + i
    low[place] = min(low[2 * place], low[2 * place + 1])
    high[place] = max(high[2 * place], high[2 * place + 1])


_ABOVE = "{0}[::1], {0}[::1], {0}[::1], {0}[::1], {0}[::1]"


@kernel(_ABOVE.format("int32"), _ABOVE.format("int64"), lanes=1)
def join_above(i, lane, width, parent, last, low, high, group):  # type: ignore[no-untyped-def]
    """Join node ``i`` with its parent if an edge leads from its subtree past that of the parent."""
    above = parent[i]
    if parent[above] == above:
        return
    lowest = highest = above
    left, right = parent.size + i, parent.size + last[i] + 1
    while left < right:
        if left & 1:
            lowest = min(lowest, low[left])
            highest = max(highest, high[left])
            left += 1
        if right & 1:
            right -= 1
            lowest = min(lowest, low[right])
            highest = max(highest, high[right])
        left >>= 1
        right >>= 1
    if lowest < above or highest > last[above]:
        one, other = i, above
        while True:
            one_above, other_above = group[one], group[other]
            if one_above == other_above:
                break
            if one_above < other_above:
                one, other = other, one
                one_above, other_above = other_above, one_above
            if one_above == one:
                one_above = atomic_cas(group, one, one, other_above)
                if one_above == one:
                    break
            elif group[one_above] != one_above:
                group[one] = group[one_above]
            one = one_above


_HEADS = "{0}[::1], {0}[::1], {0}[::1], boolean[::1], boolean[::1]"


@kernel(_HEADS.format("int32"), _HEADS.format("int64"), lanes=1)
def mark_heads(i, lane, width, node_at, parent, group, is_cut, is_alone):  # type: ignore[no-untyped-def]
    """Mark the parent of the group of ``i`` as a cut node; or ``i`` and its group as no single tree edge.

    A root is a cut node if it has a second group below: the first one starts right after it.
    """
    if parent[i] == i:
        return
    if group[i] != i:
        is_alone[i] = False
        is_alone[group[i]] = False
    elif parent[parent[i]] != parent[i] or i != parent[i] + 1:
        is_cut[node_at[parent[i]]] = True


@kernel(*_signatures("{0}[::1], {0}[::1], boolean[::1], boolean[::1]"), lanes=1)
def mark_bridges(i, lane, width, indptr, indices, node_at, parent, is_alone, is_bridge):  # type: ignore[no-untyped-def]
    """Mark the tree edge of ``i`` as a bridge if it is alone in its group and not a parallel edge."""
    if parent[i] == i or not is_alone[i]:
        return
    node, above = node_at[i], node_at[parent[i]]
    count = 0
    for k in range(indptr[node], indptr[node + 1]):
        count += indices[k] == above
    is_bridge[i] = count == 1


_COUNT = "{0}[::1], {0}[::1], boolean[::1], {0}[::1]"


@kernel(_COUNT.format("int32"), _COUNT.format("int64"))
def count_bridges(i, lane, width, node_at, parent, is_bridge, counts):  # type: ignore[no-untyped-def]
    """Count the tree edge of ``i`` at its lesser node if it is a bridge."""
    if lane == 0 and is_bridge[i]:
        atomic_add(counts, min(node_at[i], node_at[parent[i]]), 1)


@kernel(*_signatures("{0}[::1], {0}[::1], boolean[::1], {0}[::1], int64[:, ::1]"), lanes=1)
def list_bridges(i, lane, width, indptr, indices, number, parent, is_bridge, ends, pairs):  # type: ignore[no-untyped-def]
    """Write the bridges from node ``i`` to greater ones before ``ends[i]``, in the order of its row."""
    position = ends[i - 1] if i > 0 else 0
    if position == ends[i]:
        return
    for k in range(indptr[i], indptr[i + 1]):
        if indices[k] > i:
            one = number[i]
            other = number[indices[k]]
            if (is_bridge[one] and parent[one] == other) or (is_bridge[other] and parent[other] == one):
                pairs[position, 0] = i
                pairs[position, 1] = indices[k]
                position += 1


@kernel(*_signatures("{0}[::1], {0}[::1], int64[::1]"))
def find_first(i, lane, width, indptr, indices, number, group, first):  # type: ignore[no-untyped-def]
    """Write at each group the first entry of the rows that is in it."""
    for k in range(indptr[i] + lane, indptr[i + 1], width):
        if indices[k] != i:
            found = group[max(number[i], number[indices[k]])]
            if k < first[found]:
                atomic_min(first, found, k)


@kernel(*_signatures("{0}[::1], {0}[::1], {0}[::1], {0}[::1]"))
def label_entries(i, lane, width, indptr, indices, number, group, names, labels):  # type: ignore[no-untyped-def]
    """Write the name of the group of each entry of row ``i``; -1 for a self-loop."""
    for k in range(indptr[i] + lane, indptr[i + 1], width):
        labels[k] = names[group[max(number[i], number[indices[k]])]] if indices[k] != i else -1
