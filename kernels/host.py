"""The one door from a device to the host.

Reading a device value stops the CPU until the GPU has caught up, so every read is made here, is counted,
and under fake tensors is answered by the test that declared it (:func:`answering`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch._subclasses import FakeTensor

_answers: list[Sequence[float]] = []
_count = 0


def read(values: torch.Tensor) -> list[float]:
    """Return a 1-D tensor's values as Python numbers: one host sync, however many values.

    >>> read(torch.tensor([1, 2]))
    [1, 2]
    """
    global _count
    _count += 1
    if isinstance(values, FakeTensor):
        if not _answers:
            raise RuntimeError("a host sync that no one declared")
        answer = list(_answers.pop(0))
        if len(answer) != values.numel():
            raise RuntimeError(f"a host sync of {values.numel()} values was answered with {len(answer)}")
        return answer
    result: list[float] = values.tolist()
    return result


def count_syncs() -> int:
    """Return how many times :func:`read` has been called in this process."""
    return _count


@contextlib.contextmanager
def answering(*answers: Sequence[float]) -> Iterator[None]:
    """Answer the next reads of fake tensors; every declared answer must be used.

    This is how a test states a function's sync budget: one answer a sync, no more and no fewer.
    """
    _answers[:] = answers
    try:
        yield
        left = len(_answers)
    finally:
        _answers.clear()
    if left:
        raise RuntimeError(f"{left} declared host syncs did not happen")
