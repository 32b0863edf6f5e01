"""A layer's left nodes by degree: the subgraphs of nodes of one degree, and their two largest singular values.

Source: Hoang, Liu, Marculescu and Wang, *Revisiting Pruning at Initialization through the Lens of Ramanujan Graph*,
ICLR 2023 (section 3: iterative mean difference of bound).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from topognn.baselines.singular import find_largest_two, make_gram
from topognn.graph import MultipartiteGraph
from topognn.kernels.host import read

LEAST = 3  # mean degree of a side from which a subgraph counts
_WEIGHTS_TOGETHER = 2**24  # of layers whose subgraphs are solved together
_GATHERED = 2**23  # numbers that are gathered at a time


class Piece(NamedTuple):
    """The left nodes of one degree in one group of a layer: ``order[first:first + nodes]``.

    Attributes:
        row: Number of the degree among the degrees of the layer.
        degree: The number of edges of each of these nodes.
        group: Number of the channel group.
    """

    row: int
    degree: int
    group: int
    first: int
    nodes: int


class DegreeClasses(NamedTuple):
    """The subgraphs of a layer's left nodes of equal degree k >= 3, ascending in k, where d_r >= 3 is possible.

    Attributes:
        degrees: k; float64 ``(classes,)``.
        edges: Of each subgraph; float64 ``(classes,)``.
        touched: Right nodes that it has; float64 ``(classes,)``.
        singular: Its two largest singular values, unweighted; float64 ``(classes, 2)``.
        weighted: The same of the weighted matrix.
    """

    degrees: Tensor
    edges: Tensor
    touched: Tensor
    singular: Tensor
    weighted: Tensor


def get_blocks(graph: MultipartiteGraph, weighted: bool) -> Tensor:
    """Return a rolled layer's matrix by channel groups, ``(groups, right nodes, left nodes)``: bool, or float32."""
    kept, groups = graph.kept[0], graph.connections[0].groups
    values = kept.magnitude if weighted else kept.mask
    return values.view(groups, values.shape[0] // groups, values.shape[1])


def find_degree_classes(graphs: Sequence[MultipartiteGraph]) -> list[DegreeClasses]:
    """Return the degree classes of rolled layers; one host sync for all, and what :func:`find_largest_two` makes."""
    orders, pieces = _split_by_degree(graphs)
    found: list[DegreeClasses] = []
    waiting: list[int] = []
    for number in range(len(graphs)):
        waiting.append(number)
        weights = sum(graphs[n].kept[0].mask.numel() for n in waiting)
        following = graphs[number + 1].kept[0].mask.numel() if number + 1 < len(graphs) else _WEIGHTS_TOGETHER
        if weights + following > _WEIGHTS_TOGETHER:
            chosen = [([graphs[n], orders[n], pieces[n]]) for n in waiting]
            found += _solve(*map(list, zip(*chosen, strict=True)))
            waiting = []
    return found


def _split_by_degree(graphs: Sequence[MultipartiteGraph]) -> tuple[list[Tensor], list[list[Piece]]]:
    """Return each layer's left nodes, sorted by degree within groups, and where those of one degree stand."""
    orders, histograms = [], []
    for graph in graphs:
        groups, right, left = get_blocks(graph, False).shape
        degrees = graph.out_degrees[: groups * left].view(groups, left)
        first = torch.arange(0, groups * left, left, device=graph.device)[:, None]
        orders.append((degrees.argsort(dim=1, stable=True) + first).flatten())
        if right >= LEAST:
            histogram = torch.zeros(groups, right + 1, dtype=torch.int64, device=graph.device)
            histograms.append(histogram.scatter_add_(1, degrees, torch.ones_like(degrees)))
    numbers = iter(map(int, read(torch.cat([h.flatten() for h in histograms])) if histograms else ()))
    pieces = []
    for graph in graphs:
        groups, right, left = get_blocks(graph, False).shape
        counts = [[next(numbers) for _ in range(right + 1)] for _ in range(groups)] if right >= LEAST else []
        pieces.append(list_pieces(counts, left))
    return orders, pieces


def list_pieces(counts: Sequence[Sequence[int]], left: int) -> list[Piece]:
    """Return the pieces that ``counts[group][degree]`` left nodes make, without degrees that cannot have d_r >= 3."""
    by_degree: dict[int, list[Piece]] = defaultdict(list)
    for group, histogram in enumerate(counts):
        first = group * left
        for degree, count in enumerate(histogram):
            if count and degree >= LEAST:
                by_degree[degree].append(Piece(0, degree, group, first, count))
            first += count
    # A group's nodes touch `degree` right nodes at least, so that d_r is at most the number of nodes a group.
    kept = [d for d in sorted(by_degree) if sum(p.nodes for p in by_degree[d]) >= LEAST * len(by_degree[d])]
    return [piece._replace(row=row) for row, degree in enumerate(kept) for piece in by_degree[degree]]


class _Stack(NamedTuple):
    """Pieces of one layer that are solved together: as matrices of ``padded`` left nodes."""

    layer: int
    pieces: list[Piece]
    padded: int
    size: int


def _solve(
    graphs: Sequence[MultipartiteGraph], orders: Sequence[Tensor], pieces: Sequence[Sequence[Piece]]
) -> list[DegreeClasses]:
    """Return the degree classes of layers that are small enough, together, to be copied once."""
    stacks = _plan([get_blocks(graph, False).shape[1] for graph in graphs], pieces)
    touched: list[Tensor] = []
    values: list[list[Tensor]] = []
    for weighted in (False, True):
        # By rows of left nodes, so that those of a degree are gathered and not the layer copied once a degree.
        matrices = [get_blocks(graph, weighted).mT.flatten(0, 1).contiguous() for graph in graphs]

        def make(weighted: bool = weighted, matrices: list[Tensor] = matrices) -> Iterator[Tensor]:
            for stack in stacks:
                nodes = _gather(matrices[stack.layer], orders[stack.layer], stack)
                if not weighted:
                    touched.append(nodes.any(1).sum(1))
                yield make_gram(nodes)

        values.append(find_largest_two(make()))
    return [_collect(n, graph, pieces[n], stacks, touched, values) for n, graph in enumerate(graphs)]


def _plan(rights: Sequence[int], pieces: Sequence[Sequence[Piece]]) -> list[_Stack]:
    """Return stacks of pieces, those of equal Gram matrices one after the other."""
    stacks = []
    for layer, right in enumerate(rights):
        by_size: dict[int, list[Piece]] = defaultdict(list)
        for piece in pieces[layer]:
            by_size[_pad(piece.nodes)].append(piece)
        for padded, alike in by_size.items():
            most = max(1, _GATHERED // (padded * right))
            for start in range(0, len(alike), most):
                stacks.append(_Stack(layer, alike[start : start + most], padded, min(padded, right)))
    return sorted(stacks, key=lambda stack: stack.size)


def _pad(count: int) -> int:
    """Return the size that a piece of so many nodes is padded to: an eighth more at most, but 8 at least."""
    step = max(8, (1 << count.bit_length()) >> 4)
    return -(-count // step) * step


def _gather(matrix: Tensor, order: Tensor, stack: _Stack) -> Tensor:
    """Return the rows of each piece, ``(pieces, padded, right nodes)``; padding is zero."""
    device = matrix.device
    firsts = torch.tensor([piece.first for piece in stack.pieces]).to(device)
    counts = torch.tensor([piece.nodes for piece in stack.pieces]).to(device)
    places = torch.arange(stack.padded, device=device)
    index = order[(firsts[:, None] + places).clamp(max=order.numel() - 1)]
    rows = matrix.index_select(0, index.flatten()).view(*index.shape, -1)
    return rows * (places < counts[:, None])[:, :, None]


def _collect(
    layer: int,
    graph: MultipartiteGraph,
    pieces: Sequence[Piece],
    stacks: Sequence[_Stack],
    touched: Sequence[Tensor],
    values: Sequence[Sequence[Tensor]],
) -> DegreeClasses:
    """Return a layer's classes from the solved pieces: over groups, right nodes add up and singular values compete."""
    classes = len({piece.row for piece in pieces})
    groups = 1 + max((piece.group for piece in pieces), default=0)
    device = graph.device
    right = torch.zeros(classes, groups, dtype=torch.float64, device=device)
    two = [torch.zeros(classes, groups, 2, dtype=torch.float64, device=device) for _ in values]
    for number, stack in enumerate(stacks):
        if stack.layer == layer:
            rows = torch.tensor([piece.row for piece in stack.pieces]).to(device)
            columns = torch.tensor([piece.group for piece in stack.pieces]).to(device)
            right[rows, columns] = touched[number].double()
            for into, found in zip(two, values, strict=True):
                into[rows, columns] = found[number]
    sums: dict[int, list[int]] = defaultdict(lambda: [0, 0])
    for piece in pieces:
        sums[piece.row] = [piece.degree, sums[piece.row][1] + piece.degree * piece.nodes]
    host = torch.tensor([sums[row] for row in range(classes)], dtype=torch.float64).view(-1, 2)
    degrees, edges = host.to(device).unbind(1)
    singular, weighted = (values.flatten(1).topk(2, 1).values if groups > 1 else values[:, 0] for values in two)
    return DegreeClasses(degrees, edges, right.sum(1), singular, weighted)
