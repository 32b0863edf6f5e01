"""Every form in which weights are stored gives the same mask and magnitudes; what is not understood says so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.sparse._semi_structured_conversions import sparse_semi_structured_from_dense_cutlass as torch_cutlass

from tests.shard_files import naive_cutlass, naive_packed, save, sparse, two_of_four
from topognn.checkpoints import pack_bits
from topognn.errors import CheckpointError, MaskError
from topognn.shards.headers import DTYPES
from topognn.shards.loading import load_layer
from topognn.shards.planning import FORMS, plan_checkpoint
from topognn.shards.unpacking import spread_scales, spread_two_of_four


def load(path: Path, form: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mask and masked weights of the one layer of a file."""
    (layer,) = plan_checkpoint(str(path)).layers
    assert layer.form == form and form in FORMS and layer.name == "fc"
    kept, weight = load_layer(layer)
    assert kept.dtype == torch.bool and weight.dtype == torch.float32
    return kept, weight * kept


@pytest.mark.parametrize("dtype", [d for n, d in DTYPES.items() if n[0] == "F" or n in ("BF16", "I8")], ids=str)
@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_dense_with_zeros(dtype: torch.dtype, suffix: str, tmp_path: Path) -> None:
    dense = sparse(5, 7)
    stored = {"fc.weight": dense.to(dtype), "fc.bias": torch.ones(5)}
    path = tmp_path / f"net.{suffix}"
    save(path, stored) if suffix == "safetensors" else torch.save({"state_dict": stored}, path)
    kept, weight = load(path, "dense")
    assert torch.equal(kept, dense != 0) and torch.equal(weight, dense)


def test_a_double_that_is_no_zero_is_kept(tmp_path: Path) -> None:
    save(tmp_path / "net.safetensors", {"fc.weight": torch.tensor([[1e-200, 0.0, -0.0]], dtype=torch.float64)})
    assert load(tmp_path / "net.safetensors", "dense")[0].tolist() == [[True, False, False]]


def test_masks_beside_and_alone(tmp_path: Path) -> None:
    dense, mask = sparse(5, 7, keep=0.9), sparse(5, 7, seed=1) != 0
    path = tmp_path / "net.safetensors"
    for stored in (mask, mask.float(), mask.to(torch.uint8), mask.to(torch.float8_e5m2)):
        save(path, {"module.fc.weight_orig": dense, "module.fc.weight_mask": stored})
        kept, weight = load(path, "masked")
        assert torch.equal(kept, mask & (dense != 0)) and torch.equal(weight, dense * mask)
    for name in ("fc.weight", "fc", "fc.weight_mask"):
        save(path, {name: mask})
        kept, weight = load(path, "mask")
        assert torch.equal(kept, mask) and torch.equal(weight, mask.float())
    save(path, {"fc.weight": pack_bits(mask)}, {"shapes": json.dumps({"fc.weight": [5, 7]})})
    kept, weight = load(path, "packed bits")
    assert torch.equal(kept, mask) and torch.equal(weight, mask.float())
    assert np.array_equal(np.packbits(mask.numpy().ravel(), bitorder="little"), pack_bits(mask).numpy())


def test_masks_of_other_files(tmp_path: Path) -> None:
    dense, mask = sparse(5, 7, keep=1), sparse(5, 7, seed=1) != 0
    net, masks = tmp_path / "net.safetensors", tmp_path / "masks.safetensors"
    save(net, {"fc.weight": dense, "out.weight": dense, "embed.weight": dense})
    save(masks, {"fc.weight": pack_bits(mask)}, {"shapes": json.dumps({"fc.weight": [5, 7]})})
    fc, out = plan_checkpoint(str(net), masks=str(masks)).layers
    assert (fc.form, out.form) == ("masked", "dense")
    assert torch.equal(load_layer(fc)[0], mask) and load_layer(out)[0].all()
    save(masks, {"fc.weight": mask.T, "embed.weight": mask})
    with pytest.raises(MaskError, match=r"has shape \(7, 5\), its weight 'fc.weight' \(5, 7\).*another layer"):
        plan_checkpoint(str(net), masks=str(masks))
    save(masks, {"fx.weight": mask})
    with pytest.raises(MaskError, match=r"unknown weight 'fx.weight': did you mean 'fc.weight'.*another model's"):
        plan_checkpoint(str(net), masks=str(masks))
    save(net, {"fc.weight_orig": dense, "fc.weight_mask": mask})
    save(masks, {"fc.weight": mask})
    with pytest.raises(MaskError, match="has a mask of its own"):
        plan_checkpoint(str(net), masks=str(masks))
    save(net, {"fc.weight_orig": dense, "fc.weight_mask": mask.T})
    with pytest.raises(MaskError, match=r"mask 'fc.weight_mask' in .* has shape \(7, 5\)"):
        plan_checkpoint(str(net))
    save(net, {"fc.weight": dense, "fc.weight_mask": 3 * mask.float()})
    with pytest.raises(MaskError, match="F32 of other numbers than 0 and 1"):
        load_layer(plan_checkpoint(str(net)).layers[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int8, torch.float32], ids=str)
