"""Networks without skips are bipartite: half a product at a time, on vectors of one side's nodes.

The undirected adjacency matrix of such a graph is [[0, B], [B', 0]]: its eigenvalues are B's singular values with both
signs. Products with B B' find them from vectors half as long, twice as far a product.
"""

from __future__ import annotations

import torch
from torch import Tensor

from topognn.graph import MultipartiteGraph
from topognn.operators.matrix import ConnectionProducts
from topognn.operators.row_products import RowProducts
from topognn.plain_graph import Graph

Products = RowProducts | ConnectionProducts
Sides = tuple[tuple[int, ...], tuple[int, ...]]


class Gram:
    """The operator B B' of a bipartite network, on the nodes of its smaller side.

    Attributes:
        size: The number of nodes of that side.
    """

    def __init__(self, graph: Graph, sides: Sides, products: Products, scale: Tensor | None = None) -> None:
        """Take ``scale``, a number a node, to multiply rows and columns of the adjacency matrix by it."""
        assert isinstance(graph, MultipartiteGraph)  # no other has sides
        self._products, self._scale = products, scale
        parts = [[graph.partitions[n] for n in sorted(side) if n in products.partitions] for side in sides]
        sizes = [sum(p.size for p in side) for side in parts]
        small = 0 if sizes[0] <= sizes[1] else 1
        self._small, self._large = sides[small], sides[1 - small]
        self.size = sizes[small]
        first = products.nodes.start
        self._ranges = [(p.offset - first, p.end - first) for p in parts[small]]

    def __call__(self, x: Tensor) -> Tensor:
        """Return the products with each row of ``(batch, size)``."""
        return self.collect(self._half(self.cross(x), self._small))

    def cross(self, x: Tensor) -> Tensor:
        """Return B' x, ``(batch, nodes)``: values of the larger side, zero on the smaller."""
        return self._half(self.spread(x), self._large)

    def spread(self, x: Tensor) -> Tensor:
        """Return values of the smaller side as values of all nodes, zero elsewhere."""
        full = x.new_zeros(x.shape[0], len(self._products.nodes))
        sizes = [end - first for first, end in self._ranges]
        for (first, end), values in zip(self._ranges, torch.split(x, sizes, 1), strict=True):
            full[:, first:end] = values
        return full

    def collect(self, x: Tensor) -> Tensor:
        """Return the values of the smaller side's nodes."""
        return torch.cat([x[:, first:end] for first, end in self._ranges], 1)

    def gather(self, x: Tensor) -> Tensor:
        """Return the values of the smaller side's nodes, and B times those of the larger side's."""
        return self.collect(x + self._half(x, self._small))

    def _half(self, x: Tensor, side: tuple[int, ...]) -> Tensor:
        if self._scale is None:
            return self._products.adjacency(x, side)
        scale = self._scale.to(x.dtype)
        return scale * self._products.adjacency(scale * x, side)


def find_sides(graph: Graph) -> Sides | None:
    """Return two groups of partitions such that every edge joins one to the other, None if there are none.

    A graph without layers has no partitions, and so no sides here, whatever its edges are; nor has one in which no
    layer reads a node.

    >>> from topognn import example_graph
    >>> find_sides(example_graph())
    ((0, 2), (1,))
    """
    if not isinstance(graph, MultipartiteGraph):
        return None
    neighbours: dict[int, set[int]] = {number: set() for number in range(len(graph.partitions))}
    for connection in graph.connections:
        for source in connection.sources:
            neighbours[source].add(connection.target)
            neighbours[connection.target].add(source)
    side: dict[int, int] = {}
    for start in neighbours:
        waiting = [start] if start not in side else []
        side.setdefault(start, 0)
        while waiting:
            here = waiting.pop()
            for other in neighbours[here]:
                if other not in side:
                    side[other] = 1 - side[here]
                    waiting.append(other)
                elif side[other] == side[here]:
                    return None
    left, right = (tuple(n for n in neighbours if side[n] == which) for which in (0, 1))
    return (left, right) if right else None
