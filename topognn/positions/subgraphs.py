"""What the counts of subgraphs on four nodes are made of, without a matrix: see :mod:`topognn.metrics.motifs`.

A pair of nodes with k walks of two steps between them, directions forgotten, is in k (k - 1) / 2 cycles of four, and if
they are neighbours, in k triangles. So both follow from :mod:`topognn.positions.walks`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from topognn.positions.channels import Channels, count_kinds
from topognn.positions.counting import count_all
from topognn.positions.grids import Ints, add_over_nodes, spread_over_nodes, to_device
from topognn.positions.pieces import Piece
from topognn.positions.walks import find_walks


class Subgraphs(NamedTuple):
    """Counts of a graph without cliques of four; int64 scalars.

    Attributes:
        cycles: Cycles of four nodes, with or without chords.
        triangles: Three times the triangles: those on each edge, added up.
        edges: Sum of (d - 1)(d' - 1) over edges, d and d' their ends' degrees.
        pairs: Pairs of triangles with a common edge.
        ends: Sum of t (d + d') over edges with t triangles.
    """

    cycles: Tensor
    triangles: Tensor
    edges: Tensor
    pairs: Tensor
    ends: Tensor


def count_subgraphs(channels: Channels, degrees: Tensor) -> Subgraphs:
    """Count subgraphs from walks of two steps. Makes no host sync.

    ``degrees`` are those of the undirected graph, int64 ``(nodes,)``.
    """
    zero = torch.zeros((), dtype=torch.int64, device=degrees.device)
    cycles, triangles, pairs, ends = zero, zero, zero, zero
    for walks in find_walks(channels.found, undirected=True):
        found = count_all(channels, walks)
        piece = channels.found.pieces[walks.source]
        here, times = degrees[piece.nodes], (walks.y.counts, walks.x.counts)
        if walks.source == walks.target:  # each pair from both sides, and each node with itself, its degree times
            cycles = cycles + (add_over_nodes(found.pairs, *times) - (here * (here - 1) // 2).sum()) // 2
        elif walks.source < walks.target:
            cycles = cycles + add_over_nodes(found.pairs, *times)
        if walks.direct is not None and walks.ways:
            ends = ends + (spread_over_nodes(piece.grid, found.shared, *times) * here).sum()
            if walks.source < walks.target:
                triangles = triangles + add_over_nodes(found.shared, *times)
                pairs = pairs + add_over_nodes(found.doubled, *times)
    return Subgraphs(cycles // 2, triangles, sum_over_edges(channels, degrees - 1), pairs, ends)


def sum_over_edges(channels: Channels, values: Tensor) -> Tensor:
    """Return the sum over edges of the product of their ends' values; int64 scalar.

    ``values`` may differ only where degrees may: at nodes of different channels, or whose rows or columns are in
    different numbers of pairs of some kind. Exact as long as sums of a block's channels stay below 2**53.
    """
    total = torch.zeros((), dtype=torch.int64, device=values.device)
    classes = _find_classes(channels)
    for (source, target), block in channels.found.blocks.items():
        if block is None or not (block.of_y.size and block.of_x.size):
            continue
        firsts, seconds = (_take(channels.found.pieces[number], classes[number], values) for number in (source, target))
        by_y = _count_classes(block.y, block.of_y.shape[0], classes[source][0], classes[target][0])
        by_x = _count_classes(block.x, block.of_x.shape[0], classes[source][1], classes[target][1])
        times_x = to_device(by_x, values.device)[:, None, :, None, :]
        shape = (-1, by_y.shape[1], by_x.shape[1], by_y.shape[2], by_x.shape[2])
        for row, times in zip(channels.joined(block), by_y, strict=True):
            sums = firsts.T @ (row.double() @ seconds)
            times_y = to_device(times, values.device)[None, :, None, :, None]
            total = total + (sums.view(shape).to(torch.int64) * times_y * times_x).sum()
    return total


def _find_classes(channels: Channels) -> list[tuple[Ints, Ints]]:
    """Return for each piece the class of each row, and of each column: those in as many pairs of each kind."""
    found = channels.found
    if "classes" not in found.walks:
        seen: list[tuple[list[Ints], list[Ints]]] = [([], []) for _ in found.grids]
        for block in found.blocks.values():
            if block is not None:
                for axis, (table, of) in enumerate(((block.y, block.of_y), (block.x, block.of_x))):
                    if of.size:
                        seen[block.source][axis].append(count_kinds(table, of.shape[0]))
                        seen[block.target][axis].append(count_kinds(table.T, of.shape[0]))
        found.walks["classes"] = [
            (_classify(y, grid.height), _classify(x, grid.width))
            for (y, x), grid in zip(seen, found.grids, strict=True)
        ]
    result: list[tuple[Ints, Ints]] = found.walks["classes"]  # type: ignore[assignment]
    return result


def _classify(counts: list[Ints], size: int) -> Ints:
    if not counts:
        return np.zeros(size, dtype=np.int64)
    return np.unique(np.concatenate(counts, 1), axis=0, return_inverse=True)[1].reshape(-1)


def _take(piece: Piece, classes: tuple[Ints, Ints], values: Tensor) -> Tensor:
    """Return values of a piece's nodes, at a row and a column of each class; float64 ``(channels, classes)``."""
    rows, columns = (to_device(np.unique(own, return_index=True)[1], values.device) for own in classes)
    image = piece.grid.unflatten(values[piece.nodes])
    return image[:, rows][:, :, columns].reshape(piece.grid.channels, -1).double()


def _count_classes(table: Ints, kinds: int, sources: Ints, targets: Ints) -> Ints:
    """Return how many pairs of each kind join coordinates of two classes; ``(kinds, source, target classes)``."""
    counts = np.zeros((kinds, sources.max() + 1, targets.max() + 1), dtype=np.int64)
    source, target = np.nonzero(table >= 0)
    np.add.at(counts, (table[source, target], sources[source], targets[target]), 1)
    return counts
