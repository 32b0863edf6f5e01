"""A monitor as a callback of Lightning (``pip install lightning``)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from lightning.pytorch.callbacks import Callback

from topognn.monitoring.monitor import CHEAP, TopometricsMonitor


class TopometricsCallback(Callback):  # type: ignore[misc, unused-ignore]
    """Measures topometrics during ``Trainer.fit`` and hands them to the trainer's loggers as ``topo/NAME``.

    Args:
        model: Path of the submodule that is measured, as in ``LightningModule.get_submodule``: ``"net"``.
        input_shape, metrics, every: See :class:`topognn.TopometricsMonitor`; steps are the optimizer's.

    Attributes:
        monitor: The monitor, from the start of the training on; its history has all values.
    """

    def __init__(
        self, model: str, input_shape: Sequence[int], metrics: Iterable[str] = CHEAP, every: int = 100
    ) -> None:
        self._model, self._arguments = model, (input_shape, tuple(metrics), every)
        self._last = 0
        self.monitor: TopometricsMonitor | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Trace the model."""
        self.monitor = TopometricsMonitor(pl_module.get_submodule(self._model), *self._arguments)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *others: Any) -> None:
        """Measure, where the optimizer has taken a step that is due."""
        step = trainer.global_step
        if self.monitor is None or step == self._last:
            return
        self._last = step
        if (values := self.monitor(step)) is not None:
            for logger in trainer.loggers:
                logger.log_metrics(values.to_dict(prefix="topo/"), step)
