"""The command `topognn layers`: each layer's own metrics, the baselines of the whole network's."""

from __future__ import annotations

import dataclasses
import json as json_module
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from topognn.cli.layer_tables import join_tables, show_table, tables_to_json
from topognn.cli.sources import FORMS, ArgumentError
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
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help=f"What to measure: {FORMS}. Or --checkpoint alone.", show_default=False),
    ] = None,
    encoding: Annotated[str, typer.Option(help="rolled, rolled-channel or, of a model, unrolled.")] = "rolled",
    pruner: Annotated[str | None, typer.Option(help="Pruning algorithm: see `topognn pruners`.")] = None,
    sparsity: Annotated[float | None, typer.Option(help="Fraction of weights to prune, from 0 to below 1.")] = None,
    seed: Annotated[int, typer.Option(help="Of the random weights and of the algorithm.", min=0)] = 0,
    checkpoint: Annotated[
        str | None,
        typer.Option(metavar="FILES", help="State dict to load; without MODEL: 'shards/*.safetensors'."),
    ] = None,
    masks: Annotated[str | None, typer.Option(metavar="FILE", help="Masks, or a state dict with zeros.")] = None,
    input: Annotated[str | None, typer.Option(metavar="SIZES", help="Of one input, such as 3x32x32.")] = None,
    classes: Annotated[int | None, typer.Option(help="Outputs: 10, or 1000 for torchvision.", min=1)] = None,
    metrics: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Which topometrics; by default all, without MODEL the quick ones."),
    ] = None,
    only: Annotated[
        str | None, typer.Option("--layers", metavar="A,B", help="Without MODEL: patterns of the layers to measure.")
    ] = None,
    skip: Annotated[
        str | None, typer.Option(metavar="A,B", help="Without MODEL: patterns of layers to leave out.")
    ] = None,
    out: Annotated[
        str | None, typer.Option(metavar="DIR", help="Without MODEL: write a Parquet row a layer there, and resume.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; a GPU if there is one by default.")] = None,
    json: Annotated[str | None, typer.Option(metavar="FILE", help="Write all as JSON; - for stdout alone.")] = None,
    csv: Annotated[str | None, typer.Option(metavar="FILE", help="Write a row a layer as CSV; - likewise.")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Measure each layer on its own, of a pruned model or of a checkpoint alone: Ramanujan metrics and topometrics."""
    from topognn.cli.display import make_status
    from topognn.cli.outcome import Request
    from topognn.cli.sharding import ShardRequest, run_shards

    check_files(json, csv)
    of_model = {
        "--pruner": pruner,
        "--sparsity": sparsity,
        "--input": input,
        "--classes": classes,
        "--seed": seed or None,
    }
    of_checkpoint = {"--layers": only, "--skip": skip, "--out": out}
    if model is None:
        if checkpoint is None:
            raise ArgumentError(f"say what to measure: MODEL ({FORMS}), or --checkpoint and files of weights.")
        _refuse(of_model, "needs a MODEL beside it: a checkpoint alone is measured as it is")
        with quiet_warnings(debug):
            run_shards(ShardRequest(checkpoint, encoding, masks, only, skip, metrics, out, device), json, csv)
        return
    _refuse(of_checkpoint, "is for a --checkpoint without MODEL")
    request = Request(*(model, pruner, sparsity, seed, checkpoint, masks, input, classes, metrics), device=device)
    with quiet_warnings(debug), make_status()(f"measuring the layers of {model}"):
        outcome = measure_layers(request, encoding)
    if not write_files(outcome, json, csv):
        _show(outcome)


def _refuse(options: Mapping[str, Any], why: str) -> None:
    for name, value in options.items():
        if value is not None:
            raise ArgumentError(f"{name} {why}.")


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
        return json_module.dumps(content | tables_to_json(self.tables), indent=2, allow_nan=False) + "\n"

    def to_csv(self) -> str:
        """Return a row a layer: our columns, then those of the released tables that are no column of ours."""
        return join_tables(self.encoding, self.tables).to_csv()


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

    from topognn.cli.display import make_console

    whole = join_tables(outcome.encoding, outcome.tables)
    console = make_console()
    console.print(Text(f"{outcome.request.model}, {outcome.origin}, {len(whole)} layers, {outcome.encoding}"))
    console.print()
    show_table(console, whole, SHOWN)
