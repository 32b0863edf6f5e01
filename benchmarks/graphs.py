"""The graphs of the benchmarks that compare libraries: networks, and what networks are not like."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

import topognn
from topognn.plain import from_csr, from_edge_index
from topognn.plain_graph import PlainGraph


def network(name: str, sparsity: float) -> PlainGraph:
    torch.manual_seed(0)
    model = topognn.get_model(name)
    graph = topognn.encode(model, (3, 32, 32), topognn.prune(model, "erk", sparsity))
    rows = graph.rows("both")
    return from_csr(rows.indptr, rows.indices, directed=False)


def simplified(n: int, edges: NDArray[Any]) -> PlainGraph:
    rows = from_edge_index(torch.from_numpy(np.ascontiguousarray(edges.T, dtype=np.int32)), n).simple
    return from_csr(rows.indptr, rows.indices, directed=False)


def geometric(n: int = 200_000, degree: float = 24) -> PlainGraph:
    """Points in the unit square, joined where they are near."""
    points = np.random.default_rng(0).random((n, 2))
    return simplified(n, cKDTree(points).query_pairs((degree / np.pi / n) ** 0.5, output_type="ndarray"))


def rmat(scale: int = 20, m: int = 10_000_000) -> PlainGraph:
    """Edges thrown into quadrants of probability 0.57, 0.19, 0.19, 0.05, as Graph500 does; then made simple."""
    rng = np.random.default_rng(0)
    ends = np.zeros((2, m), dtype=np.int32)
    for _ in range(scale):
        draw = rng.random(m, dtype=np.float32)
        ends[0] = 2 * ends[0] + (draw >= 0.76)
        ends[1] = 2 * ends[1] + (((draw >= 0.57) & (draw < 0.76)) | (draw >= 0.95))
    return simplified(2**scale, rng.permutation(2**scale).astype(np.int32)[ends].T)


def long_path(n: int = 1_000_000) -> PlainGraph:
    order = np.random.default_rng(0).permutation(n)
    return simplified(n, np.stack([order[:-1], order[1:]], 1))


def uniform(n: int = 1_000_000) -> PlainGraph:
    return simplified(n, np.random.default_rng(0).integers(0, n, (2 * n, 2)))


GRAPHS: dict[str, Callable[[], PlainGraph]] = {
    "conv6 98 % erk": lambda: network("conv6", 0.98),
    "resnet20 95 % erk": lambda: network("resnet20", 0.95),
    "geometric": geometric,
    "R-MAT": rmat,
    "wide_resnet28_2 dense": lambda: network("wide_resnet28_2", 0.0),
    "path of 1e6, shuffled": long_path,
    "random, 1e6 nodes": uniform,
}