def test_two_of_four_as_torch_packs_it(dtype: torch.dtype, tmp_path: Path) -> None:
    dense = two_of_four(64, 192, span=2 if dtype == torch.float32 else 4).to(dtype)
    packed, meta = torch_cutlass(dense)
    for dot in "._":
        path = save(tmp_path / "net.safetensors", {f"fc.weight{dot}packed": packed, f"fc.weight{dot}meta": meta})
        kept, weight = load(path, "2:4")
        assert torch.equal(kept, dense != 0) and torch.equal(weight, dense.float())


def test_two_of_four_word_by_word() -> None:
    dense = two_of_four(96, 64).numpy().astype(np.float16)
    packed, meta = map(torch.from_numpy, naive_cutlass(dense))
    assert np.array_equal(spread_two_of_four(packed, meta).numpy(), dense)


def test_two_of_four_that_contradicts_itself(tmp_path: Path) -> None:
    packed, meta = torch_cutlass(two_of_four(64, 64).half())
    for bad in (meta[:, :2], meta.int(), meta[:32]):
        with pytest.raises(CheckpointError, match="do not go with metadata of shape"):
            spread_two_of_four(packed, bad)
    with pytest.raises(CheckpointError, match="rows by 32"):
        spread_two_of_four(packed[:16], meta[:16])
    path = save(tmp_path / "net.safetensors", {"fc.weight.packed": packed, "fc.weight.meta": torch.zeros_like(meta)})
    with pytest.raises(CheckpointError, match=r"layer 'fc': .* name no two places of four: they are of another layout"):
        load(path, "2:4")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.int8], ids=str)
def test_bitmasks_of_compressed_tensors(dtype: torch.dtype, tmp_path: Path) -> None:
    path, dense = tmp_path / "net.safetensors", sparse(5, 13)
    bits = np.packbits(dense.numpy() != 0, axis=-1, bitorder="little")
    values = dense[dense != 0].to(dtype)
    offsets = torch.cumsum((dense != 0).sum(1), 0)
    stored = {"bitmask": bits, "compressed": values, "shape": torch.tensor([5, 13]), "row_offsets": offsets}
    for stem in ("fc.", "fc.weight."):
        save(path, {f"{stem}{name}": tensor for name, tensor in stored.items()})
        kept, weight = load(path, "bitmask")
        assert torch.equal(kept, dense != 0) and torch.equal(weight, dense)
    dense = two_of_four(6, 16)  # two of four are stored, also where they are zero
    places = dense.view(6, 4, 4).abs().topk(2, dim=2).indices
    mask = torch.zeros(6, 4, 4, dtype=torch.bool).scatter_(2, places, True).view(6, 16)
    bits = np.packbits(mask.numpy(), axis=-1, bitorder="little")
    values = dense[mask].view(6, 8).to(dtype)
    stored = {"fc.bitmask": bits, "fc.compressed": values, "fc.shape": torch.tensor([[6], [16]])}
    kept, weight = load(save(path, stored), "bitmask")
    assert torch.equal(kept, dense != 0) and torch.equal(weight, dense)
    save(path, {**stored, "fc.compressed": torch.ones(6, 7)})
    with pytest.raises(CheckpointError, match="layer 'fc': the bitmask has 48 bits for 42 values"):
        load(path, "bitmask")
    save(path, {**stored, "fc.shape": torch.tensor([6, 20])})
    with pytest.raises(CheckpointError, match=r"bitmask of shape \(6, 2\) and torch.uint8 is none of \(6, 20\)"):
        load(path, "bitmask")


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("is_shifted", [False, True])
def test_packed_integers(bits: int, is_shifted: bool, tmp_path: Path) -> None:
    numbers, scale = sparse(10, 24).numpy(), 2.0 ** np.arange(30).reshape(10, 3) / 1024
    zero = np.arange(30).reshape(10, 3) % 3 - 1 if is_shifted else np.zeros((10, 3), int)
    stored = {
        "fc.weight_packed": naive_packed(numbers + zero.repeat(8, 1), bits),
        "fc.weight_scale": torch.tensor(scale, dtype=torch.bfloat16),
        "fc.weight_shape": torch.tensor([10, 24]),
    }
    if is_shifted:
        stored["fc.weight_zero_point"] = naive_packed(zero, bits, axis=0)
    kept, weight = load(save(tmp_path / "net.safetensors", stored), "packed integers")
    assert np.array_equal(kept.numpy(), numbers != 0)
    assert np.array_equal(weight.numpy(), (numbers * scale.repeat(8, 1)).astype(np.float32))


