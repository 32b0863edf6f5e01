"""Graphs in files: one safetensors file whose header holds the layout as JSON."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from topognn.encoding.kept import KeptWeights
from topognn.errors import CheckpointError
from topognn.kernels.launch import check_device
from topognn.tracing.layout import Connection, Layout, Partition

_FORMAT = "topognn-graph-2"


def save_parts(path: Path, layout: Layout, kept: Sequence[KeptWeights], num_uses: int) -> None:
    """Write layout, masks and values to ``path``; nothing half-written ever stands there."""
    tensors: dict[str, Tensor] = {}
    connections = []
    for number, (connection, own) in enumerate(zip(layout.connections, kept, strict=True)):
        plain: dict[str, Any] = {}
        for field in dataclasses.fields(connection):
            value = getattr(connection, field.name)
            if isinstance(value, Tensor):
                tensors[f"{number}.{field.name}"] = value.contiguous()
            else:
                plain[field.name] = value
        connections.append(plain)
        tensors[f"{number}.mask"] = own.mask.contiguous()
        tensors[f"{number}.values"] = own.values
    header = {
        "partitions": [(p.name, p.shape, p.offset) for p in layout.partitions],
        "connections": connections,
        "outputs": layout.outputs,
        "inputs": layout.inputs,
        "shortcuts": layout.shortcuts,
        "counts": [own.count for own in kept],
        "num_uses": num_uses,
    }
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        save_file(tensors, temporary, metadata={"format": _FORMAT, "layout": json.dumps(header)})
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_parts(path: Path, device: str | torch.device) -> tuple[Layout, list[KeptWeights], int]:
    """Read what :func:`save_parts` wrote: layout, kept weights, number of uses.

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
        mask, values = tensors[f"{number}.mask"], tensors[f"{number}.values"]
        kept.append(KeptWeights(mask, values, header["counts"][number]))
    partitions = tuple(Partition(name, tuple(shape), offset) for name, shape, offset in header["partitions"])
    layout = Layout(partitions, tuple(connections), tuple(header["outputs"]), header["shortcuts"])
    layout = dataclasses.replace(layout, inputs=tuple(header.get("inputs", (0,))))
    return layout, kept, header["num_uses"]
