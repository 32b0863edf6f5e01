"""Which topometrics by which route, at what cost: told before anything large is allocated."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from topognn.encoding.multipartite import encode
from topognn.graph import MultipartiteGraph
from topognn.masks import Masks
from topognn.memory import get_free_memory, get_held_memory
from topognn.metrics.registry import check_names
from topognn.needs import START, NeedOf, RowsKind, get_rows_seconds, get_total_bytes
from topognn.report import group_needs
from topognn.tracing.layout import Layout


class Step(NamedTuple):
    """Topometrics that are found together.

    Attributes:
        metrics: Their names.
        route: ``"masks"``, ``"channels"``, ``"connections"`` or ``"rows"``; see :class:`topognn.needs.Need`.
        bytes: Estimated, beyond what is held now.
        seconds: Estimated, from a third to thrice; what steps before have built counts there.
        fits: Whether that many bytes are free; True if that cannot be told.
    """

    metrics: tuple[str, ...]
    route: str
    bytes: int
    seconds: float
    fits: bool


@dataclasses.dataclass(frozen=True)
class Plan:
    """What topometrics of a graph would take. Made by :func:`plan`.

    Attributes:
        nodes, edges: The graph's; parallel edges count apart.
        device: Where it is.
        held: Bytes held now: by this process on the CPU, by torch on a GPU.
        free: Bytes that can still be allocated, within the limit of :func:`topognn.memory_limit`; None: unknown.
        steps: In the order in which they would be made.
    """

    nodes: int
    edges: int
    device: str
    held: int
    free: int | None
    steps: tuple[Step, ...]

    @property
    def bytes(self) -> int:
        """The most that a step which fits needs beyond what is held now."""
        return max((step.bytes for step in self.steps if step.fits), default=0)

    @property
    def seconds(self) -> float:
        """What the steps that fit take together."""
        return sum(step.seconds for step in self.steps if step.fits)

    def to_dict(self) -> dict[str, Any]:
        """Return all as plain lists and numbers."""
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        steps = [{**step._asdict(), "metrics": list(step.metrics)} for step in self.steps]
        return own | {"steps": steps, "bytes": self.bytes, "seconds": self.seconds}

    def to_json(self) -> str:
        """Return all as JSON."""
        return json.dumps(self.to_dict(), indent=2) + "\n"


def plan(
    graph: MultipartiteGraph | Layout, metrics: Iterable[str] | None = None, *, masks: Masks | None = None
) -> Plan:
    """Return which topometrics would be found by which route, and what each would take; nothing of it is done.

    Args:
        graph: A graph, or a layout that :func:`topognn.trace` made, to be encoded with ``masks`` (degrees only).
        metrics: Names of topometrics; all of :data:`topognn.METRICS` by default.
        masks: See :func:`topognn.encode`; for a layout.

    Returns:
        The plan. No host sync for a graph.

    Raises:
        UnknownNameError: There is no such metric.
        MaskError, TraceError: See :func:`topognn.encode`.

    >>> import topognn
    >>> for step in plan(topognn.example_graph(), ["one_hop", "components", "k_core"]).steps:
    ...     print(step.metrics, step.route)
    ('one_hop',) masks
    ('components',) connections
    ('k_core',) rows
    """
    if isinstance(graph, Layout):
        graph = encode(graph, masks=masks)
    free, built = get_free_memory(graph.device), set[RowsKind]()
    steps = []
    for need_of, names in _split(graph, group_needs(check_names(metrics)), free):
        need = need_of(graph, names)
        size, seconds = get_total_bytes(graph, need), START + need.seconds
        fits = free is None or size <= free
        for kind in need.rows:
            if kind not in built and not graph.has_rows(*kind):
                seconds += get_rows_seconds(graph, kind)
                built |= {kind, (kind[0], False)} if fits else set()
        steps.append(Step(tuple(names), need.route, size, seconds, fits))
    held = get_held_memory(graph.device)
    return Plan(graph.num_nodes, graph.num_uses, str(graph.device), held, free, tuple(steps))


def _split(
    graph: MultipartiteGraph, needs: Mapping[NeedOf, Sequence[str]], free: int | None
) -> Iterator[tuple[NeedOf, Sequence[str]]]:
    """Yield topometrics that are found together; those apart that do not fit where others do."""
    for need_of, names in needs.items():
        if free is None or get_total_bytes(graph, need_of(graph, names)) <= free:
            yield need_of, names
            continue
        parts: dict[int, list[str]] = {}  # 0: what fits
        for name in names:
            size = get_total_bytes(graph, need_of(graph, [name]))
            parts.setdefault(0 if size <= free else size, []).append(name)
        for size in sorted(parts):
            yield need_of, parts[size]
