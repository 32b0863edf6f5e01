"""A graph's blocks under its masks: which channels they join, and how many neighbours that gives each node."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from topognn.encoding.kept import KeptWeights, scan
from topognn.kernels.walks import list_joined
from topognn.positions.blocks import Block, Blocks, find_blocks, join_channels
from topognn.positions.grids import Ints, spread_over_nodes
from topognn.positions.walks import Step
from topognn.tracing.layout import Layout


class Lists(NamedTuple):
    """For each two kinds and channel, the channels joined to it; rows ``(kinds of y, kinds of x, channels)``."""

    indptr: Tensor
    indices: Tensor


class Channels:
    """A graph's blocks with the channels that they join, each made when it is first asked for."""

    def __init__(self, layout: Layout, kept: tuple[KeptWeights, ...]) -> None:
        self.found: Blocks = find_blocks(layout)
        self._layout, self._kept = layout, kept
        self.costs: dict[bool, tuple[float, int]] = {}  # see topognn.positions.counting
        self._joined: dict[tuple[int, int], Tensor] = {}
        self._lists: dict[tuple[int, int, bool], Lists] = {}

    @property
    def device(self) -> torch.device:
        """The device of the masks."""
        return self._kept[0].mask.device

    def joined(self, block: Block) -> Tensor:
        """Return which channels each two kinds join: see :func:`topognn.positions.blocks.join_channels`."""
        key = block.source, block.target
        if key not in self._joined:
            self._joined[key] = join_channels(self.found, block, self._layout, self._kept)
        return self._joined[key]

    def along(self, step: Step) -> Tensor:
        """Return the same for a step: the channels where it begins come first."""
        joined = self.joined(step.block)
        return joined.transpose(2, 3) if step.turned else joined

    def lists(self, step: Step) -> Lists:
        """Return the lists of the channels that a step leads to."""
        key = (*step.ends, step.turned)
        if key not in self._lists:
            joined = self.along(step).contiguous()
            rows = joined.view(-1, joined.shape[3])
            indptr = scan(rows.sum(1))
            indices = torch.empty(self.most(step.block), dtype=torch.int32, device=self.device)
            list_joined.launch(rows.shape[0], rows, indptr, indices, work=rows.shape[1])
            self._lists[key] = Lists(indptr, indices)
        return self._lists[key]

    def size_of(self, block: Block) -> int:
        """Return the number of channels that a block could join, over all kinds."""
        channels = self.found.grids[block.source].channels * self.found.grids[block.target].channels
        return len(block.of_y) * len(block.of_x) * channels

    def most(self, block: Block) -> int:
        """Return how many entries a block's lists have at most: as many, where no windows overlap."""
        total = 0
        for use in block.uses:
            kept = len(use.inputs)
            if self._layout.connections[use.connection].weight:
                kept = self._kept[use.connection].count * int(np.bincount(use.inputs).max(initial=0))
            times = [int(of[:, list(r)].sum(0).max(initial=1)) for of, r in ((block.of_y, use.y), (block.of_x, use.x))]
            total += kept * times[0] * times[1]
        return total

    def count_targets(self) -> Tensor:
        """Return the number of out-edges of each node, parallel ones combined; int64 ``(nodes,)``."""
        return self._count(turned=False)

    def count_sources(self) -> Tensor:
        """Return the number of in-edges of each node, parallel ones combined; int64 ``(nodes,)``."""
        return self._count(turned=True)

    def _count(self, turned: bool) -> Tensor:
        total = torch.zeros(self._layout.num_nodes, dtype=torch.int64, device=self.device)
        for block in self.found.blocks.values():
            if block is not None and block.of_y.size and block.of_x.size:
                step = Step(block, turned)
                y, x = (
                    count_kinds(table, kinds.shape[0]) for table, kinds in ((step.y, block.of_y), (step.x, block.of_x))
                )
                own = spread_over_nodes(self.found.grids[step.ends[0]], self.along(step).sum(3), y, x)
                total[self.found.pieces[step.ends[0]].nodes] += own
        return total


def count_kinds(table: Ints, kinds: int) -> Ints:
    """Return how many pairs of each kind a coordinate is in; ``(coordinates, kinds)``."""
    return np.stack([(table == kind).sum(1) for kind in range(kinds)], 1)
