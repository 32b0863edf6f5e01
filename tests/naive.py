"""An oracle for the encoder: slow, obvious, and made without any of its code.

Every tensor in flight is an array of sets: the nodes that each of its elements stands for. What an operation
does with elements is learned by running the real torch operation on one-hot inputs (layers, pools) or on an
array of index numbers (data movement).
"""

from __future__ import annotations

import copy
import math
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tests.architectures import ADDS, MOVES, PARAMETRIC, POINTWISE, POOLS, Architecture, Step

Sets = Any  # numpy arrays of frozensets of node ids
NOTHING: frozenset[int] = frozenset()
STATISTICAL = set("mean amax add sub iadd mul div scale add_constant squeeze unsqueeze".split())


@dataclass
class NaiveGraph:
    """Node ids count through the partitions in order; `names` says what layers (or sum) made each of them."""

    names: list[str]
    partition_shapes: list[tuple[int, ...]]
    edges: dict[tuple[int, int], float]
    output_nodes: frozenset[int]

    @property
    def partition_sizes(self) -> list[int]:
        return [math.prod(shape) for shape in self.partition_shapes]

    @property
    def offsets(self) -> list[int]:
        return [sum(self.partition_sizes[:i]) for i in range(len(self.names) + 1)]

    @property
    def nodes(self) -> int:
        return sum(self.partition_sizes)

    def partition_of(self, node: int) -> int:
        return max(p for p, offset in enumerate(self.offsets[:-1]) if offset <= node)

    def members(self, partition: int) -> range:
        return range(self.offsets[partition], self.offsets[partition + 1])

    @property
    def output_partitions(self) -> list[int]:
        return [p for p in range(len(self.names)) if not self.output_nodes.isdisjoint(self.members(p))]

    @property
    def ascending(self) -> bool:
        """Whether all edges run from lower to higher ids."""
        return all(u < v for u, v in self.edges)


@dataclass
class Partition:
    name: str
    place: int  # the step that makes it
    shape: tuple[int, ...]
    first: int  # provisional id of its first node

    @property
    def size(self) -> int:
        return math.prod(self.shape)


@dataclass
class Value:
    """A tensor without its batch dimension, and the partition whose fresh output it is, if it is one."""

    sets: Sets
    fresh: Partition | None = None


def array_of(sets: list[frozenset[int]], shape: tuple[int, ...]) -> Sets:
    array = np.empty(len(sets), dtype=object)
    for i, one in enumerate(sets):
        array[i] = one
    return array.reshape(shape)


def responses(operation: Callable[..., Tensor], shape: tuple[int, ...]) -> tuple[Tensor, tuple[int, ...]]:
    """How each output element (column) responds to a one at each input element (row); the output shape."""
    count = math.prod(shape)
    out = operation(torch.eye(count, dtype=torch.float64).reshape(count, *shape))
    return out.reshape(count, -1), tuple(out.shape[1:])


def moved(operation: Callable[..., Tensor], arrays: list[Sets]) -> Sets:
    """The operation done on sets: numbers 1, 2, ... go through it; others that come out are padding."""
    numbers, known = [], [NOTHING]
    for array in arrays:
        numbers.append(torch.arange(array.size, dtype=torch.float64).reshape(1, *array.shape) + len(known))
        known += array.reshape(-1).tolist()
    out = operation(*numbers)[0]
    return array_of([known[int(i)] if i == int(i) else NOTHING for i in out.reshape(-1).tolist()], tuple(out.shape))


def bare(layer: Any, mask: Tensor) -> Any:
    """The layer with |w| * mask for weights, no bias, in double precision."""
    layer = copy.deepcopy(layer).double()
    layer.weight = nn.Parameter(layer.weight.abs() * mask, requires_grad=False)
    layer.bias = None
    return layer


