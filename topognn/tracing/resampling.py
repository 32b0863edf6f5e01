"""Up-sampling and other interpolation: which pixels each pixel of the result is made of.

Nearest-neighbour up-sampling only says where an element goes, and is applied to node ids as all data movement is. Other
interpolation goes axis by axis: torch's own operation, run on one-hot lines, says which pixels a coordinate stands for:
two in linear interpolation, four in cubic, fewer where a coordinate falls on a pixel or on an edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from topognn.tracing.operations import unite
from topognn.tracing.windows import gather_windows

INTERPOLATING = frozenset(
    "upsample_linear1d upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d _upsample_bilinear2d_aa "
    "_upsample_bicubic2d_aa".split()
)
"""Interpolations of more than one pixel."""

_NOTHING = 1e-9  # what a pixel that has no part comes out as where rounding left something


def interpolate(name: str, ids: Tensor, output: Sequence[int], args: Sequence[Any]) -> Tensor:
    """Return the ids of an interpolation's output: each element stands for all pixels that have a part in it.

    ``output`` is the output's shape, ``args`` what follows the input in the operation's arguments: the output's size,
    whether corners are aligned, and scales (a list, or a number an axis).
    """
    axes = int(name.removesuffix("_aa")[-2])
    scales = args[2] if len(args) == 3 and isinstance(args[2], list | tuple) else args[2:]
    given = [*(scales or ()), *[None] * axes][:axes]
    kind = name.replace("linear1d", "bilinear2d").replace("trilinear3d", "bilinear2d")
    windows = [
        _find_window(kind, ids.shape[axis - axes], output[axis - axes], bool(args[1]), given[axis])
        for axis in range(axes)
    ]
    return unite(gather_windows(ids, windows))


def unfold(target: Any, ids: Tensor, args: Sequence[Any]) -> Tensor:
    """Return the ids of the patches that an unfolding (im2col) makes; it pads with 0, which is none here."""
    return torch.stack([target(layer.double() + 1, *args).long() - 1 for layer in ids])


def _find_window(kind: str, size: int, out: int, align_corners: bool, scale: float | None) -> Tensor:
    """Return int64 ``(out, most pixels)``: the pixels of a line that each pixel of its image is made of; -1 = none."""
    lines = torch.eye(size, dtype=torch.float64)[:, None, None, :]
    image = getattr(torch.ops.aten, kind).default(lines, [1, out], align_corners, None, scale)[:, 0, 0]
    taken = image.abs() > _NOTHING
    most = int(taken.sum(0).max())
    pixels = torch.where(taken, torch.arange(size)[:, None], size).sort(0).values[:most].T
    return torch.where(pixels < size, pixels, -1)
