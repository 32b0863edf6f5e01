"""Where a network's leading eigenvectors live: a few layers, outside which they decay.

The blocks of a graph's matrix, one for two partitions that a layer joins, have norms of at most the root of the
largest row sum times the largest column sum. Where the norms of a partition's blocks together are less than an
eigenvalue, its eigenvector is less there than what the other partitions have of it: the matrix of the norms tells by
how much, since of vectors that it bounds, it bounds the solutions of linear equations too.

Source: the comparison matrix of a block matrix: Feingold and Varga, *Block diagonally dominant matrices and
generalizations of the Gerschgorin circle theorem*, Pacific Journal of Mathematics, 1962.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch

from topognn.graph import MultipartiteGraph
from topognn.kernels.host import read
from topognn.operators.matrix import get_weighted_degrees

Norms = npt.NDArray[np.float64]
_FIRM = 0.95  # of an eigenvalue, that norms may be together where its eigenvector decays
_NEGLIGIBLE = 1e-3  # to what an eigenvector has decayed where it is cut off: of its eigenvalue that is 1e-6


def limit_blocks(graph: MultipartiteGraph, weighted: bool, laplacian: bool) -> Norms:
    """Return bounds of the norms of the adjacency matrix's blocks, or the Laplacian's; ``(partitions, partitions)``.

    One host sync.
    """
    if weighted:
        ends = (graph.out_strengths, graph.in_strengths)
    else:
        ends = (graph.out_degrees.double(), graph.in_degrees.double())
    sums = torch.stack([*ends, get_weighted_degrees(graph, weighted)])
    most = torch.stack([sums[:, p.offset : p.end].amax(1) for p in graph.partitions], 1)
    out, into, both = np.array(read(most.flatten())).reshape(3, -1)
    norms = np.diag(both) if laplacian else np.zeros((len(out), len(out)))
    for connection in graph.connections:
        target = connection.target
        for source in connection.sources:
            norms[source, target] = norms[target, source] = math.sqrt(out[source] * into[target])
    return norms


def find_widest(norms: Norms) -> range:
    """Return the partitions from one to the other of the two whose block is bounded least; one, if there is no edge."""
    diagonal = np.diag(norms)
    between = norms - np.diag(diagonal)
    ends = np.where(between > 0, between + np.maximum(diagonal, diagonal[:, None]), 0).argmax()
    first, last = sorted(divmod(int(ends), len(norms)))
    return range(first, last + 1)


def find_window(norms: Norms, least: float) -> range:
    """Return the partitions where eigenvectors live whose eigenvalues are ``least`` or more, and all between.

    >>> chain = np.diag([0.1, 0.1, 9.0, 0.1, 0.1, 0.1], 1)
    >>> find_window(chain + chain.T, 8.0)
    range(1, 5)
    >>> find_window(chain + chain.T, 0.1)
    range(0, 7)
    """
    wide = norms.sum(1) >= _FIRM * least
    if least <= 0 or not wide.any():  # fewer eigenvalues than were asked for, so far: they may be anywhere
        return range(len(norms))
    decayed = np.ones(len(norms))
    inside = least * np.eye(int((~wide).sum())) - norms[np.ix_(~wide, ~wide)]
    decayed[~wide] = np.linalg.solve(inside, norms[np.ix_(~wide, wide)].sum(1))
    real = np.flatnonzero(decayed > _NEGLIGIBLE)
    return range(int(real[0]), int(real[-1]) + 1)
