"""The named set of topometrics: from a graph to plain numbers, at one host sync."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from topognn.encoding.degrees import sum_in
from topognn.errors import GraphMemoryError, UnknownNameError, unknown_name
from topognn.graph import MultipartiteGraph
from topognn.kernels.host import read
from topognn.memory import format_bytes, get_free_memory, is_free
from topognn.metrics import local, neighbors, strength
from topognn.metrics.components import connected_components, find_outside_giant
from topognn.metrics.cores import k_core
from topognn.metrics.cuts import biconnectivity
from topognn.metrics.effective import find_effective
from topognn.metrics.expansion import find_expansion
from topognn.metrics.layers import find_layer_expansion
from topognn.metrics.motifs import motifs4
from topognn.metrics.paths import find_paths, find_weighted_paths
from topognn.metrics.spectral import spectral_gap, spectral_radius
from topognn.needs import NEEDS, NeedOf, get_total_bytes


class Metric(NamedTuple):
    """A topometric: its function, its group in the paper, and its published form.

    Attributes:
        function: From a graph (or from what ``of`` found) to a scalar tensor on the graph's device.
        group: The paper's ``local``, ``neighbour``, ``strength``, ``global`` and ``expansion``; ours: ``paths`` and
            ``effective``.
        column: Its name in the paper's released tables; empty where they lack it.
        per: What the released tables divide it by, if anything.
        is_count: Whether its value is a whole number.
        of: An analysis of the graph that several topometrics share, so that it is made once.
        weighted: Whether its value moves with the weights while masks stay.
    """

    function: Callable[[Any], Tensor]
    group: str
    column: str = ""
    per: Literal["nodes", "edges"] | None = None
    is_count: bool = False
    of: Callable[[Any], Any] | None = None
    weighted: bool = False


def _motif(name: str, column: str = "") -> Metric:
    return Metric(attrgetter(name), "neighbour", column, "edges" if column else None, True, motifs4)


METRICS: dict[str, Metric] = {
    "sink_nodes": Metric(local.sink_nodes, "local", "sink_nodes", "nodes", True),
    "source_nodes": Metric(local.source_nodes, "local", "source_nodes", "nodes", True),
    "disconnected_nodes": Metric(local.disconnected_nodes, "local", "disc_nodes", "nodes", True),
    "removable_out_edges": Metric(local.removable_out_edges, "local", "r-out", "edges", True),
    "removable_in_edges": Metric(local.removable_in_edges, "local", "r-in", "edges", True),
    "one_hop": Metric(neighbors.one_hop, "neighbour", "1-hop_nei", "edges"),
    "two_hop": Metric(neighbors.two_hop, "neighbour", "2-hop_nei", "edges"),
    "motifs": _motif("total", "motif"),
    **{f"motif_{name}": _motif(name) for name in ("path", "claw", "cycle", "paw", "diamond", "clique")},
    "strength": Metric(strength.strength, "strength", "avg_node_strength", "edges", weighted=True),
    "k_core": Metric(k_core, "strength", "k-core", "edges"),
    "components": Metric(attrgetter("count"), "global", "no_connected_components", None, True, connected_components),
    "mean_component": Metric(
        attrgetter("mean_size"), "global", "mean_connected_components", "nodes", False, connected_components
    ),
    "largest_component": Metric(attrgetter("largest"), "global", is_count=True, of=connected_components),
    "cut_edges": Metric(attrgetter("num_bridges"), "global", "cut-edges", "edges", True, biconnectivity),
    "cut_nodes": Metric(attrgetter("num_cut_nodes"), "global", "cut-nodes", "edges", True, biconnectivity),
    "spectral_gap": Metric(spectral_gap, "expansion", "spectral_gap", weighted=True),
    "spectral_radius": Metric(spectral_radius, "expansion", "spectral_radius", weighted=True),
    **{
        name: Metric(attrgetter(name), "expansion", of=find_expansion, weighted=True)
        for name in ("algebraic_connectivity", "cheeger_lower", "cheeger_upper", "conductance")
    },
    "paths": Metric(attrgetter("total"), "paths", of=find_paths),
    "log10_paths": Metric(attrgetter("log10_total"), "paths", of=find_paths),
    "paths_per_weight": Metric(attrgetter("per_weight"), "paths", of=find_paths),
    "log10_path_norm": Metric(attrgetter("log10_total"), "paths", of=find_weighted_paths, weighted=True),
    "effective_nodes": Metric(attrgetter("num_nodes"), "effective", is_count=True, of=find_effective),
    "effective_edges": Metric(attrgetter("num_edges"), "effective", is_count=True, of=find_effective),
    "effective_density": Metric(attrgetter("density"), "effective", of=find_effective),
    "layer_collapse": Metric(attrgetter("num_collapsed"), "effective", is_count=True, of=find_effective),
}


class Topometrics(Mapping[str, float]):
    """Topometrics by name. Values stay on the device until one of them is read; then all are, at once.

    Besides a graph's metrics it has ``nodes`` and ``edges``.

    Attributes:
        tensor: The values; float64 ``(metrics,)``.
        left_out: Topometrics that did not fit in memory, with the bytes that each needs beyond what was held.
    """

    def __init__(
        self,
        names: Iterable[str],
        values: Tensor,
        num_nodes: int,
        num_edges: int,
        left_out: Mapping[str, int] | None = None,
    ) -> None:
        self._names = tuple(names)
        self.tensor = values
        self.left_out = dict(left_out or {})
        self._sizes = {"nodes": num_nodes, "edges": num_edges}
        self._numbers: dict[str, float] | None = None

    def __getitem__(self, name: str) -> float:
        """Return a raw value; reading the first one makes the host sync."""
        if name in self.left_out:
            raise UnknownNameError(
                f"{name} was left out: it needs {format_bytes(self.left_out[name])}, more than was free"
            )
        if name not in self._sizes and name not in self._names:
            raise unknown_name("metric", name, self)
        if name in self._sizes:
            return self._sizes[name]
        if self._numbers is None:
            numbers = zip(self._names, read(self.tensor), strict=True)
            self._numbers = {n: int(v) if METRICS[n].is_count else v for n, v in numbers}
        return self._numbers[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over names: ``nodes``, ``edges``, then the metrics."""
        return iter((*self._sizes, *self._names))

    def __len__(self) -> int:
        """Return the number of values."""
        return len(self._sizes) + len(self._names)

    def normalized(self) -> dict[str, float]:
        """Return the values that the paper's released tables have, under their column names.

        Most are divided by the number of nodes or of edges; NaN where the graph has no edge to divide by.
        """
        return {METRICS[name].column: self._normalized(name) for name in self._names if METRICS[name].column}

    def _normalized(self, name: str) -> float:
        per = METRICS[name].per
        if not METRICS[name].column or (per and not self._sizes[per]):
            return math.nan
        return self[name] / self._sizes[per] if per else self[name]

    def to_dict(self, prefix: str = "") -> dict[str, float]:
        """Return raw values by name, each name with ``prefix``, as loggers want them.

        >>> from topognn import example_graph
        >>> topometrics(example_graph(), ["sink_nodes"]).to_dict(prefix="topo/")
        {'topo/nodes': 19, 'topo/edges': 13, 'topo/sink_nodes': 1}
        """
        return {prefix + name: self[name] for name in self}

    def to_frame(self) -> Any:
        """Return a pandas DataFrame, one row a metric: group, raw value, published column, normalised value."""
        try:
            import pandas as pd
        except ImportError:
            raise ImportError("to_frame() needs pandas: pip install 'topognn[study]'") from None
        rows = [
            (name, METRICS[name].group, self[name], METRICS[name].column, self._normalized(name))
            for name in self._names
        ]
        return pd.DataFrame(rows, columns=["metric", "group", "value", "column", "normalized"]).set_index("metric")

    def to_json(self, indent: int | None = 2) -> str:
        """Return raw and normalised values as JSON; a value that is not defined is null."""
        normalized = {k: None if math.isnan(v) else v for k, v in self.normalized().items()}
        return json.dumps({"raw": self.to_dict(), "normalized": normalized}, indent=indent)

    def __repr__(self) -> str:
        return f"Topometrics({', '.join(f'{name}={value:g}' for name, value in self.items())})"


