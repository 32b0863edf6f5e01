"""The CUDA versions of :mod:`topognn.kernels.primitives`, and stand-ins for Numba's simulator.

Imported at the first CUDA launch only: it needs numba-cuda.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import config, cuda

from topognn.kernels.dots import step_row, step_row_pair, term, terms


@cuda.jit(device=True)
def atomic_add(array, index, value):  # type: ignore[no-untyped-def]
    return cuda.atomic.add(array, index, value)


@cuda.jit(device=True)
def atomic_min(array, index, value):  # type: ignore[no-untyped-def]
    return cuda.atomic.min(array, index, value)


@cuda.jit(device=True)
def atomic_max(array, index, value):  # type: ignore[no-untyped-def]
    return cuda.atomic.max(array, index, value)


@cuda.jit(device=True)
def atomic_cas(array, index, expected, desired):  # type: ignore[no-untyped-def]
    return cuda.atomic.cas(array, index, expected, desired)


@cuda.jit(device=True)
def prefetch(array, index):  # type: ignore[no-untyped-def]
    pass


@cuda.jit(device=True)
def _warp_lane_scan(flag, lane, width):  # type: ignore[no-untyped-def]
    first = np.uint32(cuda.laneid - lane)
    group = np.uint32(0xFFFFFFFF) >> np.uint32(32 - width)
    raised = (np.uint32(cuda.ballot_sync(group << first, flag)) >> first) & group
    before = np.uint32((np.uint32(1) << np.uint32(lane)) - np.uint32(1))
    return cuda.popc(raised & before), cuda.popc(raised)


@cuda.jit(device=True)
def _simulated_lane_scan(flag, lane, width):  # type: ignore[no-untyped-def]
    # The simulator has no warp votes. Every thread of an item passes the same barriers, and a barrier
    # releases whole blocks, so items of one block may be at different calls without harm.
    flags = cuda.shared.array(1024, np.int32)
    me = cuda.threadIdx.x
    flags[me] = 1 if flag else 0
    cuda.syncthreads()
    before, total = 0, 0
    for other in range(width):
        total += flags[me - lane + other]
        if other < lane:
            before += flags[me - lane + other]
    cuda.syncthreads()
    return before, total


@cuda.jit(device=True)
def _warp_lane_sum(value, lane, width):  # type: ignore[no-untyped-def]
    group = np.uint32(0xFFFFFFFF) >> np.uint32(32 - width)
    mask = group << np.uint32(cuda.laneid - lane)
    distance = width >> 1
    while distance > 0:
        value += cuda.shfl_xor_sync(mask, value, distance)
        distance >>= 1
    return value


@cuda.jit(device=True)
def _simulated_lane_sum(value, lane, width):  # type: ignore[no-untyped-def]
    values = cuda.shared.array(1024, np.float64)
    me = cuda.threadIdx.x
    values[me] = value
    cuda.syncthreads()
    total = np.float64(0)
    for other in range(width):
        total += values[me - lane + other]
    cuda.syncthreads()
    return total


@cuda.jit(device=True)
def _warp_lane_barrier(lane, width):  # type: ignore[no-untyped-def]
    group = np.uint32(0xFFFFFFFF) >> np.uint32(32 - width)
    cuda.syncwarp(group << np.uint32(cuda.laneid - lane))


@cuda.jit(device=True)
def _simulated_lane_barrier(lane, width):  # type: ignore[no-untyped-def]
    cuda.syncthreads()


@cuda.jit(device=True)
def set_bit(bits, row, bit):  # type: ignore[no-untyped-def]
    flag = np.int32(1) << np.int32(bit & 31)
    return cuda.atomic.or_(bits, (row, bit >> 5), flag) & flag == 0


lane_scan = _simulated_lane_scan if config.ENABLE_CUDASIM else _warp_lane_scan
lane_sum = _simulated_lane_sum if config.ENABLE_CUDASIM else _warp_lane_sum
lane_barrier = _simulated_lane_barrier if config.ENABLE_CUDASIM else _warp_lane_barrier

BY_NAME = {
    "atomic_add": atomic_add,
    "atomic_min": atomic_min,
    "atomic_max": atomic_max,
    "atomic_cas": atomic_cas,
    "prefetch": prefetch,
    "lane_scan": lane_scan,
    "lane_sum": lane_sum,
    "lane_barrier": lane_barrier,
    "set_bit": set_bit,
}


def compile_for_cuda(function: Callable[..., Any]) -> Any:
    """Return a function of the CPU as a device function that calls what bears the same names here."""
    rebound = types.FunctionType(function.__code__, {**function.__globals__, **BY_NAME}, function.__name__)
    return cuda.jit(device=True)(rebound)


BY_NAME["term"], BY_NAME["terms"] = compile_for_cuda(term.py_func), compile_for_cuda(terms.py_func)
BY_NAME["dot_row"], BY_NAME["dot_row_pair"] = compile_for_cuda(step_row), compile_for_cuda(step_row_pair)
