"""The loss of a model as a function of its weights: what pruning algorithms with data differentiate."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from topognn.errors import DataError, MaskError, TrainingError
from topognn.kernels.host import read
from topognn.modes import train_mode

Batch = tuple[Tensor, Tensor]
Batches = Iterable[Any]  # of (inputs, targets), as a DataLoader gives them: tuples or lists
Loss = Callable[[Tensor, Tensor], Tensor]


class Evaluate(Protocol):
    """Return the loss of a batch with some of the model's tensors replaced; differentiable."""

    def __call__(self, tensors: Mapping[str, Tensor], batch: Batch, temperature: float = 1.0) -> Tensor:
        """Return the loss; outputs are divided by ``temperature`` first."""


def check_trainable(parameters: Mapping[str, nn.Parameter]) -> None:
    """Refuse frozen weights, which have no gradient to score.

    Raises:
        MaskError: a weight has ``requires_grad=False``.
    """
    frozen = [name for name, parameter in parameters.items() if not parameter.requires_grad]
    if frozen:
        raise MaskError(
            f"weight {frozen[0]!r} is frozen ({len(frozen)} of {len(parameters)} are): it has no gradient. "
            "Unfreeze it first (requires_grad_())."
        )


def take_batches(batches: Batches | None, count: int, device: torch.device) -> list[Batch]:
    """Return the first ``count`` batches on ``device``; where there are fewer, they are used again in turn.

    Raises:
        DataError: there is no batch, or one is no pair of inputs and targets.

    >>> [x.item() for x, _ in take_batches([(torch.ones(1), torch.ones(1))], 2, torch.device("cpu"))]
    [1.0, 1.0]
    """
    taken = [_to_device(batch, device) for batch in itertools.islice(iterate(batches), count)]
    return [taken[k % len(taken)] for k in range(count)]


def iterate(batches: Batches | None) -> Iterator[Any]:
    """Return an iterator over batches, of which there is at least one.

    Raises:
        DataError: there is none.
    """
    if batches is None:
        raise DataError("this algorithm learns from data: pass batches=..., an iterable of (inputs, targets).")
    iterator = iter(batches)
    try:
        first = next(iterator)
    except StopIteration:
        raise DataError(
            "batches=... holds no batch (an iterator that was used before is empty): pass a list."
        ) from None
    return itertools.chain([first], iterator)


def take_balanced(batches: Batches | None, per_class: int, num_classes: int, device: torch.device) -> Batch:
    """Return the first ``per_class`` examples of every class, in the order in which they come.

    Raises:
        DataError: labels are no class numbers, or a class is too rare.

    >>> images, labels = torch.arange(6.0), torch.tensor([0, 0, 1, 0, 1, 1])
    >>> take_balanced([(images, labels)], 2, 2, torch.device("cpu"))
    (tensor([0., 1., 2., 4.]), tensor([0, 0, 1, 1]))
    """
    parts: list[Batch] = []
    counts = torch.zeros(num_classes, dtype=torch.int64, device=device)
    for batch in iterate(batches):
        inputs, targets = _to_device(batch, device)
        check_labels(targets, num_classes)
        hot = F.one_hot(targets, num_classes)
        rank = (hot.cumsum(0) + counts).gather(1, targets[:, None])[:, 0]
        chosen = rank <= per_class
        parts.append((inputs[chosen], targets[chosen]))
        counts = (counts + hot.sum(0)).clamp(max=per_class)
        if min(read(counts)) >= per_class:
            return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])
    found = read(counts)
    rare = found.index(min(found))
    raise DataError(
        f"class {rare} has {found[rare]:g} of the {per_class} examples that a class-balanced batch takes: give more "
        f"batches, or fewer examples a class (samples_per_class={max(1, int(found[rare]))})."
    )


def check_labels(targets: Tensor, num_classes: int) -> None:
    """Refuse labels that are no class numbers from 0 to ``num_classes`` - 1.

    Raises:
        DataError: labels are not whole numbers, not one a example, or out of range.
    """
    if targets.ndim != 1 or targets.is_floating_point() or targets.dtype is torch.bool:
        raise DataError(
            f"labels of shape {tuple(targets.shape)} and type {targets.dtype} are no class numbers: give one int64 "
            "an example."
        )
    if not targets.numel():
        raise DataError("a batch has no examples: leave it out.")
    low, high = map(int, read(torch.stack(targets.aminmax())))
    if low < 0 or high >= num_classes:
        raise DataError(
            f"label {low if low < 0 else high} is out of range: the model has {num_classes} outputs, for labels "
            f"0 to {num_classes - 1}. Build it with as many classes as the data have."
        )


@contextlib.contextmanager
def training_loss(model: nn.Module, loss: Loss, seed: int) -> Iterator[Evaluate]:
    """Yield the training loss as a function; afterwards the model and all random states are as they were.

    The model is in training mode, with copies of its buffers (batch norm counts nothing), and its random choices
    (dropout) follow ``seed``. Parameters that are not replaced have no gradient.

    Raises (from the function):
        DataError: the model does not run on the batch, or labels are out of range.
        TrainingError: the loss is NaN or infinite.
    """
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]

    def evaluate(tensors: Mapping[str, Tensor], batch: Batch, temperature: float = 1.0) -> Tensor:
        inputs, targets = batch
        outputs = run(model, tensors, inputs)
        if loss is F.cross_entropy and outputs.ndim == 2 and not targets.is_floating_point():
            check_labels(targets, outputs.shape[1])
        value = loss(outputs / temperature, targets)
        (number,) = read(value.detach().reshape(1))
        if not number - number == 0:
            raise TrainingError(f"the loss is {number}: look for NaN in the data, or for weights that are too large.")
        return value

    with train_mode(model), torch.random.fork_rng(devices=devices), torch.enable_grad():
        torch.manual_seed(seed)
        yield evaluate


def run(model: nn.Module, tensors: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    """Return the outputs of a model with some of its tensors replaced, none of its own changed or differentiated.

    Raises:
        DataError: the model does not run on such inputs.
    """
    parameters = {name: parameter.detach() for name, parameter in model.named_parameters()}
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        outputs: Tensor = functional_call(model, {**parameters, **buffers, **tensors}, (inputs,))
    except (RuntimeError, ValueError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(f"the model does not run on a batch of shape {tuple(inputs.shape)}: {first}") from error
    return outputs


def check_gradients(gradients: Mapping[str, Tensor]) -> None:
    """Refuse gradients that are NaN or infinite.

    Raises:
        TrainingError: one is; its weight is named.
    """
    finite = read(torch.stack([torch.isfinite(gradient).all() for gradient in gradients.values()]))
    for name, is_finite in zip(gradients, finite, strict=True):
        if not is_finite:
            raise TrainingError(f"the gradient of {name!r} is NaN or infinite: look for values that overflow.")


def _to_device(batch: Any, device: torch.device) -> Batch:
    if not isinstance(batch, Sequence) or len(batch) != 2 or not all(isinstance(part, Tensor) for part in batch):
        raise DataError(f"a batch is of type {type(batch).__name__}: give a pair of tensors (inputs, targets).")
    inputs, targets = batch
    return inputs.to(device), targets.to(device)
