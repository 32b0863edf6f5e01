"""The Multipartite Graph Encoding: layout and masks to a graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from topognn.encoding.degrees import add_in
from topognn.encoding.kept import KeptWeights, take_values, take_weight
from topognn.errors import TraceError
from topognn.graph import MultipartiteGraph
from topognn.kernels.host import read
from topognn.kernels.launch import check_device
from topognn.masks import Masks, check_masks, get_masks, prunable_weights
from topognn.tracing import trace
from topognn.tracing.capture import InputShape, find_shapes
from topognn.tracing.layout import Layout, Weights


def encode(
    model: nn.Module | Layout,
    input_shape: InputShape | None = None,
    masks: Masks | None = None,
    *,
    shortcuts: Literal["parametric", "all"] = "parametric",
    attention: Literal["all", "values"] = "all",
    input_padding_nodes: bool = False,
    device: torch.device | str | None = None,
) -> MultipartiteGraph:
    """Turn a model with masks into its Multipartite Graph Encoding.

    Args:
        model: A model, or a layout that :func:`trace` made of it (then nothing is traced, and ``input_shape``,
            ``shortcuts``, ``attention`` and ``input_padding_nodes`` are the layout's; another shape is refused).
        input_shape: Shape of one input without the batch, or examples: see :func:`trace`.
        masks: Which weights are kept, in any form that :func:`topognn.masks.get_masks` takes; by default the
            weights that are not zero.
        shortcuts, attention, input_padding_nodes: See :func:`trace`.
        device: Where to build the graph; by default where the weights are.

    Returns:
        The graph. Its matrices are built when asked for. This call makes one host sync if ``masks`` are bool tensors,
        a second to check masks of other dtypes, or to warn of a network in which nothing is zero.

    Raises:
        MaskError: A mask does not fit the model.
        DeviceError: The device cannot be served here.
        TraceError, UnsupportedOperation: See :func:`trace`.

    Source:
        Cunegatti et al., TMLR 2024, section 3.

    >>> import torch
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Conv2d(1, 1, 2, bias=False), nn.Flatten(), nn.Linear(4, 2))
    >>> kept = {"0.weight": torch.tensor([[[[1, 0], [0, 1]]]]), "2.weight": torch.ones(2, 4)}
    >>> encode(model, (1, 3, 3), masks=kept)
    MultipartiteGraph(15 nodes, 16 edges, 3 partitions, cpu)
    """
    if isinstance(model, Layout):
        layout = model
    else:
        if input_shape is None:
            raise TraceError("input_shape is missing: the shape of one input without the batch, such as (3, 32, 32)")
        ring = input_padding_nodes
        layout = trace(model, input_shape, shortcuts=shortcuts, attention=attention, input_padding_nodes=ring)
    if layout.weights is None:
        raise TraceError("this layout was read from a file and has no model: encode a layout that trace() made")
    if isinstance(model, Layout) and input_shape is not None:
        given, traced = (", ".join(map(str, shapes)) for shapes in (find_shapes(input_shape), layout.weights.shapes))
        if given != traced:
            raise TraceError(
                f"the layout was traced at input shape {traced}, not {given}: leave input_shape out, or trace the "
                "model again"
            )
    weights = layout.weights()
    kept = resolve_masks(masks, weights, layout.weights)
    if device is None:
        device = next(iter(weights.values())).device
    return encode_kept(layout, weights, kept, check_device(device))


def resolve_masks(masks: Masks | None, weights: Mapping[str, Tensor], source: Weights) -> dict[str, Tensor]:
    """Return a mask for every weight: those of layers, and of weights that a model uses without a layer."""
    loose = {n: tuple(w.shape) for n, w in weights.items() if n not in prunable_weights(source.model)}
    named: dict[str, Tensor] = {}
    if isinstance(masks, Mapping) and loose.keys() & masks.keys():
        named = check_masks({n: m for n, m in masks.items() if n in loose and m is not None}, loose)
        masks = {n: m for n, m in masks.items() if n not in loose} or None
    found = get_masks(source.model, masks)
    return {**found, **{name: named.get(name, weights[name] != 0) for name in loose}}


def encode_kept(
    layout: Layout, weights: Mapping[str, Tensor], masks: Mapping[str, Tensor], device: torch.device
) -> MultipartiteGraph:
    """Return the graph of checked masks: one host sync, for the number of edges and of kept weights a layer."""
    layout = layout.to(device)
    parts: list[tuple[Tensor, Tensor]] = []
    for c in layout.connections:
        if c.weight is None:
            one = torch.ones(c.kernel, device=device)
            parts.append((one.bool(), one))
        else:
            mask = masks[c.weight].to(device)
            weight = take_weight(c, weights[c.weight].to(device), mask)
            parts.append((c.to_kernel(mask).contiguous(), weight))
    in_degrees = add_in(layout, [mask for mask, _ in parts], device).to(torch.int64)
    counts = torch.stack([mask.count_nonzero() for mask, _ in parts] + [in_degrees.sum()])
    *kept_counts, num_entries = map(int, read(counts))
    kept = []
    for (mask, weight), count in zip(parts, kept_counts, strict=True):
        kept.append(KeptWeights(mask, take_values(mask, weight.to(device, torch.float32), count), count))
    return MultipartiteGraph(layout, kept, in_degrees, num_entries)
