"""Where masks come from: prune buffers, parametrizations, zeros, dicts, lists and files, to bool tensors."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrize

from topognn.checkpoints import (
    find_prefix,
    load_tensors,
    pick_masks,
    resolve_name,
    save_masks,
    split_role,
    strip_wrappers,
    unwrap,
)
from topognn.errors import MaskError, unknown_name
from topognn.kernels.host import read
from topognn.modes import eval_mode

__all__ = ["check_masks", "get_masks", "load_tensors", "prunable_weights", "save_masks"]

PRUNABLE = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.Linear,
)

Masks = Mapping[str, Tensor] | Mapping[str, Tensor | None] | Sequence[Tensor | None] | str | os.PathLike[str]


def prunable_weights(model: nn.Module) -> dict[str, Tensor]:
    """Return the weights that pruning may touch: those of convolutions and linear layers, projections of attention too.

    Args:
        model: any module; it is left exactly as it was (parameters, gradients, buffers, hooks, random state).

    Returns:
        Weight name -> detached tensor with the value that the layer computes with now, in module order.
        A weight that several layers share appears once, under its first name.

    Raises:
        MaskError: a lazy layer has no weight yet.

    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8, 2))
    >>> {name: tuple(weight.shape) for name, weight in prunable_weights(model).items()}
    {'0.weight': (8, 3, 3, 3), '3.weight': (2, 8)}
    """
    weights = {}
    for name, place in _find_layers(model)[0].items():
        weights[name] = _unmasked_weight(name, place)
        if (mask := _prune_mask(place)) is not None:
            weights[name] = weights[name] * mask.detach()
    return weights


def get_masks(model: nn.Module, masks: Masks | None = None) -> dict[str, Tensor]:
    """Return one mask for every prunable weight: True where the weight is kept.

    Args:
        model: any module; it is left exactly as it was.
        masks: where the masks are. None: in the model itself (buffers of ``torch.nn.utils.prune``,
            parametrizations, or else zeros in the weights). A dict, name -> bool or 0/1 tensor; a list in
            layer order, None for a dense layer; or a path to a state_dict or masks file. Names may carry the
            marks of torch prune, DataParallel, torch.compile, Synaptic-Flow, open_lth or ITOP, and, where all
            weights are there, the path of the module that the model was in (``net.``). Weights not named are dense.

    Returns:
        Weight name -> bool tensor of the weight's shape on the weight's device, in module order.

    Raises:
        MaskError: an unknown name, another shape, or a value other than 0 and 1.
        CheckpointError: the file cannot be read.

    Warns:
        UserWarning: nothing in the network is pruned, so it is taken as dense.

    >>> layer = nn.Linear(3, 1)
    >>> get_masks(layer, {"weight": torch.tensor([[1, 0, 1]])})
    {'weight': tensor([[ True, False,  True]])}
    """
    layers, first_names = _find_layers(model)
    # Where torch prune or Synaptic-Flow keep a mask beside the weight, shapes are those of the weight itself.
    weights = {name: _unmasked_weight(name, place) for name, place in layers.items()}
    if masks is None:
        found = {name: _own_mask(place, weights[name]) for name, place in layers.items()}
        from_zeros = not any(_mask_buffers(place) for place in layers.values())
    else:
        found, from_zeros = _named_masks(model, masks, first_names)
    given = {name: mask.to(weights[name].device) for name, mask in found.items() if isinstance(mask, Tensor)}
    checked = check_masks(found | given, {name: tuple(weight.shape) for name, weight in weights.items()})
    if checked and from_zeros and all(_read([mask.all() for mask in checked.values()])):
        warnings.warn(
            "no weight is zero and there are no masks: the network is taken as dense. Pass masks=... if it is sparse.",
            UserWarning,
            stacklevel=2,
        )
    return {
        name: checked[name] if name in checked else torch.ones_like(weight, dtype=torch.bool)
        for name, weight in weights.items()
    }


def check_masks(masks: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Return ``masks`` as bool tensors, each on its own device, after checking them against known weights.

    Bool masks cost no wait for a device; all others together cost one.

    Args:
        masks: weight name -> bool tensor, or a numeric one of 0 (pruned) and 1 (kept).
        shapes: weight name -> shape, for every weight there is. Weights without a mask stay without.

    Raises:
        MaskError: no tensor, an unknown name, another shape, or a value other than 0 and 1 (NaN included).

    >>> check_masks({"a.weight": torch.tensor([0.0, 1.0])}, {"a.weight": (2,), "b.weight": (3,)})
    {'a.weight': tensor([False,  True])}
    """
    for name, mask in masks.items():
        if name not in shapes:
            raise MaskError(str(unknown_name("mask", name, shapes)))
        if not isinstance(mask, Tensor) or mask.layout is not torch.strided:
            kind = f"a {mask.layout} tensor" if isinstance(mask, Tensor) else f"of type {type(mask).__name__}"
            raise MaskError(f"mask {name!r} is {kind}: pass a dense torch tensor of 0 and 1.")
        if tuple(mask.shape) != tuple(shapes[name]):
            raise MaskError(
                f"mask {name!r} has shape {tuple(mask.shape)}, its weight {tuple(shapes[name])}: "
                "give one value for each weight."
            )
    numeric = {name: mask for name, mask in masks.items() if mask.dtype is not torch.bool}
    valid = _read([((mask == 0) | (mask == 1)).all() for mask in numeric.values()])
    for (name, mask), is_valid in zip(numeric.items(), valid, strict=True):
        if not is_valid:
            value = _read([mask[(mask != 0) & (mask != 1)][0]])[0]
            raise MaskError(
                f"mask {name!r} holds the value {value:g}: use 0 (pruned) and 1 (kept) only; "
                "where these are weights, pass `weight != 0`."
            )
    return {name: mask.detach() != 0 if name in numeric else mask.detach() for name, mask in masks.items()}


