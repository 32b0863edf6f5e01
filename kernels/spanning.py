"""A spanning forest: the edges by which union-find joins sets."""

from __future__ import annotations

from topognn.kernels.launch import kernel
from topognn.kernels.primitives import atomic_cas

_HOOK = "int64, int64, {0}[::1], int64[::1], {1}[::1], {0}[::1], {0}[::1], {0}[::1]"


@kernel(_HOOK.format("int32", "int32"), _HOOK.format("int64", "int32"), _HOOK.format("int64", "int64"))
def hook_tree(i, lane, width, begin, end, skipped, indptr, indices, parent, one_end, other_end):  # type: ignore[no-untyped-def]
    """Join node ``i`` with neighbours ``begin`` to ``end`` of its row, unless its root is ``skipped[0]``.

    The greater root is hooked below the other's parent; the edge that did it is written at that root. What a
    thread reads may be old, but is an ancestor all the same, and only a compare-and-swap changes a root.
    """
    if skipped.size > 0 and parent[i] == skipped[0]:
        return
    for k in range(indptr[i] + begin + lane, min(indptr[i + 1], indptr[i] + end), width):
        one, other = i, indices[k]
        while True:
            above, above_other = parent[one], parent[other]
            if above == above_other:
                break
            if above < above_other:
                one, other = other, one
                above, above_other = above_other, above
            if above == one:
                above = atomic_cas(parent, one, one, above_other)
                if above == one:
                    one_end[one] = i
                    other_end[one] = indices[k]
                    break
            elif parent[above] != above:
                parent[one] = parent[above]
            one = above


@kernel("int32[::1]", "int64[::1]", lanes=1)
def find_root(i, lane, width, parent):  # type: ignore[no-untyped-def]
    """Make ``parent[i]`` the root of the set of ``i``."""
    root = parent[i]
    while parent[root] != root:
        root = parent[root]
    parent[i] = root
