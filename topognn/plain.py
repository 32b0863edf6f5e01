"""Doors in: graphs from arrays and other libraries, checked at the door."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from topognn.encoding.rows import Rows
from topognn.errors import DeviceError, GraphError
from topognn.kernels.host import read
from topognn.kernels.plain_rows import inspect_row
from topognn.kernels.rows import sort_row
from topognn.plain_graph import PlainGraph

_INTEGERS = (torch.int32, torch.int64)


def from_csr(indptr: Any, indices: Any, weights: Any = None, *, directed: bool = True) -> PlainGraph:
    """Return the graph of a sparse matrix by rows: an edge from ``u`` to each node in row ``u``.

    Shares the memory of arrays that are as they must be; rows that do not ascend are sorted in a copy.

    Args:
        indptr: Bounds of the rows; int32 or int64 ``(nodes + 1,)``, tensor or array. int64 needs no copy.
        indices: Nodes; int32 or int64 ``(entries,)``. Self-loops and repeats are allowed.
        weights: Edge weights ``(entries,)``, kept as float32; none by default.
        directed: Whether edges have a direction. If not, every edge must stand in both ends' rows (a
            self-loop once), as in a symmetric matrix.

    Raises:
        GraphError: Bounds do not ascend from 0 to the number of entries, an index is no node, a weight is
            NaN, lengths or dtypes do not fit, or ``directed=False`` and the matrix is not symmetric.
        DeviceError: The arrays are on different devices.

    One host sync, on whatever device the arrays are.

    >>> from topognn.plain import from_csr
    >>> from_csr([0, 1, 2, 2], [1, 2])
    PlainGraph(3 nodes, 2 edges, directed, cpu)
    """
    rows = Rows(_vector(indptr, "indptr").long(), _vector(indices, "indices"), torch.empty(0))
    if rows.indptr.numel() < 1:
        raise GraphError("indptr is empty: it needs one entry more than there are nodes")
    if weights is None:
        rows = Rows(rows.indptr, rows.indices, torch.empty(0, device=rows.indptr.device))
    else:
        rows = Rows(rows.indptr, rows.indices, _weights(weights, rows.num_entries))
    devices = {str(t.device) for t in (rows.indptr, rows.indices, rows.weights)}
    if len(devices) > 1:
        raise DeviceError(f"indptr, indices and weights are on {sorted(devices)}: one device needed")
    nodes = rows.indptr.numel() - 1
    work = rows.num_entries / max(1, nodes)
    found = torch.zeros(6, dtype=torch.int64, device=rows.indptr.device)
    found[:2] = nodes
    inspect_row.launch(nodes, not directed, rows.indptr, rows.indices, rows.weights, found, work=work)
    numbers = read(torch.cat([found, rows.indptr[:1], rows.indptr[-1:]]))
    bounds, range_, descents, loops, missing, balance, first, last = map(int, numbers)
    if bounds < nodes or first != 0 or last != rows.num_entries:
        where = f"row {bounds} breaks that" if bounds < nodes else f"it goes from {first} to {last}"
        raise GraphError(f"indptr must ascend from 0 to {rows.num_entries}, the number of indices: {where}")
    if range_ < nodes:
        raise GraphError(f"row {range_} of indices holds a node that does not exist: nodes are 0 to {nodes - 1}")
    if missing:
        raise GraphError(f"{missing} of {rows.num_entries} weights are NaN: drop those edges, or mend them")
    if balance:
        raise GraphError(
            "the matrix is not symmetric, as directed=False wants it (every edge in both ends' rows): pass "
            "directed=True where an edge is given once; undirected metrics forget directions anyway"
        )
    if descents:
        rows = Rows(rows.indptr, rows.indices.clone(), rows.weights.clone())
        spare = torch.empty_like(rows.indptr)
        sort_row.launch(nodes, 0, rows.indptr, rows.indices, rows.weights, spare, work=work)
    return PlainGraph(rows, directed, loops)


def from_scipy(matrix: Any, directed: bool = True) -> PlainGraph:
    """Return the graph of a square SciPy sparse matrix: an edge, weighted, for every stored entry, zeros too.

    Raises:
        GraphError: The matrix is not sparse, not square or not real; else as :func:`from_csr`.

    >>> import scipy.sparse
    >>> from topognn.plain import from_scipy
    >>> from_scipy(scipy.sparse.csr_array([[0, 2], [2, 0]]), directed=False)
    PlainGraph(2 nodes, 1 edges, undirected, cpu)
    """
    if not hasattr(matrix, "tocsr") or len(matrix.shape) != 2 or matrix.shape[0] != matrix.shape[1]:
        what = f"{type(matrix).__name__} of shape {tuple(getattr(matrix, 'shape', ()))}"
        raise GraphError(f"from_scipy needs a square sparse matrix, not {what}")
    rows = matrix.tocsr()
    return from_csr(rows.indptr, rows.indices, rows.data, directed=directed)


def from_networkx(graph: Any, weight: str = "weight") -> PlainGraph:
    """Return a networkx graph of any kind; node ``i`` is the ``i``-th of ``graph.nodes``.

    ``weight`` is the edge attribute to take as weight; an edge without it weighs 1.

    >>> import networkx
    >>> from topognn.plain import from_networkx
    >>> from_networkx(networkx.path_graph(4))
    PlainGraph(4 nodes, 3 edges, undirected, cpu)
    """
    number = {node: i for i, node in enumerate(graph.nodes)}
    edges = [(number[u], number[v], w) for u, v, w in graph.edges(data=weight, default=1.0)]
    if not graph.is_directed():
        edges += [(v, u, w) for u, v, w in edges if u != v]
    ends = torch.tensor([e[:2] for e in edges], dtype=torch.int64).reshape(-1, 2)
    weights = torch.tensor([e[2] for e in edges], dtype=torch.float32)
    return from_edge_index(ends.T, len(number), weights, graph.is_directed())


def from_edge_index(
    edge_index: Any, num_nodes: int | None = None, weights: Any = None, directed: bool = True
) -> PlainGraph:
    """Return the graph of a list of edges, as PyTorch Geometric keeps it.

    Args:
        edge_index: Sources and targets; int32 or int64 ``(2, edges)``.
        num_nodes: One more than the highest node by default.
        weights: Edge weights ``(edges,)``, kept as float32; none by default.
        directed: Whether edges have a direction. If not, every edge must be given in both directions (a
            self-loop once).

    Raises:
        GraphError: A node is out of range, or as :func:`from_csr`.

    Two host syncs: the range of the nodes, and that of :func:`from_csr`.

    >>> from topognn.plain import from_edge_index
    >>> from_edge_index([[0, 1, 2], [1, 2, 0]], num_nodes=5)
    PlainGraph(5 nodes, 3 edges, directed, cpu)
    """
    ends = _tensor(edge_index)
    if ends.dim() != 2 or ends.shape[0] != 2:
        raise GraphError(f"edge_index has shape {tuple(ends.shape)}: it must be (2, edges)")
    sources, targets = (_vector(side.contiguous(), "edge_index") for side in ends)
    low, high = map(int, read(torch.stack(ends.aminmax())) if ends.numel() else (0, -1))
    nodes = high + 1 if num_nodes is None else num_nodes
    if low < 0 or high >= nodes:
        raise GraphError(f"edge_index holds nodes {low} to {high}: with num_nodes={nodes} they are 0 to {nodes - 1}")
    values = None if weights is None else _weights(weights, targets.numel())
    by_target = torch.sort(targets, stable=True).indices
    order = by_target[torch.sort(sources[by_target], stable=True).indices]
    bounds = torch.arange(nodes + 1, dtype=sources.dtype, device=sources.device)
    indptr = torch.searchsorted(sources[order], bounds)
    return from_csr(indptr, targets[order], None if values is None else values[order], directed=directed)


def _vector(values: Any, name: str) -> Tensor:
    """Return a 1-D integer tensor, or say what is wrong with it."""
    vector = _tensor(values)
    if vector.dtype not in _INTEGERS or vector.dim() != 1:
        raise GraphError(f"{name} is {vector.dtype} of shape {tuple(vector.shape)}: 1-D int32 or int64 needed")
    return vector.contiguous()


def _weights(values: Any, entries: int) -> Tensor:
    """Return float32 weights of the wanted length, or say what is wrong with them."""
    vector = _tensor(values)
    if vector.shape != (entries,) or vector.is_complex():
        raise GraphError(f"weights are {vector.dtype} of shape {tuple(vector.shape)}: {entries} numbers needed")
    return vector.to(torch.float32).contiguous()


def _tensor(values: Any) -> Tensor:
    """Return a tensor that shares the memory of a tensor, or of an array of a dtype that torch knows."""
    if isinstance(values, Tensor):
        return values.detach()
    array = np.asarray(values)
    if array.size == 0 and not isinstance(values, np.ndarray):
        array = array.astype(np.int64)  # an empty list says nothing of its dtype
    try:
        return torch.from_numpy(array if array.flags.writeable else array.copy())
    except TypeError:
        raise GraphError(f"an array of dtype {array.dtype} was given: int32, int64 or floats needed") from None
