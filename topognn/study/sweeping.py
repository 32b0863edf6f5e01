"""The engine of a sweep: tasks to Dask workers, each done once, whatever happens to those who do it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from topognn.errors import SweepError
from topognn.resumable import FULL
from topognn.study.folder import SweepFolder
from topognn.study.grid import Settings, Task

# Makes a network: from a task and settings to its row, but for the key, and its masks.
Make = Callable[[Task, Settings], tuple[Mapping[str, Any], Mapping[str, Any]]]
# Measures what a row lacks: from a task, settings, row and masks to the values to add.
Add = Callable[[Task, Settings, Mapping[str, Any], Mapping[str, Any]], Mapping[str, Any]]

_ALONE = threading.Lock()  # torch's random state is the process's: one network at a time


class Result(NamedTuple):
    """What became of a task: ``done``, ``there`` (finished before), ``failed``, or ``busy`` (another sweep's)."""

    task: Task
    state: str
    error: str = ""
    seconds: float = 0.0


def sweep(
    tasks: Sequence[Task],
    settings: Settings,
    folder: SweepFolder,
    make: Make,
    *,
    add: Add | None = None,
    scheduler: str | None = None,
    show: Callable[[Result, str], None] = lambda result, link: None,
) -> list[Result]:
    """Make every network that has no row yet, and return what became of each.

    A task writes its masks, then its row. One that raises leaves its error instead, and is tried again by the next
    sweep; one whose worker dies is given to another worker. Tasks that another sweep is at are left to it, and made
    here if it gives them up.

    Args:
        tasks: The networks.
        settings: What they have in common.
        folder: Where they go.
        make: Makes a network; workers must be able to import it.
        add: Measures what the rows there are lack, instead of making networks.
        scheduler: Address of a Dask scheduler; by default one worker in this process.
        show: Called with each result, and the address of Dask's dashboard where there is one.

    Raises:
        SweepError: The folder was made with other settings, the disk is full, or there is no scheduler.
    """
    with folder.working(settings), _connect(scheduler) as client:
        results: dict[Task, Result] = {}
        for wait in (False, True):
            left = [task for task in tasks if task not in results]
            for result in _run(client, left, wait, (settings, folder, make, add)):
                if result.state != "busy":
                    results[result.task] = result
                    show(result, client.dashboard_link or "")
    folder.gather()
    return [results[task] for task in tasks]


def _connect(scheduler: str | None) -> Any:
    from distributed import Client, LocalCluster

    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    if scheduler is None:
        cluster = LocalCluster(
            n_workers=1,
            threads_per_worker=1,
            processes=False,
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
        )
        return _OwnClient(cluster)
    try:
        return Client(scheduler, timeout=20)
    except (OSError, ValueError) as error:
        raise SweepError(
            f"no Dask scheduler answers at {scheduler!r}: {error}. Start one with `dask scheduler`."
        ) from error


class _OwnClient:
    """A client of a cluster in this process, which ends with it."""

    def __init__(self, cluster: Any) -> None:
        from distributed import Client

        self._cluster, self._client = cluster, Client(cluster)

    def __enter__(self) -> Any:
        return self._client

    def __exit__(self, *error: object) -> None:
        self._client.close()
        self._cluster.close()


def _run(client: Any, tasks: Sequence[Task], wait: bool, rest: tuple[Any, ...]) -> Any:
    """Yield the result of each task, as they come."""
    from distributed import as_completed

    folder: SweepFolder = rest[1]
    futures = {client.submit(run_task, task, wait, *rest, pure=False, retries=0): task for task in tasks}
    try:
        for future in as_completed(list(futures)):
            task = futures.pop(future)
            if future.status == "finished":
                yield future.result()
            elif isinstance(error := future.exception(), SweepError):
                raise error
            else:  # the worker died under it more often than Dask allows
                yield Result(task, "failed", folder.record_error(task, error))
    finally:
        client.cancel(list(futures))


def run_task(task: Task, wait: bool, settings: Settings, folder: SweepFolder, make: Make, add: Add | None) -> Result:
    """Make one network, or add to it, unless that is done already; never raises but where no task can succeed.

    Raises:
        SweepError: The disk is full, or the folder is another sweep's by now.
    """
    started = time.perf_counter()
    with folder.watching(), folder.working(settings), folder.lock(task.name, wait) as held:
        if not held:
            return Result(task, "busy")
        folder.clean(task)
        there = folder.row(task).is_file()
        if there and add is None:
            return Result(task, "there")
        if not there and add is not None:
            return Result(task, "failed", "there is no row to add to: run the sweep first")
        try:
            with _ALONE:
                if add is not None:
                    row = folder.read_row(task)
                    new = add(task, settings, row, folder.read_masks(task))
                    if not new:
                        return Result(task, "there")
                    folder.write_row(task, {**row, **new})
                else:
                    made, masks = make(task, settings)
                    folder.write_masks(task, masks)
                    folder.write_row(task, made)
        except Exception as error:
            if isinstance(error, OSError) and error.errno in FULL:
                raise  # `watching` says what to do
            return Result(task, "failed", folder.record_error(task, error), time.perf_counter() - started)
    return Result(task, "done", seconds=time.perf_counter() - started)