def topometrics(graph: MultipartiteGraph, metrics: Iterable[str] | None = None) -> Topometrics:
    """Compute topometrics of a graph.

    Args:
        graph: The graph, as :func:`topognn.encode` makes it.
        metrics: Their names; by default all of :data:`METRICS` that fit in memory.

    Returns:
        A mapping from name to number, which makes one host sync, when it is first read. (``k_core`` makes some of
        its own on a GPU: see there.) Counts from 2**53 on are rounded: :func:`topognn.metrics.motifs4` has them
        as int64. What does not fit in the memory that is free, or within :func:`topognn.memory_limit`, is in
        :attr:`Topometrics.left_out` by default.

    Raises:
        UnknownNameError: There is no such metric; the message names the nearest.
        GraphMemoryError: A metric that was asked for by name would not fit in memory; nothing has been begun.

    Source:
        Cunegatti et al., TMLR 2024, section 4.1 and table 1.

    >>> from topognn import example_graph
    >>> topometrics(example_graph(), ["sink_nodes", "strength"])["strength"]
    0.8947368421052632
    """
    names = check_names(metrics)
    needs = group_needs(names)
    left_out = _find_beyond(graph, needs)
    if left_out and metrics is not None:
        _refuse(graph, *next(iter(left_out.items())))
    found: dict[str, Tensor] = {}
    for need_of, those in needs.items():  # one analysis in memory at a time
        if those[0] not in left_out:
            if not is_free(get_total_bytes(graph, need_of(graph, those)), graph.device):
                graph.forget_rows()  # of other steps
            found |= _evaluate(graph, those)
    names = [name for name in names if name not in left_out]
    values = [found[name] for name in names]
    stacked = torch.stack(values) if values else torch.empty(0, dtype=torch.float64)
    return Topometrics(names, stacked, graph.num_nodes, graph.num_edges, left_out)


