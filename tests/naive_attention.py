"""An oracle for attention: every edge of a small attention network, from the definition, one after the other.

The networks are one function of queries, keys and values in several spellings, with a projection behind it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Sizes:
    """Of an attention network: ``heads`` of queries, a number of which, ``group``, share their keys and values."""

    tokens: int = 3
    width: int = 4
    heads: int = 2
    group: int = 1
    channels: int = 2

    @property
    def shared(self) -> int:
        """The number of heads of keys and values."""
        return self.heads // self.group


class Spelled(nn.Module):
    """Attention of separate projections, as ``scaled_dot_product_attention``, by hand, or by einsum."""

    def __init__(self, sizes: Sizes, spelling: str) -> None:
        super().__init__()
        s = sizes
        self.sizes, self.spelling = sizes, spelling
        self.q, self.k, self.v = (nn.Linear(s.width, n * s.channels) for n in (s.heads, s.shared, s.shared))
        self.o = nn.Linear(s.heads * s.channels, s.width)

    def forward(self, x: Tensor) -> Tensor:
        s, tokens = self.sizes, x.shape[1]
        q, k, v = (layer(x).view(1, tokens, -1, s.channels) for layer in (self.q, self.k, self.v))
        if self.spelling == "function":
            q, k, v = (y.transpose(1, 2) for y in (q, k, v))
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=s.group > 1).transpose(1, 2)
        elif self.spelling == "by hand":
            q, k, v = (y.transpose(1, 2) for y in (q, k, v))
            k = k.repeat_interleave(s.group, 1)
            v = v[:, :, None].expand(-1, -1, s.group, -1, -1).reshape(1, s.heads, tokens, -1)
            scores = q @ k.transpose(-1, -2) / s.channels**0.5
            scores = scores.masked_fill(torch.ones(tokens, tokens).triu(1).bool(), -1e9)
            scores = (scores - scores.amax(-1, keepdim=True)).exp()
            mixed = (scores / scores.sum(-1, keepdim=True) @ v).transpose(1, 2)
        else:
            scores = torch.einsum("b i h c, b j h c -> b h i j", q, k).softmax(-1)
            mixed = torch.einsum("bhij,bjhc->bihc", scores, v)
        return self.o(mixed.reshape(1, tokens, -1))


class Packed(nn.Module):
    """The same by ``nn.MultiheadAttention``, whose projections are one parameter."""

    def __init__(self, sizes: Sizes, spelling: str) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(sizes.width, sizes.heads, batch_first=True)
        self.needs_weights = spelling == "module with weights"

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(x, x, x, need_weights=self.needs_weights)[0]


def build(sizes: Sizes, spelling: str) -> nn.Module:
    return (Packed if spelling.startswith("module") else Spelled)(sizes, spelling)


def split_weights(weights: dict[str, Tensor]) -> list[Tensor]:
    """The matrices of queries, keys, values and output, from those of a model."""
    if "attention.in_proj_weight" in weights:
        return [*weights["attention.in_proj_weight"].chunk(3), weights["attention.out_proj.weight"]]
    return [weights[f"{name}.weight"] for name in "qkvo"]


def naive_attention(
    sizes: Sizes, weights: dict[str, Tensor], attention: str = "all"
) -> tuple[list[int], dict[tuple[Any, Any], float]]:
    """The partitions' sizes and the edges of an attention network whose pruned weights are zero.

    Nodes are names: ``("x", token, feature)``, ``("q" or "k" or "v", token, head, channel)``, ``("score", head)``,
    ``("hub", head, channel)``, ``("o", token, feature)``.
    """
    s = sizes
    matrices = dict(zip("qkvo", split_weights(weights), strict=True))
    edges: dict[tuple[Any, Any], float] = {}

    def join(u: Any, v: Any, weight: float) -> None:
        if weight:
            edges[u, v] = edges.get((u, v), 0.0) + weight

    for t in range(s.tokens):
        for name in "qkv":
            for row, line in enumerate(matrices[name].abs().tolist()):
                for feature, weight in enumerate(line):
                    join(("x", t, feature), (name, t, *divmod(row, s.channels)), weight)
        for c in range(s.channels):
            for h in range(s.shared):
                join(("v", t, h, c), ("hub", h, c), 1.0)
            for h in range(s.heads) if attention == "all" else ():
                join(("q", t, h, c), ("score", h), 1.0)
                join(("k", t, h // s.group, c), ("score", h), 1.0)
        for feature, line in enumerate(matrices["o"].abs().tolist()):
            for column, weight in enumerate(line):
                h, c = divmod(column, s.channels)
                join(("hub", h // s.group, c), ("o", t, feature), weight)
                if attention == "all":
                    join(("score", h), ("o", t, feature), weight)
    inner, outer = s.shared * s.channels, s.heads * s.channels
    parts = [s.tokens * (outer + 2 * inner)] if "attention.in_proj_weight" in weights else None
    parts = parts or [s.tokens * outer, s.tokens * inner, s.tokens * inner]
    hubs = [s.heads, inner] if attention == "all" else [inner]
    return [s.tokens * s.width, *parts, *hubs, s.tokens * s.width], edges


def number_nodes(sizes: Sizes, packed: bool, attention: str = "all") -> dict[Any, int]:
    """The id of each node, from the order of execution and each tensor's shape."""
    s = sizes
    heads = {"q": s.heads, "k": s.shared, "v": s.shared}
    names: list[Any] = [("x", t, f) for t in range(s.tokens) for f in range(s.width)]
    order = (
        [(t, n) for t in range(s.tokens) for n in "qkv"] if packed else [(t, n) for n in "qkv" for t in range(s.tokens)]
    )
    names += [(n, t, h, c) for t, n in order for h in range(heads[n]) for c in range(s.channels)]
    names += [("score", h) for h in range(s.heads)] if attention == "all" else []
    names += [("hub", h, c) for h in range(s.shared) for c in range(s.channels)]
    names += [("o", t, f) for t in range(s.tokens) for f in range(s.width)]
    return {name: number for number, name in enumerate(names)}


def used_weights(sizes: Sizes, weights: dict[str, Tensor], attention: str = "all") -> dict[str, Tensor]:
    """Which weights have a gradient, when attention adds up what its hubs do: an oracle without graphs."""
    s = sizes
    own = {name: w.abs().double().requires_grad_() for name, w in weights.items()}
    q, k, v, o = split_weights(own)
    x = torch.ones(s.tokens, s.width, dtype=torch.float64)
    queries = (x @ q.T).view(-1, s.heads, s.channels).sum((0, 2))
    keys = (x @ k.T).view(-1, s.shared, s.channels).sum((0, 2)).repeat_interleave(s.group)
    values = (x @ v.T).view(-1, s.shared, s.channels).sum(0).repeat_interleave(s.group, 0)
    mixed = values + (queries + keys)[:, None] if attention == "all" else values
    (mixed.flatten().expand(s.tokens, -1) @ o.T).sum().backward()
    slopes = {name: w.grad if w.grad is not None else torch.zeros_like(w) for name, w in own.items()}
    return {name: (w != 0) & (slopes[name] > 0) for name, w in weights.items()}
