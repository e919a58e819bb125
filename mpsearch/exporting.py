"""nn.Module -> one aten graph, through torch.export.

The graph is a plain `fx.GraphModule`: placeholders are the inputs, `get_attr` nodes are the
parameters and buffers under their qualified names, every other node is an aten operator.
"""

import contextlib
import inspect
import warnings
from collections.abc import Sequence

import torch
from torch import fx, nn

from mpsearch.errors import InputError, first_line
from mpsearch.graph_tensors import set_tensor


def export_graph(model: nn.Module, example_inputs: Sequence[torch.Tensor]) -> fx.GraphModule:
    """The aten graph of `model` in evaluation mode with a free batch dimension.

    `example_inputs`: one tensor per positional input, the first dimension is the batch, for example
    `(torch.zeros(1, 1, 44, 13), torch.zeros(1, 3, 32, 32))`. The caller's model keeps its training
    flags; the graph shares its weights. Raises InputError with the reason in one line when the
    model cannot be exported, fixes its batch size or returns something else than one tensor.
    """
    inputs = tuple(_two_samples(example, i) for i, example in enumerate(example_inputs))
    training = [module for module in model.modules() if module.training]
    with contextlib.suppress(NotImplementedError):  # the mode of an exported module is fixed
        model.eval()
    try:
        program = _export(model, inputs)
    finally:
        for module in training:
            module.training = True
    graph = _as_graph_module(program)
    _check_free_batch(graph, inputs)
    return graph


def _two_samples(example: torch.Tensor, index: int) -> torch.Tensor:
    """Two samples, because torch.export would treat a batch of one as a constant."""
    if example.dim() == 0 or example.shape[0] == 0:
        raise InputError(
            f"example input {index} has shape {tuple(example.shape)}; "
            "expected at least one sample along the first (batch) dimension"
        )
    return torch.cat([example[:1], example[-1:]]).detach()


def _export(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> torch.export.ExportedProgram:
    """Export with a batch dimension that all inputs share."""
    shapes = _free_batch(model, inputs)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(model, inputs, dynamic_shapes=shapes)
            if any(_is_in_place(node) for node in program.graph.nodes):
                program = program.run_decompositions({})  # makes the graph functional
    except AssertionError as error:  # a guard of a graph that was exported before
        raise InputError(
            f"the model was exported for one input shape ({first_line(error)}); "
            "export it again with a dynamic batch dimension"
        ) from error
    except Exception as error:  # torch.export raises whatever the model's own code raises
        raise InputError(
            f"the model cannot be exported to an aten graph: {first_line(error)}"
        ) from error
    return program


def _free_batch(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> dict[str, object]:
    """torch.export's description of inputs that share a free first dimension, by argument."""
    batch = {0: torch.export.Dim("batch", min=1)}
    try:
        bound = inspect.signature(model.forward).bind(*inputs).arguments
    except TypeError as error:
        raise InputError(f"the model does not take {len(inputs)} inputs: {error}") from error
    return {
        name: tuple(batch for _ in value) if isinstance(value, tuple) else batch
        for name, value in bound.items()
    }


def _is_in_place(node: fx.Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return node.op == "call_function" and schema is not None and bool(schema.is_mutable)


def _as_graph_module(program: torch.export.ExportedProgram) -> fx.GraphModule:
    """Lifted parameters become `get_attr` nodes again; checks on inputs are dropped."""
    signature = program.graph_signature
    lifted = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    state = {**dict(program.named_parameters()), **dict(program.named_buffers())}
    state.update(program.constants)
    root = nn.Module()
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in lifted:
            if not node.users:
                continue
            name = lifted[node.name]
            set_tensor(root, name, state[name])
            copies[node] = graph.get_attr(name)
        elif node.op == "placeholder":
            copies[node] = graph.placeholder(node.name)
        elif node.op == "output":
            graph.output(_only_tensor(node, copies))
        elif node.op == "call_function":
            copy = graph.node_copy(node, copies.__getitem__)
            copy.meta = {"module": _module_of(node)}
            copies[node] = copy
        else:
            raise InputError(
                f"the model cannot be exported to an aten graph: it has control flow ({node.name})"
            )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fx would check the names against a module tree
        module = fx.GraphModule(root, graph)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


def _only_tensor(output: fx.Node, copies: dict[fx.Node, fx.Node]) -> fx.Node:
    (values,) = output.args
    nodes = [value for value in values if isinstance(value, fx.Node)]  # type: ignore[union-attr]
    if len(nodes) != 1:
        raise InputError(f"the model returns {len(nodes)} tensors; expected one (the logits)")
    return copies[nodes[0]]


def _module_of(node: fx.Node) -> str:
    """Qualified name of the module whose code made the node; empty for the root."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    return str(stack[-1][0]) if stack else ""


def _check_free_batch(graph: fx.GraphModule, inputs: tuple[torch.Tensor, ...]) -> None:
    """torch.export may bake the batch size in without a word: try another one."""
    three = tuple(torch.cat([x, x[:1]]) for x in inputs)
    try:
        with torch.no_grad():
            rows = graph(*three).shape[:1]
    except (RuntimeError, IndexError) as error:
        raise InputError(
            f"the model fixes its batch size, expected a free one: {first_line(error)}"
        ) from error
    if rows != (3,):
        raise InputError(
            f"the model turns 3 samples into {rows[0] if rows else 'no'} output rows; "
            "expected one row of outputs per sample"
        )
