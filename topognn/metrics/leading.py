"""Leading eigenvalues of a graph's matrices, which in large networks live in a few layers.

They are first sought in the two partitions that bound them the least, if those are few nodes, which tells how large
they are; then in all those where their vectors are (:mod:`topognn.metrics.decay`), if that is a fraction of the work;
and the whole network's search starts from what was found last. A search that nothing was found before begins with
standing waves over the largest map (:mod:`topognn.metrics.waves`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from topognn.errors import ConvergenceError
from topognn.graph import MultipartiteGraph
from topognn.kernels.host import read
from topognn.lanczos import Eigenpairs, Which, draw_start, find_eigenpairs
from topognn.metrics.decay import find_widest, find_window, limit_blocks
from topognn.metrics.waves import draw_waves, find_largest_map, make_waves
from topognn.operators.matrix import Route, pick_products
from topognn.operators.sides import Products
from topognn.plain_graph import Graph

_SHORT = 20_000  # nodes below which vectors are float64 at once, and a network is not narrowed
_BLOCK = 2  # vectors that a search from scratch has: it finds eigenvalues repeated up to so many times
_NEAR = 10  # tolerances between values that may be one
_GLIMPSE = 20  # products that tell roughly how large the eigenvalues are,
_ROUGH = 0.1  # or fewer, if this is the tolerance that they are found to
_FIRST_SHARE = 0.125  # of the nodes, that two partitions may have to be worth a glimpse
_SHARE = 0.5  # of the nodes, that partitions may have to be worth a search of their own
_NEW = 0.1  # share of the usual start where a search begins near what a glimpse found
_ELSEWHERE = 0.3  # share of waves in all channels and layers beside those of one
_RANDOM = 0.01  # share of random directions beside waves, and beside what an earlier graph's search found


class Problem(NamedTuple):
    """Whose leading eigenvalues are sought.

    Attributes:
        apply: See :func:`topognn.lanczos.find_eigenpairs`.
        start: See there; as many vectors as eigenvalues are sought.
        spread: From the operator's vectors to values of the products' nodes.
        collect: From values of the products' nodes to the operator's vectors.
    """

    apply: Callable[[Tensor], Tensor]
    start: Tensor
    spread: Callable[[Tensor], Tensor]
    collect: Callable[[Tensor], Tensor]


Pose = Callable[[Products, torch.dtype], Problem]


def find_leading(
    graph: Graph,
    name: str,
    pose: Pose,
    count: int,
    which: Which = "largest",
    *,
    laplacian: bool = False,
    squared: bool = False,
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
        which: See :func:`topognn.lanczos.find_eigenpairs`.
        laplacian: Whether the matrix is the graph's Laplacian; its adjacency matrix otherwise.
        squared: Whether the operator's eigenvalues are the squares of the matrix's.
        weighted: Whether edges count with their weights.
        tolerance: See there.
        route: See :func:`topognn.operators.linear_operator`.

    Raises:
        ConvergenceError: They were not found to the tolerance.
    """

    def find(problem: Problem, start: Tensor, tolerance: float = tolerance, max_products: int = 2000) -> Eigenpairs:
        return find_eigenpairs(problem.apply, start, count, which, tolerance=tolerance, max_products=max_products)

    def solve(problem: Problem, start: Tensor | None) -> Eigenpairs:
        if start is None:
            start = problem.start[:_BLOCK]
        found = find(problem, start)
        if count > len(start) and read(_hide_more(found.values, tolerance))[0]:
            found = find(problem, problem.start)
        return found

    def approach(graph: MultipartiteGraph, products: Products, problem: Problem, dtype: torch.dtype) -> Tensor | None:
        norms = limit_blocks(graph, weighted, laplacian)
        few = find_widest(norms)
        if len(few) < 2:
            return None
        number = find_largest_map(graph, (few[0], few[-1]))
        if _get_share(graph, few) > _FIRST_SHARE:
            return _ride(graph, number, problem.spread(problem.start[:1]), problem, products, count)
        inner = products.narrow(few)
        narrow = pose(inner, dtype)
        try:
            found = find(narrow, narrow.start[:_BLOCK], _ROUGH, _GLIMPSE)
        except ConvergenceError as error:
            found = cast(Eigenpairs, error.found)
        (least,) = read(found.values[-1:].abs())
        few = find_window(norms, math.sqrt(least) if squared else least)
        if everywhere := _get_share(graph, few) > _SHARE:
            vectors = found.foremost[:_BLOCK]
        else:
            rough = _spread_whole(graph, narrow, inner.nodes, found.foremost[:1])
            inner = products.narrow(few)
            narrow = pose(inner, dtype)
            vectors = solve(narrow, _ride(graph, number, rough, narrow, inner, count)).foremost
        start = problem.collect(_spread_whole(graph, narrow, inner.nodes, vectors))
        return _mix(start, problem.start[: len(start)], _NEW) if everywhere else start

    def search(products: Products, dtype: torch.dtype) -> Eigenpairs:
        problem = pose(products, dtype)
        start: Tensor | None = begin(graph, name, problem.start)
        if start is problem.start:
            start = None
            if isinstance(graph, MultipartiteGraph) and graph.num_nodes >= _SHORT:
                start = approach(graph, products, problem, dtype)
        return remember(graph, name, solve(problem, start))

    return search_products(graph, weighted, search, route)


