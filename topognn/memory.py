"""How much memory there is for a graph: what the device has left, or what a limit leaves of it."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

import torch
from torch import Tensor

from topognn.errors import GraphMemoryError

_LITTLE = 2**24  # bytes that are there without asking, unless there is a limit
_HUGE = 2**21  # bytes of a huge page, on most machines
_limit: ContextVar[int | None] = ContextVar("topognn memory limit", default=None)


@contextlib.contextmanager
def memory_limit(limit: int | None) -> Iterator[None]:
    """Keep what is held within ``limit`` bytes: rows and topometrics beyond it are refused before they are begun.

    On the CPU that counts all that this process holds, on a GPU what torch holds there. What is needed is estimated:
    see :func:`topognn.plan`. Where there is a choice of routes, that which fits is taken. None: no limit but the
    device's own memory.

    Raises:
        GraphMemoryError: The limit is no positive number of bytes.

    >>> import topognn
    >>> with topognn.memory_limit(64_000_000_000):
    ...     values = topognn.topometrics(topognn.example_graph())
    >>> values.left_out
    {}
    """
    if limit is not None and limit <= 0:
        raise GraphMemoryError(f"a memory limit of {limit} bytes leaves nothing: give a positive number of bytes")
    token = _limit.set(limit)
    try:
        yield
    finally:
        _limit.reset(token)


def get_free_memory(device: torch.device) -> int | None:
    """Return the bytes that can still be allocated on a device within the limit, None if that cannot be told."""
    free, limit = _get_available(device), _limit.get()
    if limit is None:
        return free
    left = max(0, limit - get_held_memory(device))
    return left if free is None else min(free, left)


def is_free(size: int, device: torch.device) -> bool:
    """Tell whether ``size`` bytes can still be allocated within the limit, or may be, if that cannot be told."""
    if _limit.get() is None and size < _LITTLE:
        return True
    free = get_free_memory(device)
    return free is None or size <= free


def get_held_memory(device: torch.device) -> int:
    """Return the bytes that are held now: by torch on a GPU, by this process on the CPU (0 if that cannot be told)."""
    if device.type == "cuda" and torch.cuda.is_available():
        return int(torch.cuda.memory_allocated(device))
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


def return_freed_memory() -> None:
    """Give what the C library keeps of freed memory back to the system, where it can: it counts as held till then."""
    with contextlib.suppress(OSError, AttributeError, TypeError):  # other systems have no malloc_trim
        ctypes.CDLL(None).malloc_trim(0)


def ask_for_huge_pages(tensor: Tensor) -> Tensor:
    """Ask Linux, where it lets programs choose, to keep what is not yet written in pages of 2 MB; return the tensor.

    To touch each page of 4 KB for the first time is a good part of the time in which a CPU fills a graph's rows, and to
    find them all again costs each reader some more.
    """
    if tensor.device.type == "cpu" and tensor.nbytes >= 2 * _HUGE and hasattr(mmap, "MADV_HUGEPAGE"):
        begin = -(-tensor.data_ptr() // mmap.PAGESIZE) * mmap.PAGESIZE
        size = tensor.data_ptr() + tensor.nbytes - begin
        with contextlib.suppress(OSError, AttributeError):  # it is advice: without it, all is as it was
            ctypes.CDLL(None).madvise(ctypes.c_void_p(begin), ctypes.c_size_t(size), mmap.MADV_HUGEPAGE)
    return tensor


def _get_available(device: torch.device) -> int | None:
    if device.type == "cuda" and torch.cuda.is_available():
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    fields = dict(line.split(":") for line in lines)
    return int(fields["MemAvailable"].split()[0]) * 1024


def format_bytes(count: float) -> str:
    """Return a number of bytes in words.

    >>> format_bytes(512), format_bytes(12_345_678), format_bytes(3 * 10**9)
    ('512 B', '12.3 MB', '3 GB')
    """
    size, units = float(count), ["B", "kB", "MB", "GB", "TB", "PB"]
    while size >= 999.5 and len(units) > 1:
        size /= 1000
        units.pop(0)
    return f"{size:.3g} {units[0]}"
