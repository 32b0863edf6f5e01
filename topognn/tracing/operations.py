"""Which parameter-free operations are of which kind, and what data movement and reductions do to node ids.

An operand's ids are an int64 tensor ``(K, *shape)``: element ``e`` of the tensor stands for nodes ``ids[:, e]``, -1
meaning none. Data movement needs no rule: the operation itself is applied to the ids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

TRANSPARENT = frozenset(
    (
        "relu relu6 hardtanh gelu silu sigmoid tanh hardswish hardsigmoid leaky_relu elu selu celu softplus softsign "
        "mish prelu rrelu threshold hardshrink softshrink tanhshrink logsigmoid log_sigmoid exp expm1 log log1p sqrt "
        "rsqrt abs neg square pow clamp clamp_min clamp_max sin cos erf erfc sign floor ceil round reciprocal "
        "nan_to_num dropout feature_dropout alpha_dropout feature_alpha_dropout native_dropout batch_norm "
        "_native_batch_norm_legit_no_training native_batch_norm cudnn_batch_norm instance_norm layer_norm "
        "native_layer_norm group_norm native_group_norm rms_norm local_response_norm softmax _softmax log_softmax "
        "_log_softmax to _to_copy type_as float double half contiguous clone detach alias lift_fresh_copy maximum "
        "minimum rsub requires_grad masked_fill where _safe_softmax"
    ).split()
)
"""Elementwise operations and normalisations: element for element, nothing moves."""

MOVING = frozenset(
    (
        "view reshape _unsafe_view flatten unflatten permute transpose t numpy_T swapaxes swapdims movedim moveaxis "
        "slice select narrow expand view_as expand_as broadcast_to squeeze unsqueeze cat concat concatenate stack "
        "hstack vstack chunk split split_with_sizes tensor_split unbind roll flip rot90 pixel_shuffle pixel_unshuffle "
        "channel_shuffle native_channel_shuffle repeat tile index index_select pad constant_pad_nd reflection_pad1d "
        "reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d getitem meshgrid "
        "diagonal repeat_interleave slice_scatter select_scatter upsample_nearest1d upsample_nearest2d "
        "upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d"
    ).split()
)
"""Operations that only say where an element goes."""

JOINING = frozenset("cat concat concatenate stack hstack vstack slice_scatter select_scatter".split())
"""Those of them that put tensors together."""

REDUCING = frozenset("mean sum amax amin var std linalg_vector_norm norm logsumexp".split())
"""Reductions that stand for everything they reduce, as a pooling over the whole axis does."""

VALUELESS = frozenset(
    (
        "new_zeros new_ones new_empty new_full zeros_like ones_like empty_like full_like eq ne lt le gt ge isnan isinf "
        "isfinite logical_not logical_and logical_or argmax argmin"
    ).split()
)
"""Operations whose result is no activation: constants of an activation's kind, and what may only mask one."""

STATISTICAL = REDUCING | frozenset(
    (
        "pow square abs sqrt rsqrt reciprocal exp log add sub mul div true_divide clamp clamp_min expand expand_as "
        "to _to_copy type_as float unsqueeze squeeze view reshape contiguous clone detach alias"
    ).split()
)
"""What the statistics of a normalisation are computed by."""

POOLING = frozenset(
    f"{kind}_pool{n}d{suffix}"
    for n in (1, 2, 3)
    for kind, suffix in (
        ("max", ""),
        ("max", "_with_indices"),
        ("avg", ""),
        ("adaptive_avg", ""),
        ("_adaptive_avg", ""),
        ("adaptive_max", ""),
    )
)


def move(target: Callable[..., Any], args: Any, kwargs: Any, depth: int) -> Any:
    """Apply a data-movement operation to each of ``depth`` layers of ids.

    ``args`` is a function from a layer's number to the operation's arguments. Padding is told to fill with -1.
    """
    layers = []
    for k in range(depth):
        given = args(k)
        try:
            layers.append(target(*given, **kwargs))
        except (RuntimeError, NotImplementedError):
            # Some paddings know only floats, which hold ids below 2**53; a view may need what is contiguous.
            given = torch.utils._pytree.tree_map_only(Tensor, _as_double, given)
            layers.append(torch.utils._pytree.tree_map_only(Tensor, Tensor.long, target(*given, **kwargs)))
    if isinstance(layers[0], Tensor):
        return torch.stack(layers) if depth > 1 else layers[0][None]  # a view stays one
    return [torch.stack(parts) for parts in zip(*layers, strict=True)]


def _as_double(tensor: Tensor) -> Tensor:
    return tensor.double().contiguous() if tensor.dtype == torch.int64 else tensor


def count_distinct(ids: Tensor) -> int:
    """Return how many distinct ids there are."""
    return int(torch.unique(ids).numel())


def stack_depths(depths: Sequence[Tensor]) -> list[Tensor]:
    """Give operands of unequal K the largest one's K by layers of -1."""
    most = max(ids.shape[0] for ids in depths)
    return [
        ids if ids.shape[0] == most else torch.cat([ids, ids.new_full((most - ids.shape[0], *ids.shape[1:]), -1)])
        for ids in depths
    ]


def unite(ids: Tensor) -> Tensor:
    """Make each element's nodes a set: every node once, none (-1) last, no layer of nothing but -1."""
    ids = ids.sort(0, descending=True).values
    ids[1:][ids[1:] == ids[:-1]] = -1
    ids = ids.sort(0, descending=True).values
    depth = int((ids >= 0).sum(0).max()) if ids.numel() else 1
    return ids[: max(1, depth)]


def reduce(ids: Tensor, dims: Sequence[int], keepdim: bool) -> Tensor:
    """Return the ids of a reduction over tensor dimensions ``dims``: all of them at once."""
    rank = ids.dim() - 1
    reduced = sorted(d % rank for d in dims) if dims else list(range(rank))
    kept = [d for d in range(rank) if d not in reduced]
    shape = [ids.shape[d + 1] for d in kept]
    moved = ids.permute(0, *(d + 1 for d in reduced), *(d + 1 for d in kept)).reshape(-1, *shape)
    for d in reduced if keepdim else ():
        moved = moved.unsqueeze(d + 1)
    return unite(moved)
