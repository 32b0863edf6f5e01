"""What a kernel body may call that differs from machine to machine.

Bodies import the CPU versions from here; :mod:`topognn.kernels.launch` rebinds the same names when it
compiles a body for CUDA (:func:`cuda_primitives`). All atomics return the old value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic


def _element_pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    view = context.make_array(array_type)(context, builder, array)
    return cgutils.get_item_pointer(context, builder, array_type, view, [index], wraparound=False)


def _atomic_rmw(operation_of: Callable[[Any], str]) -> Any:
    """Make an intrinsic ``(array, index, value) -> old`` from an LLVM ``atomicrmw`` operation."""

    @intrinsic
    def atomic(typing_context, array, index, value):  # type: ignore[no-untyped-def]
        element = array.dtype

        def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            position = context.cast(builder, arguments[1], signature.args[1], types.intp)
            operand = context.cast(builder, arguments[2], signature.args[2], element)
            pointer = _element_pointer(context, builder, signature.args[0], arguments[0], position)
            return builder.atomic_rmw(operation_of(element), pointer, operand, "monotonic")

        return element(array, index, value), codegen

    return atomic


atomic_add = _atomic_rmw(lambda element: "fadd" if isinstance(element, types.Float) else "add")
atomic_min = _atomic_rmw(lambda element: "min" if element.signed else "umin")
atomic_max = _atomic_rmw(lambda element: "max" if element.signed else "umax")


@intrinsic
def atomic_cas(typing_context, array, index, expected, desired):  # type: ignore[no-untyped-def]
    """Store ``desired`` at ``array[index]`` if ``expected`` stands there; return what stood there."""
    element = array.dtype

    def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        position = context.cast(builder, arguments[1], signature.args[1], types.intp)
        old = context.cast(builder, arguments[2], signature.args[2], element)
        new = context.cast(builder, arguments[3], signature.args[3], element)
        pointer = _element_pointer(context, builder, signature.args[0], arguments[0], position)
        pair = builder.cmpxchg(pointer, old, new, "acq_rel", "acquire")
        return builder.extract_value(pair, 0)

    return element(array, index, expected, desired), codegen


@numba.njit(inline="always")
def lane_scan(flag, lane, width):  # type: ignore[no-untyped-def]
    """Return (how many lanes before this one, how many in all) of the item raised ``flag``.

    Every lane of the item must call it: a barrier on machines that have lanes.
    """
    return 0, (1 if flag else 0)


@numba.njit(inline="always")
def lane_sync():  # type: ignore[no-untyped-def]
    """Wait until all lanes of the item are here and see each other's writes."""


@numba.njit(inline="always")
def set_bit(bits, row, bit):  # type: ignore[no-untyped-def]
    """Set a bit of ``bits[row]`` (int32 words), which the item's lanes alone touch; tell whether it was unset."""
    word = bits[row, bit >> 5]
    flag = np.int32(1) << np.int32(bit & 31)
    bits[row, bit >> 5] = word | flag
    return word & flag == 0


def cuda_primitives() -> dict[str, Any]:
    """Return the CUDA versions (or, in the simulator, their stand-ins) by name."""
    from numba import config, cuda

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
    def lane_scan(flag, lane, width):  # type: ignore[no-untyped-def]
        first = np.uint32(cuda.laneid - lane)
        group = np.uint32(0xFFFFFFFF) >> np.uint32(32 - width)
        raised = (np.uint32(cuda.ballot_sync(group << first, flag)) >> first) & group
        before = np.uint32((np.uint32(1) << np.uint32(lane)) - np.uint32(1))
        return cuda.popc(raised & before), cuda.popc(raised)

    @cuda.jit(device=True)
    def simulated_lane_scan(flag, lane, width):  # type: ignore[no-untyped-def]
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
    def lane_sync():  # type: ignore[no-untyped-def]
        cuda.syncwarp(cuda.activemask())

    @cuda.jit(device=True)
    def simulated_lane_sync():  # type: ignore[no-untyped-def]
        cuda.syncthreads()

    @cuda.jit(device=True)
    def set_bit(bits, row, bit):  # type: ignore[no-untyped-def]
        flag = np.int32(1) << np.int32(bit & 31)
        return cuda.atomic.or_(bits, (row, bit >> 5), flag) & flag == 0

    return {
        "atomic_add": atomic_add,
        "atomic_min": atomic_min,
        "atomic_max": atomic_max,
        "atomic_cas": atomic_cas,
        "lane_scan": simulated_lane_scan if config.ENABLE_CUDASIM else lane_scan,
        "lane_sync": simulated_lane_sync if config.ENABLE_CUDASIM else lane_sync,
        "set_bit": set_bit,
    }
