"""A monitor as a callback of other trainers: Lightning's and Hugging Face's, imported when one is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from topognn.metrics.registry import check_names
from topognn.monitoring.monitor import CHEAP, TopometricsMonitor
from topognn.results import Topometrics


def lightning_callback(model: str, input_shape: Sequence[int], metrics: Iterable[str] = CHEAP, every: int = 100) -> Any:
    """Return a callback for ``lightning.pytorch.Trainer``; what it measures goes to the loggers as ``topo/NAME``.

    Args:
        model: Path of the submodule that is measured, as in ``LightningModule.get_submodule``: ``"net"``.
        input_shape, metrics, every: See :class:`topognn.TopometricsMonitor`; steps are the optimizer's.

    Returns:
        A ``Callback``, whose ``monitor`` has all values in its history; it is made when training starts.

    Raises:
        ImportError: Lightning is not installed.
    """
    try:
        from lightning.pytorch.callbacks import Callback
    except ImportError:
        raise ImportError("lightning_callback() needs Lightning: pip install 'topognn[lightning]'") from None
    arguments = (input_shape, tuple(check_names(metrics)), every)

    class TopometricsCallback(Callback):  # type: ignore[misc]
        monitor: TopometricsMonitor
        last = 0

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            self.monitor = TopometricsMonitor(pl_module.get_submodule(model), *arguments)

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *others: Any) -> None:
            step = trainer.global_step
            if step == self.last:  # gradients are being accumulated
                return
            self.last = step
            if (values := self.monitor(step)) is not None:
                for logger in trainer.loggers:
                    logger.log_metrics(values.to_dict(prefix="topo/"), step)

    return TopometricsCallback()


def hugging_face_callback(
    model: str, input_shape: Sequence[int], metrics: Iterable[str] = CHEAP, every: int = 100
) -> Any:
    """Return a callback for ``transformers.Trainer``; the latest values go into what it logs next, as ``topo/NAME``.

    Put it before all others, once the trainer is made::

        trainer.callback_handler.callbacks.insert(0, callback)

    Given as ``callbacks=[callback]`` it comes after those that report to TensorBoard, Weights & Biases and the like,
    which then do not see the values: these are in ``trainer.state.log_history`` alone, and in the history.

    Args:
        model: Path of the submodule that is measured, as in ``Module.get_submodule``; ``""`` for the model itself.
        input_shape, metrics, every: See :class:`topognn.TopometricsMonitor`.

    Returns:
        A ``TrainerCallback``, whose ``monitor`` has all values in its history; it is made when training starts.

    Raises:
        ImportError: transformers is not installed.
    """
    try:
        from transformers import TrainerCallback
    except ImportError:
        raise ImportError("hugging_face_callback() needs transformers: pip install 'topognn[hugging-face]'") from None
    arguments = (input_shape, tuple(check_names(metrics)), every)

    class TopometricsCallback(TrainerCallback):  # type: ignore[misc]
        monitor: TopometricsMonitor
        latest: Topometrics | None = None

        def on_train_begin(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            self.monitor = TopometricsMonitor(given["model"].get_submodule(model), *arguments)

        def on_step_end(self, args: Any, state: Any, control: Any, **given: Any) -> None:
            self.latest = self.monitor(state.global_step) or self.latest

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **given: Any) -> None:
            if self.latest is not None and logs is not None:
                values, self.latest = self.latest.to_dict(prefix="topo/"), None
                logs.update(values)
                state.log_history[-1].update(values)

    return TopometricsCallback()
