"""Paths from the input to the output: how many there are, and how much weight they carry.

Source: ours, beyond Cunegatti et al.; the weighted sum is the SynFlow objective of Tanaka et al., NeurIPS 2020, and the
path-1-norm of Neyshabur, Tomioka and Srebro, COLT 2015.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from topognn.encoding.kept import DenseWeights
from topognn.graph import MultipartiteGraph
from topognn.operators.products import exact_convolutions, get_window, push
from topognn.operators.sparse import SparseWeights
from topognn.operators.sweeps import (
    Scaled,
    add_scaled,
    find_patterns,
    sweep_backward,
    sweep_forward,
    sweep_graph,
    sweep_rows,
)


@dataclasses.dataclass(frozen=True, eq=False)
class Paths:
    """Directed paths through a network, each counted as 1 or by the product of its edges' weights.

    Attributes:
        forward: For each node, those from the input partition to it.
    """

    forward: Scaled
    _graph: MultipartiteGraph
    _weights: Sequence[Tensor | SparseWeights]
    _sweep_back: Callable[[], Scaled]

    @cached_property
    def backward(self) -> Scaled:
        """For each node, those from it to the output partitions; found when first asked for."""
        return self._sweep_back()

    @cached_property
    def log2_total(self) -> Tensor:
        """The binary logarithm of their sum; float64 scalar, -inf if there is none."""
        value, exponent = self.forward.total(self._graph.layout.outputs)
        return value.log2() + exponent

    @property
    def total(self) -> Tensor:
        """Their sum; float64 scalar, exact below 2**53, infinite where float64 ends (see :attr:`log10_total`)."""
        value, exponent = self.forward.total(self._graph.layout.outputs)
        return value * exponent.exp2()

    @property
    def log10_total(self) -> Tensor:
        """The decimal logarithm of their sum; float64 scalar, -inf if there is none."""
        return self.log2_total * math.log10(2)

    @cached_property
    def log2_through(self) -> Tensor:
        """The binary logarithm of the sum, over each connection's edges, of the paths on it; ``(connections,)``."""
        values, exponents = zip(*self._through, strict=True)
        return torch.stack(values).log2() + torch.stack(exponents)

    @property
    def per_weight(self) -> Tensor:
        """The mean over kept weights of the sum over paths on their edges; float64 scalar, NaN if none is kept."""
        layers = [
            (c.weight is not None and not c.is_pooled, k.count)
            for c, k in zip(self._graph.connections, self._graph.kept, strict=True)
        ]
        terms = [term for (is_layer, _), term in zip(layers, self._through, strict=True) if is_layer]
        value, exponent = add_scaled(terms)
        kept = sum(count for is_layer, count in layers if is_layer)
        return value / kept * exponent.exp2() if kept else torch.full_like(value, math.nan)

    @cached_property
    def _through(self) -> list[tuple[Tensor, Tensor]]:
        """Return (value, exponent) of the sum over each connection's edges (u, v) of forward(u) w(u, v) backward(v)."""
        layout, found = self._graph.layout, []
        zero = torch.zeros_like(self.forward.exponents[0])
        with exact_convolutions():
            for c, weight in zip(layout.connections, self._weights, strict=True):
                if not c.sources:
                    found.append((zero, zero))
                    continue
                top = torch.stack([self.forward.exponents[n] for n in c.sources]).max()
                first, _ = get_window(layout, c)
                window = range(min(c.sources), max(c.sources) + 1)
                x = torch.cat([self.forward.values[n] * (self.forward.exponents[n] - top).exp2() for n in window])
                value = push(c, weight, x[None], first)[0] @ self.backward.values[c.target]
                found.append((value, top + self.backward.exponents[c.target]))
        return found


def find_paths(graph: MultipartiteGraph, *, weighted: bool = False) -> Paths:
    """Count the directed paths from the input partition to the output partitions.

    In float64 with an exponent a partition, so that no depth overflows; below 2**53 counts are exact. By convolutions,
    in the memory of activations, without rows and host syncs; unweighted graphs with parallel edges take their rows.

    Args:
        graph: The graph.
        weighted: Sum the products of the edges' weights along each path (the path-1-norm, the objective of SynFlow),
            instead of counting paths.

    >>> from topognn import example_graph
    >>> found = find_paths(example_graph())
    >>> found.total, found.forward.plain()[-2:], found.per_weight
    (tensor(8., dtype=torch.float64), tensor([4., 4.], dtype=torch.float64), tensor(2.2857, dtype=torch.float64))
    """
    layout = graph.layout
    if weighted:
        weights: Sequence[Tensor | SparseWeights] = DenseWeights(graph.kept, torch.float64, weighted=True)
        return Paths(sweep_forward(layout, weights), graph, weights, lambda: sweep_backward(layout, weights))
    weights = find_patterns(graph, torch.float64)
    if graph.has_parallel_edges:
        return Paths(sweep_rows(graph, "in"), graph, weights, lambda: sweep_rows(graph, "out"))
    return Paths(
        sweep_graph(graph, "paths forward", lambda before: sweep_forward(layout, weights, before=before)),
        graph,
        weights,
        lambda: sweep_graph(graph, "paths backward", lambda before: sweep_backward(layout, weights, before=before)),
    )


def find_weighted_paths(graph: MultipartiteGraph) -> Paths:
    """Return :func:`find_paths` with each path counted by the product of its edges' weights."""
    return find_paths(graph, weighted=True)
