"""Doors out: a graph for other libraries. Copies to the host where the library lives there."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from topognn.errors import DeviceError
from topognn.graph import MultipartiteGraph


def to_scipy(graph: MultipartiteGraph) -> Any:
    """Return the weighted adjacency matrix as ``scipy.sparse.csr_array``: entry ``(u, v)`` = edge from u to v.

    Shares memory with a graph on the CPU.

    >>> from topognn import example_graph
    >>> to_scipy(example_graph()).shape
    (19, 19)
    """
    import scipy.sparse

    rows = graph.csr
    parts = (rows.weights.cpu().numpy(), rows.indices.cpu().numpy(), rows.indptr.cpu().numpy())
    return scipy.sparse.csr_array(parts, shape=(graph.num_nodes,) * 2)


def to_networkx(graph: MultipartiteGraph) -> Any:
    """Return a ``networkx.DiGraph`` with edge attribute ``weight`` and node attribute ``partition``.

    >>> from topognn import example_graph
    >>> to_networkx(example_graph()).nodes[9]
    {'partition': '0'}
    """
    import networkx

    out: Any = networkx.DiGraph()
    for partition in graph.partitions:
        out.add_nodes_from(range(partition.offset, partition.end), partition=partition.name)
    matrix = to_scipy(graph).tocoo()
    edges = zip(matrix.row.tolist(), matrix.col.tolist(), matrix.data.tolist(), strict=True)
    out.add_weighted_edges_from(edges)
    return out


def to_igraph(graph: MultipartiteGraph) -> Any:
    """Return a directed ``igraph.Graph`` with edge attribute ``weight`` and vertex attribute ``partition``.

    >>> from topognn import example_graph
    >>> to_igraph(example_graph()).ecount()
    13
    """
    import igraph
    import numpy as np

    matrix = to_scipy(graph).tocoo()
    edges = np.stack([matrix.row, matrix.col], 1)
    out = igraph.Graph(graph.num_nodes, edges, directed=True)
    out.es["weight"] = matrix.data.tolist()
    out.vs["partition"] = [p.name for p in graph.partitions for _ in range(p.size)]
    return out


def to_torch_sparse(graph: MultipartiteGraph) -> torch.Tensor:
    """Return the weighted adjacency matrix as a torch sparse CSR tensor on the graph's device.

    Shares the graph's memory, but for the row pointers, which torch wants in the dtype of the indices.

    >>> from topognn import example_graph
    >>> to_torch_sparse(example_graph()).layout
    torch.sparse_csr
    """
    rows = graph.csr
    size = (graph.num_nodes, graph.num_nodes)
    indptr = rows.indptr.to(rows.indices.dtype) if rows.num_entries < 2**31 else rows.indptr
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        warnings.filterwarnings("ignore", "Sparse invariant checks are implicitly disabled")
        return torch.sparse_csr_tensor(
            indptr, rows.indices.to(indptr.dtype), rows.weights, size, check_invariants=False
        )


def to_cupy(graph: MultipartiteGraph) -> Any:
    """Return the weighted adjacency matrix as ``cupyx.scipy.sparse.csr_matrix``, without a copy (DLPack).

    Raises:
        DeviceError: The graph is not on a CUDA device, or CuPy is not installed.
    """
    _need_cuda(graph, "to_cupy")
    try:
        import cupy
        import cupyx.scipy.sparse
    except ImportError:
        raise DeviceError("to_cupy() needs CuPy: pip install 'topognn[cuda13]' (or cuda12)") from None
    matrix = to_torch_sparse(graph)
    parts = (matrix.values(), matrix.col_indices(), matrix.crow_indices())
    return cupyx.scipy.sparse.csr_matrix(tuple(map(cupy.from_dlpack, parts)), shape=tuple(matrix.shape))


def to_cugraph(graph: MultipartiteGraph) -> Any:
    """Return a directed ``cugraph.Graph`` with edge weights, from the CSR without a copy of indices.

    Raises:
        DeviceError: The graph is not on a CUDA device, or cuGraph is not installed.
    """
    _need_cuda(graph, "to_cugraph")
    try:
        import cudf
        import cugraph
    except ImportError:
        raise DeviceError("to_cugraph() needs cuGraph: pip install 'topognn[cuda13]' (or cuda12)") from None
    matrix = to_torch_sparse(graph)
    parts = (matrix.crow_indices(), matrix.col_indices(), matrix.values())
    out = cugraph.Graph(directed=True)
    out.from_cudf_adjlist(*(cudf.from_dlpack(part) for part in parts))
    return out


def _need_cuda(graph: MultipartiteGraph, name: str) -> None:
    if graph.device.type != "cuda":
        raise DeviceError(f"{name}() needs a graph on a CUDA device, not on {graph.device}: encode with device='cuda'")
