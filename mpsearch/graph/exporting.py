"""nn.Module -> one aten graph, through torch.export.

The graph is a plain `fx.GraphModule`: placeholders are the inputs, `get_attr` nodes are the
parameters and buffers under their qualified names, every other node is an aten operator.

Recurrent operators cross torch.export in one piece.

To know the shape of an LSTM's output torch.export runs its steps one by one over fake tensors: 500
steps take 40 s. The shapes are plain, so an operator of our own that only knows them stands in for
torch's during the export, and torch's is put back in the graph.
"""

import contextlib
import functools
import inspect
import io
import keyword
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from mpsearch.errors import InputError, first_line
from mpsearch.graph import memory_budget
from mpsearch.graph.constants import fold_constants
from mpsearch.graph.graph_json import is_storable
from mpsearch.graph.inputs import Call, ExampleInputs, bind_inputs
from mpsearch.graph.layers import packet
from mpsearch.graph.outputs import concatenate, output_names, record_left_out, samples_first
from mpsearch.graph.tensor_paths import tensor_paths
from mpsearch.graph.tensors import (
    FloatWidthCheck,
    as_float32,
    remove_unused,
    set_float_width,
    set_tensor,
)

NAMES = ("lstm", "gru", "rnn_tanh", "rnn_relu")
_OPTIONS = (
    "Tensor[] params, bool has_biases, int num_layers, float dropout, bool train, "
    "bool bidirectional, bool batch_first"
)


@functools.cache
def _stand_ins() -> tuple[torch.library.Library, dict[Any, Any]]:
    """(the library of the stand-ins, torch's functions and operators -> their stand-ins)."""
    library = torch.library.Library("mpsearch", "FRAGMENT")
    found: dict[Any, Any] = {}
    for name in NAMES:
        state, results = ("Tensor[]", 3) if name == "lstm" else ("Tensor", 2)
        returned = ", ".join(["Tensor"] * results)
        library.define(f"{name}(Tensor input, {state} hx, {_OPTIONS}) -> ({returned})")
        torch.library.register_fake(f"mpsearch::{name}", _shapes, lib=library)
        stand_in = getattr(torch.ops.mpsearch, name).default
        found[getattr(torch, name)] = stand_in
        found[getattr(torch.ops.aten, name).input] = stand_in
    return library, found


