"""A graph's matrices as linear operators: products with vectors, by rows or by convolution.

Source of the matrices: Cunegatti et al., TMLR 2024, section 4.1 (expansion).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from topognn.errors import GraphMemoryError, unknown_name
from topognn.graph import MultipartiteGraph
from topognn.operators.products import exact_convolutions, get_window, pull, push
from topognn.operators.row_products import RowProducts
from topognn.operators.sparse import SparseWeights, pick_weights, prefers_sparse
from topognn.plain_graph import Graph, PlainGraph
from topognn.tracing.layout import Connection, Layout

Kind = Literal["out", "in", "adjacency", "laplacian", "normalized_laplacian"]
Route = Literal["rows", "connections"]
KINDS = ("out", "in", "adjacency", "laplacian", "normalized_laplacian")

_EDGES_A_MULTIPLICATION = 0.04
_EDGES_A_CONNECTION = {"cpu": 400_000, "cuda": 10_000_000}  # a GPU goes through as many while it is told what to do
_EDGES_AN_ELEMENT = 10
_EDGES_A_USE = 0.12

Product = Callable[[Tensor], Tensor]


class LinearOperator:
    """A graph's matrix that is known by its products: ``operator(x)``. Made by :func:`linear_operator`.

    Attributes:
        kind: ``"out"`` (A), ``"in"`` (A'), ``"adjacency"`` (A + A'), ``"laplacian"`` (D - A - A') or
            ``"normalized_laplacian"``.
        size: The number of nodes.
        dtype: Of the vectors.
        route: ``"rows"`` or ``"connections"``.
    """

    def __init__(self, kind: Kind, size: int, dtype: torch.dtype, route: Route, product: Product) -> None:
        self.kind, self.size, self.dtype, self.route = kind, size, dtype, route
        self._product = product

    def __call__(self, x: Tensor) -> Tensor:
        """Return the product with a vector ``(nodes,)``, or with each row of ``(batch, nodes)``."""
        if x.shape[-1] != self.size or x.dim() > 2:
            raise ValueError(f"the operator has {self.size} nodes; x of shape {tuple(x.shape)} does not fit it")
        y = self._product(x.reshape(-1, self.size).to(self.dtype).contiguous())
        return y.view(x.shape)

    def __repr__(self) -> str:
        return f"LinearOperator({self.kind}, {self.size:,} nodes, {self.dtype}, by {self.route})"


def linear_operator(
    graph: Graph,
    kind: Kind = "adjacency",
    *,
    weighted: bool = True,
    route: Route | None = None,
    dtype: torch.dtype = torch.float64,
) -> LinearOperator:
    """Return a matrix of a graph as a linear operator on its nodes, on its device.

    Args:
        graph: The graph.
        kind: ``"out"``: y = A x, where A[u, v] is the weight of the edge from u to v; ``"in"``: y = A' x;
            ``"adjacency"``: directions forgotten; its ``"laplacian"`` D - A, D the diagonal of its row sums; and
            ``"normalized_laplacian"`` I - D^-1/2 A D^-1/2, in whose rows nodes without weight have zeros.
        weighted: Whether edges count with their weights, or each as 1.
        route: ``"rows"``: a kernel over the graph's rows. ``"connections"``: convolutions of the layers' dense
            weights, or of the kept ones alone where they are few, which takes the memory of activations and no edge. By
            default the cheaper one: rows where there are at most as many edges as a sum over layers, of 4 % of the
            dense layer's multiply-accumulates and 400,000 (on a GPU 10 million), or where only kept weights are used,
            of 12 % of their multiply-accumulates and 10 for each input and output; if they fit in memory. Always rows
            for graphs without layers, and for unweighted graphs with parallel edges, which convolutions would count
            apart.
        dtype: float32 or float64, of the vectors; rows and degrees are added up in float64 in either.

    Raises:
        UnknownNameError: There is no such kind.
        ValueError: The route cannot serve this graph, or the dtype is another.
        GraphMemoryError: Rows were asked for, and do not fit in memory.

    >>> from topognn.plain import from_edge_index
    >>> laplacian = linear_operator(from_edge_index([[0, 1], [1, 2]]), "laplacian")
    >>> laplacian(torch.tensor([1.0, 0.0, 0.0]))
    tensor([ 1., -1.,  0.], dtype=torch.float64)
    """
    if kind not in KINDS:
        raise unknown_name("operator", kind, KINDS)
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"operators work in float32 or float64, not in {dtype}")
    product = pick_products(graph, weighted, dtype, route)
    route = "rows" if isinstance(product, RowProducts) else "connections"
    apply: dict[str, Product] = {"out": product.out, "in": product.into, "adjacency": product.adjacency}
    if kind not in apply:
        degrees = get_weighted_degrees(graph, weighted).to(dtype)
        apply[kind] = _laplacian(product.adjacency, degrees, kind == "normalized_laplacian")
    return LinearOperator(kind, graph.num_nodes, dtype, route, apply[kind])


def _laplacian(adjacency: Product, degrees: Tensor, normalized: bool) -> Product:
    if not normalized:
        return lambda x: degrees * x - adjacency(x)
    scale = degrees.clamp(min=0).rsqrt().masked_fill(degrees <= 0, 0)
    real = (degrees > 0).to(degrees.dtype)
    return lambda x: real * x - scale * adjacency(scale * x)


def get_weighted_degrees(graph: Graph, weighted: bool = True) -> Tensor:
    """Return the row sums of the undirected adjacency matrix, weighted or 0/1; float64 ``(nodes,)``."""
    if isinstance(graph, MultipartiteGraph):
        if weighted:
            return graph.in_strengths + graph.out_strengths
        return (graph.in_degrees + graph.out_degrees).double()
    product = RowProducts(graph, weighted)
    ones = torch.ones(1, graph.num_nodes, dtype=torch.float64, device=graph.device)
    return product.adjacency(ones)[0]


def pick_products(
    graph: Graph, weighted: bool, dtype: torch.dtype, route: Route | None = None
) -> RowProducts | ConnectionProducts:
    """Return the products of the given or the cheaper route: see :func:`linear_operator`."""
    if _pick_route(graph, weighted, route) == "rows":
        return RowProducts(graph, weighted)
    assert isinstance(graph, MultipartiteGraph)
    layers = zip(graph.connections, graph.kept, strict=True)
    return ConnectionProducts(graph.layout, [pick_weights(c, k, dtype, weighted) for c, k in layers])


def _pick_route(graph: Graph, weighted: bool, route: Route | None) -> Route:
    if route not in (None, "rows", "connections"):
        raise ValueError(f"route must be 'rows' or 'connections', not {route!r}")
    if isinstance(graph, PlainGraph):
        if route == "connections":
            raise ValueError("a graph without layers has no connections: use route='rows'")
        return "rows"
    if graph.has_parallel_edges and not weighted:
        if route == "connections":
            raise ValueError(
                "convolutions count parallel edges apart: use route='rows' for an unweighted graph with them"
            )
        return "rows"
    if route is not None:
        return route
    if not prefers_rows(graph):
        return "connections"
    try:
        graph.rows("both", weighted=weighted)
    except GraphMemoryError:
        return "connections"
    return "rows"


def prefers_rows(graph: MultipartiteGraph) -> bool:
    """Tell whether products by rows are cheaper than those by convolution, if there is room for the rows."""
    cost = 0.0
    for c, kept in zip(graph.connections, graph.kept, strict=True):
        places = math.prod(c.positions)
        if prefers_sparse(c, kept):
            cost += _EDGES_AN_ELEMENT * (c.num_elements + c.num_targets) + _EDGES_A_USE * kept.count * places
        else:
            cost += _EDGES_A_CONNECTION[graph.device.type] + _EDGES_A_MULTIPLICATION * c.num_weights * places
    return graph.num_uses <= cost


class ConnectionProducts:
    """Products by convolution of the layers' dense weights, given in kernel form, one connection after another.

    Attributes:
        partitions, nodes: Numbers of those that vectors have values for.
    """

    def __init__(
        self, layout: Layout, weights: Sequence[Tensor | SparseWeights], partitions: range | None = None
    ) -> None:
        """Take ``partitions`` to leave out all others, with their edges."""
        self._layout, self._weights = layout, weights
        self.partitions = range(len(layout.partitions)) if partitions is None else partitions
        parts = [layout.partitions[number] for number in self.partitions]
        self.nodes = range(parts[0].offset, parts[-1].end)
        self._layers = [
            (c, w)
            for c, w in zip(layout.connections, weights, strict=True)
            if c.sources and all(number in self.partitions for number in (*c.sources, c.target))
        ]

    def narrow(self, partitions: range) -> ConnectionProducts:
        """Return the products of the graph that some partitions induce."""
        return ConnectionProducts(self._layout, self._weights, partitions)

    def out(self, x: Tensor) -> Tensor:
        """Return A x for each row of ``x``."""
        y = torch.zeros_like(x)
        with exact_convolutions():
            for connection, weight in self._layers:
                self._add_out(connection, weight, x, y)
        return y

    def into(self, x: Tensor) -> Tensor:
        """Return A' x for each row of ``x``."""
        y = torch.zeros_like(x)
        with exact_convolutions():
            for connection, weight in self._layers:
                self._add_in(connection, weight, x, y)
        return y

    def adjacency(self, x: Tensor, side: Sequence[int] | None = None) -> Tensor:
        """Return (A + A') x for each row of ``x``; if ``side`` is given, at the nodes of those partitions alone.

        With a ``side``, no edge may join two of its nodes.
        """
        y = torch.zeros_like(x)
        with exact_convolutions():
            for connection, weight in self._layers:
                if side is None or connection.target in side:
                    self._add_in(connection, weight, x, y)
                if side is None or connection.target not in side:
                    self._add_out(connection, weight, x, y)
        return y

    def _add_in(self, c: Connection, weight: Tensor | SparseWeights, x: Tensor, y: Tensor) -> None:
        (first, end), skipped = get_window(self._layout, c), self.nodes.start
        start = c.target_first - skipped
        y[:, start : start + c.num_targets] += push(c, weight, x[:, first - skipped : end - skipped], first)

    def _add_out(self, c: Connection, weight: Tensor | SparseWeights, x: Tensor, y: Tensor) -> None:
        start = c.target_first - self.nodes.start
        back = pull(c, weight, x[:, start : start + c.num_targets])
        start = c.source - self.nodes.start
        y[:, start : start + back.shape[1]] += back
