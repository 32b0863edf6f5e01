"""A checkpoint's layers measured one at a time: one in memory, a row for each, and the network's means."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from topognn.baselines.columns import EXTRA, PUBLISHED, PUBLISHED_RAMANUJAN, SPECTRAL
from topognn.baselines.layers import COUNTS, LAYER_METRICS, measure_graphs
from topognn.baselines.scores import COLUMNS, find_leading, score_graphs
from topognn.baselines.tables import LayerTable, make_table
from topognn.encoding.layer_graphs import Kind, encode_layers, roll
from topognn.errors import GraphMemoryError, unknown_name
from topognn.kernels.host import read
from topognn.memory import get_free_memory
from topognn.shards.loading import load_layer
from topognn.shards.planning import CheckpointPlan, StoredLayer, plan_checkpoint

if TYPE_CHECKING:
    from topognn.shards.rows import RowFolder

Row = dict[str, Any]
# What a row says of a layer in words; what it counts; then the columns of `ramanujan` and of `layer_topometrics`.
TEXTS = ("layer", "shape", "dtype", "form", "file")
SIZES = (
    *("weights", "kept", "left", "right", "isolated_left", "isolated_right"),
    *("left_degree_min", "left_degree_max", "right_degree_min", "right_degree_max"),
)
# The metrics that follow from degrees, strengths and singular values: no list of edges is made for them.
CHEAP = (
    *("disconnected_nodes", "one_hop", "two_hop", "strength", "spectral_gap", "spectral_radius"),
    *(name for name in EXTRA if name != "smallest_component"),
    *(*SPECTRAL, "spectral_radius_unweighted"),
)
KINDS = ("rolled", "rolled-channel")
_A_WEIGHT = 24  # bytes that measuring a layer takes, and for every entry of its Gram matrix
_AN_ENTRY = 24


class CheckpointTables(NamedTuple):
    """What was measured of a checkpoint.

    Attributes:
        plan: The layers, and what was left out.
        kind: Their encoding.
        rows: A row a layer: :data:`TEXTS`, :data:`SIZES`, then the columns of the tables.
        tables: By name: ``sizes``, and ``ramanujan`` and ``topometrics`` as :func:`topognn.ramanujan` and
            :func:`topognn.layer_topometrics` have them.
    """

    plan: CheckpointPlan
    kind: str
    rows: Sequence[Row]
    tables: Mapping[str, LayerTable]

    @property
    def summary(self) -> dict[str, int | float]:
        """The network in a few numbers: layers, their weights, those kept, density, neurons without a weight."""
        names = ("weights", "kept", "isolated_left", "isolated_right")
        sums = {name: sum(row[name] for row in self.rows) for name in names}
        return {"layers": len(self.rows), **sums, "density": sums["kept"] / max(1, sums["weights"])}


def measure_checkpoint(
    checkpoint: str,
    kind: Kind = "rolled",
    *,
    masks: str | None = None,
    layers: Sequence[str] = (),
    skip: Sequence[str] = (),
    metrics: Sequence[str] | None = None,
    out: str | None = None,
    device: torch.device | str = "cpu",
) -> CheckpointTables:
    """Measure each layer of a checkpoint, without a model: one layer at a time is in memory.

    Without a model, groups and transposition of convolutions are unknown: a weight ``(out, in, *kernel)`` is taken as
    that of one group, not transposed.

    Args:
        checkpoint: A file of tensors, a pattern of shards, or an index (:func:`topognn.shards.finding.list_tensors`).
        kind: ``"rolled"`` or ``"rolled-channel"``, see :func:`topognn.bipartite`.
        masks, layers, skip: See :func:`topognn.shards.planning.plan_checkpoint`.
        metrics: Names of :func:`topognn.layer_topometrics`; by default :data:`CHEAP`, those that need no list of edges.
        out: Folder for a Parquet row a layer, and ``layers.parquet`` of all; rows that are there are not made again.
        device: Where layers are measured.

    Raises:
        CheckpointError, MaskError: See :func:`topognn.shards.planning.plan_checkpoint`; or the folder is another
            checkpoint's, or cannot be written.
        UnknownNameError: There is no such encoding or metric.
        GraphMemoryError: The largest layer would not fit in the memory that is free.

    Takes at most 24 bytes a weight of the largest layer, and 24 for each entry of its Gram matrix; metrics that need
    lists of edges take more.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     torch.save({"fc.weight": torch.eye(3), "fc.bias": torch.ones(3)}, f"{folder}/net.pt")
    ...     found = measure_checkpoint(f"{folder}/net.pt")
    >>> found.summary["kept"], found.tables["ramanujan"]["fc"]["d_l"]
    (3, 1.0)
    """
    plan = plan_checkpoint(checkpoint, masks=masks, layers=layers, skip=skip)
    return measure_plan(plan, kind, metrics=metrics, out=out, device=device)


def measure_plan(
    plan: CheckpointPlan,
    kind: Kind = "rolled",
    *,
    metrics: Sequence[str] | None = None,
    out: str | None = None,
    device: torch.device | str = "cpu",
    show: Callable[[StoredLayer], None] = lambda layer: None,
) -> CheckpointTables:
    """Measure the layers of a plan; ``show`` is called after each. See :func:`measure_checkpoint`."""
    if kind not in KINDS:
        raise unknown_name("encoding of a checkpoint's layers", kind, KINDS)
    names = list(dict.fromkeys(CHEAP if metrics is None else metrics))
    for name in names:
        if name not in LAYER_METRICS:
            raise unknown_name("metric", name, LAYER_METRICS)
    device = torch.device(device)
    _check_memory(plan, device)
    rows = []
    for layer, row in _stream(plan, kind, names, device, out):
        rows.append(row)
        show(layer)
    return CheckpointTables(plan, kind, rows, _make_tables(kind, rows, names))


def get_types(names: Sequence[str]) -> dict[str, type]:
    """Return the columns of a row, in order, and what each is."""
    columns: dict[str, type] = dict.fromkeys(TEXTS, str) | dict.fromkeys(SIZES, int) | COLUMNS
    return columns | {name: int if name in COUNTS else float for name in ("nodes", *names) if name not in columns}


def _stream(
    plan: CheckpointPlan, kind: Kind, names: Sequence[str], device: torch.device, out: str | None
) -> Iterator[tuple[StoredLayer, Row]]:
    """Yield each layer's row, measured now or found in the folder ``out``; gather all at the end."""
    if out is None:
        for layer in plan.layers:
            yield layer, measure_layer(layer, kind, names, device)
        return
    from topognn.shards.rows import RowFolder

    folder: RowFolder = RowFolder(out, get_types(names))
    with folder.working(plan, kind, names):
        for layer in plan.layers:
            row = folder.read_row(layer.name)
            if row is None:
                row = measure_layer(layer, kind, names, device)
                folder.write_row(row)
            yield layer, row
        folder.gather([layer.name for layer in plan.layers])


