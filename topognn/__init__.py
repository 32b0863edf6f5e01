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

if TYPE_CHECKING:  # "as" makes each a re-export that type checkers follow
    from topognn.baselines.layers import layer_topometrics as layer_topometrics
    from topognn.baselines.scores import ramanujan as ramanujan
    from topognn.baselines.tables import LayerTable as LayerTable
    from topognn.drawing.svg import draw as draw
    from topognn.encoding.layer_graphs import bipartite as bipartite
    from topognn.encoding.multipartite import encode as encode
    from topognn.errors import CheckpointError as CheckpointError
    from topognn.errors import ConvergenceError as ConvergenceError
    from topognn.errors import DataError as DataError
    from topognn.errors import DeviceError as DeviceError
    from topognn.errors import GraphError as GraphError
    from topognn.errors import GraphMemoryError as GraphMemoryError
    from topognn.errors import MaskError as MaskError
    from topognn.errors import SparsityError as SparsityError
    from topognn.errors import SweepError as SweepError
    from topognn.errors import TableError as TableError
    from topognn.errors import TopognnError as TopognnError
    from topognn.errors import TraceError as TraceError
    from topognn.errors import TrainingError as TrainingError
    from topognn.errors import UnknownNameError as UnknownNameError
    from topognn.errors import UnsupportedOperation as UnsupportedOperation
    from topognn.example import example_graph as example_graph
    from topognn.example import example_model as example_model
    from topognn.graph import MultipartiteGraph as MultipartiteGraph
    from topognn.graph_tables import layer_table as layer_table
    from topognn.graph_tables import trouble_table as trouble_table
    from topognn.interop import to_cugraph as to_cugraph
    from topognn.interop import to_cupy as to_cupy
    from topognn.interop import to_igraph as to_igraph
    from topognn.interop import to_networkx as to_networkx
    from topognn.interop import to_scipy as to_scipy
    from topognn.interop import to_torch_sparse as to_torch_sparse
    from topognn.kernels.launch import get_num_threads as get_num_threads
    from topognn.kernels.launch import set_num_threads as set_num_threads
    from topognn.masks import get_masks as get_masks
    from topognn.masks import save_masks as save_masks
    from topognn.memory import memory_limit as memory_limit
    from topognn.metrics.differentiable import leading_eigenvalue as leading_eigenvalue
    from topognn.metrics.differentiable import log_path_sum as log_path_sum
    from topognn.metrics.effective import prune_ineffective as prune_ineffective
    from topognn.metrics.registry import METRICS as METRICS
    from topognn.models import MODELS as MODELS
    from topognn.models import get_model as get_model
    from topognn.monitoring.monitor import TopometricsMonitor as TopometricsMonitor
    from topognn.operators.matrix import LinearOperator as LinearOperator
    from topognn.operators.matrix import linear_operator as linear_operator
    from topognn.plain import from_csr as from_csr
    from topognn.plain import from_edge_index as from_edge_index
    from topognn.plain import from_networkx as from_networkx
    from topognn.plain import from_scipy as from_scipy
    from topognn.plain_graph import PlainGraph as PlainGraph
    from topognn.planning import Plan as Plan
    from topognn.planning import plan as plan
    from topognn.pruning import PRUNERS as PRUNERS
    from topognn.pruning import apply_masks as apply_masks
    from topognn.pruning import prune as prune
    from topognn.report import topometrics as topometrics
    from topognn.results import Topometrics as Topometrics
    from topognn.shards.measuring import measure_checkpoint as measure_checkpoint
    from topognn.tracing import trace as trace
    from topognn.tracing.layout import Layout as Layout

# Where each public name is: imported when it is first used, so that `topognn --help` need not wait for torch.
_HOMES = {
    "topognn.baselines.layers": ["layer_topometrics"],
    "topognn.baselines.scores": ["ramanujan"],
    "topognn.baselines.tables": ["LayerTable"],
    "topognn.drawing.svg": ["draw"],
    "topognn.encoding.layer_graphs": ["bipartite"],
    "topognn.encoding.multipartite": ["encode"],
    "topognn.errors": [
        *(
            "CheckpointError",
            "ConvergenceError",
            "DataError",
            "DeviceError",
            "GraphError",
            "GraphMemoryError",
            "MaskError",
            "SparsityError",
            "SweepError",
            "TableError",
            "TopognnError",
        ),
        *("TraceError", "TrainingError", "UnknownNameError", "UnsupportedOperation"),
    ],
    "topognn.example": ["example_graph", "example_model"],
    "topognn.graph": ["MultipartiteGraph"],
    "topognn.graph_tables": ["layer_table", "trouble_table"],
    "topognn.interop": [
        *("to_cugraph", "to_cupy", "to_igraph", "to_networkx", "to_scipy", "to_torch_sparse"),
    ],
    "topognn.kernels.launch": ["get_num_threads", "set_num_threads"],
    "topognn.masks": ["get_masks", "save_masks"],
    "topognn.memory": ["memory_limit"],
    "topognn.metrics.differentiable": ["leading_eigenvalue", "log_path_sum"],
    "topognn.metrics.effective": ["prune_ineffective"],
    "topognn.metrics.registry": ["METRICS"],
    "topognn.models": ["MODELS", "get_model"],
    "topognn.monitoring.monitor": ["TopometricsMonitor"],
    "topognn.operators.matrix": ["LinearOperator", "linear_operator"],
    "topognn.plain": ["from_csr", "from_edge_index", "from_networkx", "from_scipy"],
    "topognn.plain_graph": ["PlainGraph"],
    "topognn.planning": ["Plan", "plan"],
    "topognn.pruning": ["PRUNERS", "apply_masks", "prune"],
    "topognn.report": ["topometrics"],
    "topognn.results": ["Topometrics"],
    "topognn.shards.measuring": ["measure_checkpoint"],
    "topognn.tracing": ["trace"],
    "topognn.tracing.layout": ["Layout"],
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = ["__version__", *_HOME_OF]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'topognn' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME_OF[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