def _shapes(
    input: torch.Tensor, hx: Any, params: Any, has_biases: bool, num_layers: int, dropout: float,
    train: bool, bidirectional: bool, batch_first: bool,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    states = hx if isinstance(hx, list | tuple) else [hx]
    features = states[0].shape[2] * (2 if bidirectional else 1)
    output = input.new_empty((*input.shape[:2], features))
    return (output, *(state.new_empty(state.shape) for state in states))


class _Mode(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if getattr(func, "__name__", "") == "_pack_padded_sequence":
            raise InputError(
                "the model runs a recurrent layer over packed sequences; expected sequences of one "
                "length, padded"
            )
        return _stand_ins()[1].get(func, func)(*args, **(kwargs or {}))


@contextmanager
def in_one_piece() -> Iterator[None]:
    """While it is open, recurrent operators are exported as stand-ins."""
    with _Mode():
        yield


def torchs_own(target: Any) -> Any:
    """torch's operator for a stand-in; any other target as it is."""
    for name in NAMES:
        if str(target) == f"mpsearch.{name}.default":
            return getattr(torch.ops.aten, name).input
    return target


_LARGE = 1 << 16  # samples at once: an upper bound on the batch that no batch reaches
# What errors begin with, for importers that have other words for it
CONSTANT_BATCH = "the model makes a constant of its batch size"
FIXED_BATCH = "the model fixes its batch size"
NOT_EXPORTED = "the model cannot be exported to an aten graph: "
BRANCHES_ON_DATA = (
    "the model cannot be exported: it branches on its data; expected operations that are the same "
    "for all data: torch.where in place of the branch"
)


def export_graph(model: nn.Module, example_inputs: ExampleInputs) -> fx.GraphModule:
    """The aten graph of `model` in evaluation mode with a free batch dimension.

    `example_inputs` as `inputs.bind_inputs` takes them, for example `(torch.zeros(1, 3, 32, 32),)`;
    the first dimension is the batch. Several outputs become one (see `outputs`). Floating point is
    float32 in the graph, whatever the model has (see `float_width`). The caller's model keeps its
    training flags; the graph shares its weights. Raises InputError with the reason in one line when
    the model cannot be exported, fixes its batch size or returns no tensor.
    """
    call = bind_inputs(model, example_inputs).map(_two_samples)
    training = [module for module in model.modules() if module.training]
    with contextlib.suppress(NotImplementedError):  # the mode of an exported module is fixed
        model.eval()
    try:
        program = _export_in_its_width(model, call)
    finally:
        for module in training:
            module.training = True
    names, left_out = _choose_outputs(program)
    graph = _as_graph_module(program, names)
    set_float_width(graph)
    fold_constants(graph, storable=is_storable)
    examples = tuple(as_float32(x) for x in call.tensors())
    shapes = _check_free_batch(graph, examples, list(names.values()))
    concatenate(graph, list(names.values()), shapes)
    record_left_out(graph, left_out)
    _name_inputs(graph, call.names())
    return graph


def _two_samples(example: torch.Tensor, name: str) -> torch.Tensor:
    """Two samples, because torch.export would treat a batch of one as a constant."""
    if example.dim() == 0 or example.shape[0] == 0:
        raise InputError(
            f"example input {name} has shape {tuple(example.shape)}; "
            "expected at least one sample along the first (batch) dimension"
        )
    return torch.cat([example[:1], example[-1:]]).detach()


def _export_in_its_width(model: nn.Module, call: Call) -> torch.export.ExportedProgram:
    """Export; a model in half or double whose inputs were given as float32 gets them in its own."""
    try:
        return _export(model, call)
    except InputError:
        tensors = (*model.parameters(), *model.buffers())
        widths = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
        given = {tensor.dtype for tensor in call.tensors() if tensor.is_floating_point()}
        for width in sorted(widths - given, key=str):
            with contextlib.suppress(InputError):
                return _export(model, call.map(_in_width(width)))
        raise


def _in_width(width: torch.dtype) -> Callable[[torch.Tensor, str], torch.Tensor]:
    return lambda x, _: x.to(width) if x.is_floating_point() else x


def _export(
    model: nn.Module, call: Call, strict: bool = False, most: int | None = None
) -> torch.export.ExportedProgram:
    """Export with a batch dimension that all inputs share, of at most `most` samples."""
    batch = {0: torch.export.Dim("batch", min=1, max=most)}
    bound = inspect.signature(model.forward).bind(*call.args, **call.kwargs)
    shapes = pytree.tree_map(lambda _: batch, dict(bound.arguments))
    try:
        with warnings.catch_warnings(), _quiet(), in_one_piece():
            warnings.simplefilter("ignore")
            program = torch.export.export(
                model, call.args, call.kwargs, dynamic_shapes=shapes, strict=strict
            )
            if any(_is_in_place(node) for node in program.graph.nodes):
                program = program.run_decompositions({})  # makes the graph functional
    except InputError:
        raise
    except AssertionError as error:  # a guard of a graph that was exported before
        raise InputError(
            f"the model was exported for one input shape ({first_line(error)}); "
            "export it again with a dynamic batch dimension"
        ) from error
    except Exception as error:  # torch.export raises whatever the model's own code raises
        if type(error).__name__ == "GuardOnDataDependentSymNode":
            raise InputError(BRANCHES_ON_DATA) from error
        if "Constraints violated (batch)" in str(error):
            # an end such as that of x[:10**9] is no constant batch
            most_found = re.search(r"batch = Dim\('batch', max=(\d+)\)", str(error))
            if most_found and most is None and int(most_found[1]) >= _LARGE:
                return _export(model, call, strict, int(most_found[1]))
            if most_found:
                raise InputError(
                    f"the model takes at most {most_found[1]} samples at once; expected any number"
                ) from error
            if not strict:  # len(x) is a number to the quick exporter, not to the strict one
                with contextlib.suppress(InputError):
                    return _export(model, call, strict=True)
            raise InputError(
                f"{CONSTANT_BATCH}; expected x.shape[0], or -1 in a reshape, wherever it needs the "
                "number of samples"
            ) from error
        raise InputError(f"{NOT_EXPORTED}{first_line(error)}") from error
    return program


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """torch also logs and prints what it raises; our error says it in one line."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def _is_in_place(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return node.op == "call_function" and schema is not None and bool(schema.is_mutable)


def _choose_outputs(
    program: torch.export.ExportedProgram,
) -> tuple[dict[int, str], tuple[str, ...]]:
    """({position among the graph's outputs: name} of those to keep, names of the others).

    Floats are kept; whole numbers and flags (an arg-max, a mask) only when they are alone.
    """
    signature = program.graph_signature
    changed = {**signature.buffers_to_mutate, **signature.user_inputs_to_mutate}
    if changed:
        raise InputError(
            f"the model changes its {min(changed.values())!r} when it runs; "
            "expected a network without memory between calls"
        )
    values = next(node for node in program.graph.nodes if node.op == "output").args[0]
    names = output_names(program.call_spec.out_spec)
    tensors: dict[int, torch.dtype] = {}
    for index, value in enumerate(values):
        meta = value.meta.get("val") if isinstance(value, fx.Node) else None
        if isinstance(meta, torch.Tensor):
            tensors[index] = meta.dtype
    floats = [index for index, dtype in tensors.items() if dtype.is_floating_point]
    kept = list(tensors) if len(tensors) == 1 else floats
    if not kept:
        found = ", ".join(f"{names[i]}: {dtype}" for i, dtype in tensors.items()) or "no tensor"
        raise InputError(f"the model returns {found}; expected one or more tensors of floats")
    left_out = [i for i, value in enumerate(values) if i not in kept and value is not None]
    return {index: names[index] for index in kept}, tuple(names[index] for index in left_out)


def _as_graph_module(
    program: torch.export.ExportedProgram, outputs: dict[int, str]
) -> fx.GraphModule:
    """Lifted parameters become `get_attr` nodes again; checks on inputs are dropped.

    So is what returns nothing, such as the assertions that `x.to(y.dtype)` leaves behind. The graph
    returns the tuple of those `outputs`.
    """
    signature = program.graph_signature
    lifted = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    state = {**dict(program.named_parameters()), **dict(program.named_buffers())}
    state.update(program.constants)
    paths = tensor_paths(lifted.values())
    root = nn.Module()
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in lifted:
            if not node.users:
                continue
            name = lifted[node.name]
            set_tensor(root, paths[name], state[name])
            copies[node] = graph.get_attr(paths[name])
        elif node.op == "placeholder":
            copies[node] = graph.placeholder(node.name)
        elif node.op == "output":
            results = [node.args[0][index] for index in outputs]
            graph.output(tuple(samples_first(graph, copies[x], x.meta["val"]) for x in results))
        elif _returns_nothing(node):
            continue
        elif node.op == "call_function":
            squeezed = _squeezed(node)
            if squeezed == ():
                copies[node] = copies[node.args[0]]
                continue
            copy = graph.node_copy(node, copies.__getitem__)
            copy.target = _DEFINED.get(node.target, torchs_own(node.target))
            if squeezed is not None:
                one = len(squeezed) == 1
                copy.target = torch.ops.aten.squeeze.dim if one else torch.ops.aten.squeeze.dims
                copy.args = (copy.args[0], squeezed[0] if one else list(squeezed))
            if copy.target is torch.ops.aten.zeros.default:
                copy.kwargs = {k: v for k, v in copy.kwargs.items() if k != "memory_format"}
            copy.meta = {"module": _module_of(node)}
            copies[node] = copy
        else:
            raise InputError(f"{NOT_EXPORTED}it has control flow ({node.name})")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fx would check the names against a module tree
        module = fx.GraphModule(root, graph)
    remove_unused(module)
    return module


# What nothing was written to yet holds zeros.
_DEFINED = {
    torch.ops.aten.empty.memory_format: torch.ops.aten.zeros.default,
    torch.ops.aten.empty_like.default: torch.ops.aten.zeros_like.default,
    torch.ops.aten.new_empty.default: torch.ops.aten.new_zeros.default,
}


def _returns_nothing(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return node.op == "call_function" and schema is not None and not schema.returns


def _squeezed(node: fx.Node) -> tuple[int, ...] | None:
    """What a squeeze drops from every batch; None for other operators, and where it says just that.

    `squeeze()` drops whatever has size 1: the batch, too, when it is a single sample.
    """
    if packet(node) != "squeeze":
        return None
    source: Any = node.args[0]
    shape = source.meta["val"].shape
    named: Any = node.args[1] if len(node.args) > 1 else range(len(shape))
    wanted = [named] if isinstance(named, int) else list(named)
    dropped = tuple(
        dim
        for dim, size in enumerate(shape)
        if isinstance(size, int) and size == 1 and (dim in wanted or dim - len(shape) in wanted)
    )
    return None if len(node.args) > 1 and len(dropped) == len(wanted) else dropped


def _module_of(node: fx.Node) -> str:
    """Qualified name of the module whose code made the node; empty for the root."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]) if stack else ""


def _check_free_batch(
    graph: fx.GraphModule, inputs: tuple[torch.Tensor, ...], names: list[str]
) -> list[tuple[int, ...]]:
    """Shapes of one sample's outputs. torch.export may bake the batch size in without a word: try
    another one."""
    three = tuple(torch.cat([x, x[:1]]) for x in inputs)
    try:
        with torch.no_grad(), memory_budget.watched():
            outputs = FloatWidthCheck(graph).run(*three)
    except (RuntimeError, IndexError) as error:
        raise InputError(f"{FIXED_BATCH}, expected a free one: {first_line(error)}") from error
    for name, output in zip(names, outputs, strict=True):
        if output.shape[:1] != (3,):
            which = f" of {name!r}" if len(names) > 1 else ""
            rows = f"{output.shape[0]} output rows" if output.dim() else "one number"
            raise InputError(
                f"the model turns 3 samples into {rows}{which}; "
                "expected one row of outputs per sample"
            )
    return [tuple(output.shape[1:]) for output in outputs]


def _name_inputs(graph: fx.GraphModule, names: list[str]) -> None:
    """Inputs that come out of a dictionary are called as in it, where torch prefixes the keys."""
    placeholders = [node for node in graph.graph.nodes if node.op == "placeholder"]
    taken = {node.name for node in graph.graph.nodes}
    for node, name in zip(placeholders, names, strict=True):
        if name not in taken and name.isidentifier() and not keyword.iskeyword(name):
            node.target = node.name = name
            taken.add(name)
    graph.recompile()
