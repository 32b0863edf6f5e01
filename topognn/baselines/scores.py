"""How close a sparse layer is to the best expander of its density: Ramanujan metrics of bipartite encodings.

Source: Hoang, Liu, Marculescu and Wang, *Revisiting Pruning at Initialization through the Lens of Ramanujan Graph*,
ICLR 2023; as compared with in Cunegatti et al., TMLR 2024, section 5.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from topognn.baselines.classes import LEAST, DegreeClasses, find_degree_classes, get_blocks
from topognn.baselines.columns import PUBLISHED_RAMANUJAN
from topognn.baselines.singular import find_largest_two, make_gram
from topognn.baselines.tables import LayerTable, make_table
from topognn.baselines.unrolled import find_leading_unrolled, find_unrolled_classes
from topognn.encoding.layer_graphs import Kind, encode_layers, find_layers, split_layers
from topognn.graph import MultipartiteGraph
from topognn.kernels.host import read
from topognn.masks import Masks
from topognn.tracing.layout import Layout

# Each column of the table, and what it is where it is no float.
COLUMNS = {
    "density": float,
    **dict.fromkeys(("n_left", "n_right", "edges"), int),
    **dict.fromkeys(("d_l", "d_r", "bound", "delta_r", "spectral_gap", "imdb", "iterative_spectral_gap"), float),
    **dict.fromkeys(("random_bound", "delta_s"), float),
    **dict.fromkeys(("is_scored", "is_ramanujan"), bool),
}
# The two largest singular values of each layer, of its 0/1 matrix and of the weighted one.
Leading = tuple[list[Tensor], list[Tensor]]
_ROUNDING = 1e-9  # of s_2, so that a layer that meets its bound exactly is Ramanujan


def ramanujan(
    model: nn.Module | Layout,
    kind: Kind = "rolled",
    masks: Masks | None = None,
    input_shape: Sequence[int] | None = None,
) -> LayerTable:
    """Compute the Ramanujan metrics of each layer.

    Let B be the layer's matrix (left nodes by right nodes) without its all-zero rows and columns, d_l and d_r the mean
    degrees of either side, s_1 >= s_2 the largest singular values of the 0/1 matrix, w_1 >= w_2 of the weighted one,
    a missing second one being 0. The columns:

    - ``density``: the kept fraction of the layer's weights (in ``"rolled-channel"``, too).
    - ``n_left``, ``n_right``, ``edges``: size of B; ``d_l``, ``d_r``: mean degrees.
    - ``bound``: sqrt(d_l - 1) + sqrt(d_r - 1); ``delta_r``: (bound - s_2) / bound; ``spectral_gap``: w_1 - w_2.
    - ``imdb``, ``iterative_spectral_gap``: means of ``delta_r`` and ``spectral_gap`` over the subgraphs of all left
      nodes of one degree k >= 3, if their d_r is 3 at least.
    - ``random_bound``: ((s_2^2 / 4 + 1) sqrt(n_left n_right) - abs(edges - d_l / R n_left n_right)) / (L R), where
      L x R is the layer's full size.
    - ``delta_s``: 2 sqrt(s_1 - 1) - s_2; s_1 is 1 at least where there is an edge.
    - ``is_scored``: whether d_l and d_r are 3 at least, as Hoang et al. ask before they count a layer.
    - ``is_ramanujan``: whether s_2 is within the bound.

    Args:
        model, masks, input_shape: See :func:`topognn.bipartite`.
        kind: ``"rolled"``, ``"rolled-channel"``, or, by far slower, ``"unrolled"``.

    Returns:
        A row a layer, in which None stands for what is not defined: in an empty layer everything but sizes, and where
        the bound is 0 (no node has a second edge) what is divided by it. ``.means`` are those over the layers where a
        number is defined, ``.undefined`` counts the others;
        ``.published`` has the released tables' columns.

    Raises:
        See :func:`topognn.bipartite`.

    Singular values have relative errors of 1e-6 at most. Three host syncs for every 134 million weights, with what
    the eigenvalue solver makes and, for layers both of whose sides pass 1,024 nodes, one every five products. Takes
    some 14 bytes a weight of the layers that are measured together. ``"unrolled"`` works by Lanczos, a degree at a
    time; what that does not find to 1e-5 is None.

    >>> import topognn
    >>> model, masks = topognn.example_model()
    >>> table = topognn.ramanujan(model, "rolled", masks)
    >>> table["2"]["edges"], round(table["2"]["delta_r"], 4), table["2"]["imdb"]
    (5, 0.3184, None)
    """
    layers = find_layers(model, kind, masks, input_shape)
    rows: list[list[float]] = []
    for together in split_layers(layers):
        graphs = encode_layers(together)
        rows += score_graphs(list(graphs.values()), [layer.density for layer in together.values()], kind != "unrolled")
    columns = dict(zip(COLUMNS, zip(*rows, strict=True), strict=True))
    return make_table(kind, list(layers), columns, COLUMNS, PUBLISHED_RAMANUJAN)


def score_graphs(
    found: Sequence[MultipartiteGraph], densities: Sequence[Tensor], rolled: bool, leading: Leading | None = None
) -> list[list[float]]:
    """Return a row of :data:`COLUMNS` for each layer, NaN where one is not defined: two host syncs if rolled."""
    classes = find_degree_classes(found) if rolled else find_unrolled_classes(found)
    singular, weighted = leading or (find_leading(found, False, rolled), find_leading(found, True, rolled))
    rows = [_score(*each) for each in zip(found, densities, singular, weighted, classes, strict=True)]
    numbers = iter(read(torch.cat(rows)))
    return [[next(numbers) for _ in COLUMNS] for _ in found]


def find_leading(graphs: Sequence[MultipartiteGraph], weighted: bool, rolled: bool) -> list[Tensor]:
    """Return the two largest singular values of each layer; float64 ``(2,)`` each. By Gram matrices if ``rolled``."""
    if not rolled:
        return [find_leading_unrolled(graph, weighted) for graph in graphs]
    sizes = [min(get_blocks(graph, False).shape[1:]) for graph in graphs]
    order = sorted(range(len(graphs)), key=sizes.__getitem__)
    solved = find_largest_two(make_gram(get_blocks(graphs[n], weighted)) for n in order)
    by_layer = dict(zip(order, solved, strict=True))
    return [by_layer[n].flatten().topk(2).values for n in range(len(graphs))]


def _score(graph: MultipartiteGraph, density: Tensor, s: Tensor, w: Tensor, classes: DegreeClasses) -> Tensor:
    """Return a layer's row, NaN where a number is not defined; float64 ``(columns,)``."""
    left, right = (part.size for part in graph.partitions)
    n_left = graph.out_degrees[:left].count_nonzero().double()
    n_right = graph.in_degrees[left:].count_nonzero().double()
    edges = torch.full_like(n_left, graph.num_uses)
    d_l, d_r = edges / n_left, edges / n_right  # NaN in an empty layer, and so is what follows from them
    bound = get_bound(d_l, d_r)
    delta_r = (bound - s[1]) / torch.where(bound > 0, bound, torch.nan)
    spread = n_left * n_right
    deviation = (edges - d_l / right * spread).abs()
    is_scored = (d_l >= LEAST) & (d_r >= LEAST)
    is_ramanujan = (s[1] <= bound * (1 + _ROUNDING)).double()
    counts = classes.edges >= LEAST * classes.touched
    of_class = get_bound(classes.degrees, classes.edges / classes.touched)
    deltas = (of_class - classes.singular[:, 1]) / of_class
    gaps = classes.weighted[:, 0] - classes.weighted[:, 1]
    row = {
        "density": density,
        "n_left": n_left,
        "n_right": n_right,
        "edges": edges,
        "d_l": d_l,
        "d_r": d_r,
        "bound": bound,
        "delta_r": delta_r,
        "spectral_gap": torch.where(edges > 0, w[0] - w[1], torch.nan),
        "imdb": _mean(deltas, counts),
        "iterative_spectral_gap": _mean(gaps, counts),
        "random_bound": ((s[1] ** 2 / 4 + 1) * spread.sqrt() - deviation) / (left * right),
        "delta_s": torch.where(edges > 0, 2 * (s[0] - 1).clamp(min=0).sqrt() - s[1], torch.nan),
        "is_scored": torch.where(edges > 0, is_scored.double(), torch.nan),
        "is_ramanujan": torch.where(delta_r.isnan(), torch.nan, is_ramanujan),
    }
    return torch.stack([row[name] for name in COLUMNS])


def _mean(values: Tensor, where: Tensor) -> Tensor:
    """Return the mean of some values, NaN if there are none; no question to the device how many there are."""
    return torch.where(where, values, 0).sum() / where.sum()


def get_bound(d_l: Tensor, d_r: Tensor) -> Tensor:
    """Return sqrt(d_l - 1) + sqrt(d_r - 1), the second singular value of a Ramanujan graph at most."""
    return (d_l - 1).clamp(min=0).sqrt() + (d_r - 1).clamp(min=0).sqrt()
