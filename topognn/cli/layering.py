"""The command `topognn layers`: each layer's own metrics, the baselines of the whole network's."""

from __future__ import annotations

import dataclasses
import json as json_module
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from topognn.cli.sources import FORMS
from topognn.cli.writing import check_files, quiet_warnings, write_files

if TYPE_CHECKING:
    from topognn.baselines.tables import LayerTable
    from topognn.cli.outcome import Request

# What the table shows, if it was computed, and its title there; the files have all.
SHOWN = {
    "density": "density",
    "edges": "edges",
    "d_l": "d_l",
    "d_r": "d_r",
    "delta_r": "delta_r",
    "imdb": "imdb",
    "spectral_gap": "gap",
    "iterative_spectral_gap": "class gap",
    "cut_edges": "bridges",
    "cut_nodes": "cut nodes",
}


def layers(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=f"What to measure: {FORMS}.", show_default=False)],
    encoding: Annotated[str, typer.Option(help="rolled, rolled-channel or unrolled.")] = "rolled",
    pruner: Annotated[str | None, typer.Option(help="Pruning algorithm: see `topognn pruners`.")] = None,
    sparsity: Annotated[float | None, typer.Option(help="Fraction of weights to prune, from 0 to below 1.")] = None,
    seed: Annotated[int, typer.Option(help="Of the random weights and of the algorithm.", min=0)] = 0,
    checkpoint: Annotated[str | None, typer.Option(metavar="FILE", help="State dict to load first.")] = None,
    masks: Annotated[str | None, typer.Option(metavar="FILE", help="Masks, or a state dict with zeros.")] = None,
    input: Annotated[str | None, typer.Option(metavar="SIZES", help="Of one input, such as 3x32x32.")] = None,
    classes: Annotated[int | None, typer.Option(help="Outputs: 10, or 1000 for torchvision.", min=1)] = None,
    metrics: Annotated[str | None, typer.Option(metavar="A,B", help="Which topometrics; all by default.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; a GPU if there is one by default.")] = None,
    json: Annotated[str | None, typer.Option(metavar="FILE", help="Write all as JSON; - for stdout alone.")] = None,
    csv: Annotated[str | None, typer.Option(metavar="FILE", help="Write a row a layer as CSV; - likewise.")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Measure each layer of a pruned model on its own: Ramanujan metrics and topometrics."""
    from topognn.cli.display import make_status
    from topognn.cli.outcome import Request

    check_files(json, csv)
    request = Request(*(model, pruner, sparsity, seed, checkpoint, masks, input, classes, metrics), device=device)
    with quiet_warnings(debug), make_status()(f"measuring the layers of {model}"):
        outcome = measure_layers(request, encoding)
    if not write_files(outcome, json, csv):
        _show(outcome)


class LayerOutcome(NamedTuple):
    """What came of it.

    Attributes:
        request, encoding: The arguments; see the command's help.
        origin: Where the masks are from, in words.
        tables: By name: ``ramanujan`` and ``topometrics``.
    """

    request: Request
    encoding: str
    origin: str
    tables: dict[str, LayerTable]

    def to_json(self) -> str:
        """Return all tables as JSON, each in our names and in the released tables'; what is not defined is null."""
        content: dict[str, Any] = {"model": self.request.model, "arguments": dataclasses.asdict(self.request)}
        for name, table in self.tables.items():
            content[name] = table.to_dict()
            content[f"{name}_published"] = table.published.to_dict()
        return json_module.dumps(content, indent=2, allow_nan=False) + "\n"

    def to_csv(self) -> str:
        """Return a row a layer: our columns, then those of the released tables that are no column of ours."""
        return self.join().to_csv()

    def join(self) -> LayerTable:
        """Return all tables as one; columns of one name have the same numbers."""
        from topognn.baselines.tables import LayerTable

        parts = [*self.tables.values(), *(table.published for table in self.tables.values())]
        rows: dict[str, dict[str, Any]] = {layer: {} for layer in parts[0]}
        for part in parts:
            for layer, row in part.items():
                rows[layer] = {**row, **rows[layer]}
        columns = list(dict.fromkeys(name for part in parts for name in part.columns))
        return LayerTable(self.encoding, rows, columns)


def measure_layers(request: Request, encoding: str) -> LayerOutcome:
    """Build and prune the model of a request, and measure its layers.

    Raises:
        TopognnError: See :func:`topognn.ramanujan` and :func:`topognn.layer_topometrics`.
    """
    import topognn
    from topognn.baselines.layers import LAYER_METRICS
    from topognn.cli.measuring import build_model, check_origin, describe_origin, make_masks, pick_device, pick_metrics
    from topognn.encoding.layer_graphs import KINDS
    from topognn.errors import unknown_name

    check_origin(request)
    if encoding not in KINDS:
        raise unknown_name("encoding", encoding, KINDS)
    names = pick_metrics(request.metrics, LAYER_METRICS)
    model, shape = build_model(request, pick_device(request.device))
    masks = make_masks(model, request, shape)
    kind: Any = encoding
    tables = {
        "ramanujan": topognn.ramanujan(model, kind, masks, shape),
        "topometrics": topognn.layer_topometrics(model, kind, masks, shape, names),
    }
    return LayerOutcome(request, encoding, describe_origin(request), tables)


def _show(outcome: LayerOutcome) -> None:
    """Print a row a layer, then the means and how many layers are left out of them."""
    from rich.text import Text

    from topognn.cli.display import make_console, new_table

    whole = outcome.join()
    shown = [name for name in SHOWN if name in whole.columns]
    titles = [SHOWN[name] for name in shown]
    table = new_table("layer", *titles, right=titles)
    table.padding = (0, 2, 0, 0)
    table.columns[0].no_wrap = True
    for layer, row in whole.items():
        table.add_row(Text(layer), *(_format(row[name]) for name in shown))
    means, undefined = whole.means, whole.undefined
    table.add_section()
    table.add_row("mean", *(_format(means[name]) for name in shown))
    table.add_row("undefined in", *(str(undefined[name] or "") for name in shown))
    console = make_console()
    console.print(Text(f"{outcome.request.model}, {outcome.origin}, {len(whole)} layers, {outcome.encoding}"))
    console.print()
    console.print(table, soft_wrap=False)
    console.print()
    others = ", ".join(name for name in whole.columns if name not in shown)
    console.print(Text(f"--csv and --json also have: {others}"))


def _format(value: Any) -> str:
    """Return a number in few enough digits for a dozen columns, a dash where it is not defined."""
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
