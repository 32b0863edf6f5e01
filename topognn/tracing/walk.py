"""What the rules for single operations share as a walk goes from one operation of a model to the next."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.fx import Node
from torch.utils._pytree import tree_leaves

from topognn.tracing.capture import Captured, Expressions
from topognn.tracing.draft import Draft
from topognn.tracing.nodes import has_one_reader, shape_of


class Walk:
    """How far a walk through a captured graph has come.

    Attributes:
        captured, expressions: What is walked through.
        shortcuts, attention: See :func:`topognn.trace`.
        draft: What it has written down.
        values: The tensors in flight: for each node that carries ids a :class:`~topognn.tracing.draft.Value`, or a list
            of them where it has several tensors.
        padded_input: Ids of the input with its ring of padding nodes, by the convolution that reads them.
    """

    def __init__(self, captured: Captured, expressions: Expressions, shortcuts: str, attention: str) -> None:
        self.captured = captured
        self.expressions = expressions
        self.shortcuts = shortcuts
        self.attention = attention
        self.draft = Draft()
        self.values: dict[Node, Any] = {}
        self.padded_input: dict[Node, Tensor] = {}

    def carriers(self, node: Node) -> list[Node]:
        """Return the operands that carry ids, one entry for each place where they stand."""
        return [n for n in tree_leaves(node.args) if isinstance(n, Node) and n in self.values]

    def passed_on(self, node: Node) -> int | None:
        """Return the block whose fresh output a transparent operation passes on, if any."""
        carriers = self.carriers(node)
        if len(carriers) != 1 or not has_one_reader(carriers[0]):
            return None
        fresh: int | None = self.values[carriers[0]].fresh
        return fresh

    def open(self, node: Node, name: str) -> Tensor:
        """Open a block for the result of a node, and return its ids, ``(1, *shape)``."""
        shape = shape_of(node)
        return self.draft.open(name, shape[1:] if len(shape) > 1 and shape[0] == 1 else shape).view(1, *shape)