def _spread_whole(graph: MultipartiteGraph, problem: Problem, nodes: range, vectors: Tensor) -> Tensor:
    """Return vectors of a problem on some nodes as values of all nodes, zero elsewhere."""
    return F.pad(problem.spread(vectors), (nodes.start, graph.num_nodes - nodes.stop))


def _ride(
    graph: MultipartiteGraph, number: int | None, like: Tensor, problem: Problem, products: Products, count: int
) -> Tensor | None:
    """Return where a problem's search begins: waves over a partition's map, if it is one, with the profile of a vector.

    In each is some of waves in all channels of all partitions, since an eigenvector may live elsewhere, or its
    eigenvalue be there once more: a search finds soon what it begins near, and what it does not, too late.
    ``like`` has values of all nodes, ``(1, nodes)``.
    """
    if number is None:
        return None
    part, nodes = graph.partitions[number], products.nodes
    waves = make_waves(graph, number, like[0, part.offset : part.end])[: None if count > 1 else 1]
    waves = F.pad(waves, (part.offset - nodes.start, nodes.stop - part.end))
    waves = _mix(waves, draw_waves(graph, products.partitions, len(waves), waves.dtype), _ELSEWHERE)
    return problem.collect(_mix(waves, _draw_like(waves), _RANDOM))


def _hide_more(values: Tensor, tolerance: float) -> Tensor:
    """Tell whether an eigenvalue that fills a block was found and a lesser one after it; ``(1,)``.

    Then it may be there once more, where the lesser one stands.
    """
    near = _NEAR * tolerance * values[0].abs()
    again = ((values - values[:, None]).abs() <= near).sum(1) >= _BLOCK
    return (again & (values.abs() - near > values[-1].abs())).any().reshape(1)


def begin(graph: Graph, name: str, start: Tensor) -> Tensor:
    """Return where a search begins: in a series of graphs, near what it found last, otherwise at ``start``."""
    if not isinstance(graph, MultipartiteGraph) or graph.remembered is None:
        return start
    known: Tensor | None = graph.remembered.get(name)
    if known is None and graph.earlier is not None:
        known = graph.earlier.remembered.get(name)
    if known is None or known.shape[1] != start.shape[1] or len(known) < len(start):
        return start
    known = known.to(start.dtype)
    return _mix(known, _draw_like(known), _RANDOM)  # the foremost one may be another by now


def _mix(known: Tensor, start: Tensor, share: float) -> Tensor:
    """Return known vectors with a little of ``start``, so that what they lack has a chance."""
    tiny = torch.finfo(start.dtype).tiny
    return F.normalize(known, dim=1, eps=tiny) + share * F.normalize(start, dim=1, eps=tiny)


def _draw_like(vectors: Tensor) -> Tensor:
    """Return as many random vectors."""
    return draw_start(len(vectors), vectors.shape[1], 0, vectors.device, vectors.dtype)


def remember(graph: Graph, name: str, found: Eigenpairs) -> Eigenpairs:
    """Keep eigenvectors for the next graph of a series to begin from; return ``found``."""
    if isinstance(graph, MultipartiteGraph) and graph.remembered is not None:
        graph.remembered[name] = found.foremost
    return found


def search_products(
    graph: Graph, weighted: bool, search: Callable[[Products, torch.dtype], Eigenpairs], route: Route | None = None
) -> Eigenpairs:
    """Return what ``search`` finds with a graph's products.

    Vectors are float32, which takes a third of the time, unless that does not reach the tolerance, or they are so short
    that it does not matter.
    """
    if graph.num_nodes >= _SHORT:
        try:
            return search(pick_products(graph, weighted, torch.float32, route), torch.float32)
        except ConvergenceError:
            pass
    return search(pick_products(graph, weighted, torch.float64, route), torch.float64)


def _get_share(graph: MultipartiteGraph, partitions: range) -> float:
    """Return the share of a graph's nodes that some partitions have."""
    first, last = graph.partitions[partitions[0]], graph.partitions[partitions[-1]]
    return (last.end - first.offset) / graph.num_nodes
