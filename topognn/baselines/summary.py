"""All baselines of a network in one number each: means over its layers, for both bipartite encodings of the study."""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from topognn.baselines.layers import layer_topometrics
from topognn.baselines.scores import ramanujan
from topognn.encoding.layer_graphs import Kind
from topognn.masks import Masks

ENCODINGS: tuple[Kind, ...] = ("rolled", "rolled-channel")
# The ten that the released tables have of layers and of whole networks.
SHARED = (
    "cut_edges cut_nodes wedges one_hop strength k_core components mean_component spectral_gap spectral_radius"
).split()


class Baseline(NamedTuple):
    """One number of a network.

    Attributes:
        name: What is averaged: a column of :func:`ramanujan` or :func:`layer_topometrics`.
        group: ``"ramanujan"`` or ``"topometrics"``.
        encoding: Of the layers.
        column: Its name in the released tables, empty if they lack it.
        mean: Over the layers where it is defined; None if there are none.
        undefined: The number of the others.
    """

    name: str
    group: str
    encoding: str
    column: str
    mean: float | None
    undefined: int


def summarise_baselines(model: nn.Module, masks: Masks | None = None) -> list[Baseline]:
    """Return every baseline of a network, for the rolled and the rolled-channel encoding.

    Host syncs, errors: see :func:`ramanujan` and :func:`layer_topometrics`.

    >>> from topognn import example_model
    >>> rows = summarise_baselines(*example_model())
    >>> [(row.encoding, row.column, row.mean) for row in rows if row.name == "cut_edges"]
    [('rolled', 'bridges', 3.5), ('rolled-channel', 'bridges', 3.0)]
    """
    rows = []
    for encoding in ENCODINGS:
        scores = ramanujan(model, encoding, masks)
        tables = {"ramanujan": scores, "topometrics": layer_topometrics(model, encoding, masks, metrics=SHARED)}
        for group, table in tables.items():
            names = {ours: theirs for theirs, ours in reversed(table.published_names.items())}
            means, undefined = table.means, table.undefined
            for name in SHARED if group == "topometrics" else [n for n in table.columns if n not in SHARED]:
                rows.append(Baseline(name, group, encoding, names.get(name, ""), means[name], undefined[name]))
    return rows
