"""Put the weights of a checkpoint into a model, whatever wrapped them when they were saved."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from topognn.checkpoints import MASK_WRAPPERS, find_prefix, load_tensors, resolve_name, strip_wrappers, unwrap
from topognn.errors import CheckpointError


def load_weights(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Read a state_dict into ``model``.

    Names may carry the marks of torch prune (``weight_orig``; its masks are skipped, see
    :func:`topognn.masks.get_masks`), DataParallel and torch.compile, and the whole may be wrapped, as in
    ``{"state_dict": ...}``; where all have the path of the module that the model was in (``net.``), it is left out.

    Raises:
        CheckpointError: The file cannot be read, or lacks, has besides, or has in another shape, an entry.

    >>> import tempfile, torch
    >>> model = nn.Linear(2, 1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     torch.save({"weight_orig": torch.ones(1, 2), "bias": torch.ones(1)}, f"{folder}/net.pt")
    ...     load_weights(model, f"{folder}/net.pt")
    >>> torch.equal(model.weight, torch.ones(1, 2))
    True
    """
    own = model.state_dict()
    found: dict[str, Tensor] = {}
    unexpected = []
    entries = _entries(path)
    large = [key for key, value in entries.items() if isinstance(value, Tensor) and value.ndim >= 2]
    prefix = find_prefix(large, {name: name for name, value in own.items() if value.ndim >= 2})
    for key, value in entries.items():
        name, role = resolve_name(strip_wrappers(key).removeprefix(prefix) if prefix else key, own)
        if name in own and role != "mask" and isinstance(value, Tensor):
            if value.shape != own[name].shape:
                raise CheckpointError(
                    f"{key!r} in {str(path)!r} has shape {tuple(value.shape)}, in the model "
                    f"{tuple(own[name].shape)}: is it a checkpoint of this model, with as many classes?"
                )
            found[name] = value
        elif role != "mask":
            unexpected.append(key)
    missing = [name for name in own if name not in found]
    if missing or unexpected:
        parts = [f"{kind} {_some(names)}" for kind, names in (("lacks", missing), ("has", unexpected)) if names]
        raise CheckpointError(f"{str(path)!r} is no checkpoint of this model: it {' and '.join(parts)}.")
    model.load_state_dict(found)


def _entries(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    content: Any = load_tensors(path)
    if isinstance(content, Mapping):
        # Masks beside the weights are not what is looked for here.
        content = unwrap({key: value for key, value in content.items() if key not in MASK_WRAPPERS})[0]
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{str(path)!r} is a list without names: save model.state_dict().")
    return content


def _some(names: Iterable[str]) -> str:
    names = list(names)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(repr, names[:3])) + more
