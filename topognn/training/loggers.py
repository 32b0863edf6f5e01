"""Optional loggers: each is a function of a step and the numbers by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

Log = Callable[[int, Mapping[str, float]], None]


def log_to_tensorboard(folder: Path) -> Log:
    """Return a logger to TensorBoard's files in a folder.

    Raises:
        ImportError: TensorBoard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise ImportError("logging to TensorBoard needs it: pip install tensorboard") from None
    writer: Any = SummaryWriter(str(folder))

    def log(step: int, numbers: Mapping[str, float]) -> None:
        for name, number in numbers.items():
            writer.add_scalar(name, number, step)
        writer.flush()

    return log


def log_to_wandb(project: str, config: Mapping[str, Any]) -> Log:
    """Return a logger to a project of Weights & Biases.

    Raises:
        ImportError: wandb is not installed.
    """
    try:
        import wandb
    except ImportError:
        raise ImportError("logging to Weights & Biases needs it: pip install wandb") from None
    run = wandb.init(project=project, config=dict(config))
    return lambda step, numbers: run.log(dict(numbers), step=step)
