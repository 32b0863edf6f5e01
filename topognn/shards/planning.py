"""Which tensors of a checkpoint are layers, which are not and why, and in which form each layer's weights are."""

from __future__ import annotations

import difflib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

from topognn.checkpoints import split_role, strip_wrappers
from topognn.errors import CheckpointError, MaskError, unknown_name
from topognn.kernels.host import read
from topognn.shards.finding import list_tensors
from topognn.shards.headers import Stored, read_tensor

# What stands beside a weight, or for it: the end of a name -> what it is. The rest of the name is the module's.
_BESIDE = {
    **dict.fromkeys(("weight_scale", "weight_scale_inv"), "scale"),
    "weight_zero_point": "zero_point",
    "weight_g_idx": "groups",
    "weight_shape": "shape",
    **{f"weight{dot}{part}": part for dot in "._" for part in ("packed", "meta", "packed_t", "meta_t")},
    **{f"{stem}{part}": part for stem in ("", "weight.") for part in ("bitmask", "compressed", "row_offsets")},
    **{f"weight{dot}compressed_swizzled_bitmask": "compressed_swizzled_bitmask" for dot in "._"},
    **{part: part for part in ("scale_packed", "weight_global_scale", "qweight", "weight.absmax")},
}
_BESIDE_NAMES = re.compile(rf"(?P<path>|.*?\.)(?P<part>{'|'.join(map(re.escape, _BESIDE))})")
_NOT_UNDERSTOOD = {
    "scale_packed": "Marlin's 2:4 layout, whose values cannot be unpacked",
    "weight_global_scale": "4-bit floats in blocks",
    "qweight": "GPTQ's or AWQ's layout, whose zero points mean different numbers by version",
    "weight.absmax": "bitsandbytes' layout",
    "original 2": "a parametrization of several tensors",
}
_EMBEDDING = re.compile(r"(?!embed_out$|unembed)(\w*embed\w*|\w*_emb|emb|w[tp]e|shared)")
_NORM = re.compile(r"\w*norm\d*|bn\d*|ln(_\w+|\d*)|\w+_ln\d*")


class StoredLayer(NamedTuple):
    """A layer of a checkpoint.

    Attributes:
        name: Path of the layer: the weight's name without ``.weight``.
        shape: Of its weight, ``(out, in of a group, *kernel)``.
        form: How the weight is stored: a key of :data:`FORMS`.
        parts: The tensors that it is made of, by what they are to it.
    """

    name: str
    shape: tuple[int, ...]
    form: str
    parts: Mapping[str, Stored]

    @property
    def main(self) -> Stored:
        """The tensor that has its values, or the mask where that is all."""
        return next(self.parts[p] for p in ("plain", "original", "compressed", "packed", "mask") if p in self.parts)


class CheckpointPlan(NamedTuple):
    """What is to be measured of a checkpoint.

    Attributes:
        layers: In the order of their names, numbers by size.
        left_out: Name of a tensor that is no layer -> why.
        files: All files that were looked into, those of masks too.
    """

    layers: tuple[StoredLayer, ...]
    left_out: Mapping[str, str]
    files: tuple[Path, ...]


FORMS = {
    "dense": "numbers of which zeros are pruned",
    "masked": "a mask beside the weight",
    "mask": "a mask alone: every weight counts as 1",
    "packed bits": "a mask in packed bits: every weight counts as 1",
    "quantised": "integers or small floats with scales, and zero points, beside them",
    "packed integers": "integers of 4 or 8 bits in words, with scales beside them (pack-quantized)",
    "bitmask": "kept values and a bitmask a row (sparse-bitmask, sparse-24-bitmask)",
    "2:4": "kept values and CUTLASS's metadata (torch's semi-structured tensors)",
}


