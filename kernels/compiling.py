"""From a kernel's body to what runs: a loop over items, compiled for the CPU and for CUDA, kept on disk.

Names that differ by machine (:mod:`topognn.kernels.primitives`, :mod:`topognn.kernels.dots`) are bound by rebuilding
the body with the machine's own globals.
"""

from __future__ import annotations

import importlib
import types
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numba
import numpy
import torch
from filelock import FileLock

from topognn.errors import DeviceError


def compile_cpu(body: Callable[..., None], fastmath: bool = False) -> Any:
    """Return the compiled loop ``(start, stop, *args)`` over a body; cached on disk.

    A body owns none of its arrays and allocates nothing, so Numba's reference counting is left out
    (``_nrt=False``): two atomic operations an array and item, up to ten times the work of a short row.
    """
    source = "def {name}(start, stop, {args}):\n for i in range(start, stop):\n  body(i, 0, 1, {args})\n"
    flags = {"reassoc", "contract"} if fastmath else False  # NaN and infinity keep their meaning
    compiled = numba.njit(nogil=True, forceinline=True, _nrt=False, fastmath=flags)(body)
    return lock_saves(numba.njit(nogil=True, cache=True, _nrt=False)(_loop(source, body, compiled, {})))


def cuda_loop(body: Callable[..., None]) -> Callable[..., None]:
    """Return the grid-stride loop ``(items, width, *args)`` over a body, ready for ``numba.cuda.jit``."""
    cuda = import_cuda()
    from topognn.kernels.cuda_primitives import compile_for_cuda

    source = (
        "def {name}(items, width, {args}):\n"
        " thread = cuda.grid(1)\n"
        " for i in range(thread // width, items, cuda.gridsize(1) // width):\n"
        "  body(i, thread % width, width, {args})\n"
    )
    return _loop(source, body, compile_for_cuda(body), {"cuda": cuda})


def compile_cuda(body: Callable[..., None]) -> Any:
    """Return the compiled loop over a body, cached on disk; launched by ``loop[blocks, threads, stream](...)``."""
    return lock_saves(import_cuda().jit(cache=True)(cuda_loop(body)))


def lock_saves(loop: Any) -> Any:
    """Let no other process keep what it compiles of a function on disk while this one does; return the loop.

    Numba numbers a function's files by an index that it reads before and writes after: of two processes that compile
    one for different types, or for the CPU and for CUDA, one would later load what the other has written.
    """
    cache = getattr(loop, "_cache", None)
    folder = getattr(cache, "cache_path", None)
    if cache is None or folder is None:  # nothing is kept: the simulator, or Numba switched off
        return loop
    save = cache.save_overload

    def save_alone(*args: Any) -> None:
        with FileLock(Path(folder) / f"{loop.py_func.__name__}.lock"):
            save(*args)

    cache.save_overload = save_alone
    return loop


def _loop(source: str, body: Callable[..., None], compiled: Any, names: dict[str, Any]) -> Callable[..., None]:
    """Write a loop over ``body`` that bears the body's own file, line and name.

    Numba keeps compiled code on disk by those three and the bytecode; a closure would never be found again
    by the next process, so the compiled body stands among the loop's globals.
    """
    args = ", ".join(body.__code__.co_varnames[3 : body.__code__.co_argcount])
    scope = {"body": compiled, "__name__": body.__module__, **names}
    exec(source.format(name=body.__name__, args=args), scope)
    made: types.FunctionType = scope[body.__name__]
    made.__code__ = made.__code__.replace(
        co_filename=body.__code__.co_filename, co_firstlineno=body.__code__.co_firstlineno
    )
    return made


def import_cuda() -> Any:
    """Return ``numba.cuda``, or raise a :class:`DeviceError` that says how to install it."""
    try:
        from numba import cuda
    except ImportError:
        cuda = None
    if cuda is None or "numba_cuda" not in str(cuda.__file__):
        major = (torch.version.cuda or "13").split(".")[0]
        raise DeviceError(f"CUDA kernels need numba-cuda: pip install 'topognn[cuda{major}]'")
    if not numba.config.ENABLE_CUDASIM:
        try:  # what the first compilation imports
            importlib.import_module("numba.cuda.np.arrayobj")
        except AttributeError as error:  # of NumPy
            raise DeviceError(
                f"numba-cuda {metadata.version('numba-cuda')} does not work with NumPy {numpy.__version__} ({error}): "
                "pip install 'numpy<2.5', or a numba-cuda that does"
            ) from None
    return cuda
