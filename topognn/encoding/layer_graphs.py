"""The three Bipartite Graph Encodings: one small graph a layer, which forgets all layers but its own."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from topognn.encoding.degrees import add_in
from topognn.encoding.kept import KeptWeights, take_values
from topognn.encoding.multipartite import resolve_masks
from topognn.errors import TraceError, unknown_name
from topognn.graph import MultipartiteGraph
from topognn.kernels.host import read
from topognn.masks import Masks, get_masks, prunable_weights
from topognn.tracing import trace
from topognn.tracing.layout import Connection, Layout, Partition, swap_channels

Kind = Literal["rolled", "rolled-channel", "unrolled"]
_TOGETHER = 2**27  # weights of layers that are measured together, at one set of host syncs
KINDS = ("rolled", "rolled-channel", "unrolled")


class LayerWeights(NamedTuple):
    """A layer's weights in the form that its graph is made from, and the layout of that graph.

    Attributes:
        layout: Two partitions, the layer's inputs and outputs, and one connection.
        mask: bool, in the connection's kernel form.
        weight: As many numbers, of which those that the mask keeps are edge weights, but for the sign.
        density: The kept fraction of the layer's own weights; float64 scalar.
    """

    layout: Layout
    mask: Tensor
    weight: Tensor
    density: Tensor


def bipartite(
    model: nn.Module | Layout,
    kind: Kind = "rolled",
    masks: Masks | None = None,
    input_shape: Sequence[int] | None = None,
) -> dict[str, MultipartiteGraph]:
    """Turn each layer of a model into a bipartite graph of its own, from its inputs to its outputs.

    ====================  =======================  ==============  =================================================
    kind                  left nodes               right nodes     edge, and its weight
    ====================  =======================  ==============  =================================================
    ``"rolled"``          ``(i, ky, kx)``          ``o``           a kept weight; ``|w|``
    ``"rolled-channel"``  ``i``                    ``o``           a kernel slice ``(o, i)`` of which any weight is
                                                                   kept; the L2 norm of its kept weights
    ``"unrolled"``        elements of the input    of the output   as in the MGE, of this layer alone; ``|w|``
    ====================  =======================  ==============  =================================================

    A linear layer has its inputs on the left and its outputs on the right in every kind; in ``"unrolled"`` once a
    token. Left nodes are those of partition 0, and all channels of all groups, which only have no edges to each
    other; input channel and place in the kernel count as in the weight. Zero padding makes no nodes; elements that
    another kind of padding adds count as elements of the input. Depth and height of a volume are one axis of an
    unrolled partition's shape.

    Args:
        model: A model, or a layout that :func:`topognn.trace` made of it (then nothing is traced).
        kind: Which encoding.
        masks: Which weights are kept, in any form that :func:`topognn.masks.get_masks` takes; by default the weights
            that are not zero.
        input_shape: Shape of one input without the batch; needed by ``"unrolled"``, unless ``model`` is a layout.

    Returns:
        Path of the layer -> its graph, on the device of the weights, in module order; ``"unrolled"`` in the order of
        execution, the second use of a layer as ``"PATH#2"``. A graph is what :func:`topognn.encode` makes, so every
        metric takes it; its matrices are built when asked for. One host sync for all (see
        :func:`topognn.encode` for masks that are not bool).

    Raises:
        UnknownNameError: There is no such kind.
        MaskError: A mask does not fit the model.
        TraceError, UnsupportedOperation: The model has no layers, or cannot be traced, as ``"unrolled"`` needs it.

    Source:
        Cunegatti et al., TMLR 2024, section 2 (rolled, rolled-channel and unrolled BGEs).

    >>> from topognn import example_model
    >>> model, masks = example_model()
    >>> bipartite(model, "rolled", masks)["0"]
    MultipartiteGraph(6 nodes, 2 edges, 2 partitions, cpu)
    >>> bipartite(model, "unrolled", masks, (1, 3, 3))["0"]
    MultipartiteGraph(17 nodes, 8 edges, 2 partitions, cpu)
    """
    return encode_layers(find_layers(model, kind, masks, input_shape))


def find_layers(
    model: nn.Module | Layout, kind: Kind, masks: Masks | None, input_shape: Sequence[int] | None
) -> dict[str, LayerWeights]:
    """Return what :func:`bipartite` makes graphs of; see there."""
    if kind not in KINDS:
        raise unknown_name("bipartite encoding", kind, KINDS)
    if isinstance(model, Layout):
        layout = model
    elif kind == "unrolled":
        if input_shape is None:
            raise TraceError(
                "input_shape is missing: an unrolled layer has a node an element, so give the shape of one input "
                "without the batch, such as (3, 32, 32)"
            )
        layout = trace(model, input_shape)
    else:
        return dict(_roll_modules(model, get_masks(model, masks), kind == "rolled-channel"))
    if layout.weights is None:
        raise TraceError("this layout was read from a file and has no model: encode a layout that trace() made")
    weights = layout.weights()
    kept = resolve_masks(masks, weights, layout.weights)
    return dict(_roll_connections(layout, weights, kept, kind))


def split_layers(layers: Mapping[str, LayerWeights]) -> Iterator[dict[str, LayerWeights]]:
    """Yield layers in order, as many together as have not too many weights: their graphs are in memory at once."""
    together: dict[str, LayerWeights] = {}
    for name, layer in layers.items():
        if together and sum(one.mask.numel() for one in together.values()) + layer.mask.numel() > _TOGETHER:
            yield together
            together = {}
        together[name] = layer
    yield together


def encode_layers(layers: Mapping[str, LayerWeights]) -> dict[str, MultipartiteGraph]:
    """Return the graph of each layer: one host sync, for the numbers of kept weights and of edges."""
    if not layers:
        raise TraceError("the model has no convolution or linear layer: no graph")
    degrees = [add_in(one.layout, [one.mask], one.mask.device).to(torch.int64) for one in layers.values()]
    pairs = zip(layers.values(), degrees, strict=True)
    numbers = [n for one, degree in pairs for n in (one.mask.count_nonzero(), degree.sum())]
    counts = iter(map(int, read(torch.stack(numbers))))
    graphs = {}
    for (name, one), degree in zip(layers.items(), degrees, strict=True):
        count, edges = next(counts), next(counts)
        values = take_values(one.mask, one.weight.to(torch.float32), count)
        graphs[name] = MultipartiteGraph(one.layout, [KeptWeights(one.mask, values, count)], degree, edges)
    return graphs


def _roll_modules(
    model: nn.Module, masks: Mapping[str, Tensor], by_channel: bool
) -> Iterable[tuple[str, LayerWeights]]:
    """Yield each layer's weights, rolled, from the modules: nothing is traced."""
    for name, weight in prunable_weights(model).items():
        path, _, own = name.rpartition(".")
        module = model.get_submodule(path)
        path = path if own == "weight" else name
        groups, mask = int(getattr(module, "groups", 1)), masks[name]
        if isinstance(module, nn.modules.conv._ConvTransposeNd):
            mask, weight = (swap_channels(values, groups) for values in (mask, weight))
        yield path, roll(path, mask, weight, groups, by_channel)


