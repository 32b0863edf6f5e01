"""What each analysis of a graph needs: its route, bytes and seconds, told before anything is allocated.

Bytes are what arrays take, rounded up. Seconds are those of two threads of an x86 machine: ``python
benchmarks/planning.py`` measured the constants here, and compares them with any machine's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any, Literal, NamedTuple

import torch

from topognn.encoding.rows import Direction
from topognn.graph import MultipartiteGraph
from topognn.kernels.launch import get_num_threads
from topognn.lanczos import plan_basis
from topognn.memory import get_free_memory
from topognn.metrics import local, neighbors
from topognn.metrics.components import connected_components
from topognn.metrics.cores import k_core
from topognn.metrics.cuts import biconnectivity
from topognn.metrics.effective import find_effective
from topognn.metrics.expansion import BLOCK, find_expansion
from topognn.metrics.motifs import motifs4, prefers_channels
from topognn.metrics.paths import find_paths, find_weighted_paths
from topognn.metrics.spectral import spectral_gap, spectral_radius
from topognn.metrics.strength import strength
from topognn.operators.matrix import prefers_rows
from topognn.operators.sides import find_sides
from topognn.positions.counting import find_cost
from topognn.positions.walks import find_walks

NS = 1e-9
START = 5e-3  # any step, however small
_FILL, _SORT = 5 * NS, 40 * NS  # an entry of rows; one more where parallel edges are combined
_NEAR, _FAR = 3 * NS, 10 * NS  # an entry whose node is looked up, in the cache or not
_CACHE = 500_000  # nodes whose numbers a core's own cache holds
_WEDGE = 0.25 * NS  # a pair of neighbours
_WEIGHT, _NODE = 6 * NS, 10 * NS  # a weight of a mask that is walked; a number a node
_JOINED = 30 * NS  # a weight in walks over channels
_COUNTED, _WALKS = 0.08 * NS, 5e-4  # a multiplication of theirs; all between two partitions, however few
_NARROW, _WIDE = 0.025 * NS, 0.07 * NS  # a dense multiplication in float32, in float64
_LAYER = 2e-4  # a convolution, however small
_BASIS = NS  # an entry of a vector that is made orthogonal to one of a basis
_PRODUCTS = {"gap": 45, "radius": 20, "fiedler": 80}  # of Lanczos, in networks of all sizes: from a third to thrice

Route = Literal["masks", "channels", "connections", "rows"]
RowsKind = tuple[Direction, bool]


class Need(NamedTuple):
    """What an analysis needs.

    Attributes:
        route: ``"masks"``: from sums of masks; ``"channels"``: by classes of positions; ``"connections"``: connection
            by connection, by convolutions or by kernels that find edges and forget them; ``"rows"``: from the graph's
            rows.
        rows: Directions of those rows, and whether with weights.
        bytes: Beside the rows.
        seconds: Without those that it takes to build the rows.
    """

    route: Route
    rows: tuple[RowsKind, ...]
    bytes: int
    seconds: float


def get_rows_bytes(graph: MultipartiteGraph, kind: RowsKind) -> int:
    """Return the bytes of rows, those of parallel edges before they are combined included."""
    direction, weighted = kind
    entries = graph.num_uses * (2 if direction == "both" else 1)
    index = 4 if graph.layout.index_dtype == torch.int32 else 8
    own = 8 * (graph.num_nodes + 1) + entries * (index + (4 if weighted else 0))
    return own * (2 if graph.has_parallel_edges else 1)


def get_rows_seconds(graph: MultipartiteGraph, kind: RowsKind) -> float:
    """Return the seconds that it takes to build rows."""
    entries = graph.num_uses * (2 if kind[0] == "both" else 1)
    return entries * (_FILL + (_SORT if graph.has_parallel_edges else 0)) + graph.num_nodes * _NODE


def get_total_bytes(graph: MultipartiteGraph, need: Need) -> int:
    """Return the bytes that a need takes beyond what is there, missing rows included."""
    missing = (kind for kind in need.rows if not graph.has_rows(*kind))
    return need.bytes + sum(get_rows_bytes(graph, kind) for kind in missing)


def _multiplications(graph: MultipartiteGraph) -> int:
    return sum(c.num_weights * math.prod(c.positions) for c in graph.connections)


def _weights(graph: MultipartiteGraph) -> tuple[int, int]:
    """Return the number of weights in all connections, kept or not, and in the largest."""
    counts = [c.num_weights for c in graph.connections]
    return sum(counts), max(counts)


def _unfolded(graph: MultipartiteGraph) -> int:
    """Return the entries of the largest input of a convolution that is written out tap by tap, as float64 is."""
    return max(c.kernel[1] * c.groups * math.prod(c.kernel[2:]) * math.prod(c.positions) for c in graph.connections)


def _entry(graph: MultipartiteGraph) -> float:
    return _NEAR if graph.num_nodes < _CACHE else _FAR


def _index(graph: MultipartiteGraph) -> int:
    return 4 if graph.layout.index_dtype == torch.int32 else 8


def need_degrees(graph: MultipartiteGraph, names: Collection[str]) -> Need:
    """Return what sinks, sources, isolated nodes and one_hop need: degrees, which parallel edges make one of."""
    nodes, (total, largest) = graph.num_nodes, _weights(graph)
    seconds = nodes * _NODE + total * 2 * NS + len(graph.connections) * _LAYER
    if graph.has_parallel_edges and graph.channels.found.are_whole:
        return Need("channels", (), 32 * nodes + 4 * total, seconds + total * _JOINED)
    if graph.has_parallel_edges:
        return Need("rows", (("in", False), ("out", False)), 24 * nodes, seconds)
    return Need("masks", (), 24 * nodes + 8 * min(largest, 2**17), seconds)


def need_strength(graph: MultipartiteGraph, names: Collection[str]) -> Need:
    """Return what strengths need; parallel edges may count apart."""
    total, largest = _weights(graph)
    seconds = graph.num_nodes * _NODE + total * 2 * NS + len(graph.connections) * _LAYER
    return Need("masks", (), 24 * graph.num_nodes + 8 * largest, seconds)


def need_two_hop(graph: MultipartiteGraph, names: Collection[str]) -> Need:
    """Return what two_hop needs: the channels that are joined; or classes of rows, and a bitmap a worker."""
    if graph.is_counted_by_channels(undirected=False):
        return _count_by_channels(graph, undirected=False)
    seconds = graph.num_uses * _entry(graph) + graph.num_nodes * 6 * _NODE
    workers = 8 * get_num_threads()
    return Need("rows", (("out", False),), graph.num_nodes * (80 + workers // 8), seconds)


def _count_by_channels(graph: MultipartiteGraph, undirected: bool) -> Need:
    cost, (total, _) = find_cost(graph.channels, undirected), _weights(graph)
    walks = len(find_walks(graph.channels.found, undirected))
    seconds = cost.multiplications * _COUNTED + walks * _WALKS + total * _JOINED
    degrees = 40 * graph.num_nodes if undirected else 0
    return Need("channels", (), cost.bytes + degrees, seconds + graph.num_nodes * _NODE)


def need_motifs(graph: MultipartiteGraph, names: Collection[str]) -> Need:
    """Return what motifs need: joined channels; or rows in another order, a counter an edge, one a node and worker."""
    if prefers_channels(graph):
        return _count_by_channels(graph, undirected=True)
    nodes, entries = graph.num_nodes, 2 * graph.num_uses
    wedges = 2 * entries * entries / max(1, nodes)  # degrees vary about as much as they are large
    size = nodes * (64 + 4 * 8 * get_num_threads()) + 2 * _index(graph) * entries
    return Need("rows", (("both", False),), size, wedges * _WEDGE + entries * _entry(graph))


def need_cores(graph: MultipartiteGraph, names: Collection[str]) -> Need:
    """Return what core numbers need."""
    seconds = 2 * graph.num_uses * _entry(graph) + graph.num_nodes * 5 * _NODE
    return Need("rows", (("both", False),), graph.num_nodes * (8 + 2 * _index(graph)), seconds)


def need_cuts(graph: MultipartiteGraph, names: Collection[str]) -> Need:
    """Return what bridges and articulation points need."""
    seconds = 2 * graph.num_uses * _entry(graph) + graph.num_nodes * 10 * _NODE
    return Need("rows", (("both", False),), graph.num_nodes * 10 * _index(graph), seconds)


def need_components(graph: MultipartiteGraph, names: Collection[str]) -> Need:
    """Return what components need: rows if they are there, otherwise one layer's weights at a time."""
    nodes, (total, _) = graph.num_nodes, _weights(graph)
    if graph.has_rows("both"):
        return Need("rows", (("both", False),), 33 * nodes, 2 * graph.num_uses * NS + nodes * _NODE)
    largest = max(kept.count for kept in graph.kept)
    seconds = nodes * 10 * _NODE + total * _WEIGHT + len(graph.connections) * _LAYER
    return Need("connections", (), 33 * nodes + 16 * largest, seconds)