def check_names(metrics: Iterable[str] | None) -> list[str]:
    """Return the names of topometrics as a list, all if None.

    Raises:
        UnknownNameError: There is no such metric; the message names the nearest.
    """
    names = list(METRICS if metrics is None else metrics)
    for name in names:
        if name not in METRICS:
            raise unknown_name("metric", name, METRICS)
    return names


def group_needs(names: Iterable[str]) -> dict[NeedOf, list[str]]:
    """Return what tells what topometrics need, with the names of those that are found together."""
    needs: dict[NeedOf, list[str]] = {}
    for name in names:
        needs.setdefault(NEEDS[METRICS[name].of or METRICS[name].function], []).append(name)
    return needs


def check_room(graph: MultipartiteGraph, names: Iterable[str]) -> None:
    """Refuse topometrics that would not fit in memory, before anything is begun.

    Raises:
        GraphMemoryError: What one needs is not free.
    """
    for name, size in _find_beyond(graph, group_needs(names)).items():
        _refuse(graph, name, size)


def _find_beyond(graph: MultipartiteGraph, needs: Mapping[NeedOf, Sequence[str]]) -> dict[str, int]:
    """Return the topometrics that do not fit in memory, with the bytes that they need."""
    beyond: dict[str, int] = {}
    for need_of, names in needs.items():
        size = get_total_bytes(graph, need_of(graph, names))
        if not is_free(size, graph.device):
            graph.forget_rows()
            size = get_total_bytes(graph, need_of(graph, names))
            beyond |= {} if is_free(size, graph.device) else dict.fromkeys(names, size)
    return beyond


def _refuse(graph: MultipartiteGraph, name: str, size: int) -> None:
    free = get_free_memory(graph.device) or 0
    raise GraphMemoryError(
        f"{name} of {graph.num_uses:,} edges needs {format_bytes(size)} on {graph.device}, and {format_bytes(free)} "
        "are free: leave it out, or encode at a smaller input shape or a higher sparsity (topognn.plan, or "
        "`topognn report --plan`, tells what each topometric needs)"
    )


def _evaluate(graph: MultipartiteGraph, names: Sequence[str]) -> dict[str, Tensor]:
    """Return the values of topometrics that share an analysis; float64 scalars."""
    of = METRICS[names[0]].of
    analysis = graph if of is None else of(graph)
    return {name: METRICS[name].function(analysis).to(torch.float64) for name in names}


