"""What `topognn report` does: from its arguments to numbers, phase by phase."""

from __future__ import annotations

import contextlib
import re
import sys
import time
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from topognn.cli.outcome import Outcome, Request
from topognn.cli.sources import ArgumentError, find_source
from topognn.errors import DeviceError, GraphMemoryError, unknown_name

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from topognn.graph import MultipartiteGraph
    from topognn.results import Topometrics

Status = Callable[[str], AbstractContextManager[Any]]


class Prepared(NamedTuple):
    """A request's model as a graph, of which nothing is measured yet; ``seconds`` is the wall time of each phase."""

    model: nn.Module
    input_shape: tuple[int, ...]
    masks: dict[str, Tensor]
    graph: MultipartiteGraph
    seconds: dict[str, float]


def prepare(request: Request, status: Status = contextlib.nullcontext) -> Prepared:
    """Build, trace, prune and encode the model of a request: see :func:`measure`.

    >>> prepare(Request("conv6")).graph.num_nodes
    232970
    """
    import topognn
    from topognn.metrics.registry import METRICS

    check_origin(request)
    pick_metrics(request.metrics, METRICS)
    device = pick_device(request.device)
    seconds: dict[str, float] = {}
    phase = _timer(request, status, seconds)
    if device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats(device)
    with phase("build"):
        model, input_shape = build_model(request, device)
    with phase("trace"):
        shortcuts = cast(Literal["parametric", "all"], request.shortcuts)
        attention = cast(Literal["all", "values"], request.attention)
        layout = topognn.trace(model, input_shape, shortcuts=shortcuts, attention=attention)
    with phase("prune"):
        masks = make_masks(model, request, input_shape)
    with phase("encode"):
        graph = topognn.encode(layout, masks=masks, device=device)
    return Prepared(model, input_shape, masks, graph, seconds)


def measure(request: Request, status: Status = contextlib.nullcontext) -> Outcome:
    """Build, trace, prune and encode the model of a request, and compute its topometrics.

    Args:
        request: What to do.
        status: Called with the name of each phase: what it returns is entered for as long as that lasts.

    Raises:
        TopognnError: See :func:`find_source`, :func:`topognn.trace`, :func:`topognn.prune`,
            :func:`topognn.encode` and :func:`topognn.topometrics`.
        GraphMemoryError: No topometric fits within ``--memory``.

    >>> measure(Request("conv6", metrics="sink_nodes")).topometrics["nodes"]
    232970
    """
    import torch

    import topognn
    from topognn.kernels.host import read
    from topognn.memory import memory_limit
    from topognn.metrics.registry import METRICS

    limit = parse_bytes(request.memory)
    model, input_shape, masks, graph, seconds = prepare(request, status)
    phase = _timer(request, status, seconds)
    tables: dict[str, Any] = {}
    refused: dict[str, str] = {}
    baselines = None
    with memory_limit(limit):
        with phase("metrics"):
            values = topognn.topometrics(graph, pick_metrics(request.metrics, METRICS))
            _check_any(graph, values, limit)
            values.to_dict()  # waits for the device, so that the time is that of the work
            for name, wanted, make in (
                ("layers", request.layers, topognn.layer_table),
                ("where", request.where, topognn.trouble_table),
            ):
                try:
                    tables[name] = make(graph) if wanted else None
                except GraphMemoryError as error:  # what was measured is not thrown away
                    refused[name] = str(error)
        if request.baselines:
            from topognn.baselines.summary import summarise_baselines

            with phase("baselines"):
                baselines = summarise_baselines(model, masks)
    kept = read(torch.stack([mask.sum() for mask in masks.values()])) if masks else []
    return Outcome(
        request=request,
        input_shape=input_shape,
        origin=describe_origin(request),
        kept=int(sum(kept)),
        weights=sum(mask.numel() for mask in masks.values()),
        device=str(graph.device),
        topometrics=values,
        layers=tables.get("layers"),
        trouble=tables.get("where"),
        baselines=baselines,
        refused=refused,
        seconds=seconds,
        peak_bytes=get_peak_bytes(graph.device),
    )


def _check_any(graph: MultipartiteGraph, values: Topometrics, limit: int | None) -> None:
    """Refuse a limit within which no topometric fits: a report of nothing is none.

    Raises:
        GraphMemoryError: That is so; the message names the least that one needs.
    """
    from topognn.memory import format_bytes, get_held_memory

    if not values.left_out or values.not_found or len(values) > len({"nodes", "edges"} & set(values)):
        return
    least, name = min((size, name) for name, size in values.left_out.items())
    held = get_held_memory(graph.device)
    within = "the memory that is free" if limit is None else f"a limit of {format_bytes(limit)}"
    raise GraphMemoryError(
        f"no topometric of {graph.num_uses:,} edges fits within {within}: with model, masks and libraries "
        f"{format_bytes(held)} are held already, and {name}, which needs least, takes {format_bytes(least)} more: "
        f"allow {format_bytes(1.05 * (held + least))}, or encode at a smaller input shape"
    )


