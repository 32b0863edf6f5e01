"""A network small enough to draw, for documentation and first steps."""

from __future__ import annotations

import torch
from torch import nn

from topognn.encoding.multipartite import encode
from topognn.graph import MultipartiteGraph


def example_model() -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """Return a 2x2 convolution and a linear layer for a 3x3 image, and masks that keep half of their weights.

    >>> model, masks = example_model()
    >>> {name: int(mask.sum()) for name, mask in masks.items()}
    {'0.weight': 2, '2.weight': 3}
    """
    model = nn.Sequential(nn.Conv2d(1, 1, 2, bias=False), nn.Flatten(), nn.Linear(4, 2, bias=False))
    masks = {
        "0.weight": torch.tensor([[[[1, 0], [0, 1]]]]).bool(),
        "2.weight": torch.tensor([[1, 1, 0, 0], [0, 1, 0, 0]]).bool(),
    }
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
    return model, masks


def example_graph() -> MultipartiteGraph:
    """Return the Multipartite Graph Encoding of :func:`example_model`.

    >>> example_graph()
    MultipartiteGraph(15 nodes, 11 edges, 3 partitions, cpu)
    """
    model, masks = example_model()
    return encode(model, (1, 3, 3), masks)
