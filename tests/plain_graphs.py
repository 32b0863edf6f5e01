"""Random and named graphs as (number of nodes, edges), for tests of everything that takes any graph."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Edges = NDArray[np.int64]  # (edges, 2); self-loops and repeats allowed


def array(pairs: list[tuple[int, int]]) -> Edges:
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def path(n: int) -> Edges:
    return np.stack([np.arange(n - 1), np.arange(1, n)], 1)


def cycle(n: int) -> Edges:
    return np.stack([np.arange(n), (np.arange(n) + 1) % n], 1)


def star(n: int) -> Edges:
    return np.stack([np.zeros(n - 1, np.int64), np.arange(1, n)], 1)


def clique(n: int) -> Edges:
    return np.stack(np.triu_indices(n, 1), 1)


def grid(height: int, width: int) -> Edges:
    ids = np.arange(height * width).reshape(height, width)
    across = np.stack([ids[:, :-1].ravel(), ids[:, 1:].ravel()], 1)
    return np.concatenate([across, np.stack([ids[:-1].ravel(), ids[1:].ravel()], 1)])


NAMED: dict[str, tuple[int, Edges]] = {
    "nothing": (0, array([])),
    "one node": (1, array([])),
    "isolated nodes": (5, array([])),
    "one edge": (2, array([(0, 1)])),
    "one self-loop": (1, array([(0, 0)])),
    "two nodes, three edges": (2, array([(0, 1), (1, 0), (0, 1)])),
    "self-loops only": (3, array([(0, 0), (1, 1), (1, 1)])),
    "path": (40, path(40)),
    "path, ids descending": (40, 39 - path(40)),
    "cycle": (33, cycle(33)),
    "star": (50, star(50)),
    "clique": (20, clique(20)),
    "two cliques and a bridge": (12, np.concatenate([clique(6), clique(6) + 6, array([(5, 6)])])),
    "barbell": (15, np.concatenate([clique(5), clique(5) + 10, path(7) + 4])),
    "complete bipartite": (11, array([(u, 4 + v) for u in range(4) for v in range(7)])),
    "grid": (42, grid(6, 7)),
}


def shuffled(rng: np.random.Generator, n: int, edges: Edges) -> tuple[int, Edges]:
    """The same graph, its nodes renumbered, its edges in another order, some turned round."""
    edges = rng.permutation(rng.permutation(n)[edges]) if len(edges) else edges
    turn = rng.random(len(edges)) < 0.5
    return n, np.where(turn[:, None], edges[:, ::-1], edges)


def random_graphs(count: int, seed: int) -> Iterator[tuple[int, Edges]]:
    """Graphs of up to 60 nodes of ten families in turn: each has other shapes of rows, trees and cycles."""
    rng = np.random.default_rng(seed)
    for number in range(count):
        n = int(rng.integers(2, 60))
        family = number % 10
        if family == 0:  # a tree
            edges = array([(v, int(rng.integers(0, v))) for v in range(1, n)])
        elif family == 1:  # a forest
            edges = array([(v, int(rng.integers(0, v))) for v in range(1, n) if rng.random() < 0.8])
        elif family == 2:  # sparse, around the birth of the giant
            edges = rng.integers(0, n, (int(n * rng.uniform(0.2, 1.0)), 2))
        elif family == 3:  # dense, with repeats and self-loops
            edges = rng.integers(0, n, (int(n * rng.uniform(1, 8)), 2))
        elif family == 4:  # bipartite
            left = int(rng.integers(1, n))
            m = int(rng.integers(0, 3 * n))
            edges = np.stack([rng.integers(0, left, m), rng.integers(left, n, m)], 1)
        elif family == 5:  # layered, as a network is
            layer = np.sort(rng.integers(0, 5, n))
            edges = rng.integers(0, n, (6 * n, 2))
            edges = edges[layer[edges[:, 1]] == layer[edges[:, 0]] + 1]
        elif family == 6:  # cliques on a chain
            sizes = rng.integers(1, 7, int(rng.integers(1, 9)))
            starts = np.concatenate([[0], np.cumsum(sizes)])
            n = int(starts[-1])
            links = array([(int(a) - 1, int(a)) for a in starts[1:-1] if rng.random() < 0.8])
            edges = np.concatenate([*(clique(int(s)) + a for s, a in zip(sizes, starts, strict=False)), links])
        elif family == 7:  # cycles hung on a tree
            tree = array([(v, int(rng.integers(0, v))) for v in range(1, n)])
            edges = np.concatenate([tree, rng.integers(0, n, (int(rng.integers(0, 5)), 2))])
        elif family == 8:  # hubs: ends drawn with preference
            edges = (n * rng.random((2 * n, 2)) ** 3).astype(np.int64)
        else:
            n, edges = NAMED[list(NAMED)[number // 10 % len(NAMED)]]
        yield shuffled(rng, n, edges) if n else (n, edges)