def _timer(request: Request, status: Status, seconds: dict[str, float]) -> Status:
    """Return what times a phase and shows that it runs."""

    @contextlib.contextmanager
    def phase(name: str) -> Iterator[None]:
        start = time.perf_counter()
        with status(f"{name} {request.model}"):
            yield
        seconds[name] = time.perf_counter() - start

    return phase


def parse_bytes(text: str | None) -> int | None:
    """Return the bytes that ``--memory`` means: a number with a unit, of 1000 (GB) or of 1024 (GiB); None for None.

    Raises:
        ArgumentError: It is no such number, or nothing.

    >>> parse_bytes("8GB"), parse_bytes("1.5 GiB"), parse_bytes("500mb")
    (8000000000, 1610612736, 500000000)
    """
    if text is None:
        return None
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:([kmgt])(i?))?b?\s*", text, re.IGNORECASE)
    if match is None:
        raise ArgumentError(f"--memory {text!r} is no number of bytes: give a size such as 8GB or 512MiB.")
    number, unit, binary = match.groups()
    size = int(float(number) * (1024 if binary else 1000) ** ("kmgt".index(unit.lower()) + 1 if unit else 0))
    if size < 1:
        raise ArgumentError(f"--memory {text!r} leaves nothing: give a size such as 8GB or 512MiB.")
    return size


def check_origin(request: Request) -> None:
    """Refuse, before anything slow, what can be told to be wrong of where masks come from."""
    from topognn.pruning import PRUNERS, needs_data

    if request.pruner is not None and request.pruner not in PRUNERS:
        raise unknown_name("pruner", request.pruner, PRUNERS)
    if (request.pruner is None) != (request.sparsity is None):
        given, other = ("--sparsity", "--pruner") if request.pruner is None else ("--pruner", "--sparsity")
        raise ArgumentError(f"{given} needs {other} beside it, such as --pruner synflow --sparsity 0.98.")
    if request.pruner is not None and request.masks is not None:
        raise ArgumentError("--pruner and --masks both say which weights are kept: leave one out.")
    if request.pruner is not None and needs_data(request.pruner):
        raise ArgumentError(
            f"{request.pruner} needs data, which a report has not: use `topognn train` or topognn.prune()."
        )


def pick_metrics(text: str | None, known: Collection[str]) -> list[str] | None:
    """Return the names that ``--metrics`` lists, None for all.

    Raises:
        UnknownNameError: One is not known.

    >>> pick_metrics("one_hop, two_hop", ["one_hop", "two_hop", "strength"])
    ['one_hop', 'two_hop']
    """
    if text is None:
        return None
    names = list(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in known:
            raise unknown_name("metric", name, known)
    return names


def build_model(request: Request, device: torch.device) -> tuple[nn.Module, tuple[int, ...]]:
    """Return the model of a request, its weights drawn or loaded, on a device; and the shape of one input."""
    import torch

    from topognn.cli.weights import load_weights

    source = find_source(request.model, request.input, request.classes)
    torch.manual_seed(request.seed)
    model = source.build()
    if request.checkpoint is not None:
        load_weights(model, request.checkpoint)
    return model.to(device), source.input_shape


def make_masks(model: nn.Module, request: Request, shape: tuple[int, ...]) -> dict[str, Tensor]:
    """Return the masks of a request: pruned now, of a file, or of the zeros in the weights."""
    from topognn.masks import get_masks
    from topognn.pruning import prune

    if request.pruner is not None and request.sparsity is not None:
        return prune(model, request.pruner, request.sparsity, seed=request.seed, input_shape=shape)
    if request.masks is not None or request.checkpoint is not None:
        return get_masks(model, request.masks or request.checkpoint)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that it is dense: the report says so anyway
        return get_masks(model)


def describe_origin(request: Request) -> str:
    """Return where weights and masks are from, in words."""
    weights = f"weights of {request.checkpoint}" if request.checkpoint else f"random weights (seed {request.seed})"
    if request.pruner is not None:
        return f"{weights}, {request.pruner} at sparsity {request.sparsity:g}"
    return f"{weights}, masks of {request.masks}" if request.masks else weights


def pick_device(text: str | None = None) -> torch.device:
    """Return the device that ``--device`` means: by default a GPU where kernels can run on one.

    Raises:
        ArgumentError: There is no such kind of device.
        DeviceError: The device cannot be served here.

    >>> pick_device("cpu")
    device(type='cpu')
    """
    import torch

    from topognn.kernels.launch import check_device

    if text is None:
        device = torch.device("cpu")
        with contextlib.suppress(DeviceError):
            device = check_device("cuda")
        return device
    try:
        device = torch.device(text)
    except RuntimeError:
        raise ArgumentError(f"--device {text!r} is no device: give cpu, cuda, or cuda:NUMBER.") from None
    device = check_device(device)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"{device} was asked for, but the GPUs here are cuda:0 to cuda:{torch.cuda.device_count() - 1}"
        )
    return device


def get_peak_bytes(device: torch.device) -> int:
    """Return the most memory held so far: by torch on a GPU, by the process on the CPU."""
    if device.type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated(device)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
