"""Make masks hold: pruned weights are zero and stay zero while the model trains."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook
from torch.utils.weak import WeakTensorKeyDictionary

from topognn.errors import MaskError
from topognn.masks import Masks, get_masks, prunable_weights

# Parameter -> (where it is pruned, handle of its gradient hook, mask and its version). Weak: keeps no model alive.
_pruned_parameters: Any = WeakTensorKeyDictionary()


def apply_masks(model: nn.Module, masks: Masks) -> Callable[[], None]:
    """Set the pruned weights of ``model`` to zero and keep them there in training, whatever the optimizer.

    Two hooks do it. A gradient hook zeroes the gradients of pruned weights, so that they count in no gradient
    norm and no optimizer state. A hook after each ``step()`` of any torch optimizer zeroes the weights once
    more, because momentum from before the masks changed, and optimizers that mix the gradients of a whole
    matrix (Muon), move weights whose gradient is zero. Parameters keep their names, and state_dicts their
    form. A deep copy of the model has zeros but no hooks: apply the masks to the copy too.

    Args:
        model: its prunable weights must be plain parameters. Weights that layers share are masked once.
        masks: as for ``get_masks``; they replace all masks applied to the model before.

    Returns:
        A function that lifts these masks: weights may grow again. Masks applied later are not its business.

    Raises:
        MaskError: a mask does not fit, or a weight is computed by torch prune or a parametrization.

    >>> layer = nn.Linear(3, 1)
    >>> release = apply_masks(layer, {"weight": torch.tensor([[True, False, True]])})
    >>> layer(torch.ones(1, 3)).sum().backward()
    >>> layer.weight[0, 1].item(), layer.weight.grad
    (0.0, tensor([[1., 0., 1.]]))
    """
    parameters = plain_parameters(model)
    checked = get_masks(model, masks)
    _watch_optimizers()
    entries = []
    for name, parameter in parameters.items():
        pruned = _invert(checked[name], parameter)
        _release(parameter)
        with torch.no_grad():
            parameter.masked_fill_(pruned, 0)
            if parameter.grad is not None:
                parameter.grad.masked_fill_(pruned, 0)
        handle = _mask_gradient(parameter, pruned) if parameter.requires_grad else None
        entry = (pruned, handle, checked[name], checked[name]._version)
        _pruned_parameters[parameter] = entry
        entries.append((parameter, entry))

    def release() -> None:
        for parameter, entry in entries:
            if _pruned_parameters.get(parameter) is entry:
                _release(parameter)

    return release


def get_pruned(parameter: nn.Parameter) -> Tensor | None:
    """Return where a parameter is held at zero: the very tensor that is in force, None where no masks are."""
    pruned: Tensor | None = _pruned_parameters.get(parameter, (None,))[0]
    return pruned


def _invert(mask: Tensor, parameter: nn.Parameter) -> Tensor:
    """Return where ``mask`` prunes: the tensor that is in force where it was made of the same mask, unchanged since."""
    pruned, _, known, version = _pruned_parameters.get(parameter, (None, None, None, -1))
    same = known is not None and known.data_ptr() == mask.data_ptr() and known.stride() == mask.stride()
    return pruned if same and version == mask._version else ~mask


def plain_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return weight name -> parameter for every prunable weight, in module order.

    Raises:
        MaskError: a weight is no parameter itself, but computed from others.

    >>> list(plain_parameters(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU())))
    ['0.weight']
    """
    named = dict(model.named_parameters(remove_duplicate=False))
    names = list(prunable_weights(model))
    for name in names:
        if name not in named:
            raise MaskError(
                f"weight {name!r} is computed by torch.nn.utils.prune or a parametrization: make it plain "
                "first (prune.remove, parametrize.remove_parametrizations)."
            )
    return {name: named[name] for name in names}


def _mask_gradient(parameter: nn.Parameter, pruned: Tensor) -> Any:
    # masked_fill, not multiplication, so that an infinite gradient does not turn into NaN. The move to the
    # gradient's device costs nothing unless the model was moved after its masks were applied.
    def mask(gradient: Tensor) -> Tensor:
        return gradient.masked_fill(pruned.to(gradient.device), 0)

    return parameter.register_hook(mask)  # type: ignore[no-untyped-call]


def _release(parameter: nn.Parameter) -> None:
    handle = _pruned_parameters.pop(parameter, (None, None))[1]
    if handle is not None:
        handle.remove()


@functools.cache
def _watch_optimizers() -> Any:
    """Register the one hook after optimizer steps, the first time that it is needed."""
    return register_optimizer_step_post_hook(_zero_pruned)


@torch.no_grad()
def _zero_pruned(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            pruned = get_pruned(parameter)
            if pruned is not None:
                parameter.masked_fill_(pruned.to(parameter.device), 0)
