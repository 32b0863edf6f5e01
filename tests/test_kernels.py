"""The launcher: atomics, threads, the disk cache, errors, and PTX for GPUs that are not here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numba
import pytest
import torch

import topognn
from topognn import metrics
from topognn.kernels import check, launch
from topognn.kernels.primitives import atomic_add, atomic_cas, atomic_max, atomic_min
from topognn.metrics.expansion import Expansion
from topognn.operators.matrix import KINDS, get_weighted_degrees
from topognn.operators.products import get_window, pull, push
from topognn.operators.sparse import SparseWeights, is_shifted

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
        launch.import_cuda()


def test_kernels_refuse_strided_tensors() -> None:
    with pytest.raises(ValueError, match="not contiguous"):
        CONTEND_ADD["float32"].launch(1, torch.zeros(4)[::2])


def example() -> tuple[torch.nn.Module, tuple[int, ...], dict[str, torch.Tensor]]:
    model, masks = topognn.example_model()
    return model, (1, 3, 3), masks


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("name", ["conv6", "resnet20", "mobilenet_v2"])
def test_cuda_equals_cpu(name: str) -> None:
    model = topognn.get_model(name)
    check_networks(topognn.trace(model, (3, 32, 32)), topognn.prune(model, "erk", 0.95), "cuda")


def test_network_check_runs() -> None:
    """What the test above does where there is a GPU, on the CPU alone."""
    model, shape, masks = example()
    check_networks(topognn.trace(model, shape), masks, "cpu")


def check_networks(layout: topognn.Layout, masks: dict[str, torch.Tensor], device: str) -> None:
    """Compare a network's rows, topometrics, operators and layers on two devices."""
    here, there = (topognn.encode(layout, masks=masks, device=d) for d in ("cpu", device))
    streamed = [metrics.connected_components(g).labels.cpu() for g in (here, there)]  # no rows are there yet
    assert torch.equal(*streamed)
    cuts = [cut_along_a_wave(g) for g in (here, there)]
    assert cuts[0] == pytest.approx(cuts[1], rel=1e-9)
    for direction in ("in", "out", "both"):
        for part in ("indptr", "indices", "weights"):
            a = getattr(here.rows(direction, weighted=True), part)
            b = getattr(there.rows(direction, weighted=True), part)
            assert torch.equal(a, b.cpu())
    one, other = dict(topognn.topometrics(here)), dict(topognn.topometrics(there))
    searched = {name for name, metric in topognn.METRICS.items() if metric.group == "expansion"}
    for names, rel in ((searched, 1e-5), (one.keys() - searched, 1e-12)):  # residuals of 1e-6, and rounding
        assert {n: one[n] for n in names} == pytest.approx({n: other[n] for n in names}, rel=rel)
    for kind in KINDS:
        x = torch.rand(3, here.num_nodes, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        for route in ("rows", "connections"):
            a, b = (topognn.linear_operator(g, kind, route=route)(x.to(g.device)).cpu() for g in (here, there))
            assert torch.allclose(a, b, rtol=1e-10, atol=1e-12)
    for numbers in zip(*(sum_back_and_forth(g) for g in (here, there)), strict=True):
        assert numbers[0] == pytest.approx(numbers[1], rel=1e-12)
    a, b = (metrics.find_layer_expansion(g).cpu() for g in (here, there))
    assert torch.allclose(a, b, rtol=1e-4)


def cut_along_a_wave(graph: topognn.MultipartiteGraph) -> float:
    """Return the conductance of the best cut of a vector that is no eigenvector."""
    vector = torch.linspace(-1, 2, graph.num_nodes, dtype=torch.float64).sin().to(graph.device)
    return float(Expansion(vector.sum(), vector, graph, get_weighted_degrees(graph), True).conductance)


def sum_back_and_forth(graph: topognn.MultipartiteGraph) -> list[float]:
    """Go to and fro through each layer, one kept weight after the other; return what comes of it."""
    sums = []
    for c, kept in zip(graph.connections, graph.kept, strict=True):
        if is_shifted(c):
            weights = SparseWeights(c, kept, torch.float64, weighted=True)
            first, end = get_window(graph.layout, c)
            x = torch.linspace(-1, 2, end - first, dtype=torch.float64).to(graph.device)[None]
            sums.append(float(pull(c, weights, push(c, weights, x, first)).square().sum()))
    return sums


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("directed", [True, False])
def test_cuda_equals_cpu_on_plain_graphs(directed: bool) -> None:
    check_plain_graphs("cuda", directed)


def test_plain_graph_check_runs() -> None:
    """What the test above does where there is a GPU, on the CPU alone."""
    check_plain_graphs("cpu", True)


def check_plain_graphs(device: str, directed: bool) -> None:
    """Compare every analysis of a graph with loops and parallel edges on two devices."""
    edges = torch.randint(3000, (2, 9000), generator=torch.Generator().manual_seed(0))
    if not directed:
        edges = torch.cat([edges, edges.flip(0)], 1)

    def analyse(where: str) -> list[torch.Tensor]:
        graph = topognn.from_edge_index(edges.to(where), num_nodes=3000, directed=directed)
        cuts, motifs = metrics.biconnectivity(graph, "parallel"), metrics.motifs4(graph, per_node=True)
        assert motifs.triangles_at is not None and motifs.cycles_at is not None
        rows = [part for d in ("in", "out", "both") for part in (graph.rows(d).indptr, graph.rows(d).indices)]
        return [
            *rows,
            metrics.connected_components(graph).labels,
            metrics.core_numbers(graph),
            metrics.get_two_hop_sizes(graph),
            *(cuts.bridges, cuts.is_cut_node, cuts.labels),
            *(motifs.total, motifs.triangles_at, motifs.cycles_at),
        ]

    for here, there in zip(analyse("cpu"), analyse(device), strict=True):
        assert there.device.type == device
        assert torch.equal(here, there.cpu())
