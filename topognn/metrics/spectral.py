"""Eigenvalues of the whole network: how fast what happens in one place is felt everywhere.

Source: Cunegatti et al., TMLR 2024, section 4.1 (expansion: spectral gap and spectral radius). By Lanczos
(:mod:`topognn.lanczos`) over products of rows or convolutions (:mod:`topognn.operators`): no matrix but, where that is
cheaper, the graph's own rows.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from topognn.errors import ConvergenceError
from topognn.graph import MultipartiteGraph
from topognn.lanczos import Eigenpairs, draw_start, find_eigenpairs
from topognn.operators.matrix import Route, RowProducts, get_weighted_degrees, pick_products
from topognn.operators.sides import Gram, Products, find_sides
from topognn.plain_graph import Graph

TOLERANCE = 1e-6
_NEW = 0.01  # share of new directions where a search begins near what the last one found

Solve = Callable[[Products, torch.dtype], Eigenpairs]


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

    One host sync every five products.

    >>> import networkx
    >>> from topognn.plain import from_networkx
    >>> find_adjacency_eigenvalues(from_networkx(networkx.complete_graph(4))).round(decimals=6)
    tensor([ 3., -1., -1.], dtype=torch.float64)
    """
    sides, name = find_sides(graph), f"eigenvectors, weighted {weighted}"
    if sides is None:

        def search(products: Products, dtype: torch.dtype) -> Eigenpairs:
            start = begin(graph, name, draw_start(count, graph.num_nodes, 0, graph.device, dtype))
            found = find_eigenpairs(products.adjacency, start, count, "magnitude", tolerance=tolerance)
            return remember(graph, name, found)

        return solve(graph, weighted, search, route).values

    pairs = -(-count // 2)

    def search_one_side(products: Products, dtype: torch.dtype) -> Eigenpairs:
        gram = Gram(graph, sides, products)
        start = begin(graph, name, draw_start(pairs, gram.size, 0, graph.device, dtype))
        return remember(graph, name, find_eigenpairs(gram, start, pairs, tolerance=tolerance))

    singular = solve(graph, weighted, search_one_side, route).values.clamp(min=0).sqrt()
    return torch.stack([singular, -singular], 1).flatten()[:count]


def begin(graph: Graph, name: str, start: Tensor) -> Tensor:
    """Return where a search begins: in a series of graphs, near what it found last, with a little of ``start``."""
    if not isinstance(graph, MultipartiteGraph) or graph.remembered is None:
        return start
    known: Tensor | None = graph.remembered.get(name)
    if known is None and graph.earlier is not None:
        known = graph.earlier.remembered.get(name)
    if known is None or known.shape != start.shape:
        return start
    # What the last vectors lack must have a chance: the foremost one may be another by now.
    length: Tensor = torch.linalg.vector_norm(start, dim=1, keepdim=True)
    return known.to(start.dtype) + _NEW * start / length


def remember(graph: Graph, name: str, found: Eigenpairs) -> Eigenpairs:
    """Keep eigenvectors for the next graph of a series to begin from; return ``found``."""
    if isinstance(graph, MultipartiteGraph) and graph.remembered is not None:
        graph.remembered[name] = found.vectors
    return found


def solve(graph: Graph, weighted: bool, search: Solve, route: Route | None = None) -> Eigenpairs:
    """Return what ``search`` finds with a graph's products.

    By rows in float64. By convolutions, which are many times slower in float64, in float32 unless that does not reach
    the tolerance.
    """
    products = pick_products(graph, weighted, torch.float32, route)
    if isinstance(products, RowProducts):
        return search(products, torch.float64)
    try:
        return search(products, torch.float32)
    except ConvergenceError:
        return search(pick_products(graph, weighted, torch.float64, "connections"), torch.float64)


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

    Host syncs: one every five products.

    Raises:
        ConvergenceError: It was not found to 1e-6 of itself.

    >>> from topognn import example_graph
    >>> spectral_radius(example_graph())
    tensor(3.3224, dtype=torch.float64)
    """
    degrees = get_weighted_degrees(graph, weighted)

    def search(products: Products, dtype: torch.dtype) -> Eigenpairs:
        diagonal = degrees.to(dtype)
        # The vector wanted is largest where degrees are, so the start is, too.
        start = draw_start(1, graph.num_nodes, 0, graph.device, dtype) * diagonal
        return find_eigenpairs(lambda x: diagonal * x - products.adjacency(x), start, 1, tolerance=TOLERANCE)

    return solve(graph, weighted, search).values[0]
