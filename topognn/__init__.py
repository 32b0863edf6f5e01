"""GPU-native sparse graph analytics for sparse neural networks.

A model with masks becomes one graph, its Multipartite Graph Encoding, on the device of its weights; topometrics
are computed on it there.

>>> import topognn
>>> graph = topognn.example_graph()
>>> topognn.topometrics(graph, ["sink_nodes"])["sink_nodes"]
1
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from topognn.version import __version__

if TYPE_CHECKING:
    from topognn.drawing.svg import draw
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

# Where each public name is: imported when it is first used, so that `topognn --help` need not wait for torch.
_HOMES = {
    "topognn.drawing.svg": ["draw"],
    "topognn.encoding.multipartite": ["encode"],
    "topognn.errors": [
        *("CheckpointError", "DeviceError", "GraphMemoryError", "MaskError", "SparsityError", "TopognnError"),
        *("TraceError", "UnknownNameError", "UnsupportedOperation"),
    ],
    "topognn.example": ["example_graph", "example_model"],
    "topognn.graph": ["MultipartiteGraph"],
    "topognn.interop": [
        *("to_cugraph", "to_cupy", "to_igraph", "to_networkx", "to_scipy", "to_torch_sparse"),
    ],
    "topognn.kernels.launch": ["get_num_threads", "set_num_threads"],
    "topognn.masks": ["get_masks", "save_masks"],
    "topognn.models": ["MODELS", "get_model"],
    "topognn.pruning": ["PRUNERS", "apply_masks", "prune"],
    "topognn.report": ["METRICS", "Topometrics", "layer_table", "topometrics"],
    "topognn.tracing": ["trace"],
    "topognn.tracing.layout": ["Layout"],
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = ["__version__", *_HOME_OF]  # noqa: PLE0604 - all are strings


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'topognn' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
