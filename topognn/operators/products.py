"""One connection's products with vectors of node values, by convolution: no edge is ever in memory.

Values are ``(batch, nodes)``; a connection reads and writes the window of nodes from its first source partition to its
last (:func:`get_window`), and the elements of its target partition. Weights are in the connection's kernel form.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_weight

from topognn.kernels.products import add_holders, add_support
from topognn.operators.sparse import SparseWeights
from topognn.operators.volumes import convolve_volume, convolve_volume_back, count_volume_uses, is_volume
from topognn.tracing.layout import Connection, Layout, swap_channels

_FEW_CHANNELS = 4  # to so many, a strided layer is transposed phase by phase


def get_window(layout: Layout, connection: Connection) -> tuple[int, int]:
    """Return the first node of a connection's first source partition, and one past the last node of its last."""
    first, last = min(connection.sources), max(connection.sources)
    return layout.partitions[first].offset, layout.partitions[last].end


@contextlib.contextmanager
def exact_convolutions() -> Iterator[None]:
    """Let cuDNN round float32 products to float32, not to TF32's ten bits, and add up in the same order every time."""
    with torch.backends.cudnn.flags(
        enabled=torch.backends.cudnn.enabled, benchmark=False, deterministic=True, allow_tf32=False
    ):
        yield


def push(connection: Connection, weight: Tensor | SparseWeights, values: Tensor, first: int) -> Tensor:
    """Return what each target node gets along the edges: the sum over its in-edges of weight times source value.

    Args:
        connection: The connection.
        weight: In kernel form, in the dtype of ``values``; differentiable unless sparse.
        values: ``(batch, nodes of the window)``; differentiable.
        first: The window's first node.

    Returns:
        ``(batch, targets)``, in the order of the target partition's nodes.
    """
    return to_nodes(connection, convolve(connection, weight, gather_elements(connection, values, first)))


def pull(connection: Connection, weight: Tensor | SparseWeights, values: Tensor) -> Tensor:
    """Return what each node from ``connection.source`` on gets back along its out-edges.

    ``values`` are the target partition's, ``(batch, targets)``; the result is ``(batch, connection.num_sources)``.
    """
    elements = convolve_back(connection, weight, to_elements(connection, values))
    return elements if connection.support is None else _add_holders(connection, elements)


def gather_elements(connection: Connection, values: Tensor, first: int) -> Tensor:
    """Return the sum of the values of the nodes that each element stands for; ``(batch, elements)``, differentiable."""
    if connection.support is None:
        return values[:, connection.source - first : connection.source - first + connection.num_elements]
    wide = values.to(torch.promote_types(values.dtype, torch.float32))
    found: Tensor = _Gather.apply(wide, connection, first)
    return found.to(values.dtype)


class _Gather(torch.autograd.Function):
    """Sums of the nodes that elements stand for, and their gradient: sums of the elements that nodes stand in."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, connection: Connection, first: int) -> Tensor:
        assert connection.support is not None
        ctx.connection, ctx.before, ctx.size = connection, connection.source - first, values.shape[1]
        elements = values.new_empty(values.shape[0], connection.num_elements)
        work = values.shape[0] * len(connection.support)
        add_support.launch(connection.num_elements, first, connection.support, values.contiguous(), elements, work=work)
        return elements

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        nodes = _add_holders(ctx.connection, gradient)
        return F.pad(nodes, (ctx.before, ctx.size - ctx.before - nodes.shape[1])), None, None


def _add_holders(connection: Connection, elements: Tensor) -> Tensor:
    """Return for each node that a connection may read the sum of the elements that it stands in."""
    assert connection.holders_indptr is not None and connection.holders is not None
    nodes = elements.new_empty(elements.shape[0], connection.num_sources)
    elements = elements.contiguous()
    add_holders.launch(connection.num_sources, connection.holders_indptr, connection.holders, elements, nodes)
    return nodes


def convolve(connection: Connection, weight: Tensor | SparseWeights, elements: Tensor) -> Tensor:
    """Return the layer's output for the given input elements; ``(batch, targets)`` in target order."""
    c, batch = connection, elements.shape[0]
    if c.weight is None:
        return elements
    if isinstance(weight, SparseWeights):
        return weight.forward.apply(elements)
    if c.transposed:
        return convolve_back(_mirror(c), _turn(c, weight), elements)
    if _is_linear(c):
        return (elements.view(batch, -1, c.in_channels) @ weight.view(c.kernel[0], -1).T).reshape(batch, -1)
    if is_volume(c):
        return convolve_volume(c, weight, elements)
    if _is_plain(c):  # torch pads as it goes, which is cheaper than an image with margins
        image = elements.reshape(batch, c.in_channels, *c.input_positions)
        return F.conv2d(image, weight, None, c.stride, c.padding, c.dilation, c.groups).view(batch, -1)
    return F.conv2d(_window(c, elements), weight, None, c.stride, 0, c.dilation, c.groups).view(batch, -1)


def convolve_back(connection: Connection, weight: Tensor | SparseWeights, targets: Tensor) -> Tensor:
    """Return the transpose of :func:`convolve` applied to target values; ``(batch, elements)``."""
    c, batch = connection, targets.shape[0]
    if c.weight is None:
        return targets
    if isinstance(weight, SparseWeights):
        return weight.backward.apply(targets)
    if c.transposed:
        return convolve(_mirror(c), _turn(c, weight), targets)
    if _is_linear(c):
        return (targets.view(batch, -1, c.kernel[0]) @ weight.view(c.kernel[0], -1)).reshape(batch, -1)
    if is_volume(c):
        return convolve_volume_back(c, weight, targets)
    image = targets.view(batch, c.kernel[0], *c.positions)
    if c.in_channels <= _FEW_CHANNELS and c.groups == 1 and c.dilation == (1, 1) and 1 < c.stride[0] == c.stride[1]:
        return _spread_phases(c, weight, image).reshape(batch, -1)
    if _is_plain(c):
        beyond = [c.input_positions[axis] - _reach(c, axis) + 2 * c.padding[axis] for axis in (0, 1)]
        back = F.conv_transpose2d(image, weight, None, c.stride, c.padding, beyond, c.groups, c.dilation)
        return back.reshape(batch, -1)
    back = F.conv_transpose2d(image, weight, None, c.stride, 0, 0, c.groups, c.dilation)
    return F.pad(back, [-side for side in _margins(c)]).reshape(batch, -1)


