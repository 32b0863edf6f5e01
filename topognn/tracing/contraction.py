"""Products of two tensors that are summed over axes: matmul, bmm, addmm, tensordot, einsum, all as labelled axes."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.fx import Node

from topognn.tracing.capture import name_of
from topognn.tracing.nodes import shape_of, unsupported

Labels = tuple[int, ...]
PRODUCTS = frozenset("matmul mm bmm mv dot addmm addmv addbmm baddbmm einsum tensordot".split())


class Contraction(NamedTuple):
    """A product of two tensors: axes with one label are multiplied, and summed where the result lacks the label.

    Attributes:
        left, right: The factors.
        left_labels, right_labels, labels: Labels of the factors' axes and of the result's. An axis of length 1 that
            meets a longer one has a label that occurs nowhere else.
    """

    left: Node
    right: Node
    left_labels: Labels
    right_labels: Labels
    labels: Labels


def read_contraction(node: Node) -> Contraction:
    """Return what a product is.

    Raises:
        UnsupportedOperation: It is an einsum of other than two factors, or takes a diagonal.
    """
    name, args = name_of(node), list(node.args)
    if name == "einsum":
        equation, factors = args[:2]
        if not isinstance(factors, list | tuple) or len(factors) != 2:
            raise unsupported(node, "an einsum of other than two factors")
        left, right = factors
        labels = _read_equation(node, str(equation), len(shape_of(left)), len(shape_of(right)))
    elif name == "tensordot":
        left, right = args[:2]
        labels = _label_axes(len(shape_of(left)), len(shape_of(right)), args[2], args[3])
    else:
        left, right = args[1:3] if name.startswith(("add", "badd")) else args[:2]
        if name == "addbmm":
            raise unsupported(node, "it adds up over the batch")
        labels = _label_matrices(len(shape_of(left)), len(shape_of(right)))
    assert isinstance(left, Node) and isinstance(right, Node)
    return Contraction(left, right, *_part_broadcast(shape_of(left), shape_of(right), *labels))


def label_attention(query: Sequence[int], key: Sequence[int], value: Sequence[int]) -> tuple[Labels, ...]:
    """Return labels of queries, keys, scores, values and result of attention, from the shapes of the factors."""
    row, column, inner, channel, first = range(5)
    lead = torch.broadcast_shapes(query[:-2], key[:-2], value[:-2])  # type: ignore[no-untyped-call]
    fresh = itertools.count(10_000)

    def label(shape: Sequence[int], *own: int) -> Labels:
        names = range(first + len(lead) - len(shape), first + len(lead))
        labels = (x if n == lead[x - first] else next(fresh) for x, n in zip(names, shape, strict=True))
        return (*labels, *own)

    scored = torch.broadcast_shapes(query[:-2], key[:-2])  # type: ignore[no-untyped-call]
    return (
        label(query[:-2], row, inner),
        label(key[:-2], column, inner),
        label(scored, row, column),
        label(value[:-2], column, channel),
        label(lead, row, channel),
    )


def arrange(ids: Tensor, labels: Labels, groups: Sequence[Labels]) -> Tensor:
    """Return ids with one axis a group of labels, in that order; ``(K, size of the first group, ...)``."""
    order = [labels.index(x) + 1 for group in groups for x in group]
    sizes = [math.prod(ids.shape[labels.index(x) + 1] for x in group) for group in groups]
    return ids.permute(0, *order).reshape(ids.shape[0], *sizes)


def spread(ids: Tensor, labels: Labels, out: Labels, shape: Sequence[int]) -> Tensor:
    """Return ids with the axes ``out``, repeated along those that they lack; ``(K, *shape)``."""
    kept = [x for x in out if x in labels]
    ids = ids.permute(0, *(labels.index(x) + 1 for x in kept))
    for axis, x in enumerate(out):
        if x not in labels:
            ids = ids.unsqueeze(axis + 1)
    return ids.expand(-1, *shape)


def _label_matrices(left: int, right: int) -> tuple[Labels, Labels, Labels]:
    """Return the labels of a matmul of tensors with so many axes."""
    if left == 1 and right == 1:
        return (0,), (0,), ()
    rows, columns, inner = 0, 1, 2
    batch = list(range(3, 3 + max(left, right)))
    a = (*batch[len(batch) - (left - 2) :], rows, inner) if left > 1 else (inner,)
    b = (*batch[len(batch) - (right - 2) :], inner, columns) if right > 1 else (inner,)
    out = [*batch[len(batch) - max(left - 2, right - 2, 0) :]]
    return a, b, (*out, *([rows] if left > 1 else []), *([columns] if right > 1 else []))


def _label_axes(left: int, right: int, left_axes: Any, right_axes: Any) -> tuple[Labels, Labels, Labels]:
    a = list(range(left))
    b = list(range(left, left + right))
    for i, j in zip(left_axes, right_axes, strict=True):
        b[j] = a[i]
    out = [x for x in a if x not in b] + [x for x in b if x not in a]
    return tuple(a), tuple(b), tuple(out)


def _read_equation(node: Node, equation: str, left: int, right: int) -> tuple[Labels, Labels, Labels]:
    given, arrow, result = equation.replace(" ", "").partition("->")
    a, b = given.split(",")
    hidden = [size - len(text) + 3 for text, size in ((a, left), (b, right)) if "..." in text]
    width = max(hidden, default=0)
    if not arrow:
        letters = [c for c in sorted(set(given) - set(".,")) if given.count(c) == 1]
        result = ("..." if "..." in given else "") + "".join(letters)

    def label(text: str, size: int | None) -> Labels:
        before, dots, after = text.partition("...")
        count = width if size is None else size - len(before) - len(after)
        # The axes behind dots are labelled from the last on, with negative numbers.
        return (*map(ord, before), *(range(-count, 0) if dots else ()), *map(ord, after))

    labels = label(a, left), label(b, right), label(result, None)
    if any(len(set(one)) < len(one) for one in labels):
        raise unsupported(node, "an einsum that takes a diagonal")
    return labels


def _part_broadcast(
    left: Sequence[int], right: Sequence[int], a: Labels, b: Labels, out: Labels
) -> tuple[Labels, Labels, Labels]:
    """Give axes of length 1 that meet longer ones labels of their own."""
    fresh = itertools.count(10_000)
    sizes = dict(zip(b, right, strict=True))
    mine = dict(zip(a, left, strict=True))
    for label, size in mine.items():
        sizes[label] = max(size, sizes.get(label, 1))
    return (
        tuple(x if n == sizes[x] else next(fresh) for x, n in zip(a, left, strict=True)),
        tuple(x if n == sizes[x] else next(fresh) for x, n in zip(b, right, strict=True)),
        out,
    )
