"""Eigenvalues of the whole network: how fast what happens in one place is felt everywhere.

Source: Cunegatti et al., TMLR 2024, section 4.1 (expansion: spectral gap and spectral radius). By Lanczos
(:mod:`topognn.lanczos`) over products of rows or convolutions (:mod:`topognn.operators`): no matrix but, where that is
cheaper, the graph's own rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from topognn.graph import MultipartiteGraph
from topognn.lanczos import draw_start
from topognn.metrics.leading import Problem, find_leading
from topognn.operators.matrix import Route, get_weighted_degrees
from topognn.operators.sides import Gram, Products, find_sides
from topognn.plain_graph import Graph

TOLERANCE = 1e-6
_RANDOM = 0.1  # share of random directions beside degrees


def find_adjacency_eigenvalues(
    graph: Graph, count: int = 3, *, weighted: bool = True, tolerance: float = TOLERANCE, route: Route | None = None
) -> Tensor:
    """Return the eigenvalues of the undirected adjacency matrix that are largest in magnitude; float64 ``(count,)``.

    Args:
        graph: The graph.
        count: How many; where a graph has fewer nodes, 0 stands for what is missing.
        weighted: Whether edges count with their weights, or each as 1.
        tolerance: Largest residual, relative to the first; see :func:`topognn.lanczos.find_eigenpairs`.
        route: See :func:`topognn.operators.linear_operator`.

    Raises:
        ConvergenceError: They were not found to the tolerance.

    One host sync every five products or fewer; two more in a network of 20,000 nodes or more, and one more for each
    search in a graph without two sides: may an eigenvalue be there a third time?

    >>> import networkx
    >>> from topognn.plain import from_networkx
    >>> find_adjacency_eigenvalues(from_networkx(networkx.complete_graph(4))).round(decimals=6)
    tensor([ 3., -1., -1.], dtype=torch.float64)
    """
    sides, degrees = find_sides(graph), get_weighted_degrees(graph, weighted)
    name = f"eigenvectors, weighted {weighted}"
    if sides is None:

        def pose(products: Products, dtype: torch.dtype) -> Problem:
            return Problem(products.adjacency, _start(count, _narrow(degrees, products, dtype)), _same, _same)

        return find_leading(
            graph, name, pose, count, "magnitude", weighted=weighted, tolerance=tolerance, route=route
        ).values

    pairs = -(-count // 2)

    def pose_one_side(products: Products, dtype: torch.dtype) -> Problem:
        gram = Gram(graph, sides, products)
        start = _start(pairs, gram.collect(_narrow(degrees, products, dtype)))
        # The smaller side of a few partitions may be the larger side of all: vectors go by way of both.
        return Problem(gram, start, lambda x: gram.spread(x) + gram.cross(x), gram.gather)

    squares = find_leading(
        graph, name, pose_one_side, pairs, squared=True, weighted=weighted, tolerance=tolerance, route=route
    )
    singular = squares.values.clamp(min=0).sqrt()
    return torch.stack([singular, -singular], 1).flatten()[:count]


def _narrow(values: Tensor, products: Products, dtype: torch.dtype) -> Tensor:
    """Return the values of the products' nodes, ``(1, nodes)``."""
    return values[None, products.nodes.start : products.nodes.stop].to(dtype)


def _start(block: int, degrees: Tensor) -> Tensor:
    """Return degrees, near to the first eigenvector since that has no negative entry, and random vectors like them.

    With a little of what is random in all: as an eigenvector, a vector finds nothing but itself.
    """
    start = draw_start(block, degrees.shape[1], 0, degrees.device, degrees.dtype)
    start[:1] = 1 + _RANDOM * start[:1]
    return start * degrees


def _same(x: Tensor) -> Tensor:
    return x


def spectral_gap(graph: Graph, *, weighted: bool = True) -> Tensor:
    """Return the difference of the first and the third eigenvalue of the undirected adjacency matrix in magnitude.

    Magnitudes, because a multipartite graph without skips is bipartite, and its eigenvalues come in pairs of both
    signs. A missing eigenvalue is 0. float64 scalar; host syncs: see :func:`find_adjacency_eigenvalues`.

    Raises:
        ConvergenceError: The eigenvalues were not found to 1e-6 of the first.

    >>> from topognn import example_graph
    >>> spectral_gap(example_graph())
    tensor(0.1175, dtype=torch.float64)
    """
    values = find_adjacency_eigenvalues(graph, 3, weighted=weighted).abs()
    return values[0] - values[2]


def spectral_radius(graph: Graph, *, weighted: bool = True) -> Tensor:
    """Return the largest eigenvalue of the Laplacian D - A of the undirected graph; float64 scalar.

    Host syncs: see :func:`find_adjacency_eigenvalues`.

    Raises:
        ConvergenceError: It was not found to 1e-6 of itself.

    >>> from topognn import example_graph
    >>> spectral_radius(example_graph())
    tensor(3.3224, dtype=torch.float64)
    """
    sides = find_sides(graph)
    degrees = get_weighted_degrees(graph, weighted)
    signs = torch.ones(graph.num_nodes, dtype=torch.int8, device=graph.device)
    if sides is not None:
        assert isinstance(graph, MultipartiteGraph)
        for part in (graph.partitions[number] for number in sides[1]):
            signs[part.offset : part.end] = -1

    def pose(products: Products, dtype: torch.dtype) -> Problem:
        diagonal = _narrow(degrees, products, dtype)
        # The vector wanted is largest where degrees are, and with sides its signs are known.
        near = diagonal * _narrow(signs, products, dtype)
        start = near if sides is not None else near * draw_start(1, len(products.nodes), 0, graph.device, dtype)
        return Problem(lambda x: diagonal * x - products.adjacency(x), start, _same, _same)

    name = f"Laplacian vector, weighted {weighted}"
    return find_leading(graph, name, pose, 1, laplacian=True, weighted=weighted).values[0]