def _roll_connections(
    layout: Layout, weights: Mapping[str, Tensor], masks: Mapping[str, Tensor], kind: Kind
) -> Iterable[tuple[str, LayerWeights]]:
    """Yield each layer's weights from a layout: once a weight if rolled, once a use if unrolled."""
    device = next(iter(weights.values())).device
    uses: dict[str, int] = {}
    for c in layout.to(device).connections:
        if c.weight is None or c.is_pooled:
            continue
        uses[c.layer] = uses.get(c.layer, 0) + 1
        mask, weight = masks[c.weight], weights[c.weight]
        if kind == "unrolled":
            own = _cut_out(c)
            name = c.layer if uses[c.layer] == 1 else f"{c.layer}#{uses[c.layer]}"
            mask, weight = c.to_kernel(mask).contiguous(), c.to_kernel(weight)
            yield name, LayerWeights(own, mask, weight, _density(mask))
        elif uses[c.layer] == 1:
            if c.transposed:
                mask, weight = (swap_channels(values, c.groups) for values in (mask, weight))
            yield c.layer, roll(c.layer, mask, weight, c.groups, kind == "rolled-channel")


def roll(layer: str, mask: Tensor, weight: Tensor, groups: int, by_channel: bool) -> LayerWeights:
    """Return a layer's weights as those of a linear layer in as many groups, which reads a kernel's places.

    ``mask`` and ``weight`` are ``(out, in of a group, *kernel)``.
    """
    out, inner, *kernel = mask.shape
    density = _density(mask)
    if by_channel:
        norms = torch.linalg.vector_norm((weight * mask).flatten(2).float(), dim=2) if kernel else weight
        mask, weight, kernel = (mask.flatten(2).any(2) if kernel else mask), norms, []
    left = (inner * groups, *kernel)
    size = math.prod(left)
    form = (out, size // groups, 1, 1)
    here = torch.zeros(1, 1, dtype=torch.int64, device=mask.device)
    connection = Connection(
        layer=layer,
        weight=f"{layer}.weight" if layer else "weight",
        weight_shape=tuple(mask.shape),
        kernel=form,
        groups=groups,
        positions=(1, 1),
        input_positions=(1, 1),
        stride=(1, 1),
        padding=(0, 0),
        dilation=(1, 1),
        channel_stride=1,
        place_stride=1,
        target_channel_stride=1,
        target_place_stride=1,
        source_y=here,
        source_x=here,
        target_y=here,
        target_x=here,
        num_elements=size,
        source=0,
        num_sources=size,
        support=None,
        holders_indptr=None,
        holders=None,
        multiplicity=None,
        target=1,
        target_first=size,
        target_map=None,
        sources=(0,),
        ascends_in=True,
        ascends_out=True,
        may_repeat=False,
    )
    layout = _pair(connection, left, (out,))
    return LayerWeights(layout, mask.reshape(form).contiguous(), weight.reshape(form), density)


def _density(mask: Tensor) -> Tensor:
    return mask.count_nonzero().double() / max(1, mask.numel())


def _cut_out(c: Connection) -> Layout:
    """Return the layout of one use of a layer alone, whose inputs are elements and not what they stand for."""
    alone = dataclasses.replace(
        c,
        source=0,
        num_sources=c.num_elements,
        support=None,
        holders_indptr=None,
        holders=None,
        multiplicity=None,
        target=1,
        target_first=c.num_elements,
        target_map=None,
        sources=(0,),
        ascends_in=True,
        ascends_out=True,
        may_repeat=False,
    )
    left, right = ((c.in_channels, *c.input_positions), (c.kernel[0], *c.positions))
    return _pair(alone, _shape(left, c), _shape(right, c))


def _shape(size: tuple[int, int, int], c: Connection) -> tuple[int, ...]:
    """Return the tensor's own shape from ``(channels, height, width)``; of volumes, depth and height are one axis."""
    channels, height, width = size
    if c.place_stride > 1 or len(c.weight_shape) == 2:  # a linear layer: a row a token, if there are several
        return (channels,) if width == 1 else (width, channels)
    return (channels, width) if len(c.weight_shape) == 3 else (channels, height, width)


def _pair(connection: Connection, left: tuple[int, ...], right: tuple[int, ...]) -> Layout:
    """Return the layout of two partitions and what joins them."""
    partitions = (Partition("input", left, 0), Partition(connection.layer, right, math.prod(left)))
    return Layout(partitions, (connection,), (1,), "parametric")
