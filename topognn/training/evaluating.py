"""How well a model does on images that it has not learnt from."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from topognn.errors import DataError
from topognn.kernels.host import read
from topognn.modes import eval_mode


def evaluate(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> tuple[float, float]:
    """Return the mean loss and the accuracy, a share of 1, of a model in evaluation mode; one host sync.

    >>> batch = (torch.eye(2), torch.tensor([0, 1]))
    >>> evaluate(nn.Identity(), [batch])[1]
    1.0
    """
    totals: Tensor | None = None
    with eval_mode(model), torch.no_grad():
        for x, y in batches:
            outputs = model(x)
            part = sum_up(F.cross_entropy(outputs, y), outputs, y)
            totals = part if totals is None else totals + part
    if totals is None:
        raise DataError("there is no batch to evaluate on.")
    loss, correct, count = read(totals)
    return loss / count, correct / count


def sum_up(loss: Tensor, outputs: Tensor, y: Tensor) -> Tensor:
    """Return the sums of a batch's losses and hits, and the number of its images; float64 ``(3,)``."""
    hits = (outputs.argmax(1) == y).sum().double()
    return torch.stack([loss.detach().double() * len(y), hits, torch.full_like(hits, len(y))])
