"""Topometrics of each layer alone, under our names and those of the released tables.

Source: Cunegatti et al., TMLR 2024, section 5 (comparison with bipartite encodings).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from topognn.baselines.columns import EXTRA, PUBLISHED, SPECTRAL
from topognn.baselines.scores import Leading, find_leading
from topognn.baselines.tables import LayerTable, make_table
from topognn.encoding.layer_graphs import Kind, encode_layers, find_layers, split_layers
from topognn.errors import ConvergenceError, unknown_name
from topognn.graph import MultipartiteGraph
from topognn.kernels.host import read
from topognn.masks import Masks
from topognn.metrics.registry import METRICS
from topognn.metrics.spectral import spectral_radius
from topognn.report import topometrics
from topognn.tracing.layout import Layout

# What topometrics of layers there are, and which of them are whole numbers.
LAYER_METRICS = [*METRICS, *EXTRA, *SPECTRAL, "spectral_radius_unweighted"]
COUNTS = ["nodes", "edges", *(name for name, metric in METRICS.items() if metric.is_count)]
COUNTS += ["max_degree", "min_degree", "wedges", "smallest_component"]
_ALIKE = {"two_hop": "one_hop"}  # a layer alone has no directed path of two edges


def layer_topometrics(
    model: nn.Module | Layout,
    kind: Kind = "rolled",
    masks: Masks | None = None,
    input_shape: Sequence[int] | None = None,
    metrics: Iterable[str] | None = None,
) -> LayerTable:
    """Compute topometrics of each layer's bipartite graph.

    Args:
        model, kind, masks, input_shape: See :func:`topognn.bipartite`.
        metrics: Names of :data:`topognn.METRICS`, or of what the released tables have besides
            (:mod:`topognn.baselines.columns`); all by default.

    Returns:
        A row a layer: ``nodes``, ``edges``, ``density`` (kept fraction of the layer's weights) and the metrics, None
        where one is not defined or an eigenvalue could not be found (to 1e-6; those of gaps of unrolled layers to
        1e-5). ``.means`` are those of the network; ``.published`` is the same table in the columns of the released
        ones, as far as the metrics make them.

    Raises:
        UnknownNameError: There is no such kind or metric.
        See also :func:`topognn.bipartite`.

    Two host syncs for every 134 million weights, and what single metrics make (see :func:`topognn.topometrics`).

    >>> import topognn
    >>> model, masks = topognn.example_model()
    >>> table = topognn.layer_topometrics(model, "rolled", masks, metrics=["cut_edges", "one_hop"])
    >>> table["2"]["cut_edges"], table.published["2"]["bridges"], table.means["one_hop"]
    (5, 5, 1.4166666666666665)
    """
    given = [metrics] if isinstance(metrics, str) else metrics
    names = list(dict.fromkeys(LAYER_METRICS if given is None else given))
    for name in names:
        if name not in LAYER_METRICS:
            raise unknown_name("metric", name, LAYER_METRICS)
    layers = find_layers(model, kind, masks, input_shape)
    columns: dict[str, list[float]] = {name: [] for name in ("nodes", "edges", "density", *names)}
    for together in split_layers(layers):
        graphs = list(encode_layers(together).values())
        densities = [layer.density for layer in together.values()]
        for name, values in measure_graphs(graphs, densities, names, kind != "unrolled").items():
            columns[name] += values
    return make_table(kind, list(layers), columns, dict.fromkeys(COUNTS, int), PUBLISHED)


def measure_graphs(
    found: Sequence[MultipartiteGraph],
    densities: Sequence[Tensor],
    names: Sequence[str],
    rolled: bool,
    leading: Leading | None = None,
) -> dict[str, list[float]]:
    """Return the columns of layers, NaN where a number is not defined: one host sync, and those of single metrics."""
    columns: dict[str, list[Tensor]] = {"density": list(densities)}
    columns |= _measure_spectra(found, names, rolled, leading)
    for name in names:
        if name in EXTRA:
            columns[name] = [EXTRA[name](graph) for graph in found]
    plain = list(dict.fromkeys(_ALIKE.get(name, name) for name in names if name not in columns))
    rows = [_measure(graph, plain) for graph in found]
    columns |= {name: [row[number] for row in rows] for number, name in enumerate(plain)}
    columns |= {name: columns[other] for name, other in _ALIKE.items() if other in columns}
    order = ["density", *names]
    numbers = iter(read(torch.stack([value.double() for name in order for value in columns[name]])))
    values = {name: [next(numbers) for _ in found] for name in order}
    return {"nodes": [g.num_nodes for g in found], "edges": [g.num_edges for g in found], **values}


def _measure_spectra(
    graphs: Sequence[MultipartiteGraph], names: Sequence[str], rolled: bool, leading: Leading | None
) -> dict[str, list[Tensor]]:
    """Return what follows from the two largest singular values of each layer: by Gram matrices where it is rolled."""
    columns: dict[str, list[Tensor]] = {}
    if not SPECTRAL.keys().isdisjoint(names):
        two = leading[0] if leading else find_leading(graphs, False, rolled)
        for name in SPECTRAL.keys() & set(names):
            columns[name] = [SPECTRAL[name](s, graph) for s, graph in zip(two, graphs, strict=True)]
    if "spectral_gap" in names:
        two = leading[1] if leading else find_leading(graphs, True, rolled)
        columns["spectral_gap"] = [s[0] - s[1] for s in two]
    if "spectral_radius_unweighted" in names:
        columns["spectral_radius_unweighted"] = [_find_radius(graph) for graph in graphs]
    return columns


def _find_radius(graph: MultipartiteGraph) -> Tensor:
    try:
        return spectral_radius(graph, weighted=False)
    except ConvergenceError:
        return _nothing(graph)


def _measure(graph: MultipartiteGraph, names: Sequence[str]) -> Sequence[Tensor]:
    """Return topometrics of a layer; where an eigenvalue is not found, that one alone is NaN."""
    try:
        return topometrics(graph, names).tensor.unbind()
    except ConvergenceError:
        if len(names) == 1:
            return [_nothing(graph)]
        return [value for name in names for value in _measure(graph, [name])]


def _nothing(graph: MultipartiteGraph) -> Tensor:
    return torch.full((), torch.nan, dtype=torch.float64, device=graph.device)
