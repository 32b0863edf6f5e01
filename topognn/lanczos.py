"""Extreme eigenvalues of a symmetric operator that is known by its products: thick-restart block Lanczos.

Source: Wu and Simon, *Thick-Restart Lanczos Method for Large Symmetric Eigenvalue Problems*, SIAM Journal on Matrix
Analysis and Applications, 2000; in blocks, since p vectors together find eigenvalues that are repeated up to p times.

Vectors are kept cut into spans of a few thousand numbers, ``(spans, vectors, span)``: all vectors' parts of a span stay
in a cache while they are multiplied with each other, and sums over millions of nodes are of short float32 sums in
float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from topognn.errors import ConvergenceError
from topognn.kernels.host import read

Which = Literal["largest", "magnitude"]
BASIS = 24  # vectors that the basis grows to before it is condensed, at least
_BLOCKS = 24  # blocks that it grows to where there is room: a basis of few blocks forgets too soon
_ROOM = 2**28  # numbers
CHECK_EVERY = 5  # products, at most
_ROUNDINGS = 4  # by how much of its last digit a product may be off
_SPAN = 4096  # numbers of a vector that lie together, whose products are added up in the vectors' dtype
_LINE = 16  # numbers of which a span is a multiple: whole cache lines
_NOTHING = 1e-100  # stands for the foremost eigenvalue's magnitude where all are 0


class Eigenpairs(NamedTuple):
    """Eigenvalues, foremost first, with their vectors.

    Attributes:
        values: float64 ``(count,)``.
        vectors: ``(count, size)``, orthonormal; zero where an operator has fewer eigenvalues than were asked for.
        residuals: Norms of A v - value * v; float64 ``(count,)``.
        products: How many times the operator was applied to a block of vectors.
        foremost: ``vectors``, and as many more as fill the block, converged or not: where a like search can begin.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    products: int
    foremost: Tensor


def find_eigenpairs(
    apply: Callable[[Tensor], Tensor],
    start: Tensor,
    count: int,
    which: Which = "largest",
    *,
    tolerance: float = 1e-6,
    deflate: Tensor | None = None,
    max_products: int = 2000,
) -> Eigenpairs:
    """Return the foremost eigenvalues of a symmetric operator.

    Eigenvalues that an operator has not count as 0, which is why ``"largest"`` wants one without negative eigenvalues.

    Args:
        apply: From ``(block, size)`` to the operator's products with each row; it must be symmetric.
        start: ``(block, size)``, linearly independent; random ones are safest. Its dtype and device are those of the
            work. As many as the multiplicity up to which eigenvalues must be found.
        count: How many eigenvalues.
        which: ``"largest"``, or those of largest ``"magnitude"``.
        tolerance: Largest residual, relative to the foremost eigenvalue's magnitude.
        deflate: Orthonormal rows ``(known, size)``: eigenvectors to leave out.
        max_products: How often the operator is applied before the search is given up.

    Raises:
        ConvergenceError: The residuals are not below the tolerance after all products; the message says what was
            reached, ``error.found`` holds it.

    One host sync every few products: have all converged?

    >>> matrix = torch.diag(torch.arange(100, dtype=torch.float64))
    >>> pairs = find_eigenpairs(lambda x: x @ matrix, torch.ones(1, 100, dtype=torch.float64), 2)
    >>> pairs.values.round(decimals=6)
    tensor([99., 98.], dtype=torch.float64)
    """
    try:
        with torch.inference_mode():  # spares every small operation a look at what gradients it might have
            pairs = _search(apply, start, count, which, tolerance, deflate, max_products)
    except ConvergenceError as error:
        error.found = _release(cast(Eigenpairs, error.found))
        raise
    return _release(pairs)


def _release(pairs: Eigenpairs) -> Eigenpairs:
    """Return pairs that gradients may be made with."""
    values, vectors, residuals, products, foremost = pairs
    return Eigenpairs(values.clone(), vectors.clone(), residuals.clone(), products, foremost.clone())


