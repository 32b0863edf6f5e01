"""What all dynamic sparse training has in common: every so many steps some weights go and as many others come."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from topognn.errors import CheckpointError, MaskError, SparsityError, TrainingError
from topognn.kernels.host import read
from topognn.masks import get_masks
from topognn.pruning import prune
from topognn.pruning.applying import apply_masks, get_pruned, plain_parameters
from topognn.pruning.selection import allocate, find_highest
from topognn.pruning.training_loss import check_trainable

PATIENCE = 100  # steps that gradients may be NaN or infinite one after the other, while a GradScaler lowers its scale


class DropAndGrow:
    """Base of the schedulers of dynamic sparse training; see its subclasses.

    Masks are in force from the start. Call :meth:`step` after each step of the optimizer: every ``every`` steps it
    drops weights and grows others, which start at zero and without momentum. The number of kept weights never changes.

    With a ``torch.amp.GradScaler``, step in the same way after its ``update()``. A step that it leaves out, because a
    gradient has overflowed, spoils nothing: where growth looks at gradients, the update waits for finite ones.

    Attributes:
        steps: Number of steps so far.
        explored: Weight name -> bool tensor: which weights have ever been kept.
    """

    grows_by_gradient = False

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        sparsity: float,
        *,
        total_steps: int,
        start: str | Mapping[str, Tensor] = "erk",
        seed: int = 0,
        every: int,
        fraction: float,
        stop: float,
        anneal: bool,
    ) -> None:
        if every < 1 or total_steps < 1:
            raise SparsityError(f"every={every} and total_steps={total_steps} are numbers of steps: give at least 1.")
        if not 0 < fraction < 1 or not 0 < stop <= 1:
            raise SparsityError(f"fraction={fraction} and stop={stop} are shares: give numbers between 0 and 1.")
        self.steps = 0
        self._every, self._fraction, self._anneal = every, fraction, anneal
        self._stop = round(stop * total_steps)
        self._waited = 0  # steps that an update has waited for finite gradients
        self._settings: dict[str, Any] = {
            "total_steps": total_steps,
            "every": every,
            "fraction": fraction,
            "stop": stop,
        }
        self._model, self._optimizer = model, optimizer
        self._parameters = plain_parameters(model)
        check_trainable(self._parameters)
        _check_optimizer(self._parameters, optimizer)
        self._generator = torch.Generator().manual_seed(seed)  # on the CPU: the same growth on every device
        self._gradients: dict[str, Tensor] = {}
        # Before masks, whose own hooks zero what these must see.
        for name, parameter in self._parameters.items():
            parameter.register_hook(self._make_hook(name))  # type: ignore[no-untyped-call]
        masks = get_masks(model, prune(model, start, sparsity, seed=seed) if isinstance(start, str) else start)
        self._counts = _count(masks)
        self.explored = {name: mask.clone() for name, mask in masks.items()}
        self._put({name: mask.clone() for name, mask in masks.items()})

    @property
    def masks(self) -> dict[str, Tensor]:
        """Weight name -> bool tensor, True where kept. A weight's tensor is another one where its mask changes."""
        return dict(self._masks)

    def rate(self, step: int) -> float:
        """Return the share of kept weights that an update at ``step`` drops."""
        if not self._anneal:
            return self._fraction
        return self._fraction / 2 * (1 + math.cos(math.pi * min(step / self._stop, 1.0)))

    def is_update(self, step: int) -> bool:
        """Tell whether masks change at ``step`` (the first is 1)."""
        return step % self._every == 0 and step < self._stop

    @torch.no_grad()
    def step(self) -> bool:
        """Count a step of the optimizer, and drop and grow where it is time; return whether masks may have changed.

        Where growth looks at gradients and these are NaN or infinite, the update waits for the next step, as long as
        weights are finite: a ``GradScaler`` has left the step out.

        Raises:
            MaskError: Masks were changed by hand since the last step.
            TrainingError: There is no gradient, or it is NaN or infinite and has reached the weights, or has been so
                for 100 steps.
        """
        self._check_masks()
        self.steps += 1
        self._observe()
        if updates := self._is_due(self.steps) and self._is_ready():
            self._update(self.rate(self.steps))
            for name, mask in self._masks.items():
                self.explored[name] |= mask
        self._gradients.clear()
        return updates

    def count_explored(self) -> dict[str, int]:
        """Return how many weights of each tensor have ever been kept (one host sync)."""
        return _count(self.explored)

    def state_dict(self) -> dict[str, Any]:
        """Return everything that :meth:`load_state_dict` needs to go on as if nothing had happened."""
        return {
            "scheduler": type(self).__name__,
            "settings": dict(self._settings),
            "steps": self.steps,
            "waited": self._waited,
            "masks": {name: mask.clone() for name, mask in self._masks.items()},
            "explored": {name: mask.clone() for name, mask in self.explored.items()},
            "generator": self._generator.get_state(),
            **self._extra_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; that of the model and of the optimizer are loaded apart.

        Raises:
            CheckpointError: It is the state of another algorithm, or of one with other settings, or none at all.
            MaskError: It is the state of another model or of another sparsity.
        """
        self._check_state(state)
        masks = get_masks(self._model, state["masks"])
        counts = _count(masks)
        if sum(counts.values()) != sum(self._counts.values()):
            raise MaskError(
                f"this state keeps {sum(counts.values())} weights and the scheduler {sum(self._counts.values())}: "
                "make the scheduler with the sparsity that it was saved with."
            )
        self._counts, self.steps, self._waited = counts, int(state["steps"]), int(state["waited"])
        self.explored = {name: mask.clone() for name, mask in get_masks(self._model, state["explored"]).items()}
        self._generator.set_state(state["generator"])
        self._load_extra(state)
        self._gradients.clear()
        self._put({name: mask.clone() for name, mask in masks.items()})

    # -- what subclasses have their own way of ------------------------------------------------------------------

    def _observe(self) -> None:
        """Look at the step's gradients, in every step."""

    def _extra_state(self) -> dict[str, Any]:
        return {}

    def _load_extra(self, state: Mapping[str, Any]) -> None:
        pass

    def _update(self, rate: float) -> None:
        """Drop the smallest weights of each layer and grow as many there."""
        survivors, counts = self._drop_smallest(rate)
        self._grow(survivors, counts, [self._counts[name] - counts[name] for name in survivors])

    def _growth_scores(self, name: str) -> Tensor:
        """Return a score for each weight of a tensor: the highest of those that are not kept grow."""
        if not self.grows_by_gradient:
            return self._draw(name)
        return self._gradients[name].abs()

    # -- steps that they share ----------------------------------------------------------------------------------

    def _drop_smallest(self, rate: float) -> tuple[dict[str, Tensor], dict[str, int]]:
        """Return masks without the smallest weights of each layer, of which one stays, and how many they keep."""
        survivors, counts = {}, {}
        for name, mask in self._masks.items():
            had = self._counts[name]
            counts[name] = had - min(int(rate * had), max(had - 1, 0))
            size = self._parameters[name].detach().abs().masked_fill(~mask, -1)
            survivors[name] = find_highest(size, counts[name]) if counts[name] < had else mask
        return survivors, counts

    def _grow(self, survivors: Mapping[str, Tensor], counts: Mapping[str, int], grown: Sequence[int]) -> None:
        """Put masks in force that have, besides survivors, those of the others that score highest."""
        masks = {}
        for (name, kept), count in zip(survivors.items(), grown, strict=True):
            if count:
                scores = self._growth_scores(name).to(kept.device)
                kept = kept | find_highest(scores.masked_fill(kept, -torch.inf), count)
            masks[name] = kept
        self._counts = {name: counts[name] + count for name, count in zip(masks, grown, strict=True)}
        old = self._masks
        self._put(masks)
        self._forget(old)

    def _share(self, weights: Sequence[float], survivors: Mapping[str, int]) -> list[int]:
        """Share the weights that are gone among tensors in proportion to ``weights``, as far as there is room."""
        total = sum(self._counts.values()) - sum(survivors.values())
        rooms = [parameter.numel() - survivors[name] for name, parameter in self._parameters.items()]
        if not total:
            return [0] * len(rooms)
        least = max(weights) * 1e-9 or 1.0  # so that a tensor of weight 0 takes what no other has room for
        ratios = [max(w, least) / room if room else 0.0 for w, room in zip(weights, rooms, strict=True)]
        return allocate(rooms, ratios, total)

    def _draw(self, name: str) -> Tensor:
        return torch.rand(self._parameters[name].shape, generator=self._generator)

    def _put(self, masks: Mapping[str, Tensor]) -> None:
        self._masks = dict(masks)
        apply_masks(self._model, self._masks)
        self._pruned = {name: get_pruned(parameter) for name, parameter in self._parameters.items()}
        self._versions = {name: mask._version for name, mask in self._masks.items()}

    def _forget(self, old: Mapping[str, Tensor]) -> None:
        """Zero what the optimizer remembers of weights that have come or gone."""
        for name, parameter in self._parameters.items():
            changed = self._masks[name] ^ old[name]
            for buffer in self._optimizer.state.get(parameter, {}).values():
                if isinstance(buffer, Tensor) and buffer.shape == parameter.shape:
                    buffer.masked_fill_(changed.to(buffer.device), 0)

    def _make_hook(self, name: str) -> Callable[[Tensor], None]:
        scheduler = weakref.ref(self)  # the hook stays with the parameter, and must not keep the scheduler alive

        def see(gradient: Tensor) -> None:
            owner = scheduler()
            if owner is not None and owner._wants_gradients(owner.steps + 1):
                held = owner._gradients.get(name)
                owner._gradients[name] = gradient.detach().clone() if held is None else held + gradient.detach()

        return see

    def _wants_gradients(self, step: int) -> bool:
        return self.grows_by_gradient and self._is_due(step)

    def _is_due(self, step: int) -> bool:
        return self.is_update(step) or self._waited > 0

    def _is_ready(self) -> bool:
        """Tell whether all that an update needs is finite; it waits otherwise."""
        if self.grows_by_gradient:
            self._waited = 0 if self._are_finite() else self._waited + 1
        return not self._waited

    def _are_finite(self) -> bool:
        """Tell whether gradients are, after a look at weights where they are not."""
        missing = [name for name in self._parameters if name not in self._gradients]
        if missing:
            raise TrainingError(
                f"no gradient of {missing[0]!r} has come since the last step: call step() after backward() and the "
                "optimizer's step()."
            )
        if all(read(torch.stack([self._gradients[name].isfinite().all() for name in self._parameters]))):
            return True
        self._check_weights()
        if self._waited >= PATIENCE:
            raise TrainingError(
                f"gradients have been NaN or infinite for {PATIENCE} steps: look for values that overflow."
            )
        return False

    def _check_weights(self) -> None:
        finite = read(torch.stack([parameter.detach().isfinite().all() for parameter in self._parameters.values()]))
        for name, is_finite in zip(self._parameters, finite, strict=True):
            if not is_finite:
                raise TrainingError(f"weight {name!r} is NaN or infinite: lower the learning rate.")

    def _check_state(self, state: Mapping[str, Any]) -> None:
        missing = [key for key in ("scheduler", "settings", "steps", "waited", "masks", "explored") if key not in state]
        if missing:
            raise CheckpointError(f"this is no state of a scheduler of this version: {missing[0]!r} is missing.")
        then, now = state["scheduler"], type(self).__name__
        for what, value in self._settings.items():
            if then == now and state["settings"].get(what) != value:
                then, now = f"{then} with {what}={state['settings'].get(what)!r}", f"{now} with {what}={value!r}"
        if then != now:
            raise CheckpointError(f"this is the state of {then}, and the scheduler is {now}: go on as it began.")

    def _check_masks(self) -> None:
        for name, parameter in self._parameters.items():
            in_place = self._masks[name]._version != self._versions[name]
            if in_place or get_pruned(parameter) is not self._pruned[name]:
                raise MaskError(
                    f"the mask of {name!r} was changed by hand since the last step: masks are the scheduler's. To go "
                    "on from others, make a new scheduler with start=masks."
                )


def _count(masks: Mapping[str, Tensor]) -> dict[str, int]:
    return dict(zip(masks, map(int, read(torch.stack([mask.sum() for mask in masks.values()]))), strict=True))


def _check_optimizer(parameters: Mapping[str, nn.Parameter], optimizer: Optimizer) -> None:
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    missing = [name for name, parameter in parameters.items() if id(parameter) not in held]
    if missing:
        raise MaskError(f"weight {missing[0]!r} is not in the optimizer: give it all weights that are to be sparse.")
