"""What of a sparse network is on a path from its input to its output, and so takes part at all.

Source: Vysogorets and Kempe, *Connectivity Matters: Neural Network Pruning Through the Lens of Effective Sparsity*,
JMLR 2023, here for every element of every feature map instead of for whole channels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import cached_property

import torch
from torch import Tensor

from topognn.encoding.kept import DenseWeights, find_mask
from topognn.encoding.multipartite import encode
from topognn.errors import TraceError
from topognn.graph import MultipartiteGraph
from topognn.masks import Masks
from topognn.operators.matrix import Route, pick_products
from topognn.operators.products import count_uses, exact_convolutions, gather_elements, get_window, to_elements
from topognn.operators.sweeps import Scaled, sweep_backward, sweep_forward, sweep_graph
from topognn.tracing.layout import Layout


@dataclasses.dataclass(frozen=True, eq=False)
class EffectiveNetwork:
    """The part of a network that is on at least one path from the input to the output.

    Attributes:
        forward, backward: 1 for the nodes that the input reaches, or that reach the output, 0 for others.
    """

    forward: Scaled
    backward: Scaled
    _graph: MultipartiteGraph

    @cached_property
    def from_input(self) -> Tensor:
        """Which nodes the input reaches; bool ``(nodes,)``."""
        return torch.cat(self.forward.values) > 0

    @cached_property
    def to_output(self) -> Tensor:
        """Which nodes reach the output; bool ``(nodes,)``."""
        return torch.cat(self.backward.values) > 0

    @property
    def num_nodes(self) -> Tensor:
        """The number of nodes on a path; int64 scalar."""
        return (self.from_input & self.to_output).count_nonzero()

    @property
    def num_edges(self) -> Tensor:
        """The number of edges on a path; float64 scalar, a whole number."""
        route: Route = "rows" if self._graph.has_parallel_edges else "connections"
        products = pick_products(self._graph, False, torch.float32, route)
        entering = products.into(self.from_input[None].float())[0].double().round()
        return torch.where(self.to_output, entering, 0).sum()

    @cached_property
    def masks(self) -> dict[str, Tensor]:
        """The kept weights with at least one edge on a path: weight name -> bool tensor of the weight's shape."""
        graph, remembered, earlier = self._graph, self._graph.remembered, self._graph.earlier
        if remembered is None:
            return _by_weight(graph, find_uses(graph, self.forward.values, self.backward.values))
        before: list[Tensor | None] = [None] * len(graph.connections)
        if earlier is not None and "used" in earlier.remembered:
            then = earlier.remembered
            for number, c in enumerate(graph.connections):
                same = earlier.same[number] and self.backward.is_same(then["effective backward"], c.target)
                if same and all(self.forward.is_same(then["effective forward"], n) for n in c.sources):
                    before[number] = then["used"][number]
        remembered["used"] = find_uses(graph, self.forward.values, self.backward.values, before)
        return _by_weight(graph, remembered["used"])

    @cached_property
    def kept(self) -> Tensor:
        """The number of such weights of each weight tensor, in the order of :attr:`masks`; int64 ``(tensors,)``."""
        return torch.stack([mask.count_nonzero() for mask in self.masks.values()])

    @property
    def density(self) -> Tensor:
        """Their share of all weights, pruned ones included; float64 scalar."""
        return self.kept.sum().double() / sum(mask.numel() for mask in self.masks.values())

    @property
    def num_collapsed(self) -> Tensor:
        """The number of weight tensors without any such weight: layers that have collapsed; int64 scalar."""
        return (self.kept == 0).count_nonzero()


