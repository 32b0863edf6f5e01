"""A row of a sparse matrix times vectors: entry by entry, or on CPUs that gather, a cache line of entries at once.

As :mod:`topognn.kernels.primitives`, what differs by machine. ``dot_row`` and ``dot_row_pair`` take the entries
``k``, ``k + step``, ... before ``end``, all of them unsigned, and return the sum of their weights (1 without any) times
the numbers of ``x`` at their indices, in float64: of a vector that is spread, ``shift`` being its bits
(:func:`topognn.operators.row_products.spread`), or of each of two side by side. Which are added first depends on the
machine, never on the run.
"""

from __future__ import annotations

import llvmlite.binding
import numba
import numpy as np

from topognn.kernels.gathers import AHEAD, LINE, gather_row, gather_row_pair
from topognn.kernels.primitives import prefetch

# All numbers of places are unsigned: no test for indices that count from the end, and no mixture that would be float64.
_AHEAD, _LAST = np.uint64(AHEAD), np.uint64(LINE - 1)
_ONE, _TWO, _THREE, _FOUR = (np.uint64(number) for number in (1, 2, 3, 4))


_compile = numba.njit(forceinline=True, _nrt=False)


@_compile
def term(indices, weights, x, shift, k):  # type: ignore[no-untyped-def]
    """Return the product of entry ``k`` with a vector."""
    p = np.uint64(indices[k])
    return (weights[k] if weights.size > 0 else np.float32(1)) * x[p + (p >> shift)]


@_compile
def terms(indices, weights, x, shift, k):  # type: ignore[no-untyped-def]
    """Return the products of entry ``k`` with two vectors side by side."""
    p = np.uint64(indices[k])
    p = _TWO * (p + (p >> shift))
    w = weights[k] if weights.size > 0 else np.float32(1)
    return w * x[p], w * x[p + _ONE]


def step_row(indices, weights, x, shift, k, end, step):  # type: ignore[no-untyped-def]
    """Do what ``dot_row`` does, entry by entry.

    Four sums at once, since each addition waits for the one before it, and on GPUs each number for its entry.
    """
    weighted = weights.size > 0
    a = b = c = d = np.float64(0)
    while k + _LAST * step < end:
        prefetch(indices, k + _AHEAD)
        if weighted:
            prefetch(weights, k + _AHEAD)
        for _ in range(LINE // 4):
            a += term(indices, weights, x, shift, k)
            b += term(indices, weights, x, shift, k + step)
            c += term(indices, weights, x, shift, k + _TWO * step)
            d += term(indices, weights, x, shift, k + _THREE * step)
            k += _FOUR * step
    while k + _THREE * step < end:
        a += term(indices, weights, x, shift, k)
        b += term(indices, weights, x, shift, k + step)
        c += term(indices, weights, x, shift, k + _TWO * step)
        d += term(indices, weights, x, shift, k + _THREE * step)
        k += _FOUR * step
    while k < end:
        a += term(indices, weights, x, shift, k)
        k += step
    return (a + b) + (c + d)


def step_row_pair(indices, weights, x, shift, k, end, step):  # type: ignore[no-untyped-def]
    """Do what ``dot_row_pair`` does, entry by entry."""
    weighted = weights.size > 0
    a = b = c = d = np.float64(0)
    while k + _LAST * step < end:
        prefetch(indices, k + _AHEAD)
        if weighted:
            prefetch(weights, k + _AHEAD)
        for _ in range(LINE // 2):
            p, q = terms(indices, weights, x, shift, k)
            r, s = terms(indices, weights, x, shift, k + step)
            a, b, c, d = a + p, b + q, c + r, d + s
            k += _TWO * step
    while k + step < end:
        p, q = terms(indices, weights, x, shift, k)
        r, s = terms(indices, weights, x, shift, k + step)
        a, b, c, d = a + p, b + q, c + r, d + s
        k += _TWO * step
    if k < end:
        p, q = terms(indices, weights, x, shift, k)
        a, b = a + p, b + q
    return a + c, b + d


def can_gather() -> bool:
    """Tell whether this CPU is quick at fetching from many places at once, and no access is to be checked.

    Of those with AVX-512, the ones without bfloat16 have had it slowed down since 2023 (CVE-2022-40982).
    """
    try:
        features = llvmlite.binding.get_host_cpu_features()
    except RuntimeError:  # LLVM cannot tell
        return False
    return bool(features.get("avx512bf16")) and not numba.config.BOUNDSCHECK


dot_row, dot_row_pair = (gather_row, gather_row_pair) if can_gather() else map(_compile, (step_row, step_row_pair))
