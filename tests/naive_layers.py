"""Oracles for layers alone: their bipartite graphs weight by weight, their metrics by singular value decomposition."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from typing import Any

import numpy as np
from torch import Tensor, nn

Edges = dict[tuple[int, int], float]
Numbers = dict[str, float | None]


def naive_rolled(layer: Any, mask: Tensor, by_channel: bool) -> tuple[int, int, Edges]:
    """Left and right sizes and edges, one weight after the other."""
    weight, groups = layer.weight.detach(), getattr(layer, "groups", 1)
    area = math.prod(weight.shape[2:])
    transposed = isinstance(layer, nn.ConvTranspose2d)
    squares: dict[tuple[int, int], float] = defaultdict(float)
    outs = weight.shape[1] * groups if transposed else weight.shape[0]
    ins = weight.shape[0] if transposed else weight.shape[1] * groups
    for index in itertools.product(*map(range, weight.shape)):
        if not mask[index]:
            continue
        spot = 0
        for place, size in zip(index[2:], weight.shape[2:], strict=True):
            spot = spot * size + place
        if transposed:
            i, o = index[0], index[0] // (ins // groups) * weight.shape[1] + index[1]
        else:
            o, i = index[0], index[0] // (outs // groups) * weight.shape[1] + index[1]
        left, size = (i, ins) if by_channel else (i * area + spot, ins * area)
        squares[left, size + o] += float(weight[index]) ** 2
    return (ins if by_channel else ins * area), outs, {pair: math.sqrt(s) for pair, s in squares.items()}


def naive_scores(layer: Any, mask: Tensor, by_channel: bool) -> Numbers:
    """Section 4 of the definitions to the letter, on the whole dense matrix."""
    return naive_scores_of(*naive_rolled(layer, mask, by_channel), mask)


def naive_scores_of(left: int, right: int, edges: Edges, mask: Tensor) -> Numbers:
    """The same of edges, however they were found."""
    ones, weights = np.zeros((left, right)), np.zeros((left, right))
    for (u, v), w in edges.items():
        ones[u, v - left], weights[u, v - left] = 1, w
    row = naive_matrix(ones, weights)
    row["density"] = float(mask.double().mean())
    found = []
    for degree in range(3, right + 1):
        nodes = ones.sum(1) == degree
        if nodes.any():
            part = naive_matrix(ones[nodes], weights[nodes])
            if part["d_r"] >= 3:  # type: ignore[operator]
                found.append(part)
    for name, of in (("imdb", "delta_r"), ("iterative_spectral_gap", "spectral_gap")):
        row[name] = float(np.mean([part[of] for part in found])) if found else None
    row["random_bound"] = None
    if edges:
        n_l, n_r, e, d_l, s = (row[name] for name in ("n_left", "n_right", "edges", "d_l", "s_2"))
        deviation = abs(e - d_l / right * n_l * n_r)  # type: ignore[operator]
        row["random_bound"] = ((s**2 / 4 + 1) * math.sqrt(n_l * n_r) - deviation) / (left * right)  # type: ignore[operator]
    return row


def naive_matrix(ones: Any, weights: Any) -> Numbers:
    """What is defined of one matrix, 0/1 and weighted."""
    rows, columns = ones.any(1), ones.any(0)
    ones, weights = ones[rows][:, columns], weights[rows][:, columns]
    row: Numbers = {"n_left": int(rows.sum()), "n_right": int(columns.sum()), "edges": int(ones.sum())}
    names = "d_l d_r bound delta_r spectral_gap delta_s s_2 is_scored is_ramanujan"
    row |= dict.fromkeys(names.split())
    if not ones.size:
        return row
    s, w = (np.append(np.linalg.svd(matrix, compute_uv=False), 0)[:2] for matrix in (ones, weights))
    d_l, d_r = ones.sum() / rows.sum(), ones.sum() / columns.sum()
    bound = math.sqrt(d_l - 1) + math.sqrt(d_r - 1)
    row |= {"d_l": d_l, "d_r": d_r, "bound": bound, "spectral_gap": w[0] - w[1], "s_2": s[1]}
    row["delta_s"] = 2 * math.sqrt(max(0, s[0] - 1)) - s[1]
    row["is_scored"] = d_l >= 3 and d_r >= 3
    if bound:
        row["delta_r"] = (bound - s[1]) / bound
        row["is_ramanujan"] = s[1] <= bound + 1e-8
    return row