def measure_layer(layer: StoredLayer, kind: Kind, names: Sequence[str], device: torch.device) -> Row:
    """Return the row of one layer, which is read, measured and forgotten."""
    kept, weight = load_layer(layer, device)
    count = kept.count_nonzero()
    rolled = roll(layer.name, kept, weight, 1, kind == "rolled-channel")
    del kept, weight
    (graph,), density = encode_layers({layer.name: rolled}).values(), rolled.density
    del rolled
    left, right = (part.size for part in graph.partitions)
    degrees = (graph.out_degrees[:left], graph.in_degrees[left:])
    ends = [pick(side) for side in degrees for pick in (torch.min, torch.max)] if left * right else [count] * 4
    isolated = [(side == 0).sum() for side in degrees]
    kept_count, *numbers = map(int, read(torch.stack([count, *isolated, *ends])))
    leading = (find_leading([graph], False, True), find_leading([graph], True, True))
    (scores,) = score_graphs([graph], [density], True, leading)
    values = measure_graphs([graph], [density], names, True, leading)
    sizes = (math.prod(layer.shape), kept_count, left, right, *numbers)
    texts = (layer.name, "x".join(map(str, layer.shape)), layer.main.dtype, layer.form, layer.main.file.name)
    numbers_of = dict(zip(COLUMNS, scores, strict=True)) | {name: value for name, (value,) in values.items()}
    types = get_types(names)
    row = dict(zip(TEXTS, texts, strict=True)) | dict(zip(SIZES, sizes, strict=True))
    return row | {name: None if math.isnan(value) else types[name](value) for name, value in numbers_of.items()}


def _make_tables(kind: str, rows: Sequence[Row], names: Sequence[str]) -> dict[str, LayerTable]:
    """Return the numbers of rows as the tables that a model's layers have."""
    columns = {
        "sizes": (SIZES, {}),
        "ramanujan": (tuple(COLUMNS), PUBLISHED_RAMANUJAN),
        "topometrics": (("nodes", "edges", "density", *names), PUBLISHED),
    }
    types = get_types(names)
    return {
        table: make_table(
            kind,
            [row["layer"] for row in rows],
            {name: [math.nan if row[name] is None else row[name] for row in rows] for name in own},
            {name: types[name] for name in own},
            published,
        )
        for table, (own, published) in columns.items()
    }


def estimate_bytes(layer: StoredLayer) -> int:
    """Return how many bytes measuring a layer takes at most, without metrics that need lists of edges."""
    weights = math.prod(layer.shape)
    return _A_WEIGHT * weights + _AN_ENTRY * min(layer.shape[0], weights // max(1, layer.shape[0])) ** 2


def _check_memory(plan: CheckpointPlan, device: torch.device) -> None:
    largest = max(plan.layers, key=estimate_bytes)
    need, free = estimate_bytes(largest), get_free_memory(device)
    if free is not None and need > free:
        raise GraphMemoryError(
            f"layer {largest.name!r} of shape {largest.shape} takes about {need / 2**30:.1f} GiB, and "
            f"{free / 2**30:.1f} GiB are free: leave it out with --skip, or use a larger machine."
        )
