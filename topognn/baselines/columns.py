"""What the released tables of layers hold beyond topometrics, and which of their columns is which number here.

The meaning of a released column was inferred from its values: where a docstring says "exactly", the formula gives, to
rounding, every row of the released files that have the column (``delta_s_undirected``: all but 7 of some 90,000).
See docs/layers.md.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from topognn.graph import MultipartiteGraph
from topognn.metrics.components import connected_components
from topognn.operators.matrix import linear_operator

# Released column -> name in the table of `layer_topometrics`. Their `layer_sparsity` is a density.
PUBLISHED = {
    "layer_sparsity": "density",
    "nodes": "nodes",
    "edges": "edges",
    "density_directed": "directed_fill",
    "density_undirected": "undirected_fill",
    "avg_degree_all": "mean_degree",
    "avg_degree_in": "mean_out_degree",
    "avg_degree_out": "mean_out_degree",
    "max_degree": "max_degree",
    "min_degree": "min_degree",
    "bridges": "cut_edges",
    "a_point": "cut_nodes",
    "assortativity": "assortativity",
    "motifs_count": "wedges",
    "disconnected_nodes": "disconnected_nodes",
    "nei_one_hop": "one_hop",
    "nei_two_hop": "two_hop",
    "strenght_all": "strength",
    "strenght_out": "out_strength",
    "coreness_all": "k_core",
    "strong_clusters": "components",
    "weak_clusters": "components",
    "max_strong": "largest_component",
    "max_weak": "largest_component",
    "min_strong": "smallest_component",
    "min_weak": "smallest_component",
    "mean_strong": "mean_component",
    "mean_weak": "mean_component",
    "delta_r_undirected": "delta_r_doubled",
    "delta_s_undirected": "delta_s_relative",
    "spectral_gap_unweighted_undirected": "spectral_gap_unweighted",
    "spectral_radius_laplacian_unweighted_undirected": "spectral_radius_unweighted",
    "spectral_gap_weighted_undirected": "spectral_gap",
    "spectral_radius_laplacian_weighted_undirected": "spectral_radius",
}
# The same for the table of `ramanujan`.
PUBLISHED_RAMANUJAN = {
    "iterative_spectral_gap": "iterative_spectral_gap",
    "iterative_degree_bound": "imdb",
    "degree_bound": "delta_r",
    "layer_sparsity": "density",
    "no_weights": "edges",
}


def _count_nodes(graph: MultipartiteGraph) -> Tensor:
    return torch.full((), graph.num_nodes, dtype=torch.float64, device=graph.device)


def _degrees(graph: MultipartiteGraph) -> Tensor:
    return graph.in_degrees + graph.out_degrees


def mean_out_degree(graph: MultipartiteGraph) -> Tensor:
    """Return edges / nodes, exactly ``avg_degree_in`` and ``avg_degree_out``; float64 scalar."""
    return graph.num_edges / _count_nodes(graph)


def mean_degree(graph: MultipartiteGraph) -> Tensor:
    """Return 2 edges / nodes, exactly ``avg_degree_all``; float64 scalar."""
    return 2 * mean_out_degree(graph)


def directed_fill(graph: MultipartiteGraph) -> Tensor:
    """Return edges / (n (n - 1)), exactly ``density_directed``; float64 scalar."""
    return mean_out_degree(graph) / (_count_nodes(graph) - 1)


def undirected_fill(graph: MultipartiteGraph) -> Tensor:
    """Return 2 edges / (n (n - 1)), exactly ``density_undirected``; float64 scalar."""
    return 2 * directed_fill(graph)


def wedges(graph: MultipartiteGraph) -> Tensor:
    """Return the number of paths on three nodes, sum of d (d - 1) / 2; int64 scalar.

    As large as ``motifs_count`` can be from degrees alone: those are motifs of three nodes, and a bipartite graph has
    no triangle among them.
    """
    degrees = _degrees(graph)
    return (degrees * (degrees - 1) // 2).sum()


def assortativity(graph: MultipartiteGraph) -> Tensor:
    """Return the correlation, over edges, of the degrees of their left and right ends; float64 scalar.

    NaN where all of one side are equal. Source: Newman, *Mixing patterns in networks*, Physical Review E, 2003.
    """
    left = graph.partitions[0].size
    out, into = graph.out_degrees[:left].double(), graph.in_degrees.double()
    edges = out.sum()
    out_mean, in_mean = (out**2).sum() / edges, (into**2).sum() / edges
    apart = torch.where(into > 0, into - in_mean, 0)  # of nodes on the left it is never read
    product = linear_operator(graph, "out", weighted=False)(apart)[:left]
    covariance = ((out - out_mean) * product).sum()
    squares = [(out * (out - out_mean) ** 2).sum(), (into * (into - in_mean) ** 2).sum()]
    uneven = torch.stack(squares).min() > 1e-12 * edges
    return torch.where(uneven, covariance / (squares[0] * squares[1]).sqrt(), torch.nan)


def smallest_component(graph: MultipartiteGraph) -> Tensor:
    """Return the number of nodes of the smallest component; int64 scalar."""
    sizes = connected_components(graph).sizes
    return torch.where(sizes > 0, sizes, graph.num_nodes).min()


EXTRA: dict[str, Callable[[MultipartiteGraph], Tensor]] = {
    "max_degree": lambda graph: _degrees(graph).max(),
    "min_degree": lambda graph: _degrees(graph).min(),
    "mean_degree": mean_degree,
    "mean_out_degree": mean_out_degree,
    "directed_fill": directed_fill,
    "undirected_fill": undirected_fill,
    "wedges": wedges,
    "assortativity": assortativity,
    "smallest_component": smallest_component,
    "out_strength": lambda graph: graph.out_strengths.sum() / graph.num_nodes,
}


def delta_r_doubled(s: Tensor, graph: MultipartiteGraph) -> Tensor:
    """Return 1 - s_2 / (2 sqrt(d - 1)), d = 4 edges / nodes: exactly ``delta_r_undirected``, which counts edges twice.

    float64 scalar; NaN where d <= 1.
    """
    room = 2 * mean_degree(graph) - 1
    return 1 - s[1] / (2 * torch.where(room > 0, room, torch.nan).sqrt())


def delta_s_relative(s: Tensor, graph: MultipartiteGraph) -> Tensor:
    """Return 1 - s_2 / (2 sqrt(s_1 - 1)), exactly ``delta_s_undirected``; float64 scalar; NaN where s_1 <= 1."""
    room = s[0] - 1
    return 1 - s[1] / (2 * torch.where(room > 1e-9, room, torch.nan).sqrt())


SPECTRAL: dict[str, Callable[[Tensor, MultipartiteGraph], Tensor]] = {
    "spectral_gap_unweighted": lambda s, graph: s[0] - s[1],
    "delta_r_doubled": delta_r_doubled,
    "delta_s_relative": delta_s_relative,
}
