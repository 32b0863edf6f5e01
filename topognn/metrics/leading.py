"""Leading eigenvalues of a graph's matrices, which in large networks live in a few layers.

Between two partitions whose nodes' weighted degrees are at most c and d, the adjacency matrix has no eigenvalue beyond
the root of c d, and the Laplacian none beyond c + d: where that is less than an eigenvalue, its eigenvector decays. So
a large network's are first sought in the partitions where they can be large, at a fraction of the work, and the whole
network's search starts from those.

Source of the bounds: Anderson and Morley, *Eigenvalues of the Laplacian of a graph*, Linear and Multilinear Algebra,
1985; Berman and Zhang, *On the spectral radius of graphs with cut vertices*, Journal of Combinatorial Theory B, 2001.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, cast

import torch
from torch import Tensor

from topognn.errors import ConvergenceError
from topognn.graph import MultipartiteGraph
from topognn.kernels.host import read
from topognn.lanczos import Eigenpairs, Which, find_eigenpairs
from topognn.operators.matrix import Route, RowProducts, get_weighted_degrees, pick_products
from topognn.operators.sides import Products
from topognn.plain_graph import Graph

_LARGE = 1_000_000  # nodes from which on a network is narrowed
_GLIMPSE = 10  # products that tell roughly how large the eigenvalues are
_NEW = 0.1  # share of new directions where a search begins near what the last one found
_NEGLIGIBLE = 1e-4  # to what an eigenvector has decayed where it is cut off


class Problem(NamedTuple):
    """Whose leading eigenvalues are sought.

    Attributes:
        apply: See :func:`topognn.lanczos.find_eigenpairs`.
        start: See there.
        spread: From the operator's vectors to values of the products' nodes.
        collect: From values of the products' nodes to the operator's vectors.
    """

    apply: Callable[[Tensor], Tensor]
    start: Tensor
    spread: Callable[[Tensor], Tensor]
    collect: Callable[[Tensor], Tensor]


Bound = Callable[[float, float], float]
Pose = Callable[[Products, torch.dtype], Problem]


def find_leading(
    graph: Graph,
    name: str,
    pose: Pose,
    count: int,
    bound: Bound,
    which: Which = "largest",
    *,
    weighted: bool = True,
    tolerance: float = 1e-6,
    route: Route | None = None,
) -> Eigenpairs:
    """Return the leading eigenvalues of a matrix of a graph, with vectors as ``pose`` has them.

    Args:
        graph: The graph.
        name: What is sought, for a series of graphs: see :func:`begin`.
        pose: From products, of all nodes or of a few partitions', to the problem there.
        count: How many.
        bound: From the largest weighted degrees of two partitions to the largest of ``count`` eigenvalues, as the
            operator has them, that edges between them alone could give.
        which: See :func:`topognn.lanczos.find_eigenpairs`.
        weighted: Whether edges count with their weights.
        tolerance: See there.
        route: See :func:`topognn.operators.linear_operator`.

    Raises:
        ConvergenceError: They were not found to the tolerance.
    """

    def solve(problem: Problem, max_products: int = 2000) -> Eigenpairs:
        return find_eigenpairs(
            problem.apply, problem.start, count, which, tolerance=tolerance, max_products=max_products
        )

    def search(products: Products, dtype: torch.dtype) -> Eigenpairs:
        problem = pose(products, dtype)
        start = begin(graph, name, problem.start)
        if isinstance(products, RowProducts) or len(products.nodes) < _LARGE or start is not problem.start:
            return remember(graph, name, solve(problem._replace(start=start)))
        assert isinstance(graph, MultipartiteGraph)
        try:
            return solve(problem, _GLIMPSE)
        except ConvergenceError as error:
            glimpse = cast(Eigenpairs, error.found)
        vectors = problem.spread(glimpse.vectors)
        few = _find_partitions(graph, weighted, bound, glimpse.values.abs().min())
        if len(few) < len(graph.partitions):
            inner = products.narrow(few)
            narrow = pose(inner, dtype)
            vectors = torch.zeros_like(vectors)
            vectors[:, inner.nodes.start : inner.nodes.stop] = narrow.spread(solve(narrow).vectors)
        return remember(graph, name, solve(problem._replace(start=problem.collect(vectors))))

    return search_products(graph, weighted, search, route)


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
    return known.to(start.dtype) + _NEW * start / length.clamp(min=torch.finfo(start.dtype).tiny)


def remember(graph: Graph, name: str, found: Eigenpairs) -> Eigenpairs:
    """Keep eigenvectors for the next graph of a series to begin from; return ``found``."""
    if isinstance(graph, MultipartiteGraph) and graph.remembered is not None:
        graph.remembered[name] = found.foremost
    return found


def search_products(
    graph: Graph, weighted: bool, search: Callable[[Products, torch.dtype], Eigenpairs], route: Route | None = None
) -> Eigenpairs:
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


def _find_partitions(graph: MultipartiteGraph, weighted: bool, bound: Bound, value: Tensor) -> range:
    """Return the partitions that could give ``value``, all between, and those until its eigenvector has decayed."""
    degrees = get_weighted_degrees(graph, weighted)
    numbers = read(torch.stack([*(degrees[p.offset : p.end].max() for p in graph.partitions), value]))
    *most, least = numbers
    if least <= 0:  # fewer eigenvalues than were asked for, so far: they may be anywhere
        return range(len(most))
    ratios = [0.0] * len(most)
    for connection in graph.connections:
        for source in connection.sources:
            ratio = bound(most[source], most[connection.target]) / least
            for end in (source, connection.target):
                ratios[end] = max(ratios[end], ratio)
    wide = [number for number, ratio in enumerate(ratios) if ratio >= 1]
    first, last = min(wide, default=0), max(wide, default=len(ratios) - 1)
    left = right = 1.0
    while first > 0 and left > _NEGLIGIBLE:
        first -= 1
        left *= ratios[first]
    while last < len(ratios) - 1 and right > _NEGLIGIBLE:
        last += 1
        right *= ratios[last]
    return range(first, last + 1)
