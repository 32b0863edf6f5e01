"""What `topognn info` tells: versions, devices, and what would run where."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib import metadata

from rich.text import Text

from topognn.cli.display import make_console

LIBRARIES = ("torch", "torchvision", "numba", "numba-cuda", "cupy", "numpy", "scipy")


def get_installation() -> Iterator[tuple[str, str]]:
    """Return pairs of what and which.

    >>> dict(get_installation())["report runs on"] in ("cpu", "cuda")
    True
    """
    import torch

    from topognn.cli.measuring import pick_device
    from topognn.errors import DeviceError
    from topognn.kernels.launch import check_device, get_num_threads
    from topognn.memory import get_free_memory
    from topognn.version import __version__

    yield "topognn", __version__
    yield "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    for library in LIBRARIES:
        yield library, _version(library)
    yield (
        "cpu",
        f"{get_num_threads()} threads, {_free(get_free_memory(torch.device('cpu')))}; kernels by numba",
    )
    try:
        check_device("cuda")
    except DeviceError as error:
        yield "cuda", f"not usable: {error}"
    else:
        for number in range(torch.cuda.device_count()):
            gpu = torch.cuda.get_device_properties(number)
            free = _free(get_free_memory(torch.device("cuda", number)))
            yield (
                f"cuda:{number}",
                f"{gpu.name}, capability {gpu.major}.{gpu.minor}, {free}; kernels by numba-cuda",
            )
    yield "report runs on", str(pick_device())


def _version(library: str) -> str:
    names = ("cupy", "cupy-cuda12x", "cupy-cuda13x") if library == "cupy" else (library,)
    for name in names:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "not installed"


def _free(count: int | None) -> str:
    return "free memory unknown" if count is None else f"{count / 2**30:.1f} GiB free"


def show_installation() -> None:
    """Print a line each."""
    console = make_console()
    rows = list(get_installation())
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        console.print(Text(f"{name:{width}}  {value}"))