class LayerRow(NamedTuple):
    """One layer of a graph, for tables.

    Attributes:
        kept, density: Number of kept weights; its share of all.
        edges: Number of uses of kept weights.
        effective: Number of kept weights with an edge on a path from the input to the output.
        log10_paths: Decimal logarithm of the mean number of paths that a kept weight lies on; -inf if that is 0.
        expansion: Normalised second singular value; see :func:`topognn.metrics.find_layer_expansion`.
    """

    layer: str
    shape: tuple[int, ...]
    kept: int
    density: float
    edges: int
    effective: int
    log10_paths: float
    expansion: float


def layer_table(graph: MultipartiteGraph) -> list[LayerRow]:
    """Return one row a parametric layer; see :class:`LayerRow`.

    One host sync, and those of :func:`topognn.metrics.find_layer_expansion`.

    Raises:
        ConvergenceError: A layer's expansion was not found to 1e-6.

    >>> from topognn import example_graph
    >>> row = layer_table(example_graph())[0]
    >>> row.layer, row.shape, row.kept, row.density, row.edges, row.effective, round(row.log10_paths, 3)
    ('0', (2, 1, 2, 2), 2, 0.25, 8, 2, 0.602)
    """
    numbers = [n for n, c in enumerate(graph.connections) if c.weight is not None and not c.is_pooled]
    layers = [(graph.connections[n], graph.kept[n]) for n in numbers]
    used = find_effective(graph).masks
    columns = (
        torch.stack([_count_edges(graph, n) for n in numbers]),
        torch.stack([c.to_kernel(used[c.weight]).sum() for c, _ in layers if c.weight is not None]),
        find_paths(graph).log2_through[numbers],
        find_layer_expansion(graph),
    )
    found = iter(read(torch.cat([column.double() for column in columns])))
    edges, effective, paths, expansion = ([next(found) for _ in layers] for _ in columns)
    return [
        LayerRow(
            *(c.layer, c.weight_shape, k.count, k.count / c.num_weights, int(edges[i]), int(effective[i])),
            (paths[i] - math.log2(k.count)) * math.log10(2) if k.count else -math.inf,
            expansion[i],
        )
        for i, (c, k) in enumerate(layers)
    ]


def _count_edges(graph: MultipartiteGraph, number: int) -> Tensor:
    """Return the uses of a connection's weights, and of sums of them, which follow it."""
    total = sum_in(graph.connections[number], graph.kept[number].mask).sum()
    for c, k in zip(graph.connections[number + 1 :], graph.kept[number + 1 :], strict=True):
        if not c.is_pooled:
            break
        total += sum_in(c, k.mask).sum()
    return total


class TroubleRow(NamedTuple):
    """Where a graph's trouble sits: counts of one partition's nodes, and of the bridges that end in it."""

    partition: str
    nodes: int
    sinks: int
    sources: int
    bridges: int
    cut_nodes: int
    outside_giant: int


def trouble_table(graph: MultipartiteGraph) -> list[TroubleRow]:
    """Return one row a partition: its sinks, sources, bridges into it, articulation points, nodes outside the giant.

    Raises:
        GraphMemoryError: The rows that bridges need do not fit in memory.

    >>> from topognn import example_graph
    >>> trouble_table(example_graph())[1]
    TroubleRow(partition='0', nodes=8, sinks=1, sources=1, bridges=8, cut_nodes=4, outside_giant=3)
    """
    check_room(graph, ["cut_nodes"])
    found = biconnectivity(graph)
    into = torch.zeros(graph.num_nodes, dtype=torch.int64, device=graph.device)
    ends = found.bridges[:, 1]
    into.scatter_add_(0, ends, torch.ones_like(ends))
    columns = [local.find_sinks(graph), local.find_sources(graph), into, found.is_cut_node, find_outside_giant(graph)]
    sums = [column[p.offset : p.end].sum() for p in graph.partitions for column in columns]
    counts = iter(map(int, read(torch.stack(sums))))
    return [TroubleRow(p.name, p.size, *(next(counts) for _ in columns)) for p in graph.partitions]
