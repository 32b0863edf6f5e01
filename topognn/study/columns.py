"""The one schema of a table of networks: its key, its columns, and the sets of features that are compared."""

from __future__ import annotations

KEY = ["model", "dataset", "pruning", "sparsity", "seed"]
GROUP = ["model", "dataset"]
CELL = [*GROUP, "sparsity"]
DYNAMIC = {"dsr", "itop", "rigl", "set", "snfs"}  # change their masks while training: no pruning at initialisation

# Topometrics of the MGE, as the released tables name and normalise them.
MGE = (
    "sink_nodes source_nodes disc_nodes r-out r-in 1-hop_nei 2-hop_nei motif avg_node_strength k-core "
    "cut-edges cut-nodes no_connected_components mean_connected_components spectral_gap spectral_radius"
).split()
OF_WEIGHTS = ["avg_node_strength", "spectral_gap", "spectral_radius"]  # need trained weights, not masks alone
# Ten that the released tables of bipartite encodings have too, and their names in most of those files.
SHARED = {
    "cut-edges": "bridges",
    "cut-nodes": "a_point",
    "motif": "motifs_count",
    "1-hop_nei": "nei_one_hop",
    "avg_node_strength": "strenght_all",
    "k-core": "coreness_all",
    "no_connected_components": "strong_clusters",
    "mean_connected_components": "mean_strong",
    "spectral_gap": "spectral_gap_weighted_undirected",
    "spectral_radius": "spectral_radius_laplacian_weighted_undirected",
}
RAMANUJAN = ["iterative_spectral_gap", "iterative_degree_bound", "degree_bound"]
# Of the mask alone, and not in the released tables.
BEYOND = ["effective_density", "layer_collapse", "log10_paths", "conductance", "algebraic_connectivity"]

FEATURE_SETS: dict[str, list[str]] = {
    "MGE16": MGE,
    "MGE13": [name for name in MGE if name not in OF_WEIGHTS],
    "MGE10": list(SHARED),
    "BGE-R10": [f"rolled:{name}" for name in SHARED],
    "BGE-RC10": [f"rolled_channel:{name}" for name in SHARED],
    "RAM3": RAMANUJAN,
    "DENS1": ["layer_density"],
    "DENS3": ["layer_density", "log_density", "inverse_density"],
    "FLOPS2": ["log_edges", "inverse_edges"],
    "BEYOND5": BEYOND,
}
