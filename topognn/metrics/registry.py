"""The named set of topometrics: what each is computed by, and how it was published."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any, Literal, NamedTuple

from torch import Tensor

from topognn.errors import unknown_name
from topognn.metrics import local, neighbors, strength
from topognn.metrics.components import connected_components
from topognn.metrics.cores import k_core
from topognn.metrics.cuts import biconnectivity
from topognn.metrics.effective import find_effective
from topognn.metrics.expansion import find_expansion
from topognn.metrics.motifs import motifs4
from topognn.metrics.paths import find_paths, find_weighted_paths
from topognn.metrics.spectral import spectral_gap, spectral_radius


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


def check_names(metrics: Iterable[str] | None) -> list[str]:
    """Return the names of topometrics as a list, all if None; a text is a single name.

    Raises:
        UnknownNameError: There is no such metric; the message names the nearest.
    """
    names = [metrics] if isinstance(metrics, str) else list(METRICS if metrics is None else metrics)
    for name in names:
        if name not in METRICS:
            raise unknown_name("metric", name, METRICS)
    return names
