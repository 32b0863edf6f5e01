"""A network's layout: what its graph looks like before any mask is known.

A :class:`Layout` is a list of partitions (blocks of nodes) and of connections (which nodes a layer could join).
It depends on the model and the input shape alone, so it is made once and encoded at every change of masks.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from topognn.errors import unknown_name


class Weights(Protocol):
    """Where a layout's weights come from: called, it returns the model's current ones by name, detached."""

    model: nn.Module
    shapes: tuple[tuple[int, ...], ...]  # of the inputs that were traced, without the batch

    def __call__(self) -> dict[str, Tensor]:
        """Return all weights by name."""


@dataclasses.dataclass(frozen=True)
class Partition:
    """The nodes of one tensor: element ``j`` of it is node ``offset + j``.

    Attributes:
        name: The layer's module path; ``"input"`` for the network's input; ``"a+b"`` where layers a and b end in
            the same nodes; the operation's name for a sum with nodes of its own.
        shape: The tensor's shape without the batch dimension.
        offset: The first node's id.
    """

    name: str
    shape: tuple[int, ...]
    offset: int

    @property
    def size(self) -> int:
        """The number of nodes."""
        return math.prod(self.shape)

    @property
    def end(self) -> int:
        """One past the last node's id."""
        return self.offset + self.size


