"""Partitions as pieces, each a grid of its own: an image that is read as tokens, behind a class token or not.

A patch embedding makes a grid of places, and the layers after it a row of tokens, of which some are those places, row
by row, and others are not. Which place a token is, is a product of rows and of columns only where the tokens that are
an image stand as one, so they are a piece, and the tokens before and behind are others. Layers that read each token
for itself pass this on; attention does not, whose hubs are fed by all tokens alike.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from topognn.positions.grids import Grid, Ints, find_grids
from topognn.tracing.layout import Connection, Layout


class Piece(NamedTuple):
    """Successive nodes of a partition that are a grid.

    Attributes:
        partition: Its number.
        grid: How its nodes are numbered.
        offset: Its first node.
        whole: How all of the partition's nodes are numbered.
        tokens: Which of the partition's tokens are its places; None if the piece is the partition as it stands.
    """

    partition: int
    grid: Grid
    offset: int
    whole: Grid
    tokens: slice | None

    @property
    def nodes(self) -> slice:
        """Its nodes."""
        return slice(self.offset, self.offset + self.grid.size)

    def cut(self, ids: Ints) -> Ints:
        """Return those of a partition's elements, ``(K, channels, 1, tokens)``, that are the piece's, as its grid."""
        if self.tokens is None:
            return ids
        return ids[..., 0, self.tokens].reshape(*ids.shape[:2], self.grid.height, self.grid.width)


Image = tuple[int, int, int]
"""The first token of an image, its height and its width."""


def find_pieces(layout: Layout) -> list[Piece]:
    """Return the pieces of all partitions, in the order of their nodes."""
    grids = find_grids(layout)
    images: list[Image | None] = [None] * len(grids)
    for number, grid in enumerate(grids):
        feeding = [c for c in layout.connections if c.target == number]
        if grid.last and grid.height == 1 and all(_keeps_tokens(c, grid) for c in feeding):
            seen = (_find_image(layout, c, source, grids, images) for c in feeding for source in c.sources)
            images[number] = next((image for image in seen if image), None)
    pieces = []
    for number, (grid, image) in enumerate(zip(grids, images, strict=True)):
        offset = layout.partitions[number].offset
        if image is None:
            pieces.append(Piece(number, grid, offset, grid, None))
            continue
        begin, height, width = image
        end = begin + height * width
        for first, size in ((0, (1, begin)), (begin, (height, width)), (end, (1, grid.width - end))):
            if size[1]:
                tokens = slice(first, first + size[0] * size[1])
                own = Grid(grid.channels, *size, True)
                pieces.append(Piece(number, own, offset + first * grid.channels, grid, tokens))
    return pieces


def _keeps_tokens(c: Connection, grid: Grid) -> bool:
    """Tell whether a connection makes each token of a grid from the same token of its input."""
    if c.target_map is not None or c.num_targets != grid.size:
        return False
    if c.weight is None:
        return c.num_elements == grid.size
    tokens = (1, grid.width)
    return c.target_channel_stride == 1 and c.kernel[2:] == (1, 1) and c.positions == c.input_positions == tokens


def _find_image(
    layout: Layout, c: Connection, source: int, grids: list[Grid], images: list[Image | None]
) -> Image | None:
    """Return which of the tokens that a connection reads are, row by row, an image of a partition."""
    grid, offset, tokens = grids[source], layout.partitions[source].offset, grids[c.target].width
    begin, height, width = images[source] or (0, grid.height, grid.width)
    if min(height, width) == 1 and images[source] is None:
        return None
    own = grids[c.target] if c.weight is None else Grid(c.in_channels, 1, tokens, c.channel_stride == 1)
    ids = np.arange(c.source, c.source + c.num_elements)[None] if c.support is None else np.asarray(c.support)
    inside = (ids >= offset) & (ids < layout.partitions[source].end)
    each = own.spread(np.where(inside, ids - offset, -1))[:, :, 0]
    for row in each.reshape(-1, tokens):  # the first that reads the partition tells: channels are alike, or no product
        if (row >= 0).any():
            _, y, x = grid.split(row)
            places = np.where(row >= 0, y * grid.width + x, -1)
            first = int((places == begin).argmax())
            size = height * width
            return (
                (first, height, width)
                if np.array_equal(places[first : first + size], begin + np.arange(size))
                else None
            )
    return None
