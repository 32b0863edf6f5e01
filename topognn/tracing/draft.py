"""What a walk through a model's operations writes down, before nodes have their final ids."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import torch
from torch import Tensor


class Value(NamedTuple):
    """A tensor in flight: ids ``(K, *shape)``, and the block whose fresh output it is (None: not fresh).

    Fresh: reached from one layer's output, or from a sum that ends in one, through transparent operations
    that nothing else reads. ``is_score``: a product of two activations that no third has been multiplied by yet.
    """

    ids: Tensor
    fresh: int | None
    is_score: bool = False


@dataclasses.dataclass
class Block:
    """A provisional partition. ``merged`` says which node of a later block each of its nodes became."""

    name: str
    shape: tuple[int, ...]
    first: int
    merged: Tensor | None = None


class LayerUse(NamedTuple):
    """A use of a layer's weights, before renumbering.

    ``ids`` is ``(K, *input shape)``; ``depth`` is stride, padding and dilation along a third axis. ``weight_shape`` is
    the weight's as it is used, ``(out, in of a group, ...)``; ``parameter_shape`` that of the whole parameter, of which
    ``entries`` says where each is (None: as they stand). ``order`` has the output's ids in the layer's own order (None:
    that of its tensor). ``transposed``: as in :class:`~topognn.tracing.layout.Connection`.
    """

    layer: str
    weight: str
    weight_shape: tuple[int, ...]
    is_linear: bool
    ids: Tensor
    block: int
    output_shape: tuple[int, ...]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    depth: tuple[int, int, int] | None = None
    parameter_shape: tuple[int, ...] | None = None
    entries: Tensor | None = None
    order: Tensor | None = None
    transposed: bool = False


class Shortcut(NamedTuple):
    """Edges of weight 1 from the nodes of each element of one tensor to those of another; same shape but K."""

    name: str
    ids: Tensor
    target_ids: Tensor
    block: int


class Draft:
    """What a walk has written down so far.

    Attributes:
        blocks: In execution order.
        uses: Of layers, and shortcuts, in execution order.
        inputs: Numbers of the blocks that are inputs of the network.
        output: Ids of each tensor that the network returns.
    """

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.uses: list[LayerUse | Shortcut] = []
        self.inputs: list[int] = []
        self.output: list[Tensor] = []

    def open(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Open a block and return its ids in the given shape."""
        first = self.blocks[-1].first + math.prod(self.blocks[-1].shape) if self.blocks else 0
        self.blocks.append(Block(name, shape, first))
        return torch.arange(first, first + math.prod(shape)).view(shape)

    def get_free_name(self, name: str) -> str:
        """Return a name, with a number behind it if a block has it."""
        taken = sum(b.name == name or b.name.startswith(f"{name}#") for b in self.blocks)
        return f"{name}#{taken + 1}" if taken else name

    def is_whole(self, ids: Tensor, block: int) -> bool:
        """Tell whether an operand is a block's nodes, each exactly once."""
        size = math.prod(self.blocks[block].shape)
        first = self.blocks[block].first
        if ids.shape[0] != 1 or ids.numel() != size:
            return False
        nodes, whole = ids.flatten(), torch.arange(first, first + size)
        return torch.equal(nodes, whole) or torch.equal(nodes.sort().values, whole)

    def merge(self, block: int, into: int, ids: Tensor, meets: Tensor) -> None:
        """Make each node of ``block`` the node of block ``into`` that it meets in a sum."""
        one, other = self.blocks[block], self.blocks[into]
        one.merged = torch.empty(ids.numel(), dtype=torch.int64)
        one.merged[ids.flatten() - one.first] = meets.flatten()
        other.name = f"{one.name}+{other.name}"
