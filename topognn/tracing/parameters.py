"""What a weight is: the whole parameter that it is a view of, and which of its entries are where."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from topognn.tracing.capture import Captured, name_of
from topognn.tracing.nodes import shape_of

# Operations after which a weight is the same numbers in another place: rows of a projection, a transpose.
_VIEWS = frozenset(
    (
        "view reshape _unsafe_view flatten unflatten permute transpose t numpy_T swapaxes swapdims movedim moveaxis "
        "slice select narrow expand squeeze unsqueeze chunk split split_with_sizes unbind getitem contiguous clone "
        "alias detach flip"
    ).split()
)


def find_root(node: Node) -> tuple[Node, Tensor | None]:
    """Return the node of the whole weight that ``node`` is a view of, and where each entry of the view is in it.

    The index is int64 in the view's shape, into the root laid end to end; None if all stand as they do there.
    """
    steps: list[Node] = []
    root = node
    while name_of(root) in _VIEWS and len(root.all_input_nodes) == 1:
        steps.append(root)
        root = root.all_input_nodes[0]
    if not steps:
        return root, None
    whole: Any = torch.arange(torch.Size(shape_of(root)).numel()).view(shape_of(root))
    values = {root: whole}
    for step in reversed(steps):
        args, kwargs = torch.fx.map_arg((step.args, step.kwargs), lambda n: values[n])
        values[step] = step.target(*args, **kwargs)  # type: ignore[operator]
    index: Tensor = values[node].contiguous()
    same = index.numel() == whole.numel() and torch.equal(index.view(-1), whole.view(-1))
    return root, None if same else index


def name_parameter(root: Node, captured: Captured) -> str:
    """Return the name of the parameter that a weight is, or is computed from by pruning or parametrization.

    Empty if it is computed from none.
    """
    name = captured.tensors.get(root, "")
    if not name:
        below = [name_parameter(n, captured) for n in root.all_input_nodes]
        name = next((n for n in below if n and not n.endswith("_mask")), "")
    owner, found, tensor = name.partition(".parametrizations.")
    name = f"{owner}.{tensor.split('.')[0]}" if found else name
    if name.startswith("parametrizations."):
        name = name.split(".")[1]
    return name.removesuffix("_orig")