def plan_checkpoint(
    checkpoint: str, *, masks: str | None = None, layers: Sequence[str] = (), skip: Sequence[str] = ()
) -> CheckpointPlan:
    """Tell which tensors of a checkpoint are layers, from the headers of its files.

    Layers are tensors of two to five axes that are called a weight, but for embeddings and norms, which their modules'
    names tell. A layer whose form is not understood is an error, not left out.

    Args:
        checkpoint: See :func:`topognn.shards.finding.list_tensors`.
        masks: Likewise: files of masks by the weights' names, in packed bits or a value a weight.
        layers: Patterns (``*``, ``?``, ``[...]``) of names of layers to measure, whatever their names say they are.
        skip: Patterns of names of layers to leave out.

    Raises:
        CheckpointError: See :func:`list_tensors`; or a form is not understood, or nothing is left to measure.
        MaskError: A mask's name is not that of a layer, or its shape another.

    >>> import tempfile, torch
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     torch.save({"fc.weight": torch.eye(3), "fc.bias": torch.ones(3)}, f"{folder}/net.pt")
    ...     plan = plan_checkpoint(f"{folder}/net.pt")
    >>> plan.layers[0].name, plan.layers[0].shape, plan.left_out
    ('fc', (3, 3), {'fc.bias': 'one axis'})
    """
    tensors = list_tensors(checkpoint)
    every = list(tensors.values())
    groups = _group(tensors)
    for pattern in (*layers, *skip):
        if not any(_matches(name, [pattern]) for name in groups):
            raise CheckpointError(
                f"no tensor of {checkpoint!r} matches {pattern!r}: its names are such as "
                f"{', '.join(sorted(groups, key=_natural)[:5])}."
            )
    left_out: dict[str, str] = {}
    chosen: list[StoredLayer] = []
    for name in sorted(groups, key=_natural):
        parts = groups[name]
        reason = _why_not(name, parts, layers, skip)
        if reason:
            left_out |= dict.fromkeys((stored.name for stored in parts.values()), reason)
        else:
            chosen.append(StoredLayer(name.removesuffix(".weight"), *_understand(name, parts), parts))
    twice = [name for name, count in Counter(layer.name for layer in chosen).items() if count > 1]
    if twice:
        raise CheckpointError(f"two tensors are the weight of {twice[0]!r}: leave one out, --skip '{twice[0]}.weight'.")
    if masks is not None:
        others = list_tensors(masks)
        every += others.values()
        chosen = _add_masks(chosen, others, groups)
    if not chosen:
        some = ", ".join(f"{name!r} ({why})" for name, why in list(left_out.items())[:3])
        raise CheckpointError(f"{checkpoint!r} has no layer to measure: left out are {some or 'none'}. See --layers.")
    return CheckpointPlan(tuple(chosen), left_out, tuple(sorted({stored.file for stored in every})))


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a sort key that puts layer 10 after layer 9."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def _group(tensors: Mapping[str, Stored]) -> dict[str, dict[str, Stored]]:
    """Return weight name -> what there is of it, by what it is."""
    groups: dict[str, dict[str, Stored]] = defaultdict(dict)
    names = {strip_wrappers(name) for name in tensors}
    for full, stored in tensors.items():
        name = strip_wrappers(full)
        beside = _BESIDE_NAMES.fullmatch(name)
        if beside:
            where, part = f"{beside['path']}weight", _BESIDE[beside["part"]]
        elif name.endswith("shape") and f"{name.removesuffix('shape')}bitmask" in names:
            where, part = f"{name.removesuffix('shape').removesuffix('weight.')}weight", "shape"
        else:
            where, part = split_role(name)
            if part == "original" and part in groups[where]:
                part = "original 2"
        if part in groups[where]:
            raise CheckpointError(
                f"{full!r} and {groups[where][part].name!r} are one and the same of {where!r}: leave one out."
            )
        groups[where][part] = stored
    return dict(groups)


def _why_not(name: str, parts: Mapping[str, Stored], layers: Sequence[str], skip: Sequence[str]) -> str:
    """Return why a tensor is not measured; empty if it is."""
    if layers and not _matches(name, layers):
        return "not among --layers"
    if _matches(name, skip):
        return "among --skip"
    main = next((parts[part] for part in ("plain", "original", "mask") if part in parts), None)
    shape = (1, 1) if main is None else main.shape if main.bits is None else main.bits
    axes = len(shape)
    if axes not in range(2, 6):
        return {0: "no axis", 1: "one axis"}.get(axes, "more than five axes")
    if 0 in shape:
        return "no weights"
    *_, owner, last = ["", *name.split(".")]
    is_mask = main is not None and (main.dtype == "BOOL" or main.bits is not None)
    if layers:
        return ""
    if "weight" not in last and not is_mask:
        return "not called a weight"
    if "bias" in owner or "bias" in last:
        return "bias by its name"
    if axes == 2 and _EMBEDDING.fullmatch(owner):
        return "embedding by its name"
    return "norm by its name" if _NORM.fullmatch(owner) else ""


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(each, pattern) for pattern in patterns for each in (name, name.removesuffix(".weight")))


