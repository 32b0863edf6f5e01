"""GPU-native sparse graph analytics for sparse neural networks.

A model with masks becomes one graph, its Multipartite Graph Encoding, on the device of the masks; topometrics
are computed on it there.

>>> import topognn
>>> graph = topognn.example_graph()
>>> topognn.topometrics(graph, ["sink_nodes"])["sink_nodes"]
1
"""

from topognn.encoding.multipartite import encode
from topognn.errors import (
    CheckpointError,
    DeviceError,
    GraphMemoryError,
    MaskError,
    SparsityError,
    TopognnError,
    TraceError,
    UnknownNameError,
    UnsupportedOperation,
)
from topognn.example import example_graph, example_model
from topognn.graph import MultipartiteGraph
from topognn.interop import to_cugraph, to_cupy, to_igraph, to_networkx, to_scipy, to_torch_sparse
from topognn.kernels.launch import get_num_threads, set_num_threads
from topognn.masks import get_masks, save_masks
from topognn.models import MODELS, get_model
from topognn.pruning import PRUNERS, apply_masks, prune
from topognn.report import METRICS, Topometrics, layer_table, topometrics
from topognn.tracing import trace
from topognn.tracing.layout import Layout
from topognn.version import __version__

__all__ = [
    "METRICS",
    "MODELS",
    "PRUNERS",
    "CheckpointError",
    "DeviceError",
    "GraphMemoryError",
    "Layout",
    "MaskError",
    "MultipartiteGraph",
    "SparsityError",
    "TopognnError",
    "Topometrics",
    "TraceError",
    "UnknownNameError",
    "UnsupportedOperation",
    "__version__",
    "apply_masks",
    "encode",
    "example_graph",
    "example_model",
    "get_masks",
    "get_model",
    "get_num_threads",
    "layer_table",
    "prune",
    "save_masks",
    "set_num_threads",
    "to_cugraph",
    "to_cupy",
    "to_igraph",
    "to_networkx",
    "to_scipy",
    "to_torch_sparse",
    "topometrics",
    "trace",
]
