"""Graphs in files: one safetensors file whose header holds the layout as JSON."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from topognn.encoding.kept import KeptWeights
from topognn.errors import CheckpointError
from topognn.graph import MultipartiteGraph, add_in
from topognn.kernels.launch import check_device
from topognn.tracing.layout import Connection, Layout, Partition

_FORMAT = "topognn-graph-1"


def save_graph(graph: MultipartiteGraph, path: Path) -> None:
    """Write layout, masks and magnitudes to ``path``; nothing half-written ever stands there.

    Matrices are not stored: they are built faster than they are read.
    """
    tensors: dict[str, Tensor] = {}
    connections = []
    for number, (connection, kept) in enumerate(zip(graph.connections, graph.kept, strict=True)):
        plain: dict[str, Any] = {}
        for field in dataclasses.fields(connection):
            value = getattr(connection, field.name)
            if isinstance(value, Tensor):
                tensors[f"{number}.{field.name}"] = value.contiguous()
            else:
                plain[field.name] = value
        connections.append(plain)
        tensors[f"{number}.mask"] = kept.mask.contiguous()
        tensors[f"{number}.magnitude"] = kept.magnitude.contiguous()
    layout = graph.layout
    header = {
        "partitions": [(p.name, p.shape, p.offset) for p in layout.partitions],
        "connections": connections,
        "outputs": layout.outputs,
        "shortcuts": layout.shortcuts,
        "counts": [kept.count for kept in graph.kept],
        "num_entries": graph.num_uses,
    }
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        save_file(tensors, temporary, metadata={"format": _FORMAT, "layout": json.dumps(header)})
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_graph(path: Path, device: str | torch.device) -> MultipartiteGraph:
    """Read a graph that :func:`save_graph` wrote.

    Raises:
        CheckpointError: The file is missing, damaged, or holds something else.
    """
    device = check_device(device)
    try:
        with safe_open(path, "pt", device=str(device)) as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except FileNotFoundError:
        raise CheckpointError(f"{path} does not exist: give the path of a graph that graph.save() wrote") from None
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is not a readable safetensors file ({error}): save the graph again") from None
    if metadata.get("format") != _FORMAT:
        raise CheckpointError(
            f"{path} is a safetensors file, but holds no topognn graph: use graph.save() to write one"
        )
    header = json.loads(metadata["layout"])
    names = {field.name for field in dataclasses.fields(Connection)}
    connections, kept = [], []
    for number, plain in enumerate(header["connections"]):
        fields: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in plain.items()}
        own: dict[str, Any] = {n: tensors[f"{number}.{n}"] for n in names if f"{number}.{n}" in tensors}
        connections.append(Connection(**fields, **own))
        mask, magnitude = tensors[f"{number}.mask"], tensors[f"{number}.magnitude"]
        kept.append(KeptWeights(mask, magnitude, header["counts"][number]))
    partitions = tuple(Partition(name, tuple(shape), offset) for name, shape, offset in header["partitions"])
    layout = Layout(partitions, tuple(connections), tuple(header["outputs"]), header["shortcuts"])
    in_degrees = add_in(layout, [k.mask for k in kept], device).to(torch.int64)
    return MultipartiteGraph(layout, kept, in_degrees, header["num_entries"])
