"""How hard a network is to cut in two: algebraic connectivity, Cheeger bounds, conductance.

Source: Chung, *Spectral Graph Theory*, 1997, chapters 1 and 2 (normalised Laplacian, Cheeger's inequality).
"""

from __future__ import annotations

import dataclasses
import math
from functools import cached_property

import torch
from torch import Tensor

from topognn.encoding.neighbors import find_both
from topognn.kernels.sweep_cut import weigh_crossing, weigh_taps
from topognn.lanczos import Eigenpairs, draw_start, find_eigenpairs
from topognn.metrics.components import connected_components
from topognn.metrics.leading import begin, remember, search_products
from topognn.metrics.spectral import TOLERANCE
from topognn.operators.matrix import get_weighted_degrees
from topognn.operators.sides import Gram, Products, find_sides
from topognn.plain_graph import Graph, PlainGraph, get_simple_rows

BLOCK = 2  # vectors that search for one eigenvalue: the next is often close to it


@dataclasses.dataclass(frozen=True, eq=False)
class Expansion:
    """The second eigenvalue of the normalised Laplacian of a graph's largest component, and what follows from it.

    Of components that are equally large it is that of the lowest node; nodes without weight are left out. NaN if that
    leaves less than two nodes.

    Attributes:
        algebraic_connectivity: The eigenvalue, from 0 to 2; float64 scalar.
        fiedler: Its eigenvector, divided by the roots of the degrees; float64 ``(nodes,)``, 0 outside the component.
    """

    algebraic_connectivity: Tensor
    fiedler: Tensor
    _graph: Graph
    _degrees: Tensor
    _weighted: bool

    @property
    def cheeger_lower(self) -> Tensor:
        """A lower bound of the component's conductance: half the eigenvalue; float64 scalar."""
        return self.algebraic_connectivity / 2

    @property
    def cheeger_upper(self) -> Tensor:
        """An upper bound of the component's conductance: the root of twice the eigenvalue; float64 scalar."""
        return (2 * self.algebraic_connectivity).sqrt()

    @cached_property
    def conductance(self) -> Tensor:
        """The least conductance of the cuts that sweep along the Fiedler vector; float64 scalar.

        That of a cut is its weight by the lesser of the sums of degrees on its sides. By the rows ``"both"`` of a graph
        that has them, that has no layers, or that is unweighted with parallel edges; otherwise connection by
        connection, with no edge in memory.
        """
        inside = self._degrees > 0
        order = torch.where(inside, self.fiedler, math.inf).argsort(stable=True)
        rank = torch.empty_like(order).scatter_(0, order, torch.arange(order.numel(), device=order.device))
        change = self._weigh_crossing(rank)
        cut, volume = change.cumsum(0), self._degrees[order].cumsum(0)
        lesser = torch.minimum(volume, self._degrees.sum() - volume)
        proper = inside[order] & (torch.arange(order.numel(), device=order.device) < inside.sum() - 1)
        ratios = torch.where(proper, cut.clamp(min=0) / lesser, math.inf)
        least = torch.cat([ratios, ratios.new_full((1,), math.inf)]).min()
        return torch.where(least.isinf(), math.nan, least)

    def _weigh_crossing(self, rank: Tensor) -> Tensor:
        """Return what a cut gains as each rank's node crosses it: its weight to higher ranks minus that to lower."""
        graph, weighted, change = self._graph, self._weighted, torch.zeros_like(self._degrees)
        if (
            isinstance(graph, PlainGraph)
            or graph.has_rows("both", weighted)
            or (graph.has_parallel_edges and not weighted)
        ):
            rows = graph.rows("both", weighted=True) if weighted else get_simple_rows(graph)
            weights = rows.weights if weighted else rows.weights[:0]
            work = rows.num_entries / max(1, rank.numel())
            weigh_crossing.launch(rank.numel(), rows.indptr, rows.indices, weights, rank, change, work=work)
            return change
        for connection, kept in zip(graph.connections, graph.kept, strict=True):
            for found in find_both(connection, kept, graph.layout.index_dtype, weighted):
                args = (*found.taps, found.weight, *found.ends, rank, change)
                weigh_taps.launch(found.items, *args, work=found.work)
        return change


def find_expansion(graph: Graph, *, weighted: bool = True) -> Expansion:
    """Find the second smallest eigenvalue of the normalised Laplacian of the largest component.

    Args:
        graph: The graph, directions forgotten.
        weighted: Whether edges count with their weights, or each as 1.

    Raises:
        ConvergenceError: It was not found to 1e-6.

    One host sync every five products.

    >>> import networkx
    >>> from topognn.plain import from_networkx
    >>> found = find_expansion(from_networkx(networkx.barbell_graph(4, 0)))
    >>> found.cheeger_lower <= found.conductance <= found.cheeger_upper, found.conductance
    (tensor(True), tensor(0.0769, dtype=torch.float64))
    """
    components = connected_components(graph)
    sizes = components.sizes
    degrees = get_weighted_degrees(graph, weighted)
    if graph.num_nodes:
        giant = torch.where(sizes == sizes.max(), components.labels, graph.num_nodes).min()
        degrees = torch.where(components.labels == giant, degrees, 0)
    inside = degrees > 0
    scale = torch.where(inside, degrees, math.inf).rsqrt()
    known = (degrees / degrees.sum().clamp(min=torch.finfo(torch.float64).tiny)).sqrt()
    sides, name = find_sides(graph), f"fiedler vector, weighted {weighted}"

    def search(products: Products, dtype: torch.dtype) -> Eigenpairs:
        narrow, diagonal = scale.to(dtype), inside.to(dtype)
        start = begin(graph, name, draw_start(BLOCK, graph.num_nodes, 0, graph.device, dtype)) * diagonal

        def apply(x: Tensor) -> Tensor:  # 2 - Laplacian: what is wanted is its largest, and nothing is negative
            return diagonal * x + narrow * products.adjacency(narrow * x)

        found = find_eigenpairs(apply, start, 1, tolerance=TOLERANCE, deflate=known.to(dtype)[None])
        return remember(graph, name, found)

    def search_one_side(products: Products, dtype: torch.dtype) -> Eigenpairs:
        assert sides is not None
        gram = Gram(graph, sides, products, scale)
        first = gram.collect(known.to(dtype)[None])
        first = first / torch.linalg.vector_norm(first.double()).clamp(min=torch.finfo(dtype).tiny).to(dtype)
        start = begin(graph, name, draw_start(BLOCK, gram.size, 0, graph.device, dtype))
        start = start * gram.collect(inside.to(dtype)[None])
        found = remember(graph, name, find_eigenpairs(gram, start, 1, tolerance=TOLERANCE, deflate=first))
        values = found.values.clamp(min=0).sqrt()
        across = gram.cross(found.vectors) / values.to(dtype).clamp(min=torch.finfo(dtype).tiny)
        return found._replace(values=1 + values, vectors=gram.spread(found.vectors) + across)

    found = search_products(graph, weighted, search if sides is None else search_one_side)
    value = 2 - found.values[0]
    count = inside.sum()
    if sides is not None:  # a bipartite graph's -1 is no singular value, and where it has two nodes, all there is
        value = torch.where(count == 2, 2.0, value)
    value = torch.where(count < 2, math.nan, value.clamp(min=0))
    return Expansion(value, found.vectors[0].double() * scale, graph, degrees, weighted)