class _Tracer:
    def __init__(self, architecture: Architecture, masks: dict[str, Tensor], shortcuts: str) -> None:
        self.steps, self.masks, self.shortcuts = architecture.steps, masks, shortcuts
        self.model = architecture.build()
        self.partitions: list[Partition] = []
        self.next_id = 0
        self.edges: defaultdict[tuple[int, int], float] = defaultdict(float)
        self.same_as: dict[int, int] = {}  # nodes of merged partitions: the earlier layer's -> the later layer's
        self.reads = Counter(a for one in self.steps for a in one.args)
        self.reads[len(self.steps)] += 1  # the network's output is read too

    def partition(self, name: str, place: int, shape: tuple[int, ...]) -> tuple[Partition, Sets]:
        made = Partition(name, place, shape, self.next_id)
        self.partitions.append(made)
        self.next_id += made.size
        return made, array_of([frozenset([made.first + i]) for i in range(made.size)], shape)

    def join(self, sources: Sets, targets: Sets, weight: float = 1.0) -> None:
        """Edges from the nodes of each element to the nodes of the element it meets."""
        for us, vs in zip(sources.reshape(-1), targets.reshape(-1), strict=True):
            for u in us:
                for v in vs:
                    self.edges[u, v] += weight

    def layer(self, number: int, layer: Any, sets: Sets) -> Value:
        name = self.model.calls[number - 1][0]
        response, shape = responses(bare(layer, self.masks[f"{name}.weight"]), sets.shape)
        made, out = self.partition(name, number, shape)
        flat = sets.reshape(-1)
        rows, columns = response.nonzero(as_tuple=True)
        for e, v, w in zip(rows.tolist(), columns.tolist(), response[rows, columns].tolist(), strict=True):
            for u in flat[e]:
                self.edges[u, made.first + v] += w
        return Value(out, made)

    def pool(self, operation: Callable[..., Tensor], sets: Sets) -> Sets:
        response, shape = responses(operation, sets.shape)
        flat = sets.reshape(-1)
        reads = response.isfinite() & (response.abs() > 1e-9)  # the maximum of padding alone is infinite
        windows = [NOTHING.union(*flat[window.nonzero().reshape(-1).numpy()]) for window in reads.T]
        return array_of(windows, shape)

    def is_bijection(self, value: Value) -> bool:
        """Every node of the partition occurs exactly once, on its own."""
        assert value.fresh is not None
        sets = value.sets.reshape(-1).tolist()
        return all(len(one) == 1 for one in sets) and len(set(sets)) == len(sets) == value.fresh.size

    def add(self, number: int, name: str, operands: list[Value], reads: list[int]) -> Value:
        shape = np.broadcast_shapes(*[value.sets.shape for value in operands])
        spread = [np.broadcast_to(value.sets, shape) for value in operands]
        is_fresh = [
            value.fresh is not None and count == 1 and value.sets.shape == shape
            for value, count in zip(operands, reads, strict=True)
        ]
        if all(is_fresh) and all(map(self.is_bijection, operands)):
            earlier, later = sorted(operands, key=lambda value: value.fresh.place if value.fresh else 0)
            assert earlier.fresh and later.fresh
            for (old,), (new,) in zip(earlier.sets.reshape(-1), later.sets.reshape(-1), strict=True):
                self.same_as[old] = new
            self.partitions.remove(earlier.fresh)
            later.fresh.name = f"{earlier.fresh.name}+{later.fresh.name}"
            return Value(later.sets, later.fresh)
        if sum(is_fresh) == 1:
            own = is_fresh.index(True)
            if self.shortcuts == "all":
                self.join(spread[1 - own], spread[own])
            return Value(spread[own], operands[own].fresh)
        _, out = self.partition(name, number, shape)
        for one in spread:
            self.join(one, out)
        return Value(out)

    def normalised(self, one: Step) -> int | None:
        """The value that a step shifts or scales by a mean or maximum of that value, which other steps came from."""
        orders = {"sub": [one.args], "mul": [one.args, one.args[::-1]]}.get(one.op, [])
        for value, statistic in orders:
            reduced = False
            while statistic > value:
                came = self.steps[statistic - 1]
                kind = dict(came.params).get("kind") if came.op == "scalar" else came.op
                if len(set(came.args)) > 1 or kind not in STATISTICAL:
                    break
                reduced |= kind in ("mean", "amax")
                statistic = came.args[0]
            if statistic == value and reduced:
                return value
        return None

    def run(self, input_shape: tuple[int, ...], ring: tuple[int, ...] | None) -> NaiveGraph:
        if ring is None:
            values = [Value(self.partition("input", 0, input_shape)[1])]
        else:
            left, right, top, bottom = ring
            channels, height, width = input_shape
            padded = self.partition("input", 0, (channels, height + top + bottom, width + left + right))[1]
            values = [Value(padded[:, top : top + height, left : left + width])]
        for number, one in enumerate(self.steps, 1):
            operands, reads = [values[a] for a in one.args], [self.reads[a] for a in one.args]
            operation, first = self.model.operation(number), operands[0]
            onward = first.fresh if reads[0] == 1 else None
            if one.op in PARAMETRIC and ring is not None and one.args == (0,) and (pads := zero_padding(operation)):
                h, w = padded.shape[1:]
                seen = padded[:, ring[2] - pads[2] : h - ring[3] + pads[3], ring[0] - pads[0] : w - ring[1] + pads[1]]
                values.append(self.layer(number, unpadded(operation), seen))
            elif one.op in PARAMETRIC:
                values.append(self.layer(number, operation, first.sets))
            elif one.op in POOLS:
                values.append(Value(self.pool(operation, first.sets), onward))
            elif one.op in MOVES:
                alone = onward if len(operands) == 1 else None
                values.append(Value(moved(operation, [value.sets for value in operands]), alone))
            elif (value := self.normalised(one)) is not None and values[value].sets.shape == np.broadcast_shapes(
                *[v.sets.shape for v in operands]
            ):
                values.append(Value(values[value].sets))
            elif one.op in ADDS:
                values.append(self.add(number, f"{one.op}{number}", operands, reads))
            elif one.op == "mul":
                values.append(Value(np.frompyfunc(frozenset.union, 2, 1)(first.sets, operands[1].sets)))
            else:
                assert one.op in POINTWISE, one.op
                values.append(Value(first.sets, onward))
        return self.finish(values[-1].sets)

    def finish(self, output: Sets) -> NaiveGraph:
        final: dict[int, int] = {}
        ordered = sorted(self.partitions, key=lambda partition: partition.place)
        for partition in ordered:
            final.update({partition.first + i: len(final) + i for i in range(partition.size)})

        def number(node: int) -> int:
            while node in self.same_as:
                node = self.same_as[node]
            return final[node]

        edges: defaultdict[tuple[int, int], float] = defaultdict(float)
        for (u, v), weight in self.edges.items():
            edges[number(u), number(v)] += weight
        nodes = frozenset(number(u) for one in output.reshape(-1) for u in one)
        return NaiveGraph([p.name for p in ordered], [p.shape for p in ordered], dict(edges), nodes)


