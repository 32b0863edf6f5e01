"""Three-dimensional convolutions, whose depth and height are one axis of rows here.

Which input row an output row and a tap meet is the connection's table; columns are convolved, one tap of the rows
after the other. Tensors and arguments are those of :mod:`topognn.operators.products`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_weight

from topognn.tracing.layout import Connection


def is_volume(c: Connection) -> bool:
    """Tell whether rows follow a table, and not a stride."""
    return c.stride[0] == 0


def convolve_volume(c: Connection, weight: Tensor, elements: Tensor) -> Tensor:
    """Return the layer's output, ``(batch, targets)``."""
    image = _to_rows(c, elements)
    total: Tensor | None = None
    for tap, rows in enumerate(_rows(c)):
        window = F.pad(image.index_select(2, rows), _margins(c))
        part = F.conv2d(window, weight[:, :, tap : tap + 1], None, (1, c.stride[1]), 0, (1, c.dilation[1]), c.groups)
        total = part if total is None else total + part
    assert total is not None
    return total.reshape(elements.shape[0], -1)


def convolve_volume_back(c: Connection, weight: Tensor, targets: Tensor) -> Tensor:
    """Return the transpose of :func:`convolve_volume` applied to target values; ``(batch, elements)``."""
    batch, (height, width) = targets.shape[0], c.input_positions
    image = targets.new_zeros(batch, c.in_channels, height + 1, width)
    grad = targets.view(batch, c.kernel[0], *c.positions)
    for tap, rows in enumerate(_rows(c)):
        own = weight[:, :, tap : tap + 1]
        part = F.conv_transpose2d(grad, own, stride=(1, c.stride[1]), groups=c.groups, dilation=(1, c.dilation[1]))
        image = image.index_add(2, rows, F.pad(part, [-side for side in _margins(c)]))
    return image[:, :, :height].reshape(batch, -1)


def count_volume_uses(c: Connection, elements: Tensor, targets: Tensor) -> Tensor:
    """Return for each weight the sum over its uses of element times target, in kernel form; batch 1."""
    image, form = _to_rows(c, elements), (*c.kernel[:2], 1, c.kernel[3])
    grad = targets.view(1, c.kernel[0], *c.positions).contiguous()
    geometry = ((1, c.stride[1]), 0, (1, c.dilation[1]), c.groups)
    parts = []
    for rows in _rows(c):
        window = F.pad(image.index_select(2, rows), _margins(c))
        found: Tensor = conv2d_weight(window, form, grad, *geometry)  # type: ignore[no-untyped-call]
        parts.append(found)
    return torch.cat(parts, 2)


def _rows(c: Connection) -> tuple[Tensor, ...]:
    """Return for each tap the input row that each output row meets; one past the last where that is outside."""
    height, width = c.input_positions
    return torch.where(c.source_y >= 0, c.source_y // width, height).unbind(1)


def _to_rows(c: Connection, elements: Tensor) -> Tensor:
    """Return ``(batch, channels, rows, columns)`` with a row of zeros last."""
    return F.pad(elements.reshape(elements.shape[0], c.in_channels, *c.input_positions), (0, 0, 0, 1))


def _margins(c: Connection) -> list[int]:
    """Return left, right: what to add to the columns so that an unpadded convolution just covers them."""
    reach = (c.positions[1] - 1) * c.stride[1] + (c.kernel[3] - 1) * c.dilation[1] + 1
    return [c.padding[1], reach - c.input_positions[1] - c.padding[1]]