def need_paths(graph: MultipartiteGraph, names: Collection[str]) -> Need:
    """Return what numbers of paths need: a sweep in float64, three more for those on each weight."""
    sweeps = 4 if "paths_per_weight" in names else 1
    if graph.has_parallel_edges:
        kinds: tuple[RowsKind, ...] = (("in", False), ("out", False)) if sweeps > 1 else (("in", False),)
        deep = len(graph.partitions) * graph.num_nodes
        return Need("rows", kinds, 72 * graph.num_nodes, sweeps * (graph.num_uses * _entry(graph) + deep * NS))
    return _sweep(graph, sweeps)


def need_weighted_paths(graph: MultipartiteGraph, names: Collection[str]) -> Need:
    """Return what sums over paths need: a sweep in float64."""
    return _sweep(graph, 1)


def _sweep(graph: MultipartiteGraph, sweeps: int) -> Need:
    size = graph.num_nodes * (24 if sweeps == 1 else 48) + 16 * _weights(graph)[1] + 8 * _unfolded(graph)
    seconds = _multiplications(graph) * _WIDE + graph.num_nodes * _NODE + len(graph.connections) * _LAYER
    return Need("connections", (), size, sweeps * seconds)


def need_effective(graph: MultipartiteGraph, names: Collection[str]) -> Need:
    """Return what reachability needs: two sweeps in float32, one more a kind of count; edges hold all weights."""
    total, largest = _weights(graph)
    counts_edges = "effective_edges" in names
    passes = 2 + counts_edges + any(name in names for name in ("effective_density", "layer_collapse"))
    size = 56 * graph.num_nodes + 8 * largest + (4 * total if counts_edges else 0) + 8 * _unfolded(graph)
    seconds = _multiplications(graph) * _NARROW + graph.num_nodes * _NODE + len(graph.connections) * _LAYER
    rows: tuple[RowsKind, ...] = (("in", False),) if counts_edges and graph.has_parallel_edges else ()
    return Need("rows" if rows else "connections", rows, size, passes * seconds)


