"""Compile every kernel for GPUs that are not here: ``python -m topognn.kernels.check``.

Each registered signature is compiled to PTX by NVVM and assembled to SASS by ``ptxas``, for each architecture.
Prints registers, spills, local (stack) and shared memory; fails on a spill, on local memory, and on a kernel
without registered signatures.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

from numba.core import sigutils, types
from rich.console import Console
from rich.progress import track
from rich.table import Table

import topognn.kernels
from topognn.errors import DeviceError
from topognn.kernels import compiling, launch

ARCHITECTURES = ((7, 5), (8, 0), (9, 0), (10, 0))


class Assembled(NamedTuple):
    """What ``ptxas -v`` says of one kernel, signature and architecture; memory in bytes."""

    kernel: str
    signature: int
    architecture: str
    registers: int
    spills: int
    local: int
    shared: int


def load_all() -> None:
    """Import every module of this package, so that every kernel is registered."""
    for module in pkgutil.iter_modules(topognn.kernels.__path__):
        if module.name != "check":
            importlib.import_module(f"topognn.kernels.{module.name}")


def find_ptxas() -> str:
    """Return the newest ``ptxas`` of the CUDA toolkit, NVIDIA's wheels, or the one that ships with triton.

    Raises:
        DeviceError: There is none.
    """
    found = [path] if (path := shutil.which("ptxas")) else []
    for package in ("nvidia", "triton"):
        spec = importlib.util.find_spec(package)
        for place in (spec.submodule_search_locations or []) if spec else []:
            found += [str(p) for p in Path(place).rglob("bin/ptxas*") if p.is_file()]
    if not found:
        raise DeviceError("ptxas was not found: pip install triton, or install the CUDA toolkit")
    return max(found, key=_version)


def _version(ptxas: str) -> tuple[int, ...]:
    text = subprocess.run([ptxas, "--version"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"V(\d+)\.(\d+)\.(\d+)", text)
    return tuple(map(int, match.groups())) if match else (0,)


def compile_ptx(kernel: launch.Kernel, signature: str, architecture: tuple[int, int]) -> str:
    """Return a kernel's PTX for a compute capability; no GPU and no driver is needed."""
    cuda = compiling.import_cuda()
    dispatcher = importlib.import_module("numba.cuda.dispatcher")
    # The dispatcher of a device function asks the driver which GPU is there.
    vars(dispatcher)["get_current_device"] = lambda: SimpleNamespace(compute_capability=architecture)
    arguments, _ = sigutils.normalize_signature(f"void({signature})")
    return str(
        cuda.compile(
            compiling.cuda_loop(kernel.body),
            (types.int64, types.int64, *arguments),
            cc=architecture,
            device=False,
            abi="numba",
        )[0]
    )


def assemble(ptx: str, architecture: tuple[int, int], ptxas: str) -> tuple[int, int, int, int]:
    """Return (registers, spilled bytes, bytes of local memory, bytes of shared memory) of a kernel's SASS."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "kernel.ptx")
        source.write_text(ptx)
        command = [
            ptxas,
            "-v",
            f"-arch=sm_{architecture[0]}{architecture[1]}",
            str(source),
            "-o",
            f"{folder}/out",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DeviceError(f"ptxas refused a kernel: {done.stderr.strip()}")

    def number(pattern: str) -> int:
        return sum(map(int, re.findall(pattern, done.stderr)))

    spills = number(r"(\d+) bytes spill stores") + number(r"(\d+) bytes spill loads")
    local = number(r"(\d+) bytes stack frame")
    return number(r"Used (\d+) registers"), spills, local, number(r"(\d+) bytes smem")


def check_all(architectures: tuple[tuple[int, int], ...] = ARCHITECTURES) -> Iterator[Assembled]:
    """Compile every kernel, signature and architecture."""
    load_all()
    ptxas = find_ptxas()
    for name, kernel in sorted(launch.registry.items()):
        if not kernel.signatures:
            raise DeviceError(f"kernel {name} has no registered signatures: give them to @kernel(...)")
        for number, signature in enumerate(kernel.signatures):
            for architecture in architectures:
                sass = assemble(compile_ptx(kernel, signature, architecture), architecture, ptxas)
                yield Assembled(name, number, f"sm_{architecture[0]}{architecture[1]}", *sass)


def main() -> int:
    """Print the table; return 1 if a kernel spills or uses local memory."""
    load_all()
    total = sum(len(kernel.signatures) for kernel in launch.registry.values()) * len(ARCHITECTURES)
    rows = list(track(check_all(), "compiling", total=total, console=Console(stderr=True), transient=True))
    table = Table("kernel", "signature", "architecture", "registers", "spills", "local", "shared")
    for row in rows:
        table.add_row(*map(str, row))
    Console().print(table)
    bad = [row for row in rows if row.spills or row.local]
    for row in bad:
        print(f"{row.kernel} on {row.architecture}: {row.spills} bytes spilled, {row.local} bytes of local memory")
    print(f"{len(rows)} compiled, {len(bad)} with spills or local memory")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
