"""A TorchScript module as an ordinary nn.Module that torch.export can follow.

`as_module` copies the tree of submodules with its parameters under their names, and its forward
runs the script's graph node by node: operators of torch are called, what TorchScript does with
numbers, lists and branches is done in Python. torch.export traces through that as through any other
code: branches and loops over constants disappear, a branch on the data is refused.
"""

import inspect
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from mpsearch.errors import InputError
from mpsearch.graph.tensors import get_tensor, set_tensor
from mpsearch.importers.torchscript.operators import operator_of

KEEPS_STATE = (
    "it keeps state between calls ({names}): every call is read as the first one, from the state "
    "in the file"
)
WAY_OUT = "export the nn.Module itself: mpsearch.save(model, …), or ONNX from torch.onnx.export"


def as_module(script: torch.jit.ScriptModule) -> nn.Module:
    """The module that computes what `script` computes; it shares its tensors.

    Raises InputError naming the operators when the script calls others than torch's own (weights
    packed for one machine, an extension).
    """
    try:
        graph = script.inlined_graph
    except AttributeError as error:
        raise InputError(f"the TorchScript module has no forward of its own; {WAY_OUT}") from error
    names = sorted({node.kind() for node in _nodes(graph)})
    foreign = [name for name in names if not name.startswith(("aten::", "prim::"))]
    if foreign:
        raise InputError(
            f"the TorchScript archive calls {', '.join(foreign)[:200]} (was it saved after "
            f"optimize_for_inference?); expected operators of torch: {WAY_OUT}"
        )
    return _Interpreter(script, graph)


def _nodes(block: Any) -> Iterator[Any]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)


class _State:
    """What one call has assigned to attributes, apart: torch.export refuses those of a module."""

    def __init__(self) -> None:
        self.written: dict[tuple[Any, str], Any] = {}


class _Interpreter(nn.Module):
    """Runs the graph of a script over a copy of its modules."""

    def __init__(self, script: torch.jit.ScriptModule, graph: Any) -> None:
        super().__init__()
        self._graph = graph
        self._scripts: dict[nn.Module, Any] = {}
        self._constants = _name_constants(graph)
        self._parameter_names: dict[Any, str] = {}
        self._state = _State()
        self._copy(script, self, "")
        for node in _nodes(graph):
            name = self._constants.get(_name(node))
            if name is not None:
                set_tensor(self, name, node.output().toIValue())
        kept = sorted({node.s("name") for node in _nodes(graph) if node.kind() == "prim::SetAttr"})
        self.meta = {"notes": [KEEPS_STATE.format(names=", ".join(kept))] if kept else []}
        self._signature = _signature(script.forward.schema.arguments[1:])  # type: ignore[attr-defined]

        def forward(*args: Any, **kwargs: Any) -> Any:
            bound = self._signature.bind(*args, **kwargs)
            bound.apply_defaults()
            self._state.written.clear()
            (result,) = self._run(self._graph, (self, *bound.arguments.values()), {})
            return result

        forward.__signature__ = self._signature  # type: ignore[attr-defined]
        self.forward = forward

    def _copy(self, script: Any, copy: nn.Module, path: str) -> None:
        """Parameters, buffers and submodules by name; a tensor that is used twice stays one."""
        self._scripts[copy] = script
        for name, tensor in script.named_parameters(recurse=False):
            first = self._parameter_names.setdefault(_place(tensor), path + name)
            if first == path + name:
                parameter = nn.Parameter(tensor.detach(), tensor.is_floating_point())
            else:
                parameter = self.get_parameter(first)
            copy.register_parameter(name, parameter)
        for name, tensor in script.named_buffers(recurse=False):
            copy.register_buffer(name, tensor)
        for name, child in script.named_children():
            module = nn.Module()
            copy.add_module(name, module)
            self._copy(child, module, f"{path}{name}.")

    def _run(self, block: Any, inputs: Sequence[Any], outer: dict[str, Any]) -> list[Any]:
        """The outputs of a block (the graph itself, a branch, a loop's body)."""
        values = dict(outer)
        values.update(zip((x.debugName() for x in block.inputs()), inputs, strict=True))
        for node in block.nodes():
            results = self._results(node, values)
            values.update(zip((x.debugName() for x in node.outputs()), results, strict=True))
        return [values[x.debugName()] for x in block.outputs()]

    def _results(self, node: Any, values: dict[str, Any]) -> Sequence[Any]:
        kind = node.kind()
        if kind == "prim::Constant":
            name = self._constants.get(_name(node))
            return [_constant(node) if name is None else get_tensor(self, name)]
        args = [values[x.debugName()] for x in node.inputs()]
        if kind == "prim::GetAttr":
            return [self._attribute(args[0], node.s("name"))]
        if kind == "prim::SetAttr":
            self._state.written[args[0], node.s("name")] = args[1]
            return []
        if kind == "prim::If":
            then, otherwise = node.blocks()
            return self._run(then if args[0] else otherwise, (), values)
        if kind == "prim::Loop":
            (body,) = node.blocks()
            (steps, goes_on, *carried), count = args, 0
            while goes_on and count < steps:
                goes_on, *carried = self._run(body, (count, *carried), values)
                count += 1
            return carried
        return operator_of(node)(args)

    def _attribute(self, owner: Any, name: str) -> Any:
        if (owner, name) in self._state.written:
            return self._state.written[owner, name]
        if isinstance(owner, nn.Module):
            for place in (owner._parameters, owner._buffers, owner._modules):
                if name in place:
                    return place[name]
            owner = self._scripts[owner]
        value = getattr(owner, name)
        if isinstance(value, list):  # the flat weights of an LSTM
            return [self._parameter(item) for item in value]
        return self._parameter(value)

    def _parameter(self, value: Any) -> Any:
        """The parameter that an attribute names once more; any other value as it is."""
        name = self._parameter_names.get(_place(value)) if isinstance(value, torch.Tensor) else None
        return value if name is None else self.get_parameter(name)


