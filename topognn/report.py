"""From a graph to its topometrics, one analysis in memory at a time, and nothing begun that would not fit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from topognn.errors import ConvergenceError, GraphMemoryError
from topognn.graph import MultipartiteGraph
from topognn.memory import format_bytes, get_free_memory, is_free
from topognn.metrics.registry import METRICS, check_names
from topognn.needs import NEEDS, NeedOf, get_rows_bytes, get_total_bytes
from topognn.results import Topometrics


def topometrics(graph: MultipartiteGraph, metrics: Iterable[str] | None = None) -> Topometrics:
    """Compute topometrics of a graph.

    Args:
        graph: The graph, as :func:`topognn.encode` makes it.
        metrics: Their names; by default all of :data:`topognn.METRICS` that fit in memory.

    Returns:
        A mapping from name to number, which makes one host sync, when it is first read. (``k_core`` makes some of
        its own on a GPU: see there.) Counts from 2**53 on are rounded: :func:`topognn.metrics.motifs4` has them
        as int64. By default, what does not fit in the memory that is free, or within :func:`topognn.memory_limit`,
        when its turn comes is in :attr:`Topometrics.left_out`, and spectra that do not converge are in
        :attr:`Topometrics.not_found`; all others are computed.

    Raises:
        UnknownNameError: There is no such metric; the message names the nearest.
        GraphMemoryError: A metric that was asked for by name does not fit in memory: where that can be told, before
            anything is begun.
        ConvergenceError: A spectral metric that was asked for by name was not found.

    Source:
        Cunegatti et al., TMLR 2024, section 4.1 and table 1.

    >>> from topognn import example_graph
    >>> topometrics(example_graph(), ["sink_nodes", "strength"])["strength"]
    0.8947368421052632
    """
    names = check_names(metrics)
    if metrics is not None:
        check_room(graph, names)
    found: dict[str, Tensor] = {}
    left_out: dict[str, int] = {}
    not_found: dict[str, str] = {}
    for need_of, those in group_needs(names).items():  # one analysis in memory at a time
        beyond = find_beyond(graph, need_of, those)
        if beyond and metrics is not None:
            _refuse(graph, *next(iter(beyond.items())))
        left_out |= beyond
        fitting = [name for name in those if name not in beyond]
        try:
            found |= _evaluate(graph, fitting)
        except GraphMemoryError:  # less was free than when it was asked
            if metrics is not None:
                raise
            left_out |= {name: get_total_bytes(graph, need_of(graph, [name])) for name in fitting}
        except ConvergenceError as error:
            if metrics is not None:
                raise
            not_found |= dict.fromkeys(fitting, str(error))
    names = [name for name in names if name in found]
    values = [found[name] for name in names]
    stacked = torch.stack(values) if values else torch.empty(0, dtype=torch.float64)
    num_edges = _count_edges(graph, left_out)
    return Topometrics(names, stacked, graph.num_nodes, num_edges, left_out, not_found)


def _count_edges(graph: MultipartiteGraph, left_out: dict[str, int]) -> int | None:
    """Return the number of edges; None if it takes rows that do not fit, which is then said in ``left_out``."""
    try:
        return graph.num_edges
    except GraphMemoryError:
        left_out["edges"] = get_rows_bytes(graph, ("in", False))
        return None


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
    for need_of, those in group_needs(names).items():
        for name, size in find_beyond(graph, need_of, those).items():
            _refuse(graph, name, size)


def find_beyond(graph: MultipartiteGraph, need_of: NeedOf, names: Sequence[str]) -> dict[str, int]:
    """Return which of the topometrics that are found together do not fit in memory, with the bytes that each needs.

    What the graph holds and can make again makes room for them.
    """
    if is_free(get_total_bytes(graph, need_of(graph, names)), graph.device):
        return {}
    graph.forget()
    needs = {name: get_total_bytes(graph, need_of(graph, [name])) for name in names}
    return {name: size for name, size in needs.items() if not is_free(size, graph.device)}


def _refuse(graph: MultipartiteGraph, name: str, size: int) -> None:
    free = get_free_memory(graph.device) or 0
    raise GraphMemoryError(
        f"{name} of {graph.num_uses:,} edges needs {format_bytes(size)} on {graph.device}, and {format_bytes(free)} "
        "are free: leave it out, or encode at a smaller input shape or a higher sparsity (topognn.plan, or "
        "`topognn report --plan`, tells what each topometric needs)"
    )


def _evaluate(graph: MultipartiteGraph, names: Sequence[str]) -> dict[str, Tensor]:
    """Return the values of topometrics that share an analysis; float64 scalars."""
    if not names:
        return {}
    of = METRICS[names[0]].of
    analysis = graph if of is None else of(graph)
    return {name: METRICS[name].function(analysis).to(torch.float64) for name in names}
