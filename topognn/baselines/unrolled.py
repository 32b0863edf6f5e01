"""Singular values of unrolled layers, too large for Gram matrices: by Lanczos, one subgraph after the other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from topognn.baselines.classes import LEAST, DegreeClasses, list_pieces
from topognn.errors import ConvergenceError
from topognn.graph import MultipartiteGraph
from topognn.kernels.host import read
from topognn.lanczos import Eigenpairs, draw_start, find_eigenpairs
from topognn.metrics.leading import search_products
from topognn.operators.matrix import linear_operator
from topognn.operators.sides import Gram, Products, Sides

TOLERANCE = 1e-5  # of the squares; a convolution's eigenvalues lie closer together the larger the image is
_SIDES: Sides = ((0,), (1,))


def find_leading_unrolled(graph: MultipartiteGraph, weighted: bool, nodes: Tensor | None = None) -> Tensor:
    """Return the two largest singular values of a layer, or of its subgraph of some left nodes; float64 ``(2,)``.

    ``nodes`` is bool ``(left nodes,)``. NaN where they are not found to 1e-5; one host sync every five products.
    """
    scale = None
    if nodes is not None:
        scale = torch.ones(graph.num_nodes, dtype=torch.float64, device=graph.device)
        scale[: nodes.numel()] = nodes.double()

    def search(products: Products, dtype: torch.dtype) -> Eigenpairs:
        gram = Gram(graph, _SIDES, products, scale)
        return find_eigenpairs(gram, draw_start(2, gram.size, 0, graph.device, dtype), 2, tolerance=TOLERANCE)

    try:
        return search_products(graph, weighted, search).values.clamp(min=0).sqrt()
    except ConvergenceError:
        return torch.full((2,), torch.nan, dtype=torch.float64, device=graph.device)


def find_unrolled_classes(graphs: Sequence[MultipartiteGraph]) -> list[DegreeClasses]:
    """Return the degree classes of unrolled layers; two host syncs for all, and those of Lanczos for every class.

    Degrees whose d_r is below 3 are left out before anything is solved.
    """
    histograms = []
    for graph in graphs:
        out, _, height, width = graph.connections[0].kernel  # an element meets each weight of its channel once at most
        most = out // graph.connections[0].groups * height * width
        degrees = _left_degrees(graph)
        histogram = torch.zeros(most + 1, dtype=torch.int64, device=graph.device)
        histograms.append(histogram.scatter_add_(0, degrees, torch.ones_like(degrees)))
    numbers = iter(map(int, read(torch.cat(histograms))))
    pieces = [list_pieces([[next(numbers) for _ in histogram]], 0) for histogram in histograms]
    touched = [_count_touched(graph, piece.degree) for graph, own in zip(graphs, pieces, strict=True) for piece in own]
    counts = iter(map(int, read(torch.stack(touched)) if touched else ()))
    found = []
    for graph, own in zip(graphs, pieces, strict=True):
        right = [next(counts) for _ in own]
        large = [(p.degree, p.nodes, n) for p, n in zip(own, right, strict=True) if p.degree * p.nodes >= LEAST * n]
        found.append(_solve(graph, large))
    return found


def _left_degrees(graph: MultipartiteGraph) -> Tensor:
    return graph.out_degrees[: graph.partitions[0].size]


def _count_touched(graph: MultipartiteGraph, degree: int) -> Tensor:
    """Return how many right nodes the left nodes of one degree have edges to; int64 scalar."""
    indicator = torch.zeros(graph.num_nodes, dtype=torch.float64, device=graph.device)
    indicator[: graph.partitions[0].size] = (_left_degrees(graph) == degree).double()
    return (linear_operator(graph, "in", weighted=False)(indicator) > 0.5).sum()


def _solve(graph: MultipartiteGraph, classes: Sequence[tuple[int, int, int]]) -> DegreeClasses:
    """Return the classes of one layer, given as (degree, left nodes, right nodes)."""
    two = []
    for weighted in (False, True):
        values = [find_leading_unrolled(graph, weighted, _left_degrees(graph) == degree) for degree, _, _ in classes]
        two.append(torch.cat([torch.zeros(0, dtype=torch.float64, device=graph.device), *values]).view(-1, 2))
    sizes = [(degree, degree * nodes, right) for degree, nodes, right in classes]
    numbers = torch.tensor(sizes, dtype=torch.float64).view(-1, 3).to(graph.device)
    return DegreeClasses(*numbers.unbind(1), *two)
