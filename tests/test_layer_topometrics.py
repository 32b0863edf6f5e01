"""Topometrics of layers alone: against networkx and NumPy, and against what the released tables are made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode

import topognn
from tests.naive_layers import naive_rolled
from tests.test_fake_cuda import fake
from topognn.baselines import layers as module
from topognn.baselines import unrolled
from topognn.baselines.columns import EXTRA, PUBLISHED, PUBLISHED_RAMANUJAN, SPECTRAL
from topognn.baselines.layers import LAYER_METRICS, measure_graphs
from topognn.encoding.layer_graphs import KINDS, encode_layers, roll
from topognn.errors import ConvergenceError, UnknownNameError
from topognn.kernels.host import answering, count_syncs
from topognn.needs import NEEDS

OF_SPECTRA = {"spectral_radius_unweighted", *SPECTRAL}
OF_SPECTRA |= {name for name, metric in topognn.METRICS.items() if metric.group == "expansion"}


def small(density: float = 0.4) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    torch.manual_seed(5)
    model = nn.Sequential(nn.Conv2d(2, 5, 2), nn.Conv2d(5, 6, 3, groups=1), nn.Flatten(), nn.Linear(6, 4))
    return model, {f"{n}.weight": torch.rand(model[n].weight.shape) < density for n in (0, 1, 3)}


@pytest.mark.parametrize("kind", ["rolled", "rolled-channel"])
def test_against_networkx(kind: str) -> None:
    model, masks = small(0.4 if kind == "rolled" else 0.15)
    table = topognn.layer_topometrics(model, kind, masks)  # type: ignore[arg-type]
    assert list(table) == ["0", "1", "3"] and table.kind == kind
    for path, row in table.items():
        layer, mask = model[int(path)], masks[f"{path}.weight"]  # type: ignore[index]
        left, right, edges = naive_rolled(layer, mask, kind == "rolled-channel")
        directed = nx.DiGraph()
        directed.add_nodes_from(range(left + right))
        directed.add_weighted_edges_from((u, v, w) for (u, v), w in edges.items())
        graph = directed.to_undirected()
        degrees = np.array([d for _, d in graph.degree()])
        ends = np.array([(degrees[u], degrees[v]) for u, v in edges])
        sizes = [len(c) for c in nx.connected_components(graph)]
        n, m = left + right, len(edges)
        singular = np.linalg.svd(nx.to_numpy_array(graph, weight=None)[:left, left:], compute_uv=False)
        weighted = np.linalg.svd(nx.to_numpy_array(graph)[:left, left:], compute_uv=False)
        want = {
            "nodes": n,
            "edges": m,
            "density": float(mask.double().mean()),
            "max_degree": degrees.max(),
            "min_degree": degrees.min(),
            "mean_degree": degrees.mean(),
            "mean_out_degree": m / n,
            "directed_fill": nx.density(directed),
            "undirected_fill": nx.density(graph),
            "wedges": sum(d * (d - 1) // 2 for d in degrees),
            "assortativity": np.corrcoef(ends.T)[0, 1] if ends.std(0).all() else None,
            "components": len(sizes),
            "smallest_component": min(sizes),
            "largest_component": max(sizes),
            "cut_edges": len(list(nx.bridges(graph))),
            "cut_nodes": len(set(nx.articulation_points(graph))),
            "k_core": np.mean(list(nx.core_number(graph).values())),
            "strength": 2 * sum(edges.values()) / n,
            "out_strength": sum(edges.values()) / n,
            "one_hop": 1 + m / n,
            "two_hop": 1 + m / n,
            "spectral_gap": weighted[0] - weighted[1],
            "spectral_gap_unweighted": singular[0] - singular[1],
            "spectral_radius": nx.laplacian_spectrum(graph).max(),
            "spectral_radius_unweighted": nx.laplacian_spectrum(graph, weight=None).max(),
            "delta_r_doubled": 1 - singular[1] / (2 * np.sqrt(4 * m / n - 1)) if 4 * m > n else None,
            "delta_s_relative": 1 - singular[1] / (2 * np.sqrt(singular[0] - 1)) if singular[0] > 1 + 1e-9 else None,
            "paths": m,
            "sink_nodes": 0,
            "source_nodes": 0,
        }
        for name, value in want.items():
            expected = None if value is None else pytest.approx(value, rel=1e-5, abs=1e-9)
            assert row[name] == expected, (path, name)
        assert all(isinstance(row[name], int) for name in ("nodes", "edges", "wedges", "cut_edges", "max_degree"))


@pytest.mark.parametrize("kind", KINDS)
def test_every_metric_is_that_of_the_graph(kind: str) -> None:
    model, masks = small(0.6)
    table = topognn.layer_topometrics(model, kind, masks, (2, 4, 4))  # type: ignore[arg-type]
    graphs = topognn.bipartite(model, kind, masks, (2, 4, 4))  # type: ignore[arg-type]
    assert table.columns == ("nodes", "edges", "density", *LAYER_METRICS)
    for path, graph in graphs.items():
        values = topognn.topometrics(graph)
        for name in topognn.METRICS:
            assert table[path][name] == pytest.approx(values[name], rel=1e-5, abs=1e-6), (path, name)
    for name, mean in table.means.items():
        column = [row[name] for row in table.values() if row[name] is not None]
        assert mean == pytest.approx(np.mean(column)), name


def test_empty_and_even_layers() -> None:
    model = nn.ModuleList([nn.Linear(4, 3), nn.Linear(4, 3), nn.Linear(4, 3)])
    masks = {"0.weight": torch.zeros(3, 4), "1.weight": torch.ones(3, 4), "2.weight": torch.eye(3, 4)}
    table = topognn.layer_topometrics(model, "rolled", masks)
    assert table["0"]["edges"] == table["0"]["wedges"] == table["0"]["spectral_gap"] == 0
    assert table["0"]["delta_r_doubled"] is table["0"]["delta_s_relative"] is None
    assert table["0"]["assortativity"] is table["1"]["assortativity"] is None  # nothing varies
    assert table["1"]["spectral_gap_unweighted"] == pytest.approx(12**0.5)
    assert table["1"]["delta_r_doubled"] == table["1"]["delta_s_relative"] == 1
    assert table["2"]["delta_s_relative"] is None  # a matching: s_1 = 1
    assert table.undefined["assortativity"] == 3 and table.means["assortativity"] is None


def test_an_eigenvalue_that_is_not_found_is_missing_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **more: Any) -> Any:
        raise ConvergenceError("not found")

    model, masks = small()
    monkeypatch.setattr(unrolled, "find_eigenpairs", fail)
    monkeypatch.setattr(module, "spectral_radius", fail)
    expansion = topognn.METRICS["conductance"]
    monkeypatch.setitem(topognn.METRICS, "conductance", expansion._replace(of=fail))
    monkeypatch.setitem(NEEDS, fail, NEEDS[expansion.of])
    names = ["conductance", "cut_edges", "spectral_gap", "spectral_radius_unweighted", "delta_s_relative"]
    table = topognn.layer_topometrics(model, "unrolled", masks, (2, 4, 4), names)
    assert table.undefined == {"nodes": 0, "edges": 0, "density": 0, **dict.fromkeys(names, 3), "cut_edges": 0}


def test_published_columns_are_those_of_the_released_tables(shared: Path) -> None:
    pd = pytest.importorskip("pandas")
    folder = shared / "data" / "mge-snn"
    for kind in ("rolled", "rolled_channel"):
        released = pd.read_csv(folder / "graph_metrics" / kind / f"{kind}-CIFAR-10-CONV-6.csv.gz")
        assert set(PUBLISHED) <= set(released.columns)
        n, m = released["nodes"], released["edges"]
        formulas = {
            **{"density_directed": m / n / (n - 1), "density_undirected": 2 * m / n / (n - 1)},
            **{"avg_degree_all": 2 * m / n, "avg_degree_in": m / n, "nei_one_hop": 1 + m / n, "nei_two_hop": 1 + m / n},
            **{"strenght_out": released["strenght_all"] / 2, "mean_strong": n / released["strong_clusters"]},
        }
        s_2 = (1 - released["delta_r_undirected"]) * 2 * (4 * m / n - 1).clip(lower=0) ** 0.5
        s_1 = released["spectral_gap_unweighted_undirected"] + s_2
        formulas["delta_s_undirected"] = 1 - s_2 / (2 * (s_1 - 1).clip(lower=0) ** 0.5)
        for name, values in formulas.items():
            both = values.notna() & np.isfinite(released[name]) & (m > n / 2)
            assert both.sum() > 500
            np.testing.assert_allclose(values[both], released[name][both], rtol=1e-9, err_msg=name)
    beside = pd.read_csv(folder / "ramanunjan_results" / "CONV-6" / "rolled-CIFAR-10-CONV-6.csv.gz")
    assert set(PUBLISHED_RAMANUJAN) <= set(beside.columns)
    model, masks = small()
    table = topognn.layer_topometrics(model, "rolled", masks)
    assert set(PUBLISHED.values()) <= set(table.columns)
    assert list(table.published.to_frame().columns) == list(PUBLISHED)
    assert table.published.to_frame().index.name == "layer_name"
    assert list(topognn.ramanujan(model, "rolled", masks).published.to_frame().columns) == list(PUBLISHED_RAMANUJAN)


def test_the_mapping_of_columns_is_documented() -> None:
    text = (Path(__file__).parents[1] / "docs" / "layers.md").read_text()
    for theirs, ours in {**PUBLISHED, **PUBLISHED_RAMANUJAN}.items():
        (row, *_) = [line for line in text.splitlines() if line.startswith("|") and f"`{theirs}`" in line.split("|")[1]]
        assert f"`{ours}`" in row or (theirs == ours and "| same |" in row), theirs


def test_metrics_can_be_chosen() -> None:
    model, masks = small()
    table = topognn.layer_topometrics(model, "rolled", masks, metrics=["wedges", "k_core"])
    assert table.columns == ("nodes", "edges", "density", "wedges", "k_core")
    assert table.published.columns == ("layer_sparsity", "nodes", "edges", "motifs_count", "coreness_all")
    with pytest.raises(UnknownNameError, match="unknown metric 'wedge': did you mean 'wedges'"):
        topognn.layer_topometrics(model, "rolled", masks, metrics=["wedge"])


def test_two_host_syncs_without_lanczos() -> None:
    model, masks = small()
    names = [name for name in LAYER_METRICS if name not in OF_SPECTRA] + ["spectral_gap", *SPECTRAL]
    before = count_syncs()
    topognn.layer_topometrics(model, "rolled", masks, metrics=names)
    assert count_syncs() == before + 2


def test_fake_cuda_and_its_sync_budget() -> None:
    cuda = torch.device("cuda", 0)
    free = [name for name in LAYER_METRICS if name not in OF_SPECTRA and name != "k_core"]
    names = [*free, "spectral_gap", *SPECTRAL]
    real = roll("a", torch.ones(9, 2, 3, 3, dtype=torch.bool), torch.ones(9, 2, 3, 3), 1, False)
    topognn.topometrics(encode_layers({"a": real})["a"], ["two_hop", "motifs"])  # made of real tables
    with FakeTensorMode(allow_non_fake_inputs=False) as mode:
        mask = torch.empty(9, 2, 3, 3, dtype=torch.bool, device=cuda)
        layer = roll("a", mask, torch.empty(9, 2, 3, 3, device=cuda), 1, False)
        layers = {"a": layer._replace(layout=fake(real.layout, mode).to(cuda))}
        with answering([82, 82]):
            graphs = encode_layers(layers)
        with answering([float(n) for n in range(1 + len(names))]):
            columns = measure_graphs(list(graphs.values()), [layers["a"].density], names, True)
    assert columns["wedges"] == [1 + names.index("wedges")]
    assert EXTRA.keys() < set(names)


def test_the_guide_runs_as_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pandas")
    text = (Path(__file__).parents[1] / "docs" / "layers.md").read_text()
    block, _ = [part.split("```")[0] for part in text.split("```python\n")[1:]]
    exec(block, {})
    delta, mean, undefined = map(float, capsys.readouterr().out.split())
    assert -1 < delta < 1 and -1 < mean < 1 and undefined == int(undefined)