def test_quantised_weights_with_scales(tmp_path: Path) -> None:
    path, numbers = tmp_path / "net.safetensors", sparse(6, 8)
    row, order = torch.arange(1.0, 7.0), torch.tensor([1, 0, 0, 1, 1, 1, 0, 0])
    groups = torch.arange(1.0, 13.0).view(6, 2)
    cases = [
        ({"weight_scale": row[:, None]}, torch.int8, row[:, None]),
        ({"weight_scale": torch.tensor(3.0)}, torch.float8_e4m3fn, torch.tensor(3.0)),
        ({"weight_scale_inv": groups[:1]}, torch.float8_e4m3fn, groups[:1].repeat_interleave(4, 1)),
        ({"weight_scale": groups}, torch.int8, groups.repeat_interleave(4, 1)),
        ({"weight_scale": groups, "weight_g_idx": order}, torch.int8, groups[:, order]),
    ]
    for beside, dtype, factors in cases:
        save(path, {"fc.weight": numbers.to(dtype), **{f"fc.{name}": value for name, value in beside.items()}})
        kept, weight = load(path, "quantised")
        assert torch.equal(kept, numbers != 0) and torch.equal(weight, numbers * factors)
    zero = torch.tensor([1, 2, -1, 0, 3, 1], dtype=torch.int8)[:, None]
    stored = {"fc.weight": (numbers + zero).to(torch.int8), "fc.weight_zero_point": zero}
    stored["fc.weight_scale"] = row[:, None]
    kept, weight = load(save(path, stored), "quantised")
    assert torch.equal(kept, numbers != 0) and torch.equal(weight, numbers * row[:, None])


def test_mask_beside_quantised_weights(tmp_path: Path) -> None:
    numbers, mask = sparse(6, 8, keep=0.9), sparse(6, 8, seed=1) != 0
    stored = {"fc.weight": numbers.to(torch.int8), "fc.weight_scale": torch.tensor(0.5), "fc.weight_mask": mask}
    kept, weight = load(save(tmp_path / "net.safetensors", stored), "masked")
    assert torch.equal(kept, mask & (numbers != 0)) and torch.equal(weight, numbers * mask / 2)


def test_blocks_of_scales() -> None:
    scale = torch.arange(10.0).view(2, 5)
    found = spread_scales(scale, (256, 576))  # 128 x 128, the last column of 64
    assert found.shape == (256, 576)
    assert all(found[r, c] == scale[r // 128, c // 128] for r, c in ((0, 575), (255, 127), (127, 128), (128, 511)))
    for shape in ((10, 4), (192, 5)):  # fewer columns than scales; 128 and 64 rows, or 96 and 96?
        with pytest.raises(CheckpointError, match="do not go with weights of shape"):
            spread_scales(scale, shape)


NOT_UNDERSTOOD = {
    "cuSPARSELt": {"fc.weight.packed": torch.ones(1152)},
    "not known, without metadata": {"fc.weight_packed": torch.ones(4, 4, dtype=torch.uint8)},
    "Marlin": {"fc.weight_packed": torch.ones(2, 2).int(), "fc.scale_packed": torch.ones(2), "fc.meta": torch.ones(2)},
    "GPTQ's or AWQ's": {"fc.qweight": torch.ones(2, 2).int(), "fc.qzeros": torch.ones(2, 2).int()},
    "bitsandbytes": {"fc.weight": torch.ones(8, 1, dtype=torch.uint8), "fc.weight.absmax": torch.ones(2)},
    "4-bit floats": {"fc.weight_packed": torch.ones(2, 2).byte(), "fc.weight_global_scale": torch.ones(1)},
    "several weights each": {"fc.weight": torch.ones(2, 2).byte(), "fc.weight_scale": torch.ones(1)},
    "no scales": {"fc.weight": torch.ones(2, 2).char(), "fc.weight_zero_point": torch.ones(1)},
    "parametrization of several": {
        "fc.parametrizations.weight.original0": torch.ones(2, 1),
        "fc.parametrizations.weight.original1": torch.ones(2, 2),
    },
    "without what belongs to it": {"fc.weight_scale": torch.ones(2, 2)},
}


@pytest.mark.parametrize("what", NOT_UNDERSTOOD)
def test_forms_that_are_not_understood(what: str, tmp_path: Path) -> None:
    path = save(tmp_path / "net.safetensors", {**NOT_UNDERSTOOD[what], "out.weight": torch.ones(2, 2)})
    with pytest.raises(CheckpointError, match=f"weight 'fc.weight' in .* is stored as .*{what}.*--skip"):
        plan_checkpoint(str(path))
    assert [layer.name for layer in plan_checkpoint(str(path), skip=["fc"]).layers] == ["out"]


def test_numbers_that_are_no_weights(tmp_path: Path) -> None:
    path = save(tmp_path / "net.safetensors", {"fc.weight": torch.tensor([[1, 5]], dtype=torch.int32)})
    with pytest.raises(MaskError, match="I32 of other numbers than 0 and 1"):
        load(path, "dense")
    for bad in (torch.inf, torch.nan):
        save(path, {"fc.weight": torch.tensor([[1, bad]])})
        with pytest.raises(CheckpointError, match="layer 'fc' has weights that are NaN or infinite"):
            load(path, "dense")