def _read(flags: Sequence[Tensor]) -> list[Any]:
    """Bring one value a mask to the host in one transfer: the only function here that waits for a device."""
    return read(torch.stack([flag.to(flags[0].device) for flag in flags])) if flags else []


def get_first_names(model: nn.Module) -> dict[str, str]:
    """Return every name of a prunable weight -> the one that it goes by, which is a layer's.

    >>> model = nn.ModuleDict({"embed": nn.Embedding(9, 4), "head": nn.Linear(4, 9, bias=False)})
    >>> model["head"].weight = model["embed"].weight
    >>> get_first_names(model)
    {'head.weight': 'head.weight', 'embed.weight': 'head.weight'}
    """
    return _find_layers(model)[1]


class _Place(NamedTuple):
    """Where a weight is: a module and the name that it has there."""

    module: nn.Module
    attribute: str


def _find_layers(model: nn.Module) -> tuple[dict[str, _Place], dict[str, str]]:
    """Return first weight name -> place, and every name of such a weight -> its first, tied embeddings' included."""
    layers: dict[str, _Place] = {}
    first_names: dict[str, str] = {}
    owners: dict[int, str] = {}
    for path, module in model.named_modules(remove_duplicate=False):
        for place in _places(module):
            name = f"{path}.{place.attribute}" if path else place.attribute
            first_names[name] = owners.setdefault(id(_stored_weight(place)), name)
            if first_names[name] == name:
                layers[name] = place
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if id(parameter) in owners and split_role(name)[1] == "plain" and ".parametrizations." not in name:
            first_names.setdefault(name, owners[id(parameter)])
    return layers, first_names


def _places(module: nn.Module) -> Iterator[_Place]:
    """Yield the weights of a module itself that pruning may touch."""
    if isinstance(module, PRUNABLE):
        yield _Place(module, "weight")
    if isinstance(module, nn.MultiheadAttention):
        for attribute in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
            if getattr(module, attribute) is not None:
                yield _Place(module, attribute)


def _stored_weight(place: _Place) -> Any:
    """Return the parameter behind a weight: tied layers share it, whatever is computed from it."""
    module, name = place
    if parametrize.is_parametrized(module, name):
        stored: Any = module.parametrizations[name]  # type: ignore[index]
        return stored.original if hasattr(stored, "original") else stored.original0
    # Old-style spectral_norm has a weight_orig too, but only prune has a mask beside it.
    weight = getattr(module, name)
    return weight if _prune_mask(place) is None else getattr(module, f"{name}_orig", weight)


def _prune_mask(place: _Place) -> Any:
    """Return the mask that torch prune or Synaptic-Flow keep beside a weight, None without one."""
    return getattr(place.module, f"{place.attribute}_mask", None)