def _place(tensor: torch.Tensor) -> Any:
    return tensor.data_ptr(), tuple(tensor.shape), tensor.stride()


def _name(node: Any) -> str:
    return str(node.output().debugName()) if node.outputsSize() == 1 else ""


def _constant(node: Any) -> Any:
    """A constant's value: tensors of one whole number, which tracing divides sizes by, as numbers;
    devices as the CPU, where the weights have been loaded."""
    value = node.output().toIValue()
    if value is not None and str(node.output().type()) == "Device":
        return torch.device("cpu")
    single = isinstance(value, torch.Tensor) and value.dim() == 0 and not value.is_floating_point()
    return value.item() if single else value


def _name_constants(graph: Any) -> dict[str, str]:
    """Value -> name for every tensor that is written into the graph, as freezing does it.

    The names of the weights are lost there: they are called after the operator that reads them,
    `conv2d_0.weight`, `conv2d_0.bias`, `linear_0.weight`, counted per operator.
    """
    constants = {
        _name(node): ""
        for node in _nodes(graph)
        if node.kind() == "prim::Constant" and isinstance(_constant(node), torch.Tensor)
    }
    counts: Counter[str] = Counter()
    for node in _nodes(graph):
        operator = node.kind().partition("::")[2].lstrip("_")
        read = [x.debugName() for x in node.inputs()]
        if not operator.startswith(("conv", "linear")) or constants.get((*read, "", "")[1]) != "":
            continue
        for value, leaf in zip(read[1:3], ("weight", "bias"), strict=False):
            if constants.get(value) == "":
                constants[value] = f"{operator}_{counts[operator]}.{leaf}"
        counts[operator] += 1
    return {
        value: name or f"constant_{index}" for index, (value, name) in enumerate(constants.items())
    }


def _signature(arguments: Sequence[Any]) -> inspect.Signature:
    """The script's arguments, so that inputs keep their names."""
    empty = inspect.Parameter.empty
    return inspect.Signature(
        [
            inspect.Parameter(
                argument.name,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=argument.default_value if argument.has_default_value() else empty,
            )
            for argument in arguments
        ]
    )
