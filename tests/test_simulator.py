"""Every kernel through its CUDA launch in Numba's simulator, against the CPU launch.

Runs where ``NUMBA_ENABLE_CUDASIM=1`` (the simulator replaces the CUDA compiler for the whole process).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numba
import pytest
import torch
from numba import cuda

import topognn
from tests.architectures import NAMED, Architecture
from topognn.encoding.rows import Rows
from topognn.kernels import compiling, launch
from topognn.kernels.rows import exchange_neighbors
from topognn.metrics.neighbors import count_two_hop_by_rows
from topognn.positions.counting import count_listed
from topognn.positions.walks import find_walks

pytestmark = pytest.mark.skipif(
    not numba.config.ENABLE_CUDASIM, reason="needs NUMBA_ENABLE_CUDASIM=1: set it to run the CUDA simulator"
)

NAMES = [
    *("single node", "stride over kernel", "pool of the input, ceil mode", "pooled conv plus identity"),
    *("permuted sum", "concat with itself", "tokens", "dead end"),
]


@contextmanager
def simulated(width: int, seen: set[str]) -> Iterator[None]:
    """Send CPU launches through the CUDA loop: ``width`` lanes an item, and blocks so small that there are several."""
    compiled: dict[str, Any] = {}

    def on_simulator(kernel: launch.Kernel, items: int, args: tuple[Any, ...], work: float) -> None:
        if kernel.name not in compiled:
            compiled[kernel.name] = cuda.jit(compiling.cuda_loop(kernel.body))
        seen.add(kernel.name)
        arrays = [a.numpy() if isinstance(a, torch.Tensor) else a for a in args]
        shared = min(width, kernel.lanes)
        compiled[kernel.name][2, max(4, 2 * shared)](items, shared, *arrays)

    original: Callable[..., None] = launch.Kernel._launch_cpu
    launch.Kernel._launch_cpu = on_simulator  # type: ignore[method-assign]
    try:
        yield
    finally:
        launch.Kernel._launch_cpu = original  # type: ignore[method-assign]


def results(architecture: Architecture) -> list[torch.Tensor]:
    """Return everything that kernels make of a graph."""
    masks = architecture.masks()
    graph = topognn.encode(architecture.build(), architecture.input_shape, masks, shortcuts="all")
    rows = [graph.csr, graph.csc, graph.undirected]
    rows.append(disturb_and_exchange(graph.undirected))
    channels = graph.channels
    ends = [t for walks in find_walks(channels.found, undirected=True)[:2] for t in count_listed(channels, walks)]
    return [t for r in rows for t in (r.indptr, r.indices, r.weights)] + [count_two_hop_by_rows(graph), *ends]


def disturb_and_exchange(rows: Rows) -> Rows:
    """Turn round every three entries that are neighbours, and let the kernel put rows in order again."""
    size = rows.num_entries // 3 * 3
    indices, weights = (
        torch.cat([part[:size].view(-1, 3).flip(1).flatten(), part[size:]]) for part in (rows.indices, rows.weights)
    )
    exchange_neighbors.launch(rows.indptr.numel() - 1, 0, rows.indptr, indices, weights, work=4)
    return Rows(rows.indptr, indices, weights)


@pytest.mark.filterwarnings("ignore:overflow encountered")  # fingerprints wrap around
@pytest.mark.parametrize("name", NAMES)
def test_simulator_equals_cpu(name: str) -> None:
    architecture = NAMED[name]
    topognn.set_num_threads(1)  # few workers: the simulator's bitmaps and threads are slow
    want = results(architecture)
    seen: set[str] = set()
    with simulated(4, seen):
        got = results(architecture)
    for a, b in zip(got, want, strict=True):
        assert torch.equal(a, b)
    assert {"fill_in", "fill_out", "count_two_hop", "hash_row", "check_row"} <= seen
    assert {"exchange_neighbors", "count_kept", "count_block", "take_kept", "find_taps"} <= seen
    assert {"hash_steps", "check_steps", "list_joined", "count_ends"} <= seen