def _search(
    apply: Callable[[Tensor], Tensor],
    start: Tensor,
    count: int,
    which: Which,
    tolerance: float,
    deflate: Tensor | None,
    max_products: int,
) -> Eigenpairs:
    """See :func:`find_eigenpairs`."""
    block, size = start.shape
    room, kept = plan_basis(block, count, size)
    known = 0 if deflate is None else deflate.shape[0]
    first = _cut(start)
    # Known eigenvectors stand first in memory, so that one product makes a vector orthogonal to all that there is.
    every = first.new_empty(len(first), known + room + block, first.shape[2])
    if deflate is not None:
        every[:, :known] = _cut(deflate)
    basis = every[:, known:]
    small = torch.zeros(room + block, room, dtype=torch.float64, device=start.device)
    basis[:, :block] = _orthonormalize(first, every[:, :known], 0)[0]
    at, whole, products = 0, 0, 0  # `whole`: before it, the next product overlaps with every vector of the basis
    ahead, before = 1, (0, 1.0)  # a start near what is sought may have found it at once
    while True:
        for _ in range(min(ahead, (room - at) // block)):
            after = at + block
            near = known + at - block if at > whole else 0
            product = _cut(apply(_join(basis[:, at:after], size)))
            found, mix, overlap = _orthonormalize(product, every[:, : known + after], near)
            basis[:, after : after + block] = found
            small[:after, at:after] = overlap[known:]
            small[after : after + block, at:after] = mix
            at, products = after, products + 1
        values, turn = torch.linalg.eigh(small[:at, :at])
        order = (values.abs() if which == "magnitude" else values).argsort(descending=True, stable=True)
        values, turn = values[order], turn[:, order]
        tail = small[at : at + block, at - block : at] @ turn[at - block :]
        residuals = torch.linalg.vector_norm(tail[:, :count], dim=0)
        foremost = values[0].abs().clamp(min=_NOTHING)
        scale = (foremost * values[:count].abs().clamp(min=tolerance**2 * foremost)).sqrt()
        (worst,) = read((residuals / scale).max().reshape(1))
        if at >= count and (worst <= tolerance or products >= max_products):
            foremost = _join(turn[:, : max(count, block)].T.to(every.dtype) @ basis[:, :at], size)
            pairs = Eigenpairs(values[:count], foremost[:count], residuals, products, foremost)
            if worst <= tolerance:
                return pairs
            raise ConvergenceError(
                f"the residuals of {count} eigenvalues are up to {worst:.1e} of their scale after {products} products, "
                f"not {tolerance:.1e}: allow a larger tolerance or more products, or work in float64",
                pairs,
            )
        ahead, before = _plan_check(products, worst, before, tolerance), (products, worst)
        if at == room:
            basis[:, :kept] = turn[:, :kept].T.to(every.dtype) @ basis[:, :room]
            basis[:, kept : kept + block] = basis[:, room:].clone()
            small.zero_()
            small[:kept, :kept] = torch.diag(values[:kept])
            small[kept : kept + block, :kept] = tail[:, :kept]
            at = whole = kept


def _plan_check(products: int, worst: float, before: tuple[int, float], tolerance: float) -> int:
    """Return after how many products more to look again: when all will have converged, as fast as it went so far."""
    earlier, worse = before
    if not tolerance < worst < worse:
        return CHECK_EVERY
    needed = math.log(worst / tolerance) / math.log(worse / worst) * (products - earlier)
    return min(CHECK_EVERY, math.ceil(needed))


def plan_basis(block: int, count: int, size: int) -> tuple[int, int]:
    """Return how many vectors the basis grows to, and to how many it is condensed: multiples of the block."""
    roomy = min(_BLOCKS * block, _ROOM // max(1, size))
    room = -(-max(BASIS, 4 * count, roomy) // block) * block
    kept = -(-max(room // 3, count + 2) // block) * block
    return room, kept


def _cut(rows: Tensor) -> Tensor:
    """Return rows ``(count, size)`` as ``(spans, count, span)``, of spans as long as each other, zeros at the end."""
    count, size = rows.shape
    spans = max(1, -(-size // _SPAN))
    span = -(-size // (spans * _LINE)) * _LINE
    return F.pad(rows, (0, spans * span - size)).view(count, spans, span).transpose(0, 1).contiguous()


def _join(parts: Tensor, size: int) -> Tensor:
    """Return rows ``(count, size)`` that :func:`_cut` has cut."""
    return parts.transpose(0, 1).flatten(1)[:, :size].contiguous()


def _orthonormalize(vectors: Tensor, others: Tensor, near: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return vectors Q, orthonormal and orthogonal to ``others``, and R and H: ``vectors`` = R' Q + H' others.

    In two passes, the first over the others from ``near`` on alone, which is where all but rounding errors lie. Where
    no more than those is left of a vector, its Q is zero, without a question to the device: there is nothing more to
    find in it, and as a direction it would take from the others what is theirs. Overwrites ``vectors``.
    """
    before = _measure(vectors)
    overlap = _subtract(vectors, others[:, near:])
    between = _measure(vectors)
    total = _subtract(vectors, others)
    total[:, near:] += overlap
    after = _measure(vectors)
    eps = torch.finfo(vectors.dtype).eps
    # What the second pass takes most of was in the others' span; what is left of a vector after those of its own block
    # may be no less orthogonal to the others than to half of the digits.
    least = torch.where(after < between / 2, torch.inf, torch.maximum(_ROUNDINGS * eps * before, eps**0.5 * after))
    return vectors, _gram_schmidt(vectors, least), total.T


def _gram_schmidt(vectors: Tensor, least: Tensor) -> Tensor:
    """Make vectors an orthonormal Q, and return R: they were R' Q. Where no more than ``least`` is left, Q is zero."""
    block = vectors.shape[1]
    mix = torch.zeros(block, block, dtype=torch.float64, device=vectors.device)
    for j in range(block):
        vector = vectors[:, j : j + 1]
        for i in (*range(j), *range(j)):  # twice, as above; one after the other, since the block is small
            other = vectors[:, i : i + 1]
            part = _dot(vector, other)
            vector.addcmul_(other, part.to(vector.dtype), value=-1)
            mix[i, j] += part[0, 0]
        length = _dot(vector, vector)[0, 0].sqrt()
        vector /= torch.where(length > least[j], length, torch.inf)
        mix[j, j] = length  # of a vector of zeros too: what a residual leaves out would be claimed to be found
    return mix


def _subtract(vectors: Tensor, others: Tensor) -> Tensor:
    """Take from vectors what they have of the others, which are orthonormal; return how much that was, in float64."""
    overlap = _dot(vectors, others)
    vectors.baddbmm_(overlap.to(vectors.dtype).expand(len(vectors), -1, -1), others, alpha=-1)
    return overlap


def _dot(vectors: Tensor, others: Tensor) -> Tensor:
    """Return the products of every vector with every other, ``(vectors, others)``, in float64."""
    return (vectors @ others.mT).sum(0, dtype=torch.float64)


def _measure(vectors: Tensor) -> Tensor:
    """Return the vectors' lengths."""
    # Of spans first: torch's norm over two dimensions at once is slow.
    lengths: Tensor = torch.linalg.vector_norm(torch.linalg.vector_norm(vectors, dim=2), dim=0)
    return lengths


def draw_start(block: int, size: int, seed: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return pseudo-random numbers from -1 to 1, ``(block, size)``: the same ones on every device.

    >>> draw_start(1, 2, 0, torch.device("cpu"), torch.float64)
    tensor([[-0.2334,  0.8631]], dtype=torch.float64)
    """
    z = torch.arange(1, block * size + 1, dtype=torch.int64, device=device) + (seed << 40)
    z = z * -0x61C8864680B583EB
    for shift, factor in ((30, -0x40A7B892E31B1A47), (27, -0x6B2FB644ECCEEE15), (31, 1)):  # SplitMix64
        z = (z ^ ((z >> shift) & ((1 << (64 - shift)) - 1))) * factor
    return (z.double() * 2.0**-63).to(dtype).view(block, size)
