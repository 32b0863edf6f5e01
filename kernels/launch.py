"""One kernel body, two machines.

A kernel is one Python function for one work item, ``body(i, lane, width, *args)``. The same source runs as

* a loop over a chunk of items on the CPU, compiled by ``numba.njit`` and run by a small thread pool, and
* a grid-stride loop on CUDA, compiled by ``numba.cuda`` and launched on torch's current stream,

so the logic that runs on a GPU is the logic that every CPU test runs (:mod:`topognn.kernels.compiling`). ``width``
threads, numbered by ``lane``, share an item: one on the CPU, up to a warp on CUDA, so that neighbouring threads touch
neighbouring addresses.

Under ``FakeTensorMode`` a launch is checked and recorded in :data:`recorded`, not run.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
from torch._subclasses import FakeTensor

from topognn.errors import DeviceError
from topognn.kernels import cuda_launch
from topognn.kernels.compiling import compile_cpu, compile_cuda, import_cuda

WARP = 32
THREADS_PER_BLOCK = 128
BLOCKS_PER_SM = 64  # several times what runs at once: those that end early make room, as rows are uneven
LEAST_BLOCKS = 128  # numba-cuda warns of smaller grids; a block without items ends at once
SERIAL_BELOW = 20_000  # inner steps: fewer are done before a second thread wakes up


class Launch(NamedTuple):
    """A launch seen under fake tensors: which kernel, how many items, lanes an item, on which device."""

    kernel: str
    items: int
    width: int
    device: str


recorded: list[Launch] = []
registry: dict[str, Kernel] = {}

_threads: int | None = None
_pool: ThreadPoolExecutor | None = None


def set_num_threads(count: int) -> None:
    """Set how many CPU threads a kernel uses (default: ``torch.get_num_threads()``).

    Results never depend on it.

    >>> set_num_threads(2)
    >>> get_num_threads()
    2
    """
    if count < 1:
        raise ValueError(f"the number of threads must be at least 1, not {count}")
    global _threads
    _threads = count
    _forget_pool()


def get_num_threads() -> int:
    """Return how many CPU threads a kernel uses."""
    return _threads or torch.get_num_threads()


def _forget_pool() -> None:
    global _pool
    _pool = None


os.register_at_fork(after_in_child=_forget_pool)  # a child inherits the pool, but none of its threads


class Kernel:
    """A body, compiled for a machine at its first launch there. Made by :func:`kernel`."""

    def __init__(
        self,
        body: Callable[..., None],
        signatures: tuple[str, ...],
        fastmath: bool = False,
        lanes: int = WARP,
        stride: int = 1,
    ) -> None:
        self.body = body
        self.fastmath = fastmath
        self.lanes = lanes
        self.stride = stride
        self.name = body.__name__
        self.signatures = signatures
        self._on_cpu: Any = None
        self._on_cuda: Any = None
        self._functions: dict[tuple[Any, ...], cuda_launch.Function | None] = {}  # compiled, by device and types

    def launch(self, items: int, *args: Any, work: float = 1) -> None:
        """Run the body for every ``i`` in ``range(items)``; the tensors in ``args`` choose the machine.

        ``work`` is the mean number of steps of the body's inner loop: it decides how many CUDA threads share
        an item, and whether waking a second CPU thread pays. Tensors must be contiguous, on one device.
        """
        device = _common_device(self.name, args)
        width = 1 << int(math.log2(min(self.lanes, max(1, work / self.stride))))
        if any(isinstance(a, FakeTensor) for a in args):
            recorded.append(Launch(self.name, int(items), width, str(device)))
        elif items > 0 and device.type == "cpu":
            self._launch_cpu(items, args, work)
        elif items > 0:
            self._launch_cuda(items, width, args, device)

    def _launch_cpu(self, items: int, args: tuple[Any, ...], work: float) -> None:
        if self._on_cpu is None:
            self._on_cpu = compile_cpu(self.body, self.fastmath)
        loop = self._on_cpu
        arrays = [a.numpy() if isinstance(a, torch.Tensor) else a for a in args]
        threads = min(get_num_threads(), items)
        if threads == 1 or items * work < SERIAL_BELOW:
            loop(0, items, *arrays)
            return
        loop(0, 0, *arrays)  # compile (or load) once, before the threads race for it
        parts = iter(divide(items, threads, max(1, int(SERIAL_BELOW / 2 / work))))

        def run() -> None:
            for start, stop in parts:  # next() on a tuple's iterator is atomic
                loop(start, stop, *arrays)

        global _pool
        if _pool is None:
            _pool = ThreadPoolExecutor(get_num_threads(), thread_name_prefix="topognn")
        helpers = [_pool.submit(run) for _ in range(threads - 1)]
        run()
        for helper in helpers:
            helper.result()

    def _launch_cuda(self, items: int, width: int, args: tuple[Any, ...], device: torch.device) -> None:
        blocks = -(-items * width // THREADS_PER_BLOCK)
        with torch.cuda.device(device):
            stream = torch.cuda.current_stream(device).cuda_stream
            processors = torch.cuda.get_device_properties(device).multi_processor_count
            blocks = max(LEAST_BLOCKS, min(blocks, processors * BLOCKS_PER_SM))
            key = (device.index, *cuda_launch.get_kinds(args))
            function = self._functions.get(key)
            if function is not None:
                slots = cuda_launch.pack((items, width, *args))
                if cuda_launch.launch(function, blocks, THREADS_PER_BLOCK, stream, slots):
                    return
            cuda = import_cuda()
            if self._on_cuda is None:
                self._on_cuda = compile_cuda(self.body)
            arrays = [cuda.as_cuda_array(a, sync=False) if isinstance(a, torch.Tensor) else a for a in args]
            self._on_cuda[blocks, THREADS_PER_BLOCK, cuda.external_stream(stream)](items, width, *arrays)
            if key not in self._functions:
                self._functions[key] = cuda_launch.find_function(self._on_cuda, (items, width, *arrays))


@functools.lru_cache(maxsize=256)
def divide(items: int, threads: int, least: int) -> tuple[tuple[int, int], ...]:
    """Cut items into parts that threads fetch as they go: ever smaller, so that all end at once, uneven as items are.

    None has fewer than ``least`` items but the last: a part costs 10 microseconds itself.

    >>> divide(32, 2, 3)
    ((0, 3), (3, 6), (6, 9), (9, 12), (12, 15), (15, 18), (18, 21), (21, 24), (24, 27), (27, 30), (30, 32))
    """
    parts, start = [], 0
    while start < items:
        size = max(least, items // (threads * 64), (items - start) // (threads * 8))
        parts.append((start, min(items, start + size)))
        start += size
    return tuple(parts)


def kernel(
    *signatures: str, fastmath: bool = False, lanes: int = WARP, stride: int = 1
) -> Callable[[Callable[..., None]], Kernel]:
    """Make a :class:`Kernel` of a body ``(i, lane, width, *args)``.

    ``signatures`` are the argument types it is launched with, in Numba's notation and without the first
    three, e.g. ``"int64[::1], int32[::1], int64"``: those that ``python -m topognn.kernels.check`` compiles.
    ``fastmath`` lets the CPU's compiler add up floats in another order (several at once) and fuse products into sums;
    which order, it decides once, so results stay the same from run to run and for any number of threads.
    ``lanes`` is how many threads of a GPU may share an item at most: 1 where one step depends on the one before.
    ``stride`` is how many inner steps the body takes at a time: no more threads share an item than have as many each.
    """

    def register(body: Callable[..., None]) -> Kernel:
        made = Kernel(body, signatures, fastmath, lanes, stride)
        other = registry.setdefault(made.name, made)
        files = {other.body.__code__.co_filename, body.__code__.co_filename}
        if len(files) > 1:
            raise ValueError(f"two kernels are named {made.name}, in {' and '.join(sorted(files))}: rename one")
        return made

    return register


def check_device(device: torch.device | str) -> torch.device:
    """Return ``device`` if kernels can run on it here; raise a :class:`DeviceError` that says why not.

    >>> check_device("cpu")
    device(type='cpu')
    """
    try:
        device = torch.device(device)
    except (RuntimeError, TypeError):
        raise DeviceError(f"{device!r} is no device: give 'cpu', 'cuda' or 'cuda:NUMBER'") from None
    if device.type not in ("cpu", "cuda"):
        raise DeviceError(f"topognn runs on cpu and cuda, not on {device}: move the model to one of them")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
            raise DeviceError(
                f"{device} was asked for, but torch {torch.__version__} ({built}) finds no CUDA driver or GPU: "
                "use device='cpu', or install a driver and a CUDA build of torch"
            )
        import_cuda()
    return device


def _common_device(name: str, args: tuple[Any, ...]) -> torch.device:
    devices = {a.device for a in args if isinstance(a, torch.Tensor)}
    if len(devices) != 1:
        raise DeviceError(f"kernel {name} was given tensors on {sorted(map(str, devices))}: one device needed")
    for a in args:
        if isinstance(a, torch.Tensor) and not a.is_contiguous():
            raise ValueError(f"kernel {name} was given a tensor of shape {tuple(a.shape)} that is not contiguous")
    return devices.pop()
