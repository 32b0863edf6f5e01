"""Layers of a checkpoint of 1.1 billion parameters, measured one at a time: seconds, memory, and a run that is killed.

    python benchmarks/shards.py [--blocks 22] [--only CASE ...] [--folder DIR] [--out results.json]

Writes shards in the shapes of TinyLlama (22 blocks, hidden 2048, intermediate 5632, 32 query and 4 key and value heads,
32,000 tokens), normal weights in bfloat16 of which half is pruned: anywhere, stored dense with zeros; and two of every
four, stored as torch's semi-structured tensors. Then runs `topognn layers --checkpoint` on each, in a process of its
own whose peak of memory is recorded. Before anything is recorded, sizes and degrees must be NumPy's on the layers of
the first block, and the second singular value that of a plain SVD on one. A run on the first block is killed half-way
and resumed: its table must be that of the whole run. `--blocks` makes a smaller network, and says what all would take.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["OMP_WAIT_POLICY"] = "passive"  # idle threads must not take the other's core

import numpy as np
import pyarrow.parquet as pq
import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import save_file
from torch import Tensor
from torch.sparse._semi_structured_conversions import sparse_semi_structured_from_dense_cutlass

BLOCKS, HIDDEN, WIDE, NARROW, TOKENS = 22, 2048, 5632, 256, 32000
SHAPES = {
    "self_attn.q_proj": (HIDDEN, HIDDEN),
    "self_attn.k_proj": (NARROW, HIDDEN),
    "self_attn.v_proj": (NARROW, HIDDEN),
    "self_attn.o_proj": (HIDDEN, HIDDEN),
    "mlp.gate_proj": (WIDE, HIDDEN),
    "mlp.up_proj": (WIDE, HIDDEN),
    "mlp.down_proj": (HIDDEN, WIDE),
}
CASES = ("unstructured", "2:4")
CHECKED = "model.layers.0.self_attn.k_proj"  # small enough for an SVD
TARGET_SECONDS, TARGET_BYTES = 15 * 60, 6 * 2**30
COMMAND = [sys.executable, "-c", "from topognn.cli.main import main; main()", "layers"]


def list_layers(blocks: int) -> list[tuple[str, tuple[int, int]]]:
    """Return every layer's name and shape."""
    inner = [(f"model.layers.{n}.{name}", shape) for n in range(blocks) for name, shape in SHAPES.items()]
    return [*inner, ("lm_head", (TOKENS, HIDDEN))]


