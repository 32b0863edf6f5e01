"""Connected components by union-find: hook the higher root onto the lower one, then shorten the paths.

``labels[v]`` is a node of v's component that is not above v; a root is its own label. Only a compare-and-swap
changes a root, and only to a lower node, so whatever the order of threads a component's last root is its
smallest node.
"""

from __future__ import annotations

from topognn.kernels.launch import kernel
from topognn.kernels.primitives import atomic_cas

LAST, ALL = 0, 1  # which neighbours `hook` joins a node with


@kernel("int32[::1], int64[::1], int32[::1]", "int64[::1], int64[::1], int64[::1]", lanes=1)
def begin(i, lane, width, labels, indptr, indices):  # type: ignore[no-untyped-def]
    """Make the label of node ``i`` its first neighbour, if that is lower, else itself: no circle can arise."""
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


_HOOK_TAPS = (
    "int64, int64, int64, int64, int64, int64, int64[:, ::1], int64[:, ::1], "
    "int64[::1], int32[::1], int32[::1], {0}[::1], "
    "int64, int64[::1], int64[::1], int64[::1], int64, int64[:, ::1], {0}[::1], {0}[::1]"
)


@kernel(_HOOK_TAPS.format("int32"), _HOOK_TAPS.format("int64"))
def hook_taps(  # type: ignore[no-untyped-def]
    i, lane, width,
    draw, channels, channel_stride, places, place_stride, columns, table_y, table_x,
    tap_indptr, tap_y, tap_x, tap_base,
    first, nodes, holders_indptr, holders, other, others, giant, labels,
):  # fmt: skip
    """Join a node with those that a connection's kept weights lead to from there, unless its label is ``giant[0]``.

    The neighbours are found as :mod:`topognn.kernels.rows` finds them, and forgotten. If ``draw`` is not 0, each
    element takes one only, found from a weight on that ``draw`` and the node choose as if by lot.
    """
    row = first + i
    if nodes.size > 0:
        row = nodes[i]
    if labels[row] == giant[0]:
        return
    start_holder = i
    stop_holder = i + 1
    if holders_indptr.size > 0:
        start_holder = holders_indptr[i]
        stop_holder = holders_indptr[i + 1]
    depth = others.shape[0]
    for holder in range(start_holder, stop_holder):
        element = holder
        if holders_indptr.size > 0:
            element = holders[holder]
        channel = (element // channel_stride) % channels
        place = (element // place_stride) % places
        row_y = place // columns
        row_x = place % columns
        start = tap_indptr[channel]
        count = tap_indptr[channel + 1] - start
        turn = 0
        if draw > 0 and count > 0:
            turn = ((((row + draw) * 1103515245 + 12345 * draw) >> 16) & 0x7FFFFFFF) % count
        for k in range(lane, count, width):
            step = k + turn
            if step >= count:
                step -= count
            step += start
            y = table_y[row_y, tap_y[step]]
            x = table_x[row_x, tap_x[step]]
            if (y | x) < 0:
                continue
            end = tap_base[step] + y + x
            found = False
            for layer in range(max(1, depth)):
                node = other + end
                if depth > 0:
                    node = others[layer, end]
                if node < 0:
                    continue
                found = True
                low = labels[row]
                high = labels[node]
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
            if found and draw > 0:
                break


@kernel("int32[::1]", "int64[::1]", lanes=1)
def compress(i, lane, width, labels):  # type: ignore[no-untyped-def]
    """Make the label of node ``i`` its root. No item writes another's label, so none can undo this one."""
    parent = labels[i]
    above = labels[parent]
    while parent != above:
        labels[i] = above
        parent = above
        above = labels[parent]
