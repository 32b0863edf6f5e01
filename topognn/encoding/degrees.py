"""Degrees and strengths of all nodes from connections, without an edge in memory.

A kept weight joins the product of a set of rows and a set of columns, so a layer's degrees are the kernel's
column sums spread over the image by two small 0/1 matrices. Sums are exact: float64 holds integers up to 2**53.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from topognn.tracing.layout import Connection, Layout

_AT_ONCE = 2**17  # weights that are made float64 at a time: torch copies what it adds up in another dtype


def add_in(layout: Layout, weights: Sequence[Tensor], device: torch.device) -> Tensor:
    """Return, for each node, the sum of ``weights`` (one tensor a connection) over its in-edges; float64."""
    total = torch.zeros(layout.num_nodes, dtype=torch.float64, device=device)
    for connection, weight in zip(layout.connections, weights, strict=True):
        put_in(connection, sum_in(connection, weight), total)
    return total


def add_out(layout: Layout, weights: Sequence[Tensor], device: torch.device) -> Tensor:
    """Return, for each node, the sum of ``weights`` (one tensor a connection) over its out-edges; float64."""
    total = torch.zeros(layout.num_nodes, dtype=torch.float64, device=device)
    for connection, weight in zip(layout.connections, weights, strict=True):
        put_out(connection, sum_out(connection, weight), total)
    return total


def put_in(connection: Connection, values: Tensor, total: Tensor) -> None:
    """Add what :func:`sum_in` returned to the totals of all nodes, in their dtype."""
    if connection.target_map is None:
        total[connection.target_first : connection.target_first + values.numel()] += values
    else:
        total[connection.target_map] += values  # a permutation: no element meets another


def put_out(connection: Connection, values: Tensor, total: Tensor) -> None:
    """Add what :func:`sum_out` returned to the totals of all nodes, in their dtype."""
    total[connection.source : connection.source + values.numel()] += values


def sum_in(connection: Connection, weights: Tensor) -> Tensor:
    """Return, for every output element, the sum of ``weights`` over its edges; float64, in target order.

    ``weights`` is in the connection's kernel form: 0/1 for degrees, magnitudes for strengths.
    """
    inner, held = connection.kernel[1], connection.multiplicity
    parts = _by_outputs(connection, weights)
    if held is None:
        taps = torch.cat([part.sum(2, dtype=torch.float64) for part in parts], 1)
    elif held.shape[1] == 1:  # every element of a channel stands for as many nodes
        each = held.view(connection.groups, inner)
        taps = torch.cat([torch.einsum("goikl,gi->gokl", part.double(), each) for part in parts], 1)
    else:
        places = torch.cat([_sum_places(connection, part, held) for part in parts], 1)
        return _flatten(places.flatten(0, 1), connection.target_place_stride)
    spread = _spread(taps.flatten(0, 1), connection.source_y >= 0, connection.source_x >= 0)
    return _flatten(spread, connection.target_place_stride)


def sum_out(connection: Connection, weights: Tensor) -> Tensor:
    """Return the sum of ``weights`` over the out-edges of each node from ``connection.source`` on; float64."""
    taps = torch.zeros(connection.groups, *connection.kernel[1:], dtype=torch.float64, device=weights.device)
    for part in _by_outputs(connection, weights):
        taps += part.sum(1, dtype=torch.float64)
    spread = _spread(taps.flatten(0, 1), connection.target_y >= 0, connection.target_x >= 0)
    elements = _flatten(spread, connection.place_stride)
    if connection.support is None:
        return elements
    assert connection.holders_indptr is not None and connection.holders is not None
    held = elements[connection.holders]
    return torch.segment_reduce(held, "sum", offsets=connection.holders_indptr)


def _by_outputs(connection: Connection, weights: Tensor) -> Sequence[Tensor]:
    """Return the weights as ``(groups, outputs, inner, height, width)``, cut so that none is large."""
    grouped = weights.view(connection.groups, -1, *connection.kernel[1:])
    outputs = grouped.shape[1]
    return torch.split(grouped, max(1, _AT_ONCE * outputs // max(1, weights.numel())), 1)


def _spread(taps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Return ``(channels, height, width)``: at each place the sum of the taps that are inside there."""
    return rows.double() @ (taps @ columns.double().T)


def _sum_places(connection: Connection, weights: Tensor, held: Tensor) -> Tensor:
    """Return ``(groups, outputs, height, width)``: weights times the nodes each element stands for, tap by tap."""
    groups, outputs, inner, height, width = weights.shape
    grouped = weights.double()
    total = grouped.new_zeros(groups, outputs, *connection.positions)
    for k in range(height):
        for j in range(width):
            y, x = connection.source_y[:, k, None], connection.source_x[None, :, j]
            read = held[:, (y.clamp(min=0) + x.clamp(min=0)) // connection.place_stride] * ((y | x) >= 0)
            total += torch.einsum("goi,giyx->goyx", grouped[..., k, j], read.view(groups, inner, *read.shape[1:]))
    return total


def _flatten(spread: Tensor, place_stride: int) -> Tensor:
    """Return values by element: channels first, or last where neighbouring channels are neighbours."""
    return (spread.permute(1, 2, 0) if place_stride > 1 else spread).reshape(-1)
