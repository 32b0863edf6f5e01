"""Files of a checkpoint: which are meant, and what is wrong with those that are not whole."""

from __future__ import annotations

import errno
import json
import pickle
from pathlib import Path

import pytest
import torch

from tests.shard_files import save, sparse, write_index, write_raw
from topognn.errors import CheckpointError
from topognn.resumable import ResumableFolder
from topognn.shards.finding import list_tensors
from topognn.shards.headers import read_header, read_tensor
from topognn.shards.loading import load_layer
from topognn.shards.planning import plan_checkpoint


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """A folder of two shards and their index."""
    save(tmp_path / "a.safetensors", {"layers.10.fc.weight": sparse(3, 4), "layers.10.fc.bias": torch.ones(3)})
    save(tmp_path / "b.safetensors", {"layers.9.fc.weight": sparse(5, 4), "embed_tokens.weight": sparse(9, 4)})
    names = {"layers.10.fc.weight": "a.safetensors", "layers.9.fc.weight": "b.safetensors"}
    write_index(tmp_path / "model.safetensors.index.json", names)
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def fails(checkpoint: Path | str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        list_tensors(str(checkpoint))
    assert "\n" not in str(caught.value)


def test_pattern_index_and_file(shards: Path) -> None:
    every = {"layers.10.fc.weight", "layers.10.fc.bias", "layers.9.fc.weight", "embed_tokens.weight"}
    assert list_tensors(f"{shards}/*.safetensors").keys() == every
    assert list_tensors(f"{shards}/*").keys() == every  # what holds no tensors is not read
    assert list_tensors(f"{shards.parent}/**/{shards.name}/?.safetensors").keys() == every
    assert list_tensors(f"{shards}/model.safetensors.index.json").keys() == every
    found = list_tensors(f"{shards}/b.safetensors")
    assert found["layers.9.fc.weight"].shape == (5, 4) and found["layers.9.fc.weight"].dtype == "F32"
    assert torch.equal(read_tensor(found["layers.9.fc.weight"]), sparse(5, 4))
    (shards / "[x].safetensors").write_bytes((shards / "a.safetensors").read_bytes())
    assert list_tensors(f"{shards}/[x].safetensors").keys() == {"layers.10.fc.weight", "layers.10.fc.bias"}


def test_files_that_are_not_there(shards: Path) -> None:
    fails(shards / "none-*.safetensors", r"no file matches '.*none-\*.safetensors'")
    fails(shards / "none.safetensors", "there is no file '.*none.safetensors'")
    fails(shards / "none.index.json", "there is no file '.*none.index.json'")
    fails(shards, r"is a folder: give a pattern, such as '.*/\*.safetensors'")
    fails(shards / "*.json", r"cannot read '.*config.json': give files that end in .pt")
    (shards / "bad.index.json").write_text('{"weights": {}}')
    fails(shards / "bad.index.json", "is no index of shards: it needs a dict 'weight_map'")


def test_index_that_names_what_a_shard_has_not(shards: Path) -> None:
    for pattern in ("*.safetensors", "model.safetensors.index.json"):
        write_index(shards / "model.safetensors.index.json", {"layers.11.fc.weight": "a.safetensors"})
        fails(shards / pattern, r"index .* names tensor 'layers.11.fc.weight' in .*a.safetensors', which it has not")
    write_index(shards / "model.safetensors.index.json", {"layers.9.fc.weight": "a.safetensors"})
    fails(shards / "*.safetensors", r"in '.*a.safetensors', it is in '.*b.safetensors': copy shards and index anew")
    write_index(shards / "model.safetensors.index.json", {"layers.9.fc.weight": "c.safetensors"})
    fails(shards / "model.safetensors.index.json", "there is no file '.*c.safetensors'")
    list_tensors(f"{shards}/*.safetensors")  # of shards that are not meant, an index may say what it likes


def test_tensor_in_two_shards(shards: Path) -> None:
    save(shards / "c.safetensors", {"layers.9.fc.weight": sparse(5, 4)})
    fails(shards / "*.safetensors", r"tensor 'layers.9.fc.weight' is in two files, '.*b.safetensors' and '.*c.safet")
    save(shards / "d.safetensors", {"fc.weight": sparse(5, 4), "module.fc.weight": sparse(5, 4)})
    with pytest.raises(CheckpointError, match=r"'module.fc.weight' and 'fc.weight' are one and the same"):
        plan_checkpoint(f"{shards}/d.safetensors")
    save(shards / "d.safetensors", {"fc.weight": sparse(5, 4), "fc": sparse(5, 4) != 0})
    with pytest.raises(CheckpointError, match=r"two tensors are the weight of 'fc': leave one out"):
        plan_checkpoint(f"{shards}/d.safetensors")
    assert plan_checkpoint(f"{shards}/d.safetensors", skip=["fc.weight"]).layers[0].form == "mask"


def test_truncated_shard(shards: Path) -> None:
    whole = (shards / "a.safetensors").read_bytes()
    for cut in (0, 5, 40, len(whole) - 70, len(whole) - 1):
        (shards / "a.safetensors").write_bytes(whole[:cut])
        fails(shards / "*.safetensors", r"'.*a.safetensors' is truncated")
    torch.save({"fc.weight": sparse(30, 40)}, shards / "net.pt")
    whole = (shards / "net.pt").read_bytes()
    (shards / "net.pt").write_bytes(whole[: len(whole) // 2])
    fails(shards / "net.pt", r"'.*net.pt' is truncated or was not written by torch.save")


def test_shard_that_lies(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"

    def lies(entry: object, message: str) -> None:
        write_raw(path, {"fc.weight": entry, "a.weight": a}, bytes(48))
        fails(path, message)

    a = {"dtype": "F32", "shape": [2], "data_offsets": [40, 48]}
    sound = {"dtype": "F32", "shape": [2, 5], "data_offsets": [0, 40]}
    write_raw(path, {"fc.weight": sound, "a.weight": a}, bytes(48))
    assert [one.shape for one in read_header(path)] == [(2, 5), (2,)]
    lies({**sound, "shape": [2, 6]}, r"lies about tensor 'fc.weight': shape \(2, 6\) of F32 takes 48 bytes, and 40 are")
    lies({**sound, "dtype": "BF16"}, r"lies about tensor 'fc.weight': shape \(2, 5\) of BF16 takes 20 bytes")
    lies({**sound, "data_offsets": [8, 48]}, "says that tensors 'fc.weight' and 'a.weight' share bytes")
    lies({**sound, "data_offsets": [16, 56]}, "is truncated: tensor 'fc.weight' ends at byte")
    lies({**sound, "dtype": "F4"}, "tensor 'fc.weight' in .* has dtype 'F4', of which it is not known.*Known: BOOL")
    for nonsense in ({**sound, "shape": [-2, -5]}, {"shape": [2]}, 3, {**sound, "data_offsets": [40, 0]}):
        lies(nonsense, "describes tensor 'fc.weight' as .*, which has no meaning")
    write_raw(path, {"__metadata__": {"shapes": '{"m": [3, 4]}'}, "m": {**a, "data_offsets": [0, 8]}}, bytes(8))
    fails(path, r"mask 'm' in .* is F32 of shape \(2,\): packed bits of shape \(3, 4\) take U8 of shape \(2,\)")
    write_raw(path, {"__metadata__": {"shapes": "nothing"}}, b"")
    fails(path, "metadata 'shapes' of .* are no JSON dict")
    write_raw(path, {"__metadata__": {"shapes": '{"m": 7}'}, "m": {**a, "data_offsets": [0, 8]}}, bytes(8))
    fails(path, "give 'm' the shape 7")
    text = f'{{"a": {json.dumps(sound)}, "a": {json.dumps(sound)}}}'.encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(40))
    fails(path, "its header is no JSON .a name stands there twice")
    path.write_bytes((4).to_bytes(8, "little") + b"nope" + bytes(8))
    fails(path, "its header is no JSON")
    write_raw(path, [], b"")  # type: ignore[arg-type]
    fails(path, "its header is no dict")
    # Bytes that belong to no tensor: the library refuses them too, when a tensor is read.
    write_raw(path, {"fc.weight": sound, "a.weight": {**a, "data_offsets": [44, 52]}}, bytes(52))
    fails(path, "has 4 bytes before tensor 'a.weight' that are no tensor's")
    write_raw(path, {"fc.weight": sound, "a.weight": a}, bytes(51))
    fails(path, "has 3 bytes after the last tensor that are no tensor's")
    write_raw(
        path, {"fc.weight": sound, "a.weight": a, "none": {**a, "shape": [0], "data_offsets": [48, 48]}}, bytes(48)
    )
    assert len(read_header(path)) == 3
    for wrong in ({"dtype": ["F32"]}, {"shape": [True, 10]}, {"shape": 10}, {"data_offsets": [False, 40]}):
        lies({**sound, **wrong}, "describes tensor 'fc.weight' as .*, which has no meaning")
    write_raw(path, {"__metadata__": [1], "fc.weight": sound}, bytes(40))
    fails(path, r"has __metadata__ \[1\], which is no dict")


def test_a_shard_that_changes_says_so_once(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    save(path, {"fc.weight": sparse(5, 4)})
    (layer,) = plan_checkpoint(str(path)).layers
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"cannot read 'fc\.weight'") as caught:
        load_layer(layer)
    assert str(caught.value).count("Copy or save it again") == 1


def test_dtype_that_is_not_known_in_pickles(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.ones(2, 2, dtype=torch.complex64)}, tmp_path / "net.pt")
    fails(tmp_path / "net.pt", r"tensor 'fc.weight' in .* has dtype torch.complex64, of which it is not known")


class Harmful:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("run",)


def test_pickle_in_disguise(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"fc.weight": sparse(3, 4), "other": Harmful()}, tmp_path / "net.pt")
    fails(tmp_path / "net.pt", r"holds Python objects \(\S*print\), which weights_only=True refuses")
    (tmp_path / "net.pt").rename(tmp_path / "net.safetensors")
    fails(tmp_path / "net.safetensors", "is a pickle with the name of a safetensors file")
    for protocol in range(2, 6):
        (tmp_path / "net.safetensors").write_bytes(pickle.dumps({"fc.weight": Harmful()}, protocol))
        fails(tmp_path / "net.safetensors", "is a pickle with the name of a safetensors file")
    (tmp_path / "net.bin").write_bytes(pickle.dumps({"fc.weight": Harmful()}, 2))
    fails(tmp_path / "net.bin", "holds Python objects|not written by torch.save")
    torch.save({"fc.weight": sparse(3, 4)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    fails(tmp_path / "old.pt", r"in the format of torch before 1.6.*load it and save it again")
    torch.save([sparse(3, 4)], tmp_path / "list.pt")
    fails(tmp_path / "list.pt", "is a list without names")
    torch.save({"epoch": 3}, tmp_path / "list.pt")
    fails(tmp_path / "list.pt", "holds no named tensors")
    assert capsys.readouterr().out == ""


def test_layers_by_name(shards: Path) -> None:
    pattern = f"{shards}/*.safetensors"
    plan = plan_checkpoint(pattern)
    assert [layer.name for layer in plan.layers] == ["layers.9.fc", "layers.10.fc"]
    assert plan.left_out == {"layers.10.fc.bias": "one axis", "embed_tokens.weight": "embedding by its name"}
    plan = plan_checkpoint(pattern, layers=["embed*", "*.10.*"])
    assert [layer.name for layer in plan.layers] == ["embed_tokens", "layers.10.fc"]
    assert plan.left_out == {"layers.10.fc.bias": "one axis", "layers.9.fc.weight": "not among --layers"}
    plan = plan_checkpoint(pattern, skip=["*.9.fc"])
    assert plan.left_out["layers.9.fc.weight"] == "among --skip"
    with pytest.raises(CheckpointError, match=r"no tensor of .* matches 'layer.\*': its names are such as embed_tok"):
        plan_checkpoint(pattern, layers=["layer.*"])
    with pytest.raises(CheckpointError, match=r"has no layer to measure: left out are 'embed_tokens.weight' \(not am"):
        plan_checkpoint(pattern, layers=["*bias"])


def test_what_names_tell(tmp_path: Path) -> None:
    every: dict[str, tuple[int, ...]] = {
        "conv1.weight": (4, 3, 3, 3),
        "patch_embed.proj.weight": (4, 3, 2, 2),
        "embeddings.patch_embeddings.weight": (4, 3, 2, 2),
        "time_embedding.linear_1.weight": (4, 4),
        "embed_out.weight": (4, 4),
        "attn.in_proj_weight": (4, 4),
        "wave.weight": (4, 2, 3),
        "volume.weight": (4, 2, 3, 3, 3),
    }
    others: dict[str, tuple[int, ...]] = {
        "wte.weight": (4, 4),
        "embeddings.word_embeddings.weight": (4, 4),
        "shared.weight": (4, 4),
        "relative_attention_bias.weight": (4, 4),
        "pos_embed": (1, 4, 4),
        "cls_token": (1, 1, 4),
        "attn.bias": (1, 1, 4, 4),
        "experts.gate_up_proj": (2, 4, 4),
        "norm1.weight": (4, 4),
        "final_layer_norm.weight": (4, 4),
        "fc.qzeros": (4, 4),
        "six.weight": (1, 1, 1, 1, 1, 1),
        "norm.scale": (),
    }
    torch.save({name: torch.ones(shape) for name, shape in (every | others).items()}, tmp_path / "net.pt")
    plan = plan_checkpoint(f"{tmp_path}/net.pt")
    assert {layer.name for layer in plan.layers} == {name.removesuffix(".weight") for name in every}
    assert plan.left_out.keys() == others.keys()


def test_a_folder_that_cannot_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Folder(ResumableFolder):
        failure = CheckpointError
        parts = ("rows",)

    def refuse(*_: object, **__: object) -> None:  # as below /proc
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(Path, "mkdir", refuse)
    refusal = r"cannot make the folder '.*nope': No such file or directory"
    with pytest.raises(CheckpointError, match=refusal), Folder(tmp_path / "nope").claimed({}):
        pass
