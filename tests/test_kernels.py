"""The launcher: atomics, threads, the disk cache, errors, and PTX for GPUs that are not here."""

from __future__ import annotations

import ctypes
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba
import pytest
import torch
from filelock import FileLock, Timeout
from numba.core import sigutils, types

import topognn
from topognn.kernels import check, compiling, cuda_launch, launch
from topognn.kernels.primitives import atomic_add, atomic_cas, atomic_max, atomic_min

in_simulator = pytest.mark.skipif(numba.config.ENABLE_CUDASIM, reason="the simulator replaces the compiler")


def contend(i, lane, width, sums, smallest, largest, owner, olds):  # type: ignore[no-untyped-def]
    """Every item hits the same few places, by every atomic there is."""
    slot = i % sums.size
    olds[i] = atomic_add(sums, slot, i + 1)
    atomic_min(smallest, slot, i)
    atomic_max(largest, slot, i)
    atomic_cas(owner, slot, -1, i)


def contend_add(i, lane, width, sums):  # type: ignore[no-untyped-def]
    atomic_add(sums, i % sums.size, 0.5)


CONTEND = {dtype: launch.Kernel(contend, (", ".join([f"{dtype}[::1]"] * 5),)) for dtype in ("int32", "int64")}
CONTEND_ADD = {dtype: launch.Kernel(contend_add, (f"{dtype}[::1]",)) for dtype in ("float32", "float64")}


@pytest.fixture(autouse=True)
def restore_threads():  # type: ignore[no-untyped-def]
    before = topognn.get_num_threads()
    yield
    topognn.set_num_threads(before)


@pytest.mark.parametrize("dtype", CONTEND)
def test_integer_atomics_lose_nothing(dtype: str) -> None:
    topognn.set_num_threads(4)
    items, slots = 60_000, 3
    of = getattr(torch, dtype)
    sums = torch.zeros(slots, dtype=of)
    smallest, largest = torch.full((slots,), items, dtype=of), torch.full((slots,), -1, dtype=of)
    owner, olds = torch.full((slots,), -1, dtype=of), torch.full((items,), -1, dtype=of)
    CONTEND[dtype].launch(items, sums, smallest, largest, owner, olds, work=100)
    for slot in range(slots):
        mine = torch.arange(slot, items, slots)
        assert sums[slot] == (mine + 1).sum().to(of)
        assert (smallest[slot], largest[slot]) == (mine[0], mine[-1])
        assert owner[slot] % slots == slot
        assert len(set(olds[slot::slots].tolist())) == len(mine)  # each add saw a sum of its own


@pytest.mark.parametrize("dtype", CONTEND_ADD)
def test_float_add_loses_nothing(dtype: str) -> None:
    topognn.set_num_threads(4)
    sums = torch.zeros(3, dtype=getattr(torch, dtype))
    CONTEND_ADD[dtype].launch(60_000, sums, work=100)
    assert sums.tolist() == [10_000.0] * 3  # halves add up exactly


@in_simulator
@pytest.mark.parametrize("architecture", check.ARCHITECTURES)
def test_atomics_compile_for_cuda(architecture: tuple[int, int]) -> None:
    for made in (*CONTEND.values(), *CONTEND_ADD.values()):
        ptx = check.compile_ptx(made, made.signatures[0], architecture)
        assert "atom." in ptx
        registers, spills, local, _ = check.assemble(ptx, architecture, check.find_ptxas())
        assert registers > 0
        assert spills == local == 0


@in_simulator
@pytest.mark.parametrize("name", ["count_kept", "find_taps", "multiply_row", "fill_in"])
def test_arguments_are_packed_as_compiled_kernels_take_them(name: str) -> None:
    check.load_all()
    kernel = launch.registry[name]
    samples: list[Any] = []
    for kind in sigutils.normalize_signature(f"void({kernel.signatures[0]})")[0]:
        if isinstance(kind, types.Array):
            samples.append(torch.ones((2,) * kind.ndim, dtype=getattr(torch, kind.dtype.name.replace("ean", ""))))
        else:
            samples.append(True if kind == types.boolean else 1)
    header = check.compile_ptx(kernel, kernel.signatures[0], (8, 0)).partition(".entry")[2].partition(")")[0]
    bits = [int(size) for size in re.findall(r"\.param \.[a-z](\d+)", header)]
    slots = cuda_launch.pack((1, 1, *samples))
    assert len(bits) == len(slots)
    assert all(size == 64 or (size == 8 and slot == 1) for size, slot in zip(bits, slots, strict=True))


@in_simulator
def test_the_driver_gets_pointers_to_the_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    from cuda.bindings import driver

    seen: list[Any] = []

    def take(*args: Any) -> tuple[int]:
        *before, pointers, _ = args
        places = (ctypes.c_void_p * 4).from_address(pointers)
        kinds = (ctypes.c_int64, ctypes.c_bool, ctypes.c_double, ctypes.c_int64)
        seen.append([*before, *(kind.from_address(place).value for kind, place in zip(kinds, places, strict=True))])
        return (len(seen) - 1,)

    monkeypatch.setattr(driver, "cuLaunchKernel", take)
    slots = cuda_launch.pack((2**40, True, 0.5, -3))
    assert cuda_launch.launch("function", 128, 32, 0, slots)
    assert seen == [["function", 128, 1, 1, 32, 1, 1, 0, 0, 2**40, True, 0.5, -3]]
    assert not cuda_launch.launch("function", 128, 32, 0, slots)  # an error: Numba's launch will tell it


