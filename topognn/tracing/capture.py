"""Ask ``torch.export`` what the model computes, and evaluate the expressions that weights are."""

from __future__ import annotations

import contextlib
import io
import logging
import operator
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.fx import Node

from topognn.errors import MaskError, TraceError, UnsupportedOperation
from topognn.masks import get_first_names
from topognn.modes import eval_mode

# In-place operations that change no element's origin, however the tensor they change is viewed.
_HARMLESS_IN_PLACE = (
    "relu_ relu6_ hardtanh_ hardswish_ hardsigmoid_ silu_ mish_ elu_ celu_ selu_ leaky_relu_ sigmoid_ tanh_ threshold_ "
    "dropout_ feature_dropout_ alpha_dropout_ clamp_ clamp_min_ clamp_max_ neg_ exp_ sqrt_ rsqrt_ abs_ requires_grad_"
).split()
_VIEWS = (
    "view reshape flatten unflatten permute transpose t slice select narrow expand chunk split split_with_sizes "
    "squeeze unsqueeze unbind alias detach movedim swapaxes view_as expand_as unfold getitem"
).split()


InputShape = Sequence[int] | Tensor | Sequence[Tensor]
"""The shape of one input without the batch, or an example of each input with a batch of 1."""


class Captured(NamedTuple):
    """An exported graph: nodes in execution order, its inputs, names of parameters and buffers, constants, and shapes.

    Shapes are those of all that was given, without the batch.
    """

    graph: torch.fx.Graph
    inputs: tuple[Node, ...]
    tensors: dict[Node, str]
    constants: dict[Node, Tensor]
    shapes: tuple[tuple[int, ...], ...]


def capture(model: nn.Module, input_shape: InputShape) -> Captured:
    """Export ``model`` at ``(1, *input_shape)``, or at an example, in evaluation mode; the model is left as it was."""
    if not isinstance(model, nn.Module):
        raise TraceError(f"expected a torch.nn.Module, not {type(model).__name__}")
    examples = _check_examples(input_shape)
    first = next(model.parameters(), None)
    if first is None:
        raise TraceError("the model has no parameters: no parametric layer, no graph")
    if any(p.is_meta for p in model.parameters()):
        raise TraceError("the model is on the meta device, where weights have no values: move it with to_empty()")
    if examples:
        given = tuple(example.to(first.device) for example in examples)
        shown: tuple[Any, ...] = tuple(tuple(example.shape) for example in examples)
    else:
        shown = tuple(input_shape)
        given = (torch.empty(1, *shown, device=first.device, dtype=first.dtype),)
    with eval_mode(model), _quiet(), torch.no_grad():
        try:
            program = _export(model, given)
        except Exception as error:  # export raises many types; all of them mean: not traceable as it is
            if examples or "indices" not in str(error) or "Long" not in str(error):
                raise _explain(error, shown) from error
            try:  # the input is looked up in an embedding
                program = _export(model, (torch.zeros(given[0].shape, dtype=torch.int64, device=first.device),))
            except Exception as second:
                raise _explain(second, shown) from second
    return _read(program, model, find_shapes(input_shape))


def find_shapes(input_shape: InputShape) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of a model's inputs without the batch, from the one of a single input or from examples.

    >>> find_shapes((3, 32, 32)), find_shapes((torch.ones(1, 4), torch.ones(1, 5, 2)))
    (((3, 32, 32),), ((4,), (5, 2)))
    """
    shapes = tuple(tuple(example.shape[1:]) for example in _check_examples(input_shape))
    return shapes or (tuple(input_shape),)  # type: ignore[arg-type]


def _export(model: nn.Module, examples: tuple[Tensor, ...]) -> torch.export.ExportedProgram:
    with _without_dump():
        program = torch.export.export(model, examples, strict=False)
    return program if _is_functional(program.graph) else program.run_decompositions({})


def _check_examples(input_shape: Any) -> tuple[Tensor, ...]:
    """Return the example tensors that were given in place of a shape, none if it is a shape."""
    examples = (input_shape,) if isinstance(input_shape, Tensor) else input_shape
    if not isinstance(examples, tuple | list) or not any(isinstance(one, Tensor) for one in examples):
        _check_shape(input_shape)
        return ()
    for one in examples:
        if not isinstance(one, Tensor) or one.dim() < 2 or one.shape[0] != 1:
            what = f"a tensor of shape {tuple(one.shape)}" if isinstance(one, Tensor) else repr(one)
            raise TraceError(f"example inputs must be tensors with a batch of 1 in front, not {what}")
    return tuple(examples)


def _check_shape(input_shape: Any) -> None:
    good = isinstance(input_shape, tuple | list) and len(input_shape) > 0
    if not good or not all(isinstance(s, int) and s > 0 for s in input_shape):
        raise TraceError(
            f"input_shape must be the shape of one input without the batch, such as (3, 32, 32), not {input_shape!r}"
        )


def _explain(error: Exception, input_shape: tuple[int, ...]) -> TraceError:
    text = str(error)
    line = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    if "data-dependent" in text or "GuardOnDataDependent" in type(error).__name__:
        return TraceError(
            f"the model's control flow depends on data, so it has no one graph: {line} "
            "(make the branch depend on shapes or constants)"
        )
    return TraceError(f"torch.export cannot trace the model at input shape {tuple(input_shape)}: {line}")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what torch.export says besides raising: warnings of pruning hooks, tracebacks in the log."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)


@contextlib.contextmanager
def _without_dump() -> Iterator[None]:
    """Keep from stderr the graph so far, which torch.export prints beside the error that has it, and nothing else."""
    said, dump = io.StringIO(), ""
    try:
        with contextlib.redirect_stderr(said):
            yield
    except Exception as error:
        if hasattr(error, "partial_fx_graph"):
            dump = f"{error.partial_fx_graph}\n"
        raise
    finally:
        sys.stderr.write(said.getvalue().replace(dump, ""))


def name_of(node: Node) -> str:
    """Return an operation's name without namespace and overload: ``conv2d`` for ``aten.conv2d.default``."""
    if node.op != "call_function":
        return node.op
    if node.target is operator.getitem:
        return "getitem"
    packet = getattr(node.target, "overloadpacket", None)
    return packet.__name__ if packet is not None else getattr(node.target, "__name__", str(node.target))


