"""A network small enough to draw, for documentation and first steps."""

from __future__ import annotations

import torch
from torch import nn

from topognn.encoding.multipartite import encode
from topognn.graph import MultipartiteGraph


def example_model() -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """Return a 2x2 convolution and a linear layer for a 3x3 image, and masks that leave a little of everything.

    One channel of the convolution has no weight left, and one of its elements is read all the same (a source);
    one element of the other channel is not read (a sink).

    >>> model, masks = example_model()
    >>> {name: int(mask.sum()) for name, mask in masks.items()}
    {'0.weight': 2, '2.weight': 5}
    """
    model = nn.Sequential(nn.Conv2d(1, 2, 2, bias=False), nn.Flatten(), nn.Linear(8, 2, bias=False))
    masks = {
        "0.weight": torch.tensor([[[[1, 0], [0, 1]]], [[[0, 0], [0, 0]]]]).bool(),
        "2.weight": torch.tensor([[1, 1, 0, 0, 0, 0, 0, 0], [0, 1, 1, 0, 0, 1, 0, 0]]).bool(),
    }
    with torch.no_grad():
        model.get_parameter("0.weight").copy_(torch.tensor([1.0, 0.0, 0.0, -0.5]).view(1, 1, 2, 2).repeat(2, 1, 1, 1))
        model.get_parameter("2.weight").fill_(0.5)
    return model, masks


def example_graph() -> MultipartiteGraph:
    """Return the Multipartite Graph Encoding of :func:`example_model`.

    >>> example_graph()
    MultipartiteGraph(19 nodes, 13 edges, 3 partitions, cpu)
    """
    model, masks = example_model()
    return encode(model, (1, 3, 3), masks)