def _unmasked_weight(name: str, place: _Place) -> Tensor:
    stored: Tensor = _stored_weight(place)
    if nn.parameter.is_lazy(stored):
        raise MaskError(f"weight {name!r} has no shape yet: run the model once on an input, then take its masks.")
    if not parametrize.is_parametrized(*place):
        return stored.detach()
    steps: Any = place.module.parametrizations[place.attribute]  # type: ignore[index]
    # In eval mode and on copies, because some parametrizations (spectral_norm) write to their buffers.
    buffers = {name: buffer.clone() for name, buffer in steps.named_buffers()}
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]
    with torch.no_grad(), torch.random.fork_rng(devices=devices), eval_mode(steps):
        weight: Tensor = functional_call(steps, buffers, ())
    return weight.detach()


def _mask_buffers(place: _Place) -> list[Tensor]:
    """Return the masks that a layer carries: prune's buffer, or those of its parametrizations."""
    mask = _prune_mask(place)
    own: list[Any] = [] if mask is None else [mask]
    if parametrize.is_parametrized(*place):
        steps: Any = place.module.parametrizations[place.attribute]  # type: ignore[index]
        own += [step.mask for step in steps if isinstance(getattr(step, "mask", None), Tensor)]
    return own


def _own_mask(place: _Place, weight: Tensor) -> Tensor:
    masks = _mask_buffers(place)
    if not masks:
        return weight != 0
    return masks[0] if len(masks) == 1 else torch.stack(masks).amin(0)


def _named_masks(model: nn.Module, masks: Masks, first_names: Mapping[str, str]) -> tuple[dict[str, Tensor], bool]:
    """Return first weight name -> mask for all that ``masks`` names, and whether all are zeros of weights."""
    is_file = isinstance(masks, str | os.PathLike)
    entries, says_masks = unwrap(pick_masks(load_tensors(masks) if isinstance(masks, str | os.PathLike) else masks))
    names = list(dict.fromkeys(first_names.values()))
    if isinstance(entries, list | tuple):
        if len(entries) != len(names):
            raise MaskError(f"{len(entries)} masks for {len(names)} weights: give one a layer, None if dense.")
        return {name: mask for name, mask in zip(names, entries, strict=True) if mask is not None}, False
    if not isinstance(entries, Mapping):
        raise MaskError(f"masks is of type {type(masks).__name__}: pass a dict, a list in layer order, or a path.")
    known = {strip_wrappers(name): first for name, first in first_names.items()} | dict(first_names)
    others = _other_names(model)
    large = [key for key, value in entries.items() if isinstance(value, Tensor) and value.ndim >= 2]
    if prefix := find_prefix(large, known, others):
        entries = {strip_wrappers(key).removeprefix(prefix): value for key, value in entries.items()}
    roles = [resolve_name(key, known) for key in entries]
    # Floats under plain weight names are weights in a file or beside marked masks, and masks otherwise.
    may_be_weights = not says_masks and (is_file or any(role != "plain" for _, role in roles))
    found: dict[str, Tensor] = {}
    rank_of: dict[str, int] = {}
    matched = False
    for (key, value), (name, role) in zip(entries.items(), roles, strict=True):
        if name not in known:
            # What a file has besides is no mistake, unless it is a matrix or kernel of some other network.
            harmless = is_file and not (isinstance(value, Tensor) and value.ndim >= 2)
            if not harmless and name not in others and strip_wrappers(key) not in others:
                raise MaskError(str(unknown_name("mask", key, known)))
            continue
        matched = True
        name, rank = known[name], ("mask", "plain", "original").index(role)
        if value is None or rank_of.get(name, 3) <= rank:
            continue
        # Only floats can be weights: whole numbers and bools under a weight's name are masks.
        is_weight = isinstance(value, Tensor) and value.is_floating_point() and role != "mask"
        is_weight = is_weight and (role == "original" or may_be_weights)
        found[name], rank_of[name] = (value != 0 if is_weight else value), rank
    if not matched:
        some = ", ".join(map(repr, list(entries)[:3])) or "nothing"
        raise MaskError(f"no mask names a weight of the model (given: {some}). Known: {', '.join(sorted(names))}.")
    return found, may_be_weights and all(role == "plain" for _, role in roles)


def _other_names(model: nn.Module) -> set[str]:
    """Return what else a file may name without harm: biases, norms, counters, whole modules."""
    tensors = (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))
    modules = model.named_modules(remove_duplicate=False)
    return {split_role(strip_wrappers(name))[0] for name, _ in (*tensors, *modules)}
