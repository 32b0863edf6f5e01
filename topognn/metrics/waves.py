"""What leading eigenvectors of a convolutional layer look like: a profile over channels, times a standing wave.

A convolution does the same everywhere in a map but at its edges, beyond which there is nothing: as in a box, whose
eigenvectors are sines that vanish one place beyond its walls (exactly so for a path graph; Brouwer and Haemers,
*Spectra of Graphs*, 2012, section 1.4.4). The larger the map, the closer together are the eigenvalues of neighbouring
waves, and the longer is a search that has to tell them apart. One that starts from waves does not have to.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from topognn.graph import MultipartiteGraph
from topognn.lanczos import draw_start


def find_largest_map(graph: MultipartiteGraph, partitions: tuple[int, int]) -> int | None:
    """Return which of two partitions has the map of more places; None if both have none.

    >>> from topognn import example_graph
    >>> find_largest_map(example_graph(), (0, 1))  # of 9 places and of 4
    0
    """
    places = [(math.prod(_get_map(graph, number)), number) for number in partitions]
    most, number = max(places)
    return number if most > 1 else None


def make_waves(graph: MultipartiteGraph, number: int, vector: Tensor) -> Tensor:
    """Return standing waves over a partition's map, ``(waves, nodes of the partition)``.

    The first is the longest; those follow that are half as long along one of the axes.

    Args:
        graph: The graph.
        number: The partition's.
        vector: Something like an eigenvector, ``(nodes of the partition,)``: its profile over channels.

    >>> from topognn import example_graph
    >>> make_waves(example_graph(), 0, torch.ones(9))[0].view(3, 3).round(decimals=2)
    tensor([[0.7300, 1.0300, 0.7300],
            [1.0300, 1.4600, 1.0300],
            [0.7300, 1.0300, 0.7300]])
    """
    sides = _get_map(graph, number)
    orders = [[1] * len(sides)]
    orders += [[1 + (axis == other) for other in range(len(sides))] for axis, side in enumerate(sides) if side > 1]
    waves = torch.stack([_make_wave(sides, order, vector) for order in orders])
    profile = vector.view(-1, waves.shape[1]) @ (waves[0] / waves[0].square().sum())
    return (profile[:, None] * waves[:, None]).flatten(1)


def draw_waves(graph: MultipartiteGraph, partitions: range, count: int, dtype: torch.dtype) -> Tensor:
    """Return ``count`` times the longest waves over the partitions' maps, of random heights in each channel.

    ``(count, nodes of the partitions)``. As near as may be to eigenvectors that live in other channels or layers.
    """
    parts = []
    for number in partitions:
        sides = _get_map(graph, number)
        wave = _make_wave(sides, [1] * len(sides), torch.empty(0, dtype=dtype, device=graph.device))
        heights = draw_start(count, graph.partitions[number].size // len(wave), number, graph.device, dtype)
        parts.append((heights[:, :, None] * wave).flatten(1))
    return torch.cat(parts, 1)


def _make_wave(sides: tuple[int, ...], order: list[int], like: Tensor) -> Tensor:
    """Return the product of sines over a map, of so many half waves along each axis; ``(places,)``."""
    wave = like.new_ones(1)
    for side, half_waves in zip(sides, order, strict=True):
        places = torch.arange(1, side + 1, dtype=like.dtype, device=like.device)
        wave = torch.outer(wave, torch.sin(math.pi * half_waves / (side + 1) * places)).flatten()
    return wave


def _get_map(graph: MultipartiteGraph, number: int) -> tuple[int, ...]:
    """Return the sides of a partition's map, none where channels do not come first."""
    shape = graph.partitions[number].shape
    places = math.prod(shape[1:])
    for c in graph.connections:
        if (c.target == number and c.target_channel_stride == places) or (
            c.sources == (number,) and c.channel_stride == places
        ):
            return shape[1:]
    return ()