def need_gap(graph: MultipartiteGraph, names: Collection[str]) -> Need:
    """Return what the spectral gap needs: three eigenvectors, or two of one side."""
    return _search(graph, "gap", 3, 2)


def need_radius(graph: MultipartiteGraph, names: Collection[str]) -> Need:
    """Return what the spectral radius needs: one eigenvector."""
    return _search(graph, "radius", 1, 0)


def need_expansion(graph: MultipartiteGraph, names: Collection[str]) -> Need:
    """Return what the algebraic connectivity needs, and the conductance of a sweep cut along its vector."""
    found, joined = _search(graph, "fiedler", BLOCK, BLOCK), need_components(graph, names)
    size, seconds = found.bytes + 24 * graph.num_nodes, found.seconds + joined.seconds
    if "conductance" in names:
        size += 40 * graph.num_nodes
        seconds += 2 * graph.num_uses * _entry(graph)
    return Need(found.route, found.rows, max(size, joined.bytes), seconds)


def _search(graph: MultipartiteGraph, name: str, block: int, block_of_side: int) -> Need:
    """Return what Lanczos needs: rows or dense weights, and a basis of vectors, of one side's nodes where it can."""
    sides = find_sides(graph) if block_of_side else None
    size = graph.num_nodes
    if sides is not None:
        size = min(sum(graph.partitions[number].size for number in side) for side in sides)
        block = block_of_side
    room, kept = plan_basis(block, min(block, 3), size)
    vectors = room + block + kept + 1

    def need(route: Literal["connections", "rows"]) -> Need:
        item = 8 if route == "rows" else 4
        product = 2 * graph.num_uses * _entry(graph) / 3  # of one vector; entries stand in order
        if route == "connections":
            product = 2 * (_multiplications(graph) * _NARROW + len(graph.connections) * _LAYER)
        seconds = _PRODUCTS[name] * block * (product + size * room / 3 * _BASIS)
        held = vectors * size * item + 6 * block * item * graph.num_nodes + 24 * graph.num_nodes
        rows: tuple[RowsKind, ...] = (("both", True),) if route == "rows" else ()
        return Need(route, rows, held + (4 * _weights(graph)[0] if route == "connections" else 0), seconds)

    if prefers_rows(graph):
        by_rows = need("rows")
        free = get_free_memory(graph.device)
        if free is None or get_total_bytes(graph, by_rows) <= free:
            return by_rows
    return need("connections")


NeedOf = Callable[[MultipartiteGraph, Collection[str]], Need]
# By a topometric's analysis, or by its function if it has none.
NEEDS: dict[Callable[[Any], Any], NeedOf] = {
    local.sink_nodes: need_degrees,
    local.source_nodes: need_degrees,
    local.disconnected_nodes: need_degrees,
    local.removable_out_edges: need_degrees,
    local.removable_in_edges: need_degrees,
    neighbors.one_hop: need_degrees,
    neighbors.two_hop: need_two_hop,
    motifs4: need_motifs,
    strength: need_strength,
    k_core: need_cores,
    connected_components: need_components,
    biconnectivity: need_cuts,
    spectral_gap: need_gap,
    spectral_radius: need_radius,
    find_expansion: need_expansion,
    find_paths: need_paths,
    find_weighted_paths: need_weighted_paths,
    find_effective: need_effective,
}
