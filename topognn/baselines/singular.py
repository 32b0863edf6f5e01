"""The two largest singular values of many matrices, most of them small, from Gram matrices of their smaller sides.

A singular value of B is the root of an eigenvalue of B B', which has no more rows than the smaller side. Of 0/1
matrices it holds whole numbers, exactly. Matrices of equal size are solved together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from topognn.errors import ConvergenceError
from topognn.lanczos import draw_start, find_eigenpairs

DENSE_UP_TO = 1024  # rows of a Gram matrix whose eigenvalues are all found; of larger ones only the largest are
_AT_ONCE = 2**22  # numbers that are copied into floats at a time, and that Gram matrices solved together hold
_EXACT_BELOW = 2**33  # multiplications for a Gram matrix made in float64, whole, which is slower than float32
_COUNTED_BELOW = 2**28  # the same where matrices are 0/1, whose products float32 has exactly
_NOISE = 2.0**-52  # of an eigenvalue, relative to the largest and a row: less is zero


def make_gram(matrices: Tensor) -> Tensor:
    """Return M M' or M' M, whichever is smaller, of each of ``(batch, rows, columns)``; float64.

    The matrices are read a piece at a time and may be of any dtype. Large ones are multiplied in float32 and added
    up in float64: whole numbers stay exact, others have relative errors of 1e-7 of the largest entry.
    """
    rows, columns = matrices.shape[1:]
    wide = matrices if rows <= columns else matrices.mT
    batch, side, count = wide.shape
    exact = side * side * count < (_COUNTED_BELOW if matrices.dtype == torch.bool else _EXACT_BELOW)
    total = torch.zeros(batch, side, side, dtype=torch.float64, device=matrices.device)
    for piece in torch.split(wide, max(1, _AT_ONCE // max(1, batch * side)), 2):
        if exact:
            part = piece.double()
            total.baddbmm_(part, part.mT)
        else:
            _add_upper(total, piece.float())
    return total if exact else total.triu_() + total.triu(1).mT


def _add_upper(total: Tensor, part: Tensor) -> None:
    """Add the products of all rows of ``part``, in float32, to the upper triangle of ``total``: half of the work."""
    side = part.shape[1]
    step = -(-side // 8)
    for first in range(0, side, step):
        total[:, first : first + step, first:] += part[:, first : first + step] @ part[:, first:].mT


def find_largest_two(grams: Iterable[Tensor]) -> list[Tensor]:
    """Return the roots of the two largest eigenvalues of each Gram matrix; float64 ``(batch, 2)`` for each stack.

    Args:
        grams: Stacks ``(batch, n, n)``, float64, symmetric, without negative eigenvalues. Neighbours of equal ``n`` are
            solved in one call.

    A missing second value is 0; so is what is not more than rounding errors. No host sync up to ``n`` = 1,024 but what
    the eigenvalue solver makes; above that, one every five products with a matrix.

    >>> find_largest_two([torch.tensor([[[2.0, 0.0], [0.0, 9.0]]], dtype=torch.float64)])
    [tensor([[3.0000, 1.4142]], dtype=torch.float64)]
    """
    found: list[Tensor] = []
    for stacks in _join(grams):
        values = _solve(torch.cat(stacks) if len(stacks) > 1 else stacks[0])
        found += torch.split(values, [stack.shape[0] for stack in stacks])
    return found


def _join(grams: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Yield lists of neighbouring stacks of equal matrices, none with many more than a few million numbers."""
    waiting: list[Tensor] = []
    for stack in grams:
        held = sum(other.numel() for other in waiting)
        if waiting and (stack.shape[1] != waiting[0].shape[1] or held + stack.numel() > _AT_ONCE):
            yield waiting
            waiting = []
        waiting.append(stack)
    if waiting:
        yield waiting


def _solve(grams: Tensor) -> Tensor:
    """Return the roots of the two largest eigenvalues of each of ``(batch, n, n)``."""
    size = grams.shape[1]
    if size > DENSE_UP_TO:
        top = torch.stack([_iterate(gram) for gram in grams])
    else:
        top = torch.linalg.eigvalsh(grams)[:, -2:].flip(1)
    if size == 1:
        top = torch.cat([top, torch.zeros_like(top)], 1)
    top = torch.where(top > _NOISE * size * top[:, :1], top, 0)
    return top.clamp(min=0).sqrt()


def _iterate(gram: Tensor) -> Tensor:
    """Return the two largest eigenvalues of one large matrix, by Lanczos where that converges."""
    start = draw_start(2, gram.shape[0], 0, gram.device, gram.dtype)
    try:
        return find_eigenpairs(lambda x: x @ gram, start, 2).values
    except ConvergenceError:
        values: Tensor = torch.linalg.eigvalsh(gram)
        return values[-2:].flip(0)