def _understand(name: str, parts: Mapping[str, Stored]) -> tuple[tuple[int, ...], str]:
    """Return the shape of a layer's weight, and its form."""
    for part, what in _NOT_UNDERSTOOD.items():
        if part in parts:
            raise _refuse(name, parts[part], what)
    main = next((parts[part] for part in ("plain", "original") if part in parts), None)
    if parts.keys() >= {"bitmask", "compressed", "shape"}:
        return _read_shape(parts["shape"]), "bitmask"
    if "packed" in parts:
        packed = parts["packed"]
        if "meta" in parts and len(packed.shape) == 2:
            return (packed.shape[0], 2 * packed.shape[1]), "2:4"
        if "shape" in parts and packed.dtype == "I32":
            return _read_shape(parts["shape"]), "packed integers"
        if len(packed.shape) == 1:
            raise _refuse(name, packed, "cuSPARSELt's 2:4 layout, which is not public")
        raise _refuse(name, packed, "packed in a way that is not known, without metadata or shape beside it")
    if main is None and "mask" not in parts:
        stored = next(iter(parts.values()))
        raise _refuse(name, stored, f"{stored.name!r} alone, without what belongs to it")
    if main is None:
        mask = parts["mask"]
        return (mask.shape, "mask") if mask.bits is None else (mask.bits, "packed bits")
    if main.bits is not None:
        return main.bits, "packed bits"
    if "scale" in parts and main.dtype == "U8":
        raise _refuse(name, main, "bytes with scales, which may be of several weights each")
    if "zero_point" in parts and "scale" not in parts:
        raise _refuse(name, main, "integers with zero points but no scales")
    if "mask" in parts:
        _check_mask(name, main.shape, parts["mask"])
        return main.shape, "masked"
    if "scale" in parts:
        return main.shape, "quantised"
    return main.shape, "mask" if main.dtype == "BOOL" else "dense"


def _refuse(name: str, stored: Stored, what: str) -> CheckpointError:
    return CheckpointError(
        f"weight {name!r} in {str(stored.file)!r} is stored as {what}: save it dense with zeros, or in one of the "
        f"forms {', '.join(FORMS)}; or leave it out with --skip."
    )


def _read_shape(stored: Stored) -> tuple[int, ...]:
    shape = tuple(map(int, read(read_tensor(stored).flatten())))
    if len(shape) != 2 or min(shape) < 0:
        raise CheckpointError(f"{stored.name!r} in {str(stored.file)!r} says the shape {shape}: two axes are needed.")
    return shape


def _check_mask(name: str, shape: tuple[int, ...], mask: Stored) -> None:
    own = mask.shape if mask.bits is None else mask.bits
    if own != shape:
        raise MaskError(
            f"mask {mask.name!r} in {str(mask.file)!r} has shape {own}, its weight {name!r} {shape}: it is the mask of "
            "another layer or model."
        )


def _add_masks(layers: Sequence[StoredLayer], masks: Mapping[str, Stored], known: Iterable[str]) -> list[StoredLayer]:
    """Return layers with the masks of other files, whose every name must be one of the checkpoint's weights."""
    known = set(known)
    found = {}
    for name, parts in _group(masks).items():
        mask = parts.get("mask") or parts.get("plain")
        full = name if name in known else f"{name}.weight"
        if mask is None or full not in known:
            near = difflib.get_close_matches(name, known, 5, 0)
            raise MaskError(f"{unknown_name('weight', name, near)} These masks are another model's.")
        found[full] = mask
    masked = []
    for layer in layers:
        full = layer.name if layer.name in known else f"{layer.name}.weight"
        mask = found.get(full)
        if mask is not None:
            if "mask" in layer.parts:
                raise MaskError(f"weight {full!r} has a mask of its own, {layer.parts['mask'].name!r}: leave one out.")
            _check_mask(full, layer.shape, mask)
            layer = layer._replace(parts={**layer.parts, "mask": mask})
            layer = layer._replace(form="masked" if layer.form == "dense" else layer.form)
        masked.append(layer)
    return masked
