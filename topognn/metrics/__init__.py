"""Topometrics: one function a metric, graph in, tensor on the graph's device out.

Four analyses give more than a number: :func:`connected_components`, :func:`core_numbers`, :func:`biconnectivity`,
:func:`motifs4`.
"""

from topognn.metrics.components import Components, connected_components, find_outside_giant
from topognn.metrics.cores import core_numbers
from topognn.metrics.cuts import Biconnectivity, biconnectivity
from topognn.metrics.local import find_disconnected, find_sinks, find_sources
from topognn.metrics.motifs import Motifs, motifs4
from topognn.metrics.neighbors import get_two_hop_sizes
from topognn.metrics.strength import get_strengths

__all__ = [
    "Biconnectivity",
    "Components",
    "Motifs",
    "biconnectivity",
    "connected_components",
    "core_numbers",
    "find_disconnected",
    "find_outside_giant",
    "find_sinks",
    "find_sources",
    "get_strengths",
    "get_two_hop_sizes",
    "motifs4",
]