@dataclasses.dataclass(frozen=True, eq=False)
class Connection:
    """One use of one layer's weights: how they join the elements that it reads to the nodes that it makes.

    A weight ``(o, i, ky, kx)`` joins, for every output position ``(oy, ox)``, the input element
    ``(channel, y, x)`` to output element ``(o, oy, ox)``. Which ``y`` belongs to ``(oy, ky)`` is one small table an
    axis; strides, padding and dilation live there and nowhere else. A linear layer is a 1x1 convolution
    whose positions are its tokens; a shortcut is one of a single channel with a single weight of 1.

    Attributes:
        layer: Module path of the layer, or the name of the sum that a shortcut ends in.
        weight: Name of the layer's weight; None for a shortcut, and for what feeds the hubs of attention.
        weight_shape: The shape of the whole parameter.
        kernel: ``(out channels, in channels a group, kernel height, kernel width)``.
        groups: Number of channel groups.
        positions: ``(height, width)`` of the output; ``input_positions`` those of the input.
        stride, padding, dilation: ``(y, x)``; ``padding`` is what stands before the first element. In a
            three-dimensional convolution y is depth and height together, a row after the other, and its stride 0: which
            rows meet is in the tables alone.
        channel_stride, place_stride: Distance, in elements, of neighbouring channels and places of the input.
        target_channel_stride, target_place_stride: The same for the output.
        source_y, source_x: int64 ``(output positions, kernel)``: where in the input, in elements; -1 = outside.
        target_y, target_x: int64 ``(input positions, kernel)``: where in the output; -1 = nowhere.
        num_elements: Number of elements of the input tensor.
        num_sources: Number of nodes from ``source`` on that the layer may read.
        source: First node that the layer may read; element ``e`` is node ``source + e`` if ``support`` is None.
        support: Otherwise: ``(K, elements)``, the nodes that each element stands for; -1 = none.
        holders_indptr, holders: The inverse of ``support``: node ``source + j`` is held by elements
            ``holders[holders_indptr[j]:holders_indptr[j + 1]]``.
        multiplicity: Otherwise: float64 ``(in channels, places)``, how many nodes each element stands for; one
            place where it is the same all over a channel.
        target: Number of the partition that the edges end in.
        target_first: That partition's first node.
        target_map: If output element ``r`` is not node ``target_first + r``: the node that it is.
        sources: Numbers of the partitions that the edges start in.
        ascends_in: Filled weight by weight, this connection's part of a row of in-edges comes out sorted.
        ascends_out: The same for rows of out-edges.
        may_repeat: Two weights of this connection may join the same pair of nodes.
        weight_map: int64 ``(terms, *kernel)``: which of the parameter's weights, laid end to end, are each of the
            kernel's, -1 = none; None: all as they stand. With several terms a weight of the kernel is the sum of
            several of the parameter's, and there if one of them is: parallel edges from what many channels share.
        transposed: The layer is the transpose of a convolution, whose stride, padding and dilation these are. Its
            kernel is turned round, so that it slides over the input as others do: the weight's last tap comes first.
    """

    layer: str
    weight: str | None
    weight_shape: tuple[int, ...]
    kernel: tuple[int, int, int, int]
    groups: int
    positions: tuple[int, int]
    input_positions: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    channel_stride: int
    place_stride: int
    target_channel_stride: int
    target_place_stride: int
    source_y: Tensor
    source_x: Tensor
    target_y: Tensor
    target_x: Tensor
    num_elements: int
    source: int
    num_sources: int
    support: Tensor | None
    holders_indptr: Tensor | None
    holders: Tensor | None
    multiplicity: Tensor | None
    target: int
    target_first: int
    target_map: Tensor | None
    sources: tuple[int, ...]
    ascends_in: bool
    ascends_out: bool
    may_repeat: bool
    weight_map: Tensor | None = None
    transposed: bool = False

    @property
    def is_pooled(self) -> bool:
        """Whether a weight of the kernel is the sum of several of the parameter's."""
        return self.weight_map is not None and self.weight_map.shape[0] > 1

    def to_kernel(self, values: Tensor) -> Tensor:
        """Put one value a weight of the parameter into kernel form; several terms are added, of bools any is enough."""
        if self.weight_map is None:
            return values.reshape(self.kernel)
        padded = torch.cat([values.reshape(-1), values.new_zeros(1)])  # where -1 points
        if not self.is_pooled:
            return padded[self.weight_map[0]]
        taken = padded[self.weight_map]
        return taken.any(0) if values.dtype == torch.bool else taken.sum(0)

    def from_kernel(self, used: Tensor) -> Tensor:
        """Return which of the parameter's weights are part of a weight of the kernel that is used; bool both."""
        if self.weight_map is None:
            return used.reshape(self.weight_shape)
        found = torch.zeros(math.prod(self.weight_shape) + 1, dtype=torch.int32, device=used.device)
        places = self.weight_map.flatten().remainder(found.numel())  # -1: the last
        found.index_add_(0, places, used.int().expand(self.weight_map.shape).flatten())
        return (found[:-1] > 0).view(self.weight_shape)

    @property
    def in_channels(self) -> int:
        """Number of input channels over all groups."""
        return self.kernel[1] * self.groups

    @property
    def num_targets(self) -> int:
        """Number of output elements."""
        return self.kernel[0] * self.positions[0] * self.positions[1]

    @property
    def num_weights(self) -> int:
        """Number of weights, kept or not."""
        return math.prod(self.kernel)

    def to(self, device: torch.device) -> Connection:
        """Return this connection with its tensors on ``device``."""
        tensors: dict[str, Any] = {
            field.name: value.to(device)
            for field in dataclasses.fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return dataclasses.replace(self, **tensors)


def swap_channels(weight: Tensor, groups: int) -> Tensor:
    """Return ``(in, out of a group, ...)`` as ``(out, in of a group, ...)``, and the other way round.

    >>> swap_channels(torch.arange(6).view(2, 3), 1).tolist()
    [[0, 3], [1, 4], [2, 5]]
    """
    grouped = weight.reshape(groups, -1, *weight.shape[1:]).transpose(1, 2)
    return grouped.reshape(-1, *grouped.shape[2:])


@dataclasses.dataclass(frozen=True, eq=False)
class Layout:
    """Partitions and connections of a network at one input shape, for any masks.

    Attributes:
        partitions: In execution order; partition 0 is an input of the network.
        connections: In execution order.
        outputs: Numbers of the partitions that the network's output is made of (PL of the definitions).
        shortcuts: ``"parametric"`` or ``"all"``.
        weights: Returns the model's current weights by name; None for a layout without a model.
        inputs: Numbers of the partitions that are inputs of the network (P0 of the definitions): one a floating-point
            input, one an embedding of an integer one.
        found: What others have found out about it by name, on any device: see :mod:`topognn.positions`.
    """

    partitions: tuple[Partition, ...]
    connections: tuple[Connection, ...]
    outputs: tuple[int, ...]
    shortcuts: str
    weights: Weights | None = None
    inputs: tuple[int, ...] = (0,)
    found: dict[str, Any] = dataclasses.field(default_factory=dict, repr=False)
    _moved: dict[torch.device, Layout] = dataclasses.field(default_factory=dict, repr=False)

    @property
    def num_nodes(self) -> int:
        """The number of nodes."""
        return self.partitions[-1].end

    @property
    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every weight by name, in execution order; tied weights stand once."""
        return {c.weight: c.weight_shape for c in self.connections if c.weight is not None}

    @property
    def index_dtype(self) -> torch.dtype:
        """int32 while every node id fits, else int64."""
        return torch.int32 if self.num_nodes < 2**31 else torch.int64

    def partition(self, name: str | int) -> Partition:
        """Return a partition by number or by name.

        Raises:
            UnknownNameError: No partition has that name or number.
        """
        if isinstance(name, int):
            if not -len(self.partitions) <= name < len(self.partitions):
                numbers = map(str, range(len(self.partitions)))
                raise unknown_name("partition", str(name), numbers)
            return self.partitions[name]
        for partition in self.partitions:
            if name == partition.name or name in partition.name.split("+"):
                return partition
        raise unknown_name("partition", name, [p.name for p in self.partitions])

    def to(self, device: torch.device) -> Layout:
        """Return this layout with its tables on ``device``; made once a device."""
        if self.connections:
            self._moved.setdefault(self.connections[0].source_y.device, self)
        if device not in self._moved:
            moved = tuple(c.to(device) for c in self.connections)
            self._moved[device] = dataclasses.replace(self, connections=moved, _moved=self._moved)
        return self._moved[device]

    def __repr__(self) -> str:
        return (
            f"Layout({len(self.partitions)} partitions, {len(self.connections)} connections, {self.num_nodes:,} nodes)"
        )