def draw(case: str, name: str, shape: tuple[int, int]) -> Tensor:
    """Return a layer's weights, the same at each call: bfloat16, half of them zero."""
    generator = torch.Generator().manual_seed(hash_name(f"{case} {name}"))
    weight = torch.randn(shape, generator=generator).bfloat16()
    weight[weight == 0] = 1  # what is not pruned is not zero
    if case == "2:4":
        pairs = torch.tensor([[a, b] for b in range(4) for a in range(b)])
        patterns = torch.zeros(6, 4, dtype=torch.bool).scatter_(1, pairs, True)
        picked = torch.randint(6, (shape[0] * shape[1] // 4,), generator=generator)
        return weight * patterns[picked].view(shape)
    return weight * (torch.rand(shape, generator=generator) < 0.5)


def hash_name(text: str) -> int:
    return int.from_bytes(text.encode(), "little") % (2**61 - 1)


def write_set(folder: Path, case: str, blocks: int) -> int:
    """Write shards of a block each and their index; return their bytes."""
    shards = [
        *([entry for entry in list_layers(blocks) if entry[0].startswith(f"model.layers.{n}.")] for n in range(blocks)),
        [entry for entry in list_layers(blocks) if entry[0] == "lm_head"],
    ]
    where = {}
    for number, layers in enumerate(shards, 1):
        tensors = {f"{name}.weight": draw(case, name, shape) for name, shape in layers}
        if case == "2:4":
            packed = {name: sparse_semi_structured_from_dense_cutlass(dense) for name, dense in tensors.items()}
            parts = {name: dict(zip(("packed", "meta"), both, strict=True)) for name, both in packed.items()}
            tensors = {f"{name}.{part}": tensor for name, both in parts.items() for part, tensor in both.items()}
        if number <= blocks:
            for norm in ("input_layernorm", "post_attention_layernorm"):
                tensors[f"model.layers.{number - 1}.{norm}.weight"] = torch.ones(HIDDEN, dtype=torch.bfloat16)
        else:
            tensors["model.embed_tokens.weight"] = torch.ones(TOKENS, HIDDEN, dtype=torch.bfloat16)
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / file)
        where |= dict.fromkeys(tensors, file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def run(folder: Path, out: Path, *more: str, kill_at: int | None = None) -> dict[str, Any]:
    """Run the command; return seconds and the process's peak of bytes. ``kill_at``: once so many rows are there."""
    started = time.perf_counter()
    command = [*COMMAND, "--checkpoint", f"{folder}/*.safetensors", "--out", str(out), *more]
    with open(out.with_suffix(".log"), "w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    while kill_at is not None and process.poll() is None:
        if len(list(out.glob("rows/*.parquet"))) >= kill_at:
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.02)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != (0 if kill_at is None else -signal.SIGKILL):
        raise RuntimeError(f"{command} ended with {process.returncode}: {out.with_suffix('.log').read_text()[-2000:]}")
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "cpu_seconds": used.ru_utime + used.ru_stime, "bytes": used.ru_maxrss * 1024}


def check(case: str, rows: list[dict[str, Any]]) -> None:
    """Compare sizes and degrees of the first block with NumPy's, and a singular value with that of a plain SVD."""
    by_name = {row["layer"]: row for row in rows}
    for name, shape in list_layers(1)[: len(SHAPES)]:
        bits = draw(case, name, shape).view(torch.int16).numpy()
        kept, row = (bits & 0x7FFF) != 0, by_name[name]
        sides = (kept.sum(0), kept.sum(1))
        want = {"weights": kept.size, "kept": int(kept.sum()), "density": float(kept.mean())}
        for side, degrees in zip(("left", "right"), sides, strict=True):
            want |= {side: len(degrees), f"isolated_{side}": int((degrees == 0).sum())}
            want |= {f"{side}_degree_min": int(degrees.min()), f"{side}_degree_max": int(degrees.max())}
        want |= {"d_l": float(sides[0].mean()), "d_r": float(sides[1].mean())}
        found = {key: row[key] for key in want}
        if any(not math.isclose(found[key], want[key], rel_tol=1e-12) for key in want):
            raise AssertionError(f"{case}, {name}: found {found}, not {want}")
    kept = draw(case, CHECKED, (NARROW, HIDDEN)).float().numpy() != 0
    second = float(np.linalg.svd(kept.astype(np.float64), compute_uv=False)[1])
    row = by_name[CHECKED]
    if not math.isclose((1 - row["delta_r"]) * row["bound"], second, rel_tol=2e-6):
        raise AssertionError(f"{case}, {CHECKED}: delta_r is {row['delta_r']}, the second singular value {second}")


def kill_and_resume(folder: Path, work: Path, rows: list[dict[str, Any]]) -> dict[str, float]:
    """Kill a run on the first block half-way, resume it, and compare its table with the whole run's."""
    out, only = work / "killed", ("--layers", "model.layers.0.*")
    run(folder, out, *only, kill_at=len(SHAPES) // 2)
    left = len(list(out.glob("rows/*.parquet")))
    again = run(folder, out, *only)
    found = pq.read_table(out / "layers.parquet").to_pylist()
    if found != [row for row in rows if row["layer"].startswith("model.layers.0.")]:
        raise AssertionError("a run that was killed and resumed has another table than the whole run")
    return {"rows_at_kill": left, "seconds_resumed": again["seconds"]}


def times_by_shape(out: Path, rows: list[dict[str, Any]]) -> Iterator[tuple[str, float]]:
    """Yield shape and seconds of each layer, by when its row was written: that of the first includes the start."""
    files = [out / "settings.json", *(out / "rows" / f"{row['layer']}.parquet" for row in rows)]
    for row, before, after in zip(rows, files, files[1:], strict=False):
        yield row["shape"], after.stat().st_mtime - before.stat().st_mtime


def extrapolate(times: dict[str, list[float]]) -> float:
    """Return the seconds of all layers of the whole network from the mean of each shape's."""
    means = {shape: sum(found) / len(found) for shape, found in times.items()}
    return sum(means["x".join(map(str, shape))] for _, shape in list_layers(BLOCKS))


def measure(case: str, blocks: int, work: Path) -> dict[str, Any]:
    """Write a set, measure it, and return what it took."""
    folder = work / case.replace(":", "_")
    folder.mkdir(exist_ok=True)
    size = write_set(folder, case, blocks)
    out = work / f"{folder.name}-out"
    record = {"case": case, "blocks": blocks, "file_bytes": size, **run(folder, out)}
    rows = pq.read_table(out / "layers.parquet").to_pylist()
    if len(rows) != len(SHAPES) * blocks + 1:
        raise AssertionError(f"{case}: {len(rows)} rows")
    check(case, rows)
    record |= kill_and_resume(folder, folder, rows)
    times: dict[str, list[float]] = defaultdict(list)
    for shape, seconds in times_by_shape(out, rows):
        times[shape].append(seconds)
    record |= {"layers": len(rows), "weights": sum(row["weights"] for row in rows)}
    record["seconds_by_shape"] = {shape: sum(found) / len(found) for shape, found in times.items()}
    record["seconds_of_all"] = record["seconds"] if blocks == BLOCKS else extrapolate(times)
    for file in folder.glob("*.safetensors"):
        file.unlink()
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=BLOCKS, help="of 22")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="CASE")
    parser.add_argument("--folder", type=Path, help="an empty folder for shards and rows; a temporary one by default")
    parser.add_argument("--expect", action="store_true", help="fail if a target is missed")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = options.folder or Path(temporary)
        records = [measure(case, options.blocks, work) for case in options.only]
    columns = ("layers", "weights", "seconds", "cores busy", "GiB", "seconds of all 155", "resumed at")
    table = Table("case", *columns)
    for r in records:
        numbers = (f"{r['seconds']:.1f}", f"{r['cpu_seconds'] / r['seconds']:.1f}", f"{r['bytes'] / 2**30:.2f}")
        last = (f"{r['seconds_of_all']:.0f}", f"{r['rows_at_kill']} of {len(SHAPES)} rows")
        table.add_row(r["case"], str(r["layers"]), f"{r['weights']:,}", *numbers, *last)
    Console(width=120).print(table)
    for r in records:
        print(r["case"], ", ".join(f"{shape} {seconds:.2f} s" for shape, seconds in r["seconds_by_shape"].items()))
    if options.out:
        where = {"machine": platform.machine(), "cores": os.cpu_count(), "torch": torch.__version__}
        part = options.out.with_suffix(".part")
        part.write_text(json.dumps({"where": where, "records": records}, indent=1))
        os.replace(part, options.out)
    if options.expect:
        for r in records:
            if r["seconds_of_all"] > TARGET_SECONDS or r["bytes"] > TARGET_BYTES:
                raise AssertionError(f"a target is missed: {r}")


if __name__ == "__main__":
    main()