def find_effective(graph: MultipartiteGraph) -> EffectiveNetwork:
    """Find what of a network is on a path from its input to its output.

    By convolutions of masks, in the memory of activations; only :attr:`EffectiveNetwork.num_edges` of a graph with
    parallel edges takes rows, and a host sync.

    >>> from topognn import example_graph
    >>> found = find_effective(example_graph())
    >>> found.num_nodes, found.num_edges, found.density, found.num_collapsed
    (tensor(11), tensor(10., dtype=torch.float64), tensor(0.2500, dtype=torch.float64), tensor(0))
    """
    weights, layout = DenseWeights(graph.kept, torch.float32, weighted=False), graph.layout

    def sweep(name: str, run: Callable[..., Scaled]) -> Scaled:
        return sweep_graph(graph, name, lambda before: run(layout, weights, saturate=True, before=before))

    forward, backward = sweep("effective forward", sweep_forward), sweep("effective backward", sweep_backward)
    return EffectiveNetwork(forward, backward, graph)


def find_used(graph: MultipartiteGraph, sources: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Return the kept weights with an edge from one of ``sources`` to one of ``targets``, bool ``(nodes,)`` both."""
    sizes = [part.size for part in graph.partitions]
    uses = find_uses(graph, torch.split(sources.float(), sizes), torch.split(targets.float(), sizes))
    return _by_weight(graph, uses)


def find_uses(
    graph: MultipartiteGraph,
    sources: Sequence[Tensor],
    targets: Sequence[Tensor],
    known: Sequence[Tensor | None] | None = None,
) -> list[Tensor]:
    """Return, for each connection, its kept weights with an edge from ``sources`` to ``targets``, in kernel form.

    Both are float32 ``(size,)`` a partition, 1 or 0. Where ``known`` holds a connection's, it is taken from there.
    """
    layout = graph.layout
    found = []
    with exact_convolutions():
        for number, (c, k) in enumerate(zip(layout.connections, graph.kept, strict=True)):
            mask = None if known is None else known[number]
            if mask is None and c.sources and c.weight is not None:
                window = sources[min(c.sources) : max(c.sources) + 1]
                values = window[0] if len(window) == 1 else torch.cat(list(window))
                elements = gather_elements(c, values[None], get_window(layout, c)[0])
                mask = k.mask & (count_uses(c, elements, to_elements(c, targets[c.target][None])) > 0.5)
            found.append(torch.zeros_like(k.mask) if mask is None else mask)
    return found


def _by_weight(graph: MultipartiteGraph, uses: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return masks by the weights' names and in their shapes, from one a connection."""
    used: dict[str, Tensor] = {}
    for c, mask in zip(graph.connections, uses, strict=True):
        if c.weight is not None:
            mask = c.from_kernel(mask)
            if c.is_pooled:  # of the weights that an edge is the sum of, those that are kept
                mask &= find_mask(graph.layout, graph.kept, c.weight)
            used[c.weight] = used[c.weight] | mask if c.weight in used else mask  # tied: one use is enough
    return used


def prune_ineffective(layout: Layout, masks: Masks | None = None, *, constants: bool = True) -> dict[str, Tensor]:
    """Return masks without the weights that cannot change what the network computes.

    A weight all of whose edges lead to nodes that do not reach the output changes nothing, and goes.

    Args:
        layout: Of the network, as :func:`topognn.trace` makes it.
        masks: See :func:`topognn.encode`.
        constants: Whether units that the input does not reach may still put out a constant, from biases or
            normalisation, so that their out-weights count. If False, those go too, and exactly the effective weights
            stay: in a network without biases and shifts it still computes the same.

    Returns:
        Weight name -> bool tensor of the weight's shape, for the weights that the layout knows.

    Raises:
        MaskError, TraceError: See :func:`topognn.encode`.

    >>> import topognn
    >>> model, masks = topognn.example_model()
    >>> fewest = prune_ineffective(topognn.trace(model, (1, 3, 3)), masks, constants=False)
    >>> {name: int(mask.sum()) for name, mask in fewest.items()}
    {'0.weight': 2, '2.weight': 4}
    """
    if not isinstance(layout, Layout):
        raise TraceError(
            f"prune_ineffective needs a layout, not {type(layout).__name__}: pass topognn.trace(model, shape)"
        )
    graph = encode(layout, masks=masks)
    found = find_effective(graph)
    sources = torch.ones_like(found.from_input) if constants else found.from_input
    return find_used(graph, sources, found.to_output)
