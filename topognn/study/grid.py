"""What a sweep makes: networks, and what they have in common."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple


class Task(NamedTuple):
    """One network to make.

    Attributes:
        model: A name of :data:`topognn.MODELS`, or ``path/to/file.py:callable``.
        data: A name of :data:`topognn.data.DATASETS`.
        pruner: An algorithm, with ``#k`` behind it for its k-th redraw with other random numbers.
        sparsity: Fraction of the weights to prune.
        seed: Of weights, pruning and training.
    """

    model: str
    data: str
    pruner: str
    sparsity: float
    seed: int

    @property
    def key(self) -> dict[str, Any]:
        """The key of its row in a table of networks."""
        model = self.model.rpartition(":")[2]
        return {
            "model": model,
            "dataset": self.data,
            "pruning": self.pruner,
            "sparsity": self.sparsity,
            "seed": self.seed,
        }

    @property
    def name(self) -> str:
        """A file's name: readable, and of this network only.

        >>> Task("conv6", "synthetic", "erk#1", 0.9, 0).name
        'conv6-synthetic-erk_1-0.9-0-a48ca2e6'
        """
        text = "-".join(map(str, self.key.values()))
        return f"{re.sub(r'[^A-Za-z0-9.-]', '_', text)}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    @property
    def algorithm(self) -> tuple[str, int]:
        """The algorithm's name and the number of the redraw."""
        name, _, number = self.pruner.partition("#")
        return name, int(number or 0)


@dataclasses.dataclass(frozen=True)
class Settings:
    """What all networks of a sweep have in common; see ``docs/study.md``.

    Attributes:
        training: Fields of :class:`topognn.training.Recipe`, but the seed; what is missing is as in the paper.
        root: The folder of datasets; None for the usual one.
        side: Images are averaged down to this height and width; 0 leaves them.
        train, test: So many images are used at most; 0 means all.
        metrics: Topometrics to measure, names of :data:`topognn.METRICS`.
        bipartite: Encodings of layers to measure, of ``rolled`` and ``rolled-channel``.
    """

    training: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    root: str | None = None
    side: int = 0
    train: int = 0
    test: int = 0
    metrics: tuple[str, ...] = ()
    bipartite: tuple[str, ...] = ("rolled", "rolled-channel")

    def fixed(self) -> dict[str, Any]:
        """Return what must not change between two runs into one folder: all that changes a network."""
        return {"training": dict(self.training), "side": self.side, "train": self.train, "test": self.test}
