"""From a PyTorch model and an input shape to a :class:`~topognn.tracing.layout.Layout`."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from topognn.errors import TraceError
from topognn.tracing.assemble import assemble
from topognn.tracing.capture import Expressions, InputShape, capture
from topognn.tracing.layout import Layout
from topognn.tracing.propagate import propagate


def trace(
    model: nn.Module,
    input_shape: InputShape,
    *,
    shortcuts: Literal["parametric", "all"] = "parametric",
    attention: Literal["all", "values"] = "all",
    input_padding_nodes: bool = False,
) -> Layout:
    """Find out what a model's graph looks like at an input shape, for any masks.

    Runs no forward pass on data and leaves the model as it was. A layout is made once and encoded at every
    change of masks.

    Args:
        model: Any model that ``torch.export`` can export in evaluation mode.
        input_shape: Shape of one input without the batch, e.g. ``(3, 32, 32)``; of floating point, or of token ids
            where the model looks it up in an embedding. For all else an example tensor with a batch of 1, or a tuple of
            one for each positional argument of ``forward``.
        shortcuts: ``"parametric"`` (identity shortcuts add no edges, as in the paper) or ``"all"`` (they add
            edges of weight 1).
        attention: ``"all"`` (queries and keys feed a hub a head) or ``"values"`` (they are left out).
        input_padding_nodes: Also make nodes of the first convolution's zero padding, as the paper's code does;
            for comparison with published numbers only.

    Raises:
        TraceError: The model cannot be exported at this shape, or has no layer that its input reaches.
        UnsupportedOperation: It uses an operation that has no meaning as a graph yet.

    Source:
        Cunegatti et al., TMLR 2024, section 3 (definition 1).

    >>> from torch import nn
    >>> trace(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3)), (1, 4, 4))
    Layout(3 partitions, 2 connections, 27 nodes)
    """
    if shortcuts not in ("parametric", "all"):
        raise TraceError(f"shortcuts must be 'parametric' or 'all', not {shortcuts!r}")
    if attention not in ("all", "values"):
        raise TraceError(f"attention must be 'all' or 'values', not {attention!r}")
    captured = capture(model, input_shape)
    expressions = Expressions(model, captured)
    with torch.no_grad():
        draft = propagate(captured, expressions, shortcuts, attention, input_padding_nodes)
        return assemble(draft, shortcuts, expressions)
