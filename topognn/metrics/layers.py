"""How well each layer alone mixes what it reads: the second singular value of its normalised matrix.

Source: Chung, *Spectral Graph Theory*, 1997, chapter 1 (for a bipartite graph, 1 minus this value is the second
eigenvalue of the normalised Laplacian).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from topognn.encoding.degrees import sum_in, sum_out
from topognn.errors import ConvergenceError
from topognn.graph import MultipartiteGraph
from topognn.lanczos import draw_start, find_eigenpairs
from topognn.metrics.spectral import TOLERANCE
from topognn.operators.products import exact_convolutions, pull, push, to_nodes
from topognn.tracing.layout import Connection


def find_layer_expansion(graph: MultipartiteGraph, *, weighted: bool = True) -> Tensor:
    """Return the normalised second singular value of each parametric layer: the lower, the better it expands.

    That of D^-1/2 B E^-1/2, where B is the layer's matrix from elements read to elements put out, and D and E are its
    row and column sums. The first is 1; a layer whose graph falls apart has 1 again; a layer that joins everything to
    everything alike has 0.

    Args:
        graph: The graph.
        weighted: Whether edges count with their weights, or each as 1 (parallel edges count apart).

    Returns:
        float64 ``(layers,)``, in the order of :func:`topognn.layer_table`; NaN for a layer without edges. By
        convolutions, in the memory of activations. One host sync every five products.

    Raises:
        ConvergenceError: One was not found to 1e-6.

    >>> from topognn import example_graph
    >>> find_layer_expansion(example_graph())
    tensor([1.0000, 0.7638], dtype=torch.float64)
    """
    values = [
        _second_singular_value(connection, kept.magnitude if weighted else kept.mask)
        for connection, kept in zip(graph.connections, graph.kept, strict=True)
        if connection.weight is not None and not connection.is_pooled
    ]
    return torch.stack(values)


def _second_singular_value(connection: Connection, weight: Tensor) -> Tensor:
    if not connection.sources:
        return torch.full((), math.nan, dtype=torch.float64, device=weight.device)
    try:
        return _search(connection, weight, torch.float32)
    except ConvergenceError:
        return _search(connection, weight, torch.float64)


def _search(connection: Connection, weight: Tensor, dtype: torch.dtype) -> Tensor:
    weight = weight.to(dtype)
    degrees = [sum_out(connection, weight), to_nodes(connection, sum_in(connection, weight)[None])[0]]
    left, right = (torch.where(d > 0, d, math.inf).rsqrt().to(dtype) for d in degrees)
    by_source = left.numel() <= right.numel()
    total = degrees[0].sum()
    first = (degrees[0 if by_source else 1] / total.clamp(min=torch.finfo(torch.float64).tiny)).sqrt().to(dtype)[None]

    def forth(x: Tensor) -> Tensor:
        return right * push(connection, weight, left * x, connection.source)

    def back(y: Tensor) -> Tensor:
        return left * pull(connection, weight, right * y)

    inside = (first > 0).to(dtype)
    there, again = (forth, back) if by_source else (back, forth)
    start = draw_start(1, first.numel(), 0, weight.device, dtype) * inside
    with exact_convolutions():
        # The identity is added so that a value of 0 is found as surely as any other.
        found = find_eigenpairs(lambda x: inside * x + again(there(x)), start, 1, tolerance=TOLERANCE, deflate=first)
        value = torch.linalg.vector_norm(there(found.vectors).double())  # its square would lose half of the digits
    return torch.where(total > 0, value.clamp(max=1), math.nan)