def _spread_phases(c: Connection, weight: Tensor, image: Tensor) -> Tensor:
    """Return the transpose of a strided convolution of an image: pixels of one phase of the stride are a channel each.

    A transposed convolution of many channels into three is several times slower.
    """
    step, (outputs, inputs, *sizes) = c.stride[0], weight.shape
    taps = [-(-size // step) for size in sizes]  # of a phase
    padded = F.pad(weight, (0, taps[1] * step - sizes[1], 0, taps[0] * step - sizes[0]))
    phases = padded.view(outputs, inputs, taps[0], step, taps[1], step).permute(1, 3, 5, 0, 2, 4).flip(4, 5)
    kernel = phases.reshape(inputs * step**2, outputs, *taps)
    spread = F.pixel_shuffle(F.conv2d(image, kernel, padding=(taps[0] - 1, taps[1] - 1)), step)
    sides = []
    for axis in (1, 0):
        sides += [-c.padding[axis], c.padding[axis] + c.input_positions[axis] - spread.shape[2 + axis]]
    return F.pad(spread, sides)


def count_uses(connection: Connection, elements: Tensor, targets: Tensor) -> Tensor:
    """Return for each weight the sum, over its uses, of element times target: a convolution's weight gradient.

    ``elements`` and ``targets`` are of batch 1, targets in target order; the result is in kernel form.
    """
    c = connection
    if c.transposed:
        return _turn(_mirror(c), count_uses(_mirror(c), targets, elements))
    if _is_linear(c) or c.weight is None:
        return (targets.view(-1, c.kernel[0]).T @ elements.view(-1, c.in_channels)).view(c.kernel)
    if is_volume(c):
        return count_volume_uses(c, elements, targets)
    grad = targets.view(1, c.kernel[0], *c.positions).contiguous()
    geometry = (c.stride, 0, c.dilation, c.groups)
    found: Tensor = conv2d_weight(_window(c, elements), c.kernel, grad, *geometry)  # type: ignore[no-untyped-call]
    return found


def to_nodes(connection: Connection, targets: Tensor) -> Tensor:
    """Put values in target order into the order of the target partition's nodes."""
    if connection.target_map is None:
        return targets
    nodes = connection.target_map - connection.target_first
    return torch.empty_like(targets).index_copy(1, nodes, targets)


def to_elements(connection: Connection, values: Tensor) -> Tensor:
    """Put values of the target partition's nodes into target order."""
    if connection.target_map is None:
        return values
    return values.index_select(1, connection.target_map - connection.target_first)


def _mirror(c: Connection) -> Connection:
    """Return the convolution from a transposed one's outputs to its inputs, whose transpose that is."""
    outputs = c.kernel[0] // c.groups
    return dataclasses.replace(
        c,
        kernel=(c.in_channels, outputs, *c.kernel[2:]),
        positions=c.input_positions,
        input_positions=c.positions,
        channel_stride=c.target_channel_stride,
        place_stride=c.target_place_stride,
        target_channel_stride=c.channel_stride,
        target_place_stride=c.place_stride,
        source_y=c.target_y.flip(1),
        source_x=c.target_x.flip(1),
        target_y=c.source_y.flip(1),
        target_x=c.source_x.flip(1),
        transposed=False,
    )


def _turn(c: Connection, form: Tensor) -> Tensor:
    """Return a kernel form as the mirror's: channels exchanged, turned round in space."""
    return swap_channels(form, c.groups).flip((2, 3))


def _is_linear(c: Connection) -> bool:
    """Tell whether channels are neighbours, as in linear layers, or might as well be, there being one place."""
    single = c.kernel[2:] == c.positions == c.input_positions == (1, 1) and c.padding == (0, 0) and c.groups == 1
    return single or c.place_stride > 1 or c.target_place_stride > 1


def _is_plain(c: Connection) -> bool:
    """Tell whether a layer reads its input with the same padding on all sides, as far as it goes."""
    beyond = (c.input_positions[axis] - _reach(c, axis) + 2 * c.padding[axis] for axis in (0, 1))
    return all(0 <= more < step for more, step in zip(beyond, c.stride, strict=True))


def _reach(c: Connection, axis: int) -> int:
    """Return how many places the layer's outputs reach over, from the first to the last."""
    return (c.positions[axis] - 1) * c.stride[axis] + (c.kernel[2 + axis] - 1) * c.dilation[axis] + 1


def _margins(c: Connection) -> list[int]:
    """Return left, right, top, bottom: what to add to an input so that an unpadded convolution just covers it."""
    sides = []
    for axis in (1, 0):
        sides += [c.padding[axis], _reach(c, axis) - c.input_positions[axis] - c.padding[axis]]
    return sides


def _window(c: Connection, elements: Tensor) -> Tensor:
    """Return the input as the image that an unpadded convolution just covers: padded, and cut where nothing reads."""
    image = elements.reshape(elements.shape[0], c.in_channels, *c.input_positions)
    margins = _margins(c)
    return F.pad(image, margins) if any(margins) else image
