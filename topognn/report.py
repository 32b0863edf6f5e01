"""From a graph to its topometrics, one analysis in memory at a time, and nothing begun that would not fit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from topognn.errors import GraphMemoryError
from topognn.graph import MultipartiteGraph
from topognn.memory import format_bytes, get_free_memory, is_free
from topognn.metrics.registry import METRICS, check_names
from topognn.needs import NEEDS, NeedOf, get_total_bytes
from topognn.results import Topometrics


def topometrics(graph: MultipartiteGraph, metrics: Iterable[str] | None = None) -> Topometrics:
    """Compute topometrics of a graph.

    Args:
        graph: The graph, as :func:`topognn.encode` makes it.
        metrics: Their names; by default all of :data:`topognn.METRICS` that fit in memory.

    Returns:
        A mapping from name to number, which makes one host sync, when it is first read. (``k_core`` makes some of
        its own on a GPU: see there.) Counts from 2**53 on are rounded: :func:`topognn.metrics.motifs4` has them
        as int64. What does not fit in the memory that is free, or within :func:`topognn.memory_limit`, is in
        :attr:`Topometrics.left_out` by default.

    Raises:
        UnknownNameError: There is no such metric; the message names the nearest.
        GraphMemoryError: A metric that was asked for by name would not fit in memory; nothing has been begun.

    Source:
        Cunegatti et al., TMLR 2024, section 4.1 and table 1.

    >>> from topognn import example_graph
    >>> topometrics(example_graph(), ["sink_nodes", "strength"])["strength"]
    0.8947368421052632
    """
    names = check_names(metrics)
    needs = group_needs(names)
    left_out = _find_beyond(graph, needs)
    if left_out and metrics is not None:
        _refuse(graph, *next(iter(left_out.items())))
    found: dict[str, Tensor] = {}
    for need_of, those in needs.items():  # one analysis in memory at a time
        if those[0] not in left_out:
            if not is_free(get_total_bytes(graph, need_of(graph, those)), graph.device):
                graph.forget_rows()  # of other steps
            found |= _evaluate(graph, those)
    names = [name for name in names if name not in left_out]
    values = [found[name] for name in names]
    stacked = torch.stack(values) if values else torch.empty(0, dtype=torch.float64)
    return Topometrics(names, stacked, graph.num_nodes, graph.num_edges, left_out)


def group_needs(names: Iterable[str]) -> dict[NeedOf, list[str]]:
    """Return what tells what topometrics need, with the names of those that are found together."""
    needs: dict[NeedOf, list[str]] = {}
    for name in names:
        needs.setdefault(NEEDS[METRICS[name].of or METRICS[name].function], []).append(name)
    return needs


def check_room(graph: MultipartiteGraph, names: Iterable[str]) -> None:
    """Refuse topometrics that would not fit in memory, before anything is begun.

    Raises:
        GraphMemoryError: What one needs is not free.
    """
    for name, size in _find_beyond(graph, group_needs(names)).items():
        _refuse(graph, name, size)


def _find_beyond(graph: MultipartiteGraph, needs: Mapping[NeedOf, Sequence[str]]) -> dict[str, int]:
    """Return the topometrics that do not fit in memory, with the bytes that they need."""
    beyond: dict[str, int] = {}
    for need_of, names in needs.items():
        size = get_total_bytes(graph, need_of(graph, names))
        if not is_free(size, graph.device):
            graph.forget_rows()
            size = get_total_bytes(graph, need_of(graph, names))
            beyond |= {} if is_free(size, graph.device) else dict.fromkeys(names, size)
    return beyond


def _refuse(graph: MultipartiteGraph, name: str, size: int) -> None:
    free = get_free_memory(graph.device) or 0
    raise GraphMemoryError(
        f"{name} of {graph.num_uses:,} edges needs {format_bytes(size)} on {graph.device}, and {format_bytes(free)} "
        "are free: leave it out, or encode at a smaller input shape or a higher sparsity (topognn.plan, or "
        "`topognn report --plan`, tells what each topometric needs)"
    )


def _evaluate(graph: MultipartiteGraph, names: Sequence[str]) -> dict[str, Tensor]:
    """Return the values of topometrics that share an analysis; float64 scalars."""
    of = METRICS[names[0]].of
    analysis = graph if of is None else of(graph)
    return {name: METRICS[name].function(analysis).to(torch.float64) for name in names}
