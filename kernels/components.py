"""Connected components by union-find: hook the higher root onto the lower one, then shorten the paths.

``labels[v]`` is a node of v's component that is not above v; a root is its own label. Only a compare-and-swap
changes a root, and only to a lower node, so whatever the order of threads a component's last root is its
smallest node.
"""

from __future__ import annotations

from topognn.kernels.launch import kernel
from topognn.kernels.primitives import atomic_cas

LAST, ALL = 0, 1  # which neighbours `hook` joins a node with


@kernel("int32[::1], int64[::1], int32[::1]", "int64[::1], int64[::1], int64[::1]")
def begin(i, lane, width, labels, indptr, indices):  # type: ignore[no-untyped-def]
    """Make the label of node ``i`` its first neighbour, if that is lower, else itself: no circle can arise."""
    if lane > 0:
        return
    label = i
    if indptr[i] < indptr[i + 1]:
        label = min(i, indices[indptr[i]])
    labels[i] = label


@kernel(
    "int64, int32[::1], int32[::1], int64[::1], int32[::1]",
    "int64, int64[::1], int64[::1], int64[::1], int64[::1]",
)
def hook(i, lane, width, which, giant, labels, indptr, indices):  # type: ignore[no-untyped-def]
    """Join node ``i`` with its neighbours (``which`` of them), unless its label is ``giant[0]``.

    Passing over the giant component's rows is right where every edge stands in both ends' rows. Paths are
    halved on the way up; what is written is always an ancestor, and never to a root.
    """
    if labels[i] == giant[0]:
        return
    start = indptr[i]
    stop = indptr[i + 1]
    if which == LAST:
        start = max(start, stop - 1)
    for k in range(start + lane, stop, width):
        low = labels[i]
        high = labels[indices[k]]
        while low != high:
            if low > high:
                low, high = high, low
            above = labels[high]
            if above == low:
                break
            if above == high:
                above = atomic_cas(labels, high, high, low)
                if above == high:
                    break
            above = labels[above]
            labels[high] = above
            high = above


@kernel("int32[::1]", "int64[::1]")
def compress(i, lane, width, labels):  # type: ignore[no-untyped-def]
    """Make the label of node ``i`` its root. No item writes another's label, so none can undo this one."""
    if lane > 0:
        return
    parent = labels[i]
    above = labels[parent]
    while parent != above:
        labels[i] = above
        parent = above
        above = labels[parent]
