"""The command ``topognn``: topometrics of a model, and what there is to choose from.

Nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import gc
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from topognn.cli import datasets, layering, studying, sweeping, training
from topognn.cli.sources import FORMS
from topognn.cli.writing import check_files, quiet_warnings, write_files
from topognn.errors import TopognnError
from topognn.version import __version__

# Read when torch is loaded: threads that wait for each other by spinning are a hundred times slower where
# another process wants the same cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "3000")  # some ten microseconds: a next small convolution finds them awake


class Commands(TyperGroup):
    """The commands, all of whose failures are one line on stderr and an exit code.

    0: done. 2: an argument or a file that cannot be right. 1: what was asked for cannot be done here.
    130: interrupted.
    """

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command that ``args`` spell, and leave the process with its exit code."""
        debug = "--debug" in (sys.argv[1:] if args is None else args)
        try:
            code = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        except (KeyboardInterrupt, typer.Abort):
            code = 130
        except Exception as error:
            if debug:
                traceback.print_exc()
            message, code = _explain(error)
            print(f"error: {' '.join(message.split())}", file=sys.stderr)
        sys.exit(code if isinstance(code, int) else 0)


def _explain(error: Exception) -> tuple[str, int]:
    if isinstance(error, TopognnError):
        return str(error), 2 if isinstance(error, ValueError | KeyError) else 1
    if hasattr(error, "format_message"):  # typer's own: an unknown option, a missing argument, not a number
        context = getattr(error, "ctx", None)
        return f"{error.format_message()} (see {context.command_path if context else 'topognn'} --help)", 2
    hint = "" if isinstance(error, OSError | MemoryError) else " (unexpected; --debug shows where)"
    return f"{type(error).__name__}: {error}{hint}", 1


app = typer.Typer(cls=Commands, add_completion=False, pretty_exceptions_enable=False)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"topognn {__version__}")
        raise typer.Exit()


@app.callback(invoke_without_command=True)
def _start(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Turn sparse neural networks into graphs and measure their topology."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
def report(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=f"What to measure: {FORMS}.", show_default=False)],
    pruner: Annotated[str | None, typer.Option(help="Pruning algorithm: see `topognn pruners`.")] = None,
    sparsity: Annotated[float | None, typer.Option(help="Fraction of weights to prune, from 0 to below 1.")] = None,
    seed: Annotated[int, typer.Option(help="Of the random weights and of the algorithm.", min=0)] = 0,
    checkpoint: Annotated[str | None, typer.Option(metavar="FILE", help="State dict to load first.")] = None,
    masks: Annotated[str | None, typer.Option(metavar="FILE", help="Masks, or a state dict with zeros.")] = None,
    input: Annotated[str | None, typer.Option(metavar="SIZES", help="Of one input, such as 3x32x32.")] = None,
    classes: Annotated[int | None, typer.Option(help="Outputs: 10, or 1000 for torchvision.", min=1)] = None,
    metrics: Annotated[str | None, typer.Option(metavar="A,B", help="Which topometrics; all by default.")] = None,
    shortcuts: Annotated[str, typer.Option(help="Which shortcuts make edges: parametric or all.")] = "parametric",
    attention: Annotated[str, typer.Option(help="What attention's edges are of: all, or values alone.")] = "all",
    device: Annotated[str | None, typer.Option(help="cpu or cuda; a GPU if there is one by default.")] = None,
    json: Annotated[str | None, typer.Option(metavar="FILE", help="Write all as JSON; - for stdout alone.")] = None,
    csv: Annotated[str | None, typer.Option(metavar="FILE", help="Write topometrics as CSV; - likewise.")] = None,
    layers: Annotated[bool, typer.Option("--layers", help="Measure each layer too.")] = False,
    where: Annotated[bool, typer.Option("--where", help="Show where sinks, sources, cuts and islands sit.")] = False,
    baselines: Annotated[bool, typer.Option("--baselines", help="Add means of metrics of single layers.")] = False,
    memory: Annotated[str | None, typer.Option(metavar="SIZE", help="No topometric goes beyond, such as 8GB.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Tell what it would take, and measure nothing.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Compute the topometrics of a pruned model: raw, and normalised as published."""
    from topognn.cli.display import make_status, show_report
    from topognn.cli.measuring import measure
    from topognn.cli.outcome import Request

    check_files(json, csv)
    request = Request(
        *(model, pruner, sparsity, seed, checkpoint, masks, input, classes, metrics, shortcuts, attention, device),
        *(layers, where, baselines, memory),
    )
    if plan:
        from topognn.cli.foresight import foresee, show_plan

        with quiet_warnings(debug):
            foresight = foresee(request, make_status())
        if not write_files(foresight, json, csv):
            show_plan(foresight)
        return
    with quiet_warnings(debug):
        outcome = measure(request, make_status())
    if not write_files(outcome, json, csv):
        show_report(outcome)


@app.command()
def models() -> None:
    """List the models that have a name."""
    from topognn.cli.display import show_models

    show_models()


@app.command()
def pruners() -> None:
    """List the pruning algorithms."""
    from topognn.cli.display import show_pruners

    show_pruners()


@app.command()
def info() -> None:
    """Say what is installed, and which device would run what."""
    from topognn.cli.installation import show_installation

    show_installation()


app.command()(layering.layers)
app.command()(training.train)
app.add_typer(datasets.app, name="data")
app.command()(studying.study)
app.command()(sweeping.sweep)


def main() -> None:
    """Run the command line; the console script's entry point."""
    # torch's modules are hundreds of thousands of objects that stay: to look through them for garbage again and again
    # while they are loaded takes half a second. At the end it is done: triton 3.9 tells of all that is left then.
    gc.set_threshold(50_000, 20, 100)
    app(prog_name="topognn")
