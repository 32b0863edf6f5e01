"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is loaded: see the command line's main.py

import pytest
import torch

from topognn import MultipartiteGraph

SHARED = Path(__file__).parents[2] / "shared"

torch.set_num_threads(2)


def edges_of(graph: MultipartiteGraph, direction: str) -> dict[tuple[int, int], float]:
    """Return a graph's edges (source, target) -> weight, from its CSR (``"out"``) or CSC (``"in"``)."""
    rows = graph.csr if direction == "out" else graph.csc
    ends = torch.repeat_interleave(torch.arange(graph.num_nodes), rows.indptr.diff())
    pairs = zip(ends.tolist(), rows.indices.tolist(), strict=True)
    keys = pairs if direction == "out" else ((v, u) for u, v in pairs)
    return dict(zip(keys, rows.weights.tolist(), strict=True))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of definitions and golden values that lies beside a checkout in development."""
    if not SHARED.is_dir():
        pytest.skip("the folder of golden values (../shared) is not here")
    return SHARED
