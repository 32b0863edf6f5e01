"""Topometrics with gradients with respect to weights or soft masks, for training loops."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from topognn.errors import MaskError, unknown_name
from topognn.lanczos import draw_start, find_eigenpairs
from topognn.operators.matrix import ConnectionProducts
from topognn.operators.products import exact_convolutions, get_window, push
from topognn.operators.sweeps import sweep_forward
from topognn.tracing.layout import Layout


def log_path_sum(layout: Layout, weights: Mapping[str, Tensor]) -> Tensor:
    """Return the natural logarithm of the sum, over paths from input to output, of the product of their weights.

    With magnitudes ``|w| * mask`` that is the logarithm of the path-1-norm; with soft masks from 0 to 1, of the number
    of paths, each counted by how much of it is there.

    Args:
        layout: Of the network, as :func:`topognn.trace` makes it.
        weights: Weight name -> tensor of the weight's shape, floating point and not negative, for every weight of the
            layout.

    Returns:
        Scalar with a gradient with respect to ``weights``, in their dtype; -inf where there is no path.

    Raises:
        MaskError: A weight is missing, unknown, or has another shape.

    Source: Tanaka et al., *Pruning neural networks without any data*, NeurIPS 2020 (R_SF).

    >>> import topognn
    >>> layout = topognn.trace(topognn.example_model()[0], (1, 3, 3))
    >>> soft = {name: torch.ones(shape, requires_grad=True) for name, shape in layout.weight_shapes.items()}
    >>> log_path_sum(layout, soft).exp()
    tensor(64., grad_fn=<ExpBackward0>)
    """
    layout, kernels = _in_kernel_form(layout, weights)
    value, exponent = sweep_forward(layout, kernels).total(layout.outputs)
    return value.log() + (exponent * math.log(2)).to(value.dtype)


def leading_eigenvalue(layout: Layout, weights: Mapping[str, Tensor], *, tolerance: float = 1e-6) -> Tensor:
    """Return the largest eigenvalue of the undirected adjacency matrix with the given edge weights.

    Its gradient needs no more than its eigenvector v: that of v' A v, with v held fixed (Hellmann and Feynman).

    Args:
        layout, weights: See :func:`log_path_sum`.
        tolerance: See :func:`topognn.lanczos.find_eigenpairs`.

    Returns:
        Scalar with a gradient with respect to ``weights``, in their dtype. Where the eigenvalue is repeated, the
        gradient is one of several (a subgradient).

    Raises:
        MaskError: A weight is missing, unknown, or has another shape.
        ConvergenceError: It was not found to the tolerance.

    One host sync every five products.

    >>> import topognn
    >>> layout = topognn.trace(topognn.example_model()[0], (1, 3, 3))
    >>> soft = {name: torch.ones(shape, requires_grad=True) for name, shape in layout.weight_shapes.items()}
    >>> leading_eigenvalue(layout, soft)
    tensor(5.8310, grad_fn=<AddBackward0>)
    """
    layout, kernels = _in_kernel_form(layout, weights)
    products = ConnectionProducts(layout, [kernel.detach() for kernel in kernels])
    start = draw_start(1, layout.num_nodes, 0, kernels[0].device, kernels[0].dtype).abs()
    with torch.no_grad():
        vector = find_eigenpairs(products.adjacency, start, 1, tolerance=tolerance).vectors
    total = kernels[0].new_zeros(())
    with exact_convolutions():
        for c, kernel in zip(layout.connections, kernels, strict=True):
            if c.sources:
                first, end = get_window(layout, c)
                reached = vector[0, c.target_first : c.target_first + c.num_targets]
                total = total + 2 * push(c, kernel, vector[:, first:end], first)[0] @ reached
    return total


def _in_kernel_form(layout: Layout, weights: Mapping[str, Tensor]) -> tuple[Layout, list[Tensor]]:
    """Return the layout on the weights' device, and each connection's checked weights in kernel form, or ones."""
    shapes = layout.weight_shapes
    for name in weights:
        if name not in shapes:
            raise MaskError(str(unknown_name("weight", name, shapes)))
    for name, shape in shapes.items():
        if name not in weights:
            raise MaskError(
                f"weight {name!r} is missing: give a tensor of shape {shape}, ones where the layer is dense"
            )
        if tuple(weights[name].shape) != shape or not weights[name].is_floating_point():
            what = f"{weights[name].dtype} of shape {tuple(weights[name].shape)}"
            raise MaskError(f"weight {name!r} is {what}: floating point of shape {shape} needed")
    like = next(iter(weights.values()))
    layout = layout.to(like.device)
    forms = (
        like.new_ones(c.kernel) if c.weight is None else c.to_kernel(weights[c.weight]) for c in layout.connections
    )
    return layout, list(forms)
