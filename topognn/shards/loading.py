"""One layer's weights, out of whatever form they are stored in, as a mask and magnitudes."""

from __future__ import annotations

import torch
from torch import Tensor

from topognn.checkpoints import unpack_bits
from topognn.errors import CheckpointError, MaskError
from topognn.kernels.host import read
from topognn.shards.headers import Stored, read_tensor
from topognn.shards.planning import StoredLayer
from topognn.shards.unpacking import spread_bitmask, spread_scales, spread_two_of_four, unpack_integers


def load_layer(layer: StoredLayer, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Read a layer's weights, and nothing else of its files.

    A weight is kept if it is not zero and no mask prunes it. Of quantised ones, zero is what equals the zero point.

    Returns:
        The mask, bool, and the weights, float32, both of the layer's shape and on ``device``. Of a layer whose masks
        are all there is, weights are 1. Weights that are not kept may have any value.

    Raises:
        CheckpointError: Tensors that do not fit each other, or weights that are not finite.
        MaskError: A mask that holds other numbers than 0 and 1.

    >>> import tempfile
    >>> from topognn.shards.planning import plan_checkpoint
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     torch.save({"fc.weight": torch.tensor([[0.0, -2.0]])}, f"{folder}/net.pt")
    ...     load_layer(plan_checkpoint(f"{folder}/net.pt").layers[0])
    (tensor([[False,  True]]), tensor([[ 0., -2.]]))
    """
    parts = layer.parts
    try:
        kept, weight = _read(layer, device)
    except CheckpointError as error:
        remedy = "Copy or save it again."
        what = str(error).removesuffix(remedy).rstrip(". ")
        raise CheckpointError(f"layer {layer.name!r}: {what}. {remedy}") from error
    if tuple(kept.shape) != layer.shape:
        raise CheckpointError(f"layer {layer.name!r} has shape {tuple(kept.shape)}, not {layer.shape}: save it again.")
    if "mask" in parts and layer.form not in ("mask", "packed bits"):
        kept &= _read_mask(parts["mask"], device)
    (is_finite,) = read((weight.isfinite() | ~kept).all().reshape(1))
    if not is_finite:
        raise CheckpointError(f"layer {layer.name!r} has weights that are NaN or infinite: mend or skip it.")
    return kept, weight


def _read(layer: StoredLayer, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """Return what is kept, but for a mask beside the weight, and the weights."""
    parts = {name: stored for name, stored in layer.parts.items() if name != "mask"}
    if layer.form in ("mask", "packed bits"):
        mask = _read_mask(parts.get("plain") or layer.parts["mask"], device)
        return mask, torch.ones(mask.shape, device=device)
    here = {name: read_tensor(stored).to(device) for name, stored in parts.items() if name not in _UNREAD}
    if layer.form == "bitmask":
        values = spread_bitmask(here["compressed"], here["bitmask"], layer.shape)
    elif layer.form == "2:4":
        values = spread_two_of_four(here["packed"], here["meta"])
    elif layer.form == "packed integers":
        values = unpack_integers(here["packed"], layer.shape)
    else:
        values = here["plain"] if "plain" in here else here["original"]
        if layer.form != "quantised" and values.dtype in (torch.uint8, torch.int16, torch.int32, torch.int64):
            mask = _to_mask(layer.parts["plain"], values)
            return mask, torch.ones(mask.shape, device=device)
    if "scale" not in here:
        # float8 has no comparison, float64 may be no zero that float32 makes one
        return (values.float() if values.dtype.itemsize == 1 else values) != 0, values.float()
    return _scale(values, here)


_UNREAD = ("shape", "row_offsets", "packed_t", "meta_t", "compressed_swizzled_bitmask")


def _scale(values: Tensor, here: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return which quantised values are not zero, and what all of them are."""
    if values.dim() != 2:
        raise CheckpointError(f"quantised weights of shape {tuple(values.shape)} have not two axes")
    shape, groups, scale = tuple(values.shape), here.get("groups"), here["scale"].float()
    numbers = values.float()
    if "zero_point" in here:
        zero = here["zero_point"]
        if zero.dtype == torch.int32 and zero.shape != scale.shape:
            zero = unpack_integers(zero, (shape[0], scale.shape[-1]), axis=0)
        numbers = numbers - spread_scales(zero.float(), shape, groups)
    weight = numbers * spread_scales(scale, shape, groups)
    return weight != 0, weight


def _read_mask(stored: Stored, device: torch.device | str) -> Tensor:
    tensor = read_tensor(stored).to(device)
    return unpack_bits(tensor, stored.bits) if stored.bits is not None else _to_mask(stored, tensor)


def _to_mask(stored: Stored, tensor: Tensor) -> Tensor:
    numbers = tensor.float() if tensor.dtype.itemsize == 1 else tensor
    (is_mask,) = read(((numbers == 0) | (numbers == 1)).all().reshape(1))
    if not is_mask:
        raise MaskError(
            f"{stored.name!r} in {str(stored.file)!r} is {stored.dtype} of other numbers than 0 and 1: neither a mask, "
            "nor weights in a form that is known here."
        )
    return numbers != 0
