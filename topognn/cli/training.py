"""The command `topognn train`."""

from __future__ import annotations

from typing import Annotated

import typer

from topognn.cli.sources import FORMS


def train(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=f"What to train: {FORMS}.", show_default=False)],
    data: Annotated[str, typer.Option(metavar="NAME", help="Dataset: see `topognn data list`.", show_default=False)],
    pruner: Annotated[str | None, typer.Option(help="See `topognn pruners`; or set, rigl, itop, snfs, dsr.")] = None,
    sparsity: Annotated[float | None, typer.Option(help="Fraction of weights to prune, from 0 to below 1.")] = None,
    epochs: Annotated[int | None, typer.Option(help="160 by default, 100 on Tiny-ImageNet.", min=1)] = None,
    batch_size: Annotated[int, typer.Option(help="Images a step.", min=1)] = 128,
    lr: Annotated[float, typer.Option(help="Learning rate at the start.")] = 0.1,
    weight_decay: Annotated[float | None, typer.Option(help="By default 1e-4 for ResNets, else 5e-4.")] = None,
    seed: Annotated[int, typer.Option(help="Of weights, masks and the order of images.", min=0)] = 0,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; a GPU if there is one by default.")] = None,
    root: Annotated[str | None, typer.Option(metavar="FOLDER", help="Of datasets: see `topognn data`.")] = None,
    out: Annotated[str | None, typer.Option(metavar="FOLDER", help="For checkpoints and tables; in runs/.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the folder's checkpoint.")] = False,
    metrics: Annotated[str | None, typer.Option(metavar="A,B", help="Topometrics to watch.")] = None,
    every: Annotated[int, typer.Option(help="Steps between topometrics.", min=1)] = 100,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Log to TensorBoard in the same folder.")] = False,
    wandb: Annotated[str | None, typer.Option(metavar="PROJECT", help="Log to Weights & Biases.")] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Train a masked model as the study does; interrupted, it goes on to the same weights with --resume."""
    from topognn.cli.fitting import TrainingRequest, fit

    fit(
        TrainingRequest(
            *(model, data, pruner, sparsity, epochs, batch_size, lr, weight_decay, seed),
            *(device, root, out, resume, metrics, every, tensorboard, wandb),
        )
    )
