"""A monitor as a callback of Hugging Face's trainer (``pip install transformers[torch]``)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from transformers import TrainerCallback

from topognn.monitoring.monitor import CHEAP, TopometricsMonitor
from topognn.report import Topometrics


class TopometricsCallback(TrainerCallback):  # type: ignore[misc, unused-ignore]
    """Measures topometrics during ``Trainer.train`` and adds the latest to what it logs next, as ``topo/NAME``.

    Args:
        model: Path of the submodule that is measured, as in ``Module.get_submodule``; ``""`` for the model itself.
        input_shape, metrics, every: See :class:`topognn.TopometricsMonitor`.

    Attributes:
        monitor: The monitor, from the start of the training on; its history has all values.
    """

    def __init__(
        self, model: str, input_shape: Sequence[int], metrics: Iterable[str] = CHEAP, every: int = 100
    ) -> None:
        self._model, self._arguments = model, (input_shape, tuple(metrics), every)
        self._latest: Topometrics | None = None
        self.monitor: TopometricsMonitor | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **others: Any) -> None:
        """Trace the model."""
        self.monitor = TopometricsMonitor(model.get_submodule(self._model), *self._arguments)

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Measure, if the step is due."""
        if self.monitor is not None:
            self._latest = self.monitor(state.global_step) or self._latest

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **others: Any) -> None:
        """Add the latest values to what is logged."""
        if self._latest is not None and logs is not None:
            values, self._latest = self._latest.to_dict(prefix="topo/"), None
            logs.update(values)
            state.log_history[-1].update(values)
