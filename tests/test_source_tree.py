"""Rules of the house that a reader of the source can check."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*(ROOT / "topognn").rglob("*.py"), *(ROOT / "kernels").rglob("*.py")])
HOST_READS = {"cpu", "item", "tolist", "numpy"}
MAY_READ = {
    "kernels/host.py",  # the one door to the host
    "kernels/launch.py",  # hands CPU tensors to compiled loops as arrays
    "topognn/interop.py",  # other libraries live on the host
    "topognn/checkpoints.py",
    "topognn/storage.py",
    "topognn/tracing/assemble.py",  # a layout is made on the CPU, before any device is known
}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_of(path: Path) -> str:
    dotted = name_of(path).removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    return dotted if dotted.startswith("topognn") else f"topognn.{dotted}"


MODULES = {module_of(path): path for path in SOURCES}


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_hidden_host_sync(path: Path) -> None:
    if name_of(path) in MAY_READ:
        pytest.skip("reading is this module's work")
    calls = [
        f"line {node.lineno}: .{node.func.attr}()"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in HOST_READS
    ]
    assert not calls


def test_no_module_bears_the_name_of_a_public_function() -> None:
    import topognn
    from topognn import metrics, models, pruning

    for package in (topognn, models, pruning, metrics):
        modules = {path.stem for path in Path(package.__file__ or "").parent.iterdir()}
        for name in getattr(package, "__all__", []):
            assert name not in modules or not callable(getattr(package, name)), name


def imports(path: Path) -> set[str]:
    """Return the modules of this project that a file imports at its top level."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("topognn"):
            inside = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= inside & MODULES.keys() or {node.module}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("topognn")}
    return found


def test_no_circular_imports() -> None:
    modules = {module: imports(path) for module, path in MODULES.items()}
    done: set[str] = set()

    def visit(module: str, above: tuple[str, ...]) -> None:
        assert module not in above, " -> ".join((*above, module))
        if module not in done:
            for needed in sorted(modules[module] & modules.keys()):
                if needed != module:
                    visit(needed, (*above, module))
            done.add(module)

    for module in modules:
        visit(module, ())
    assert len(done) == len(modules)
