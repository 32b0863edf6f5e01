"""Topometrics of a model while it trains: `benchmarks/monitor.py` says what they cost of a training step."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Literal

import torch
from torch import Tensor, nn

from topognn.encoding.again import encode_again, start_series
from topognn.encoding.multipartite import encode
from topognn.errors import TrainingError
from topognn.graph import MultipartiteGraph
from topognn.kernels.host import read
from topognn.masks import get_masks, prunable_weights
from topognn.metrics.registry import METRICS, check_names
from topognn.monitoring.history import History
from topognn.pruning.applying import get_pruned
from topognn.report import topometrics
from topognn.results import Topometrics
from topognn.tracing import trace

# Of masks alone and without a matrix: those that cost least.
CHEAP = ("sink_nodes", "source_nodes", "disconnected_nodes", "one_hop", "effective_density", "log10_paths")


class TopometricsMonitor:
    """Measures a model's topometrics every so many steps: ``monitor(step)`` in the training loop.

    The model is traced once, here. A call encodes anew only layers whose masks have changed since the last one, on the
    model's device and its current stream, and computes nothing of what cannot have changed. Values stay on the device
    until they are read: from what a call returns, or from :attr:`history`.

    Masks are those that are in force (:func:`topognn.apply_masks`, which the schedulers of ``topognn.pruning.dynamic``
    use too), and else what :func:`topognn.get_masks` finds in the model. To tell that masks in force are the same takes
    no look at the device; otherwise they are compared, for one host sync. A call makes one more if masks have changed.

    Args:
        model: Any model that :func:`topognn.trace` can trace; it is left as it was.
        input_shape: Of one input without the batch, such as ``(3, 32, 32)``.
        metrics: Names of :data:`topognn.METRICS`; by default a few that cost least (:data:`CHEAP`).
        every: Steps between measurements.
        shortcuts, attention: See :func:`topognn.trace`.

    Attributes:
        history: What was measured at which step: a :class:`~topognn.monitoring.history.History`.

    Raises:
        UnknownNameError: There is no such metric.
        TrainingError: ``every`` is no number of steps.
        TraceError, UnsupportedOperation: See :func:`topognn.trace`.

    Source: the topometrics of Cunegatti et al., TMLR 2024, and ours; see :data:`topognn.METRICS`.

    >>> import topognn
    >>> model, masks = topognn.example_model()
    >>> _ = topognn.apply_masks(model, masks)
    >>> monitor = TopometricsMonitor(model, (1, 3, 3), metrics=["sink_nodes", "strength"], every=10)
    >>> for step in range(1, 21):  # ... a training step ...
    ...     _ = monitor(step)
    >>> monitor.history.steps, monitor.history[-1]["sink_nodes"]
    ([10, 20], 1)
    """

    def __init__(
        self,
        model: nn.Module,
        input_shape: Sequence[int],
        metrics: Iterable[str] = CHEAP,
        every: int = 100,
        *,
        shortcuts: Literal["parametric", "all"] = "parametric",
        attention: Literal["all", "values"] = "all",
    ) -> None:
        if every < 1:
            raise TrainingError(f"every={every} is no number of steps: give at least 1.")
        self._names = list(dict.fromkeys(check_names(metrics)))
        self._weighted = [name for name in self._names if METRICS[name].weighted]
        self.every = every
        self.history = History(self._names)
        self._model = model
        self._layout = trace(model, input_shape, shortcuts=shortcuts, attention=attention)
        self._graph: MultipartiteGraph | None = None
        self._prunable = list(prunable_weights(model))
        self._pruned: dict[str, Tensor] = {}  # at the last call, by masks in force
        self._kept: dict[str, Tensor] = {}  # what they keep
        self._masks: dict[str, Tensor] = {}  # at the last call, where no masks were in force
        self._values: Topometrics | None = None

    @torch.no_grad()
    def __call__(self, step: int) -> Topometrics | None:
        """Measure, if ``step`` is a multiple of ``every``, and return it; None otherwise.

        Raises:
            GraphMemoryError: A metric needs a matrix that does not fit in memory.
            ConvergenceError: A spectral metric was not found.
        """
        return None if step % self.every else self.measure(step)

    @torch.no_grad()
    def measure(self, step: int) -> Topometrics:
        """Measure now, whatever the step, and put it into the history; return it."""
        masks, changed = self._find_changes()
        assert self._layout.weights is not None
        weights = self._layout.weights()
        if self._graph is None or self._graph.device != next(iter(weights.values())).device:
            self._graph = start_series(encode(self._layout, masks=masks))
            changed = set(masks)
        elif changed or self._weighted:
            self._graph = encode_again(self._graph, masks, weights, changed, values=bool(self._weighted))
        self._values = self._compute(self._graph, bool(changed))
        self.history.append(step, self._values)
        return self._values

    def _compute(self, graph: MultipartiteGraph, is_changed: bool) -> Topometrics:
        last = self._values
        if last is None or is_changed:
            return topometrics(graph, self._names)
        if not self._weighted:
            return last
        fresh = dict(zip(self._weighted, topometrics(graph, self._weighted).tensor, strict=True))
        held = dict(zip(self._names, last.tensor, strict=True)) | fresh
        return Topometrics(self._names, torch.stack(list(held.values())), graph.num_nodes, graph.num_edges)

    def _find_changes(self) -> tuple[dict[str, Tensor], set[str]]:
        """Return masks, and the names of those that are others than at the last call."""
        if (pruned := self._find_pruned()) is not None:
            changed = {name for name, mask in pruned.items() if mask is not self._pruned.get(name)}
            self._kept = {name: ~mask if name in changed else self._kept[name] for name, mask in pruned.items()}
            self._pruned, self._masks = pruned, {}
            return self._kept, changed
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that the model is dense
            masks = get_masks(self._model)
        known = [name for name in masks if name in self._masks]
        differ = [(masks[name] != self._masks[name].to(masks[name].device)).any() for name in known]
        flags = read(torch.stack(differ)) if differ else []
        same = {name for name, is_other in zip(known, flags, strict=True) if not is_other}
        self._pruned, self._masks = {}, {name: mask.clone() for name, mask in masks.items()}
        return masks, set(masks) - same

    def _find_pruned(self) -> dict[str, Tensor] | None:
        """Return what is pruned by masks that are in force; None unless that is so of all prunable weights."""
        found = {}
        for name in self._prunable:
            weight = attrgetter(name)(self._model)
            pruned = get_pruned(weight) if isinstance(weight, nn.Parameter) else None
            if pruned is None:
                return None
            found[name] = pruned
        return found
