"""What topometrics cost inside a training loop, against the steps of the same training on the same machine.

    python benchmarks/monitor.py [--sparsity 0.9] [--repeats 4] [--out results.json]

ResNet-20 learns the synthetic images in batches of 128, as ``topognn.training`` trains (channels last). Measured in one
run, two threads:

- a training step;
- the cheap topometrics after one layer's mask has changed by a tenth, for each layer in turn (limit: 5 % of a step);
- the same after all layers' masks have changed, as RigL does;
- all topometrics every 100 steps of a small RigL training, whose masks change as often and, as RigL has it, by less
  and less, and in its last quarter no more: mean over the training, spread over its steps (limit: 10 % of a step).

Every measurement is compared with that of a fresh encoding before it counts.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_WAIT_POLICY"] = "passive"  # idle threads must not take the other's core

import torch
import torch.nn.functional as F
from machine import THREADS, use_threads
from rich.console import Console
from rich.table import Table
from torch import Tensor

import topognn
from topognn.data import Loader, get_data
from topognn.files import replacing
from topognn.monitoring.monitor import CHEAP
from topognn.pruning.dynamic import RigL

SHAPE = (3, 32, 32)
EVERY = 100
LIMITS = {"cheap, one layer changed": 0.05, f"all, every {EVERY} steps": 0.10}


def exchange(mask: Tensor, generator: torch.Generator, share: float) -> Tensor:
    """Return a mask of as many weights, a share of which are others."""
    flat = mask.reshape(-1).clone()
    kept, pruned = flat.nonzero()[:, 0], (~flat).nonzero()[:, 0]
    count = min(max(1, int(share * len(kept))), len(pruned))
    flat[kept[torch.randperm(len(kept), generator=generator)[:count]]] = False
    flat[pruned[torch.randperm(len(pruned), generator=generator)[:count]]] = True
    return flat.view(mask.shape)


def time_of(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def check(model: torch.nn.Module, masks: dict[str, Tensor], found: topognn.Topometrics) -> None:
    fresh = topognn.topometrics(topognn.encode(model, SHAPE, masks), [n for n in found if n in topognn.METRICS])
    for name, value in fresh.items():
        # The sweep's cut follows the Fiedler vector, whose angle is known to the tolerance by the gap of eigenvalues.
        close = 1e-2 if name == "conductance" else 1e-4
        assert abs(found[name] - value) <= close * abs(value), f"{name} is {found[name]}, freshly encoded {value}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--repeats", type=int, default=4, help="hundreds of steps")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    use_threads()
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = topognn.get_model("resnet20").to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    data = get_data("synthetic")
    loader = Loader(data.train, 128, data.mean, data.std, train=True)
    batches = itertools.chain.from_iterable(itertools.repeat(loader))
    masks = topognn.prune(model, "erk", options.sparsity)
    topognn.apply_masks(model, masks)

    def train_step() -> None:
        x, y = next(batches)
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()

    cheap = topognn.TopometricsMonitor(model, SHAPE, CHEAP, every=1)
    everything = topognn.TopometricsMonitor(model, SHAPE, topognn.METRICS, every=1)

    def measure(monitor: topognn.TopometricsMonitor, names: list[str], share: float = 0.1) -> float:
        for name in names:
            masks[name] = exchange(masks[name], generator, share)
        topognn.apply_masks(model, masks)
        seconds = time_of(lambda: monitor.measure(0).to_dict())
        check(model, masks, monitor.history[-1])
        return seconds

    train_step()
    for monitor in (cheap, everything):  # warm up
        measure(monitor, list(masks))
    times: dict[str, list[float]] = {
        "training step": [],
        "cheap, one layer changed": [],
        "cheap, all layers changed": [],
    }
    for _ in range(options.repeats):
        times["cheap, one layer changed"] += [measure(cheap, [name]) for name in masks]
        times["cheap, all layers changed"].append(measure(cheap, list(masks)))
    whole: list[float] = []
    rigl = RigL(model, optimizer, options.sparsity, total_steps=EVERY * options.repeats, every=EVERY, start=masks)

    def train_and_grow() -> None:
        train_step()
        rigl.step()

    for _ in range(options.repeats):
        times["training step"] += [time_of(train_and_grow) for _ in range(EVERY)]
        whole.append(time_of(lambda: everything.measure(0).to_dict()) / EVERY)
        check(model, rigl.masks, everything.history[-1])
    times[f"all, every {EVERY} steps"] = whole
    step = statistics.median(times["training step"])
    records = []
    table = Table(
        "what", "typical ms", "worst ms", "share of a step", "limit", title=f"{THREADS} threads, equal results"
    )
    for what, seconds in times.items():
        typical = statistics.mean if what.startswith("all") else statistics.median
        usual, limit = typical(seconds), LIMITS.get(what)
        records.append({"what": what, "typical": usual, "worst": max(seconds), "share": usual / step, "limit": limit})
        shown = (f"{1e3 * usual:.2f}", f"{1e3 * max(seconds):.2f}", f"{usual / step:.1%}")
        table.add_row(what, *shown, "" if limit is None else f"{limit:.0%}")
    Console().print(table)
    if options.out:
        versions = {"topognn": topognn.__version__, "torch": torch.__version__}
        where = {"machine": platform.machine(), "cores": os.cpu_count(), "threads": THREADS, "versions": versions}
        with replacing(options.out) as part:
            part.write_text(json.dumps({"where": where, "sparsity": options.sparsity, "records": records}, indent=1))


if __name__ == "__main__":
    main()
