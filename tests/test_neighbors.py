"""Two-hop neighbourhoods against a sparse matrix product, where classes of nodes stand for each other."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
import torch
import torchvision
from torch import nn

import topognn
from topognn.metrics.neighbors import find_two_hop_classes, get_two_hop_sizes


def sizes_by_product(graph: topognn.MultipartiteGraph) -> np.ndarray:
    matrix = topognn.to_scipy(graph)
    steps = scipy.sparse.csr_array((np.ones(matrix.nnz), matrix.indices, matrix.indptr), shape=matrix.shape)
    reached = scipy.sparse.eye_array(graph.num_nodes, format="csr") + steps + steps @ steps
    return np.diff(reached.tocsr().indptr)


class Mixed(nn.Module):
    """Strides, a projection, an identity, a concatenation and an overlapping pool, all of few channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1)
        self.a, self.b = nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.projection = nn.Conv2d(4, 6, 1, stride=2)
        self.c, self.d = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(12, 5, 3, padding=1, groups=1)
        self.head = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x).relu()
        x = (self.b(self.a(x).relu()) + self.projection(x)).relu()
        y = self.c(x) + x
        y = self.d(nn.functional.max_pool2d(torch.cat([x, y], 1), 3, 2, 1))
        return self.head(y.relu().mean((2, 3)))


@pytest.mark.parametrize("shortcuts", ["parametric", "all"])
@pytest.mark.parametrize("sparsity", [0.0, 0.6, 0.95])
def test_two_hop_sizes(sparsity: float, shortcuts: str) -> None:
    torch.manual_seed(0)
    model = Mixed()
    layout = topognn.trace(model, (2, 18, 18), shortcuts=shortcuts)  # type: ignore[arg-type]
    graph = topognn.encode(layout, masks=topognn.prune(model, "uniform", sparsity))
    assert np.array_equal(get_two_hop_sizes(graph).numpy(), sizes_by_product(graph))
    assert find_two_hop_classes(graph).unique().numel() < graph.num_nodes


def test_two_hop_sizes_of_a_large_network() -> None:
    model = torchvision.models.squeezenet1_1(num_classes=10)
    graph = topognn.encode(model, (3, 35, 35), topognn.prune(model, "erk", 0.97))
    assert np.array_equal(get_two_hop_sizes(graph).numpy(), sizes_by_product(graph))


def test_one_interior_position_stands_for_all() -> None:
    """Two 3x3 convolutions: five kinds of row and of column, so at most 25 classes a channel."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1))
    graph = topognn.encode(model, (1, 16, 16), [torch.ones(2, 1, 3, 3), torch.ones(2, 2, 3, 3)])
    classes = find_two_hop_classes(graph)
    assert classes[:256].unique().numel() == 25
    assert torch.equal(classes[classes], classes)
    assert bool((classes <= torch.arange(graph.num_nodes)).all())


def test_strides_do_not_split_classes() -> None:
    """With stride 2 a position's parity tells its taps; all interior positions of equal parity are alike."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.Conv2d(2, 2, 3, stride=2, padding=1))
    graph = topognn.encode(model, (1, 32, 32), [torch.ones(2, 1, 3, 3), torch.ones(2, 2, 3, 3)])
    kinds = find_two_hop_classes(graph)[: 32 * 32].unique().numel()
    assert kinds <= 12**2


def test_plain_graphs_with_cycles() -> None:
    """A node that two steps lead back to counts once."""
    generator = np.random.default_rng(0)
    for nodes in (1, 5, 40, 200):
        edges = generator.integers(0, nodes, (2, 3 * nodes))
        graph = topognn.from_edge_index(torch.from_numpy(edges), num_nodes=nodes)
        ones = np.ones(edges.shape[1])
        steps = scipy.sparse.csr_array((ones, (edges[0], edges[1])), shape=(nodes, nodes))
        reached = (scipy.sparse.eye_array(nodes, format="csr") + steps + steps @ steps).tocsr()
        assert np.array_equal(get_two_hop_sizes(graph).numpy(), np.diff(reached.indptr))