@in_simulator
def test_check_finds_a_kernel_without_signatures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "registry", {"contend_add": launch.Kernel(contend_add, ())})
    with pytest.raises(topognn.DeviceError, match="contend_add has no registered signatures"):
        list(check.check_all())


def test_kernels_are_launched_with_registered_signatures() -> None:
    """What ran on the CPU in this process is what ``kernels.check`` compiles for CUDA."""
    topognn.topometrics(topognn.example_graph())
    launched = [made for made in launch.registry.values() if made._on_cpu is not None]
    assert launched
    for made in launched:
        registered = {str(numba.core.sigutils.normalize_signature(f"void({s})")[0]) for s in made.signatures}
        for signature in made._on_cpu.signatures:
            assert str(signature[2:]) in registered, made.name


def test_next_process_finds_compiled_kernels(tmp_path: Path) -> None:
    code = (
        "import topognn; from topognn.kernels import launch\n"
        "topognn.topometrics(topognn.example_graph())\n"
        "ran = [k._on_cpu.stats for k in launch.registry.values() if k._on_cpu is not None]\n"
        "print(sum(sum(s.cache_misses.values()) for s in ran), sum(sum(s.cache_hits.values()) for s in ran))"
    )
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    counts = []
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        counts.append(tuple(map(int, done.stdout.split())))
    (compiled, found), (compiled_again, found_again) = counts
    assert compiled > 0
    assert found == 0
    assert compiled_again == 0
    assert found_again == compiled


@in_simulator
@pytest.mark.parametrize("compile_body", [compiling.compile_cpu, compiling.compile_cuda])
def test_what_is_compiled_is_saved_by_one_process_at_a_time(
    compile_body: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numba's index of a function's files would otherwise lose what one of two processes adds."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    cache = compile_body(contend_add)._cache
    held = []

    def save(sig: object, data: object) -> None:
        with pytest.raises(Timeout):
            FileLock(Path(cache.cache_path) / "contend_add.lock", timeout=0).acquire()
        held.append((sig, data))

    monkeypatch.setattr(cache, "_save_overload", save)
    cache.save_overload("types", "code")
    assert held == [("types", "code")]
    with FileLock(Path(cache.cache_path) / "contend_add.lock", timeout=0):  # free again
        pass


def test_a_loop_is_saved_with_its_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    launch.Kernel(contend_add, ()).launch(2, torch.zeros(1))
    names = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert "contend_add.lock" in names and any(name.endswith(".1.nbc") for name in names)


def test_a_forked_child_can_launch() -> None:
    code = (
        "import os, topognn, torch\n"
        "from topognn.kernels.taps import take_kept\n"
        "topognn.set_num_threads(2)\n"
        "mask = torch.ones(5000, 100, dtype=torch.bool)\n"
        "weights = torch.arange(500_000.0).view(5000, 100)\n"
        "indptr, values = torch.arange(5001) * 100, torch.zeros(500_000)\n"
        "take_kept.launch(5000, mask, weights, indptr, values, work=100)\n"
        "values[-1] = 0\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    take_kept.launch(5000, mask, weights, indptr, values, work=100); os._exit(int(values[-1]) != 499_999)\n"
        "print(os.waitpid(pid, 0)[1])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "0"


def test_threads_must_be_positive() -> None:
    with pytest.raises(ValueError, match="at least 1, not 0"):
        topognn.set_num_threads(0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_cuda_without_a_gpu_says_so() -> None:
    with pytest.raises(topognn.DeviceError, match=r"cuda was asked for, but .* finds no CUDA driver or GPU"):
        topognn.encode(*example(), device="cuda")


def test_other_devices_are_refused() -> None:
    with pytest.raises(topognn.DeviceError, match="runs on cpu and cuda, not on mps"):
        topognn.encode(*example(), device="mps")


def test_missing_numba_cuda_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba.cuda", None)
    monkeypatch.delattr(numba, "cuda", raising=False)
    with pytest.raises(topognn.DeviceError, match=r"pip install 'topognn\[cuda1[23]\]'"):
        compiling.import_cuda()


@in_simulator
def test_a_numpy_that_numba_cuda_does_not_know_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import_module = importlib.import_module

    def refuse(name: str, *package: str) -> object:
        if name == "numba.cuda.np.arrayobj":
            raise AttributeError("module 'numpy' has no attribute 'row_stack'")
        return import_module(name, *package)

    monkeypatch.setattr(importlib, "import_module", refuse)
    with pytest.raises(topognn.DeviceError, match=r"numba-cuda .* does not work with NumPy .*row_stack.*numpy<2\.5"):
        compiling.import_cuda()


def test_kernels_refuse_strided_tensors() -> None:
    with pytest.raises(ValueError, match="not contiguous"):
        CONTEND_ADD["float32"].launch(1, torch.zeros(4)[::2])


def example() -> tuple[torch.nn.Module, tuple[int, ...], dict[str, torch.Tensor]]:
    model, masks = topognn.example_model()
    return model, (1, 3, 3), masks