def zero_padding(layer: Any) -> tuple[int, ...] | None:
    """Left, right, top, bottom zero padding of a convolution."""
    if isinstance(layer, nn.Conv2d) and layer.padding_mode == "zeros":
        return tuple(layer._reversed_padding_repeated_twice)
    return None


def unpadded(layer: Any) -> Any:
    layer = copy.deepcopy(layer)
    layer.padding = (0, 0)
    return layer


def naive_graph(
    architecture: Architecture,
    masks: dict[str, Tensor] | None = None,
    shortcuts: str = "parametric",
    input_padding_nodes: bool = False,
) -> NaiveGraph:
    """The encoding of the architecture under the masks (by parameter name; its own masks if none are given).

    With `input_padding_nodes` the ring is as wide as the widest zero padding of the convolutions that read
    the input itself.
    """
    with torch.no_grad():
        tracer = _Tracer(architecture, architecture.masks() if masks is None else masks, shortcuts)
        ring = None
        if input_padding_nodes and len(architecture.input_shape) == 3:
            reading = [tracer.model.operation(n) for n, one in enumerate(architecture.steps, 1) if one.args == (0,)]
            ring = tuple(map(max, zip((0, 0, 0, 0), *filter(None, map(zero_padding, reading)), strict=True)))
        return tracer.run(architecture.input_shape, ring)


