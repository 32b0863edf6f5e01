"""Topometrics: one function a metric, graph in, tensor on the graph's device out.

Analyses give more than a number: :func:`connected_components`, :func:`core_numbers`, :func:`biconnectivity`,
:func:`motifs4`, :func:`find_adjacency_eigenvalues`, :func:`find_expansion`, :func:`find_layer_expansion`,
:func:`find_paths`, :func:`find_effective`.
"""

from topognn.metrics.components import Components, connected_components, find_outside_giant
from topognn.metrics.cores import core_numbers
from topognn.metrics.cuts import Biconnectivity, biconnectivity
from topognn.metrics.effective import EffectiveNetwork, find_effective
from topognn.metrics.expansion import Expansion, find_expansion
from topognn.metrics.layers import find_layer_expansion
from topognn.metrics.local import find_disconnected, find_sinks, find_sources
from topognn.metrics.motifs import Motifs, motifs4
from topognn.metrics.neighbors import get_two_hop_sizes
from topognn.metrics.paths import Paths, find_paths
from topognn.metrics.spectral import find_adjacency_eigenvalues, spectral_gap, spectral_radius
from topognn.metrics.strength import get_strengths

__all__ = [
    "Biconnectivity",
    "Components",
    "EffectiveNetwork",
    "Expansion",
    "Motifs",
    "Paths",
    "biconnectivity",
    "connected_components",
    "core_numbers",
    "find_adjacency_eigenvalues",
    "find_disconnected",
    "find_effective",
    "find_expansion",
    "find_layer_expansion",
    "find_outside_giant",
    "find_paths",
    "find_sinks",
    "find_sources",
    "get_strengths",
    "get_two_hop_sizes",
    "motifs4",
    "spectral_gap",
    "spectral_radius",
]
