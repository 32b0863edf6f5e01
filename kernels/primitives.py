"""What a kernel body may call that differs from machine to machine.

Bodies import the CPU versions from here; :mod:`topognn.kernels.launch` rebinds the same names when it
compiles a body for CUDA (:mod:`topognn.kernels.cuda_primitives`). All atomics return the old value.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic


def element_pointer(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    """Return the address of an array's element."""
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
            pointer = element_pointer(context, builder, signature.args[0], arguments[0], position)
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
        pointer = element_pointer(context, builder, signature.args[0], arguments[0], position)
        pair = builder.cmpxchg(pointer, old, new, "acq_rel", "acquire")
        return builder.extract_value(pair, 0)

    return element(array, index, expected, desired), codegen


def ask_for(builder: Any, pointer: Any) -> None:
    """Write the instruction that fetches memory before it is needed."""
    byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
    shape = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
    instruction = cgutils.get_or_insert_function(builder.module, shape, "llvm.prefetch.p0")
    read, near, data = word(0), word(3), word(1)
    builder.call(instruction, [builder.bitcast(pointer, byte), read, near, data])


@intrinsic
def prefetch(typing_context, array, index):  # type: ignore[no-untyped-def]
    """Ask for the memory of ``array[index]``, which may lie past the end, before it is needed. Changes nothing."""

    def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        position = context.cast(builder, arguments[1], signature.args[1], types.intp)
        ask_for(builder, element_pointer(context, builder, signature.args[0], arguments[0], position))
        return context.get_dummy_value()

    return types.void(array, index), codegen


@numba.njit(inline="always")
def lane_scan(flag, lane, width):  # type: ignore[no-untyped-def]
    """Return (how many lanes before this one, how many in all) of the item raised ``flag``.

    Every lane of the item must call it: a barrier on machines that have lanes.
    """
    return 0, (1 if flag else 0)


@numba.njit(inline="always")
def lane_sum(value, lane, width):  # type: ignore[no-untyped-def]
    """Return the sum of the float64 ``value`` of all lanes of the item, always added up in the same order.

    Every lane of the item must call it.
    """
    return value


@numba.njit(inline="always")
def lane_barrier(lane, width):  # type: ignore[no-untyped-def]
    """Wait until all lanes of the item are here and see each other's writes."""


@numba.njit(inline="always")
def set_bit(bits, row, bit):  # type: ignore[no-untyped-def]
    """Set a bit of ``bits[row]`` (int32 words), which the item's lanes alone touch; tell whether it was unset."""
    word = bits[row, bit >> 5]
    flag = np.int32(1) << np.int32(bit & 31)
    bits[row, bit >> 5] = word | flag
    return word & flag == 0
