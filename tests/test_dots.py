"""Rows times vectors, entry by entry and gathered: both compile on any CPU, and must agree with NumPy."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numba
import numpy as np
import pytest
import torch

from topognn.kernels import dots, gathers
from topognn.kernels.gathers import LINE
from topognn.operators.row_products import spread

NODES = 3 * 64 + 5  # with gaps, and the last block not full
LENGTHS = (*range(2 * LINE + 2), 5 * LINE - 1)


def compile_rows(dot: Any) -> Any:
    @numba.njit
    def multiply(indptr, indices, weights, x, bits, y):  # type: ignore[no-untyped-def]
        for row in range(indptr.size - 1):
            begin, end = np.uint64(indptr[row]), np.uint64(indptr[row + 1])
            y[row] = dot(indices, weights, x, np.uint64(bits), begin, end, np.uint64(1))

    return multiply


_stepping = [numba.njit(function) for function in (dots.step_row, dots.step_row_pair)]
WAYS = {
    "step": [compile_rows(dot) for dot in _stepping],
    "gather": [compile_rows(dot) for dot in (gathers.gather_row, gathers.gather_row_pair)],
}


@pytest.mark.parametrize("bits", [6, 63])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("value", [np.float32, np.float64])
@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("way", WAYS)
def test_rows_of_all_lengths(way: str, index: type, value: type, weighted: bool, bits: int) -> None:
    source = np.random.default_rng(0)
    indptr = np.concatenate([[0], np.cumsum(LENGTHS)])
    indices = source.integers(0, NODES, indptr[-1]).astype(index)
    indices[:3] = NODES - 1, 0, NODES - 1
    weights = source.random(indptr[-1] if weighted else 0).astype(np.float32)
    vectors = source.standard_normal((2, NODES)).astype(value)
    terms = (weights if weighted else np.float32(1)) * vectors[:, indices]  # rounded as the kernels' are
    want = np.array([[term[a:b].sum(dtype=np.float64) for a, b in pairwise(indptr)] for term in terms])
    for count, multiply in zip((1, 2), WAYS[way], strict=True):
        x = spread(torch.from_numpy(vectors[:count])).values.numpy() if bits == 6 else vectors[:count].T.ravel()
        y = np.full((len(LENGTHS), count), np.nan)
        multiply(indptr, indices, weights, x, bits, y if count == 2 else y[:, 0])
        assert np.allclose(y, want[:count].T, rtol=1e-13, atol=1e-13)


def test_gaps_and_neighbouring_rows_change_nothing() -> None:
    """What stands beside a row's entries and in vectors' gaps may be anything, even NaN."""
    indptr = np.array([3, 3 + LINE + 1])
    indices = np.full(2 * LINE + 8, 2**31 - 1, dtype=np.int32)
    weights = np.full(indices.size, np.nan, dtype=np.float32)
    indices[3 : 4 + LINE], weights[3 : 4 + LINE] = np.arange(60, 61 + LINE), 1
    x = spread(torch.ones(1, NODES)).values.numpy()
    x[64::65] = np.nan
    for ways in WAYS.values():
        y = np.zeros(1)
        ways[0](indptr, indices, weights, x, 6, y)
        assert y == LINE + 1


def test_the_way_follows_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "BOUNDSCHECK", None)
    for features, want in (({}, False), ({"avx512f": True}, False), ({"avx512bf16": True}, True)):
        monkeypatch.setattr(dots.llvmlite.binding, "get_host_cpu_features", lambda features=features: features)
        assert dots.can_gather() == want
    monkeypatch.setattr(numba.config, "BOUNDSCHECK", True)
    assert not dots.can_gather()

    def refuse() -> None:
        raise RuntimeError("failed to get host cpu features.")

    monkeypatch.setattr(dots.llvmlite.binding, "get_host_cpu_features", refuse)
    monkeypatch.setattr(numba.config, "BOUNDSCHECK", None)
    assert not dots.can_gather()