def naive_metrics(graph: NaiveGraph) -> dict[str, Any]:
    """The local, neighbour and strength metrics, from their definitions; lists hold one number a node."""
    nodes = range(graph.nodes)
    after: list[set[int]] = [set() for _ in nodes]
    before: list[set[int]] = [set() for _ in nodes]
    in_strength, out_strength = [0.0] * graph.nodes, [0.0] * graph.nodes
    for (u, v), weight in graph.edges.items():
        after[u].add(v)
        before[v].add(u)
        out_strength[u] += weight
        in_strength[v] += weight
    first = set(graph.members(0))
    last = {v for p in graph.output_partitions for v in graph.members(p)}
    sinks = [v for v in nodes if v not in last and not after[v] and before[v]]
    sources = [v for v in nodes if v not in first and not before[v] and after[v]]
    one_hop = [{v} | after[v] for v in nodes]
    two_hop = [one_hop[v].union(*(after[w] for w in after[v])) for v in nodes]
    return {
        "nodes": graph.nodes,
        "edges": len(graph.edges),
        "sink_nodes": len(sinks),
        "source_nodes": len(sources),
        "disconnected_nodes": sum(not after[v] and not before[v] for v in nodes),
        "removable_out_edges": sum(len(before[v]) for v in sinks),
        "removable_in_edges": sum(len(after[v]) for v in sources),
        "one_hop": sum(map(len, one_hop)) / graph.nodes,
        "two_hop": sum(map(len, two_hop)) / graph.nodes,
        "strength": (sum(in_strength) + sum(out_strength)) / graph.nodes,
        "in_degrees": [len(before[v]) for v in nodes],
        "out_degrees": [len(after[v]) for v in nodes],
        "in_strengths": in_strength,
        "out_strengths": out_strength,
    }


def naive_paths(graph: NaiveGraph, weighted: bool = False) -> tuple[list[Any], list[Any]]:
    """For each node, the paths from partition 0 to it and from it to the output: Python numbers, however large."""
    after: list[list[int]] = [[] for _ in range(graph.nodes)]
    for u, v in graph.edges:
        after[u].append(v)
    order: list[int] = []
    seen: set[int] = set()

    def visit(u: int) -> None:
        if u not in seen:
            seen.add(u)
            for v in after[u]:
                visit(v)
            order.append(u)

    for u in range(graph.nodes):
        visit(u)
    weight = {edge: w if weighted else 1 for edge, w in graph.edges.items()}
    last = {v for p in graph.output_partitions for v in graph.members(p)}
    to_output: list[Any] = [int(u in last) for u in range(graph.nodes)]
    from_input: list[Any] = [int(u in graph.members(0)) for u in range(graph.nodes)]
    for u in order:
        to_output[u] += sum(weight[u, v] * to_output[v] for v in after[u])
    for u in reversed(order):
        for v in after[u]:
            from_input[v] += weight[u, v] * from_input[u]
    return from_input, to_output


def naive_used_weights(
    architecture: Architecture, masks: dict[str, Tensor], shortcuts: str, sources: set[int], targets: set[int]
) -> dict[str, Tensor]:
    """Which kept weights have an edge from one of `sources` to one of `targets`: each weight's graph, one at a time."""
    empty = {name: torch.zeros_like(mask) for name, mask in masks.items()}
    always = naive_graph(architecture, empty, shortcuts).edges  # shortcuts, which a weight may be parallel to
    used = {}
    for name, mask in masks.items():
        used[name] = torch.zeros_like(mask, dtype=torch.bool)
        for index in mask.nonzero().tolist():
            alone = torch.zeros_like(mask)
            alone[tuple(index)] = 1
            edges = naive_graph(architecture, {**empty, name: alone}, shortcuts).edges
            own = [edge for edge, weight in edges.items() if weight != always.get(edge)]
            used[name][tuple(index)] = any(u in sources and v in targets for u, v in own)
    return used