def _is_functional(graph: torch.fx.Graph) -> bool:
    """Tell whether no in-place operation could change a tensor that is read under another name."""
    for node in graph.nodes:
        name = name_of(node)
        if not name.endswith("_") or name.startswith("_") or name in _HARMLESS_IN_PLACE:
            continue
        changed = node.args[0]
        aliases = [changed, *changed.users]
        if name not in ("add_", "sub_", "mul_", "div_") or any(name_of(a) in _VIEWS for a in aliases):
            return False
    return True


def _read(program: torch.export.ExportedProgram, model: nn.Module, shapes: tuple[tuple[int, ...], ...]) -> Captured:
    graph, signature = program.graph, program.graph_signature
    names = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    first: dict[int, str] = {}  # tied parameters go by their first name; as a layer's weight, if they are one
    layers = get_first_names(model)
    for name, parameter in model.named_parameters(remove_duplicate=False):
        first.setdefault(id(parameter), layers.get(name, name))
    own = dict(model.named_parameters(remove_duplicate=False))
    names = {key: first[id(own[name])] if name in own else name for key, name in names.items()}
    lifted = signature.inputs_to_lifted_tensor_constants
    placeholders = [n for n in graph.nodes if n.op == "placeholder"]
    inputs = tuple(n for n in placeholders if n.name in signature.user_inputs and n.users)
    if not inputs:
        raise TraceError("the model does not compute its output from its input")
    order = {node: i for i, node in enumerate(graph.nodes)}
    for node in graph.nodes:  # after an in-place operation, its result is what the old name reads
        if name_of(node).endswith("_") and node.op == "call_function":
            changed = node.args[0]
            for user in list(changed.users):
                if order[user] > order[node]:
                    user.replace_input_with(changed, node)
    for node in list(graph.nodes):
        if name_of(node).startswith(("_assert", "sym_constrain")):
            graph.erase_node(node)
    return Captured(
        graph,
        inputs,
        {n: names[n.name] for n in placeholders if n.name in names},
        {n: program.constants[lifted[n.name]] for n in placeholders if n.name in lifted},
        shapes,
    )


class Expressions:
    """Weights as the model computes them from its parameters and buffers, evaluated when asked for.

    Parameters are looked up by name at every evaluation, so the values are always the model's current ones.
    """

    def __init__(self, model: nn.Module, captured: Captured) -> None:
        self.model = model
        self.shapes = captured.shapes
        self._names = captured.tensors
        self._constants = captured.constants
        self._roots: dict[str, Node] = {}

    def add(self, name: str, root: Node) -> None:
        """Remember that weight ``name`` is the value of ``root``."""
        self._roots[name] = root

    def __call__(self) -> dict[str, Tensor]:
        """Return all weights by name, detached, on the model's device."""
        values: dict[Node, Any] = {}
        with torch.no_grad():
            return {name: self.evaluate(root, values).detach() for name, root in self._roots.items()}

    def evaluate(self, node: Node, values: dict[Node, Any] | None = None) -> Any:
        """Return the value of a node that does not depend on the network's input."""
        values = {} if values is None else values
        if node not in values:
            if node in self._names:
                values[node] = self._look_up(self._names[node])
            elif node in self._constants:
                values[node] = self._constants[node]
            elif node.op == "placeholder":
                raise UnsupportedOperation(
                    f"the model moves data, or computes weights, by the values of its input {node.name!r}: that has "
                    "no one graph"
                )
            else:
                args, kwargs = torch.fx.map_arg((node.args, node.kwargs), lambda n: self.evaluate(n, values))
                values[node] = node.target(*args, **kwargs)  # type: ignore[operator]
        return values[node]

    def _look_up(self, name: str) -> Tensor:
        value: Any = self.model
        try:
            for part in name.split("."):
                value = getattr(value, part)
        except AttributeError:
            raise MaskError(f"the model no longer has {name!r}: it changed after tracing, so trace it again") from None
        tensor: Tensor = value
        return tensor
