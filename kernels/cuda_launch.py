"""Launch compiled CUDA kernels at little cost to the host.

Numba makes an array object of every tensor and finds out types, device and stream at every launch, which takes the host
longer than many a kernel takes the GPU (170 microseconds beside an H200, and 30 this way). So Numba launches a kernel
once for each combination of argument types, which compiles it; from then on the compiled function is launched here, its
arguments packed as Numba passes them: a scalar as itself, an array as two empty pointers, its size, its item size, its
address, its shape and its strides in bytes.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence
from typing import Any

import torch

Function = Any  # a CUfunction of cuda.bindings


def get_kinds(args: Sequence[Any]) -> tuple[Any, ...]:
    """Return what a kernel is compiled for: dtype and dimensions of tensors, types of scalars.

    >>> get_kinds([torch.zeros(2, 3), 4, 0.5])
    ((torch.float32, 2), <class 'int'>, <class 'float'>)
    """
    return tuple((a.dtype, a.dim()) if isinstance(a, torch.Tensor) else type(a) for a in args)


def pack(args: Sequence[Any]) -> list[int]:
    """Return the arguments of a launch as 64-bit numbers; tensors must be contiguous.

    >>> pack([True, 7, 0.5, torch.empty(2, 3, dtype=torch.int32, device="meta")])
    [1, 7, 4602678819172646912, 0, 0, 6, 4, 0, 2, 3, 12, 4]
    """
    slots: list[int] = []
    for a in args:
        if isinstance(a, torch.Tensor):
            shape, item = a.shape, a.element_size()
            slots += (0, 0, a.numel(), item, a.data_ptr(), *shape)
            if len(shape) == 1:
                slots.append(item)
            else:  # of its shape alone: an empty tensor's own may be others
                strides = [item]
                for size in shape[:0:-1]:
                    strides.append(strides[-1] * size)
                slots += reversed(strides)
        elif isinstance(a, float):
            slots += struct.unpack("q", struct.pack("d", a))
        else:
            slots.append(int(a))
    return slots


def find_function(dispatcher: Any, args: Sequence[Any]) -> Function | None:
    """Return the function that Numba compiled for arguments in the current context; None if it cannot be had."""
    if not all(type(a) in (bool, int, float) or hasattr(a, "__cuda_array_interface__") for a in args):
        return None
    try:
        from cuda.bindings import driver

        compiled = dispatcher.overloads[tuple(map(dispatcher.typeof_pyval, args))]
        return driver.CUfunction(int(compiled._codelibrary.get_cufunc().handle))
    except (ImportError, AttributeError, KeyError, TypeError):
        return None


def launch(function: Function, blocks: int, threads: int, stream: int, slots: Sequence[int]) -> bool:
    """Launch a function in the current context; tell whether the driver took it."""
    from cuda.bindings import driver

    count = len(slots)
    values = (ctypes.c_int64 * count)(*slots)  # the driver copies them before it returns
    first = ctypes.addressof(values)
    pointers = (ctypes.c_int64 * count)(*range(first, first + 8 * count, 8))
    (error,) = driver.cuLaunchKernel(function, blocks, 1, 1, threads, 1, 1, 0, stream, ctypes.addressof(pointers), 0)
    return not int(error)
