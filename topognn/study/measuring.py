"""All that a sweep measures of a network: columns of a table of networks, each in a form that may be missing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from topognn.baselines.layers import layer_topometrics
from topognn.baselines.scores import ramanujan
from topognn.encoding.multipartite import encode
from topognn.errors import ConvergenceError
from topognn.kernels.host import read
from topognn.metrics.registry import METRICS
from topognn.report import topometrics
from topognn.study.columns import RAMANUJAN, SHARED
from topognn.study.grid import Settings
from topognn.tracing import trace

# Released name of a mean over layers -> name in the table of `topognn.ramanujan`.
SCORES = dict(zip(RAMANUJAN, ("iterative_spectral_gap", "imdb", "delta_r"), strict=True))
OURS = {metric.column: name for name, metric in METRICS.items() if metric.column}


def measure(
    model: nn.Module,
    masks: Mapping[str, Tensor],
    input_shape: Sequence[int],
    settings: Settings,
    have: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the columns that the settings ask for.

    Args:
        model: The network; its weights count where a metric has weights.
        masks: Which of them are kept.
        input_shape: Of one input, without the batch.
        settings: Say which metrics and encodings.
        have: A row that need not be measured again: what it has is left out.

    Returns:
        Column -> value; topometrics under their published names, normalised as published, where they have one; NaN for
        what is not defined or did not converge.
    """
    have = have or {}
    names = [name for name in settings.metrics or METRICS if column_of(name) not in have]
    row: dict[str, Any] = {}
    if names or "edges" not in have:
        row |= measure_graph(model, masks, input_shape, names)
    for kind in settings.bipartite:
        prefix = kind.replace("-", "_")
        if f"{prefix}:{next(iter(SHARED))}" not in have:
            row |= _measure_layers(model, masks, input_shape, kind, prefix)
    if RAMANUJAN[0] not in have and "rolled" in settings.bipartite:
        table = ramanujan(model, "rolled", masks, input_shape)
        row |= {column: _number(table.means[name]) for column, name in SCORES.items()}
        row["layer_density"] = _number(table.means["density"])
    if "density" not in have:
        kept = sum(map(int, read(torch.stack([mask.sum() for mask in masks.values()]))))
        row["density"] = kept / sum(mask.numel() for mask in masks.values())
    return row


def column_of(metric: str) -> str:
    """Return the column of a topometric: its published name where it has one.

    >>> column_of("one_hop"), column_of("effective_density")
    ('1-hop_nei', 'effective_density')
    """
    return METRICS[metric].column or metric


def measure_graph(
    model: nn.Module, masks: Mapping[str, Tensor], input_shape: Sequence[int], names: Iterable[str]
) -> dict[str, Any]:
    """Return topometrics of the MGE by column, with ``nodes`` and ``edges``; NaN where one did not converge."""
    graph = encode(trace(model, input_shape), masks=masks)
    row: dict[str, Any] = {"nodes": graph.num_nodes, "edges": graph.num_edges}
    names, slow = list(names), []
    try:
        values = topometrics(graph, names)
    except ConvergenceError:  # of one: the others are measured without it
        slow = [name for name in names if METRICS[name].group == "expansion"]
        values = topometrics(graph, [name for name in names if name not in slow])
    row |= _read(values)
    for name in slow:
        try:
            row |= _read(topometrics(graph, [name]))
        except ConvergenceError:
            row[column_of(name)] = math.nan
    return row


def _read(values: Any) -> dict[str, float]:
    published = values.normalized()
    return {
        column_of(name): float(published.get(column_of(name), value))
        for name, value in values.items()
        if name in METRICS
    }


def _measure_layers(
    model: nn.Module, masks: Mapping[str, Tensor], input_shape: Sequence[int], kind: Any, prefix: str
) -> dict[str, float]:
    table = layer_topometrics(model, kind, masks, input_shape, metrics=[OURS[column] for column in SHARED])
    return {f"{prefix}:{column}": _number(table.means[OURS[column]]) for column in SHARED}


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
