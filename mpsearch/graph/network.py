"""`Network`: the one internal representation of every model that mpsearch works on."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import fx, nn

from mpsearch.files.whole import digest
from mpsearch.graph import memory_budget
from mpsearch.graph.exporting import export_graph
from mpsearch.graph.folding import simplify
from mpsearch.graph.inputs import ExampleInputs, bind_inputs
from mpsearch.graph.layers import Layer, find_layers, output_channels_view
from mpsearch.graph.outputs import Output, Shape, left_out_outputs, recorded_outputs
from mpsearch.graph.recurrent_states import CheckedRun
from mpsearch.graph.sample_layout import check_samples_apart
from mpsearch.graph.samples_first import at_border
from mpsearch.graph.tensors import (
    as_float32,
    device_of,
    floats_in,
    get_tensor,
    move,
    set_tensor,
    tensor_nodes,
)


@dataclass(frozen=True)
class Network:
    """A model as one aten graph with batch norms folded."""

    graph: fx.GraphModule
    """Takes the inputs in order and returns one tensor [N, …]."""
    input_names: tuple[str, ...]
    """One for each input, in order."""
    input_shapes: tuple[Shape, ...]
    """Of one sample, for example `((1, 44, 13), (3, 32, 32))`."""
    input_dtypes: tuple[torch.dtype, ...]
    """One for each input: float32, or whole numbers for indices."""
    output_shape: Shape
    """Of one sample, `(10,)`."""
    parameters: int
    """How many floating-point numbers the model had as it was given, running statistics of batch
    norms included."""
    outputs: tuple[Output, ...]
    """The model's outputs by name, side by side in the graph's one tensor [N, K] where there are
    several."""
    left_out_outputs: tuple[str, ...] = ()
    """Names of the outputs that are not in it (whole numbers, flags)."""

    @staticmethod
    def from_module(
        model: nn.Module,
        example_inputs: ExampleInputs,
        batch_dim: Mapping[str, int] | None = None,
        fix: Mapping[str, Any] | None = None,
    ) -> "Network":
        """Export a module. The module is left as it was; the options are those of `save`.

        Raises InputError as `export_graph`, and for a network that mixes the samples of a batch.
        """
        model, example_inputs = at_border(model, example_inputs, batch_dim, fix)
        examples = [as_float32(x) for x in bind_inputs(model, example_inputs).tensors()]
        network = Network.from_graph(export_graph(model, example_inputs), examples)
        check_samples_apart(network.graph, examples)
        return network

    @staticmethod
    def from_graph(graph: fx.GraphModule, example_inputs: Sequence[torch.Tensor]) -> "Network":
        """Fold an exported graph; `graph` itself is not changed, its tensors are shared."""
        parameters = count_parameters(graph)
        folded = copy_graph(graph)
        record_shapes(folded, example_inputs)
        with memory_budget.watched():
            simplify(folded, example_inputs)
        record_shapes(folded, example_inputs)
        placeholders = [node for node in folded.graph.nodes if node.op == "placeholder"]
        shape = output_shape(folded)
        return Network(
            graph=folded,
            input_names=tuple(str(node.target) for node in placeholders),
            input_shapes=tuple(tuple(example.shape[1:]) for example in example_inputs),
            input_dtypes=tuple(example.dtype for example in example_inputs),
            output_shape=shape,
            parameters=parameters,
            outputs=recorded_outputs(folded, shape),
            left_out_outputs=left_out_outputs(folded),
        )

    def __repr__(self) -> str:
        inputs = ", ".join(
            f"{name} {list(shape)}"
            for name, shape in zip(self.input_names, self.input_shapes, strict=True)
        )
        return (
            f"Network({len(self.layers)} layers, {self.parameters:,} parameters: {inputs} -> "
            f"{list(self.output_shape)})"
        )

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Convolutions and linear layers in network order."""
        return find_layers(self.graph)

    @cached_property
    def fp32_bytes(self) -> int:
        """Bytes of all floating-point numbers of the folded network, 4 each."""
        return 4 * count_parameters(self.graph)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over operators, arguments and weights: equal digests, equal networks.

        The device is no part of it: the digest is that of the network on the CPU.
        """
        if self.device.type != "cpu":
            return self.to(torch.device("cpu")).digest
        parts: list[bytes | str] = []
        for node in self.graph.graph.nodes:
            parts.append(f"{node.op} {node.target} {node.args} {sorted(node.kwargs.items())}")
        for _, name, tensor in tensor_nodes(self.graph):
            parts += [name, str(tensor.dtype), str(tuple(tensor.shape)), _bytes(tensor)]
        if len(self.outputs) > 1:
            parts += [f"{output.name} {output.shape}" for output in self.outputs]
        return digest(*parts)

    @cached_property
    def device(self) -> torch.device:
        """Where the network is, and its outputs and gradients with it."""
        return device_of(self.graph)

    def to(self, device: torch.device) -> "Network":
        """The same network on `device`; the network itself when it is there already."""
        if self.device == device:
            return self
        graph = copy_graph(self.graph)
        move(graph, device)
        return replace(self, graph=graph)

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        """The outputs [N, …] on the network's device, for inputs [N, …] from anywhere."""
        outputs = self.graph(*(x.to(self.device) for x in inputs))
        assert isinstance(outputs, torch.Tensor)
        return outputs

    def weight(self, layer: Layer) -> torch.Tensor:
        """The layer's folded weight, in its own layout."""
        return get_tensor(self.graph, layer.weight_name)

    def weight_rows(self, layer: Layer) -> tuple[torch.Tensor, Callable[..., torch.Tensor]]:
        """(weight as [output channels, rest], function that puts such rows back in the layout)."""
        node = next(node for node in self.graph.graph.nodes if node.name == layer.nodes[0])
        return output_channels_view(node, self.weight(layer))

    def bias(self, layer: Layer) -> torch.Tensor | None:
        """The layer's folded bias; None when it has none."""
        return get_tensor(self.graph, layer.bias_name) if layer.bias_name else None


def copy_graph(graph: fx.GraphModule) -> fx.GraphModule:
    """A graph of its own over the same tensors: changing it leaves the original alone."""
    root = nn.Module()
    for _, name, tensor in tensor_nodes(graph):
        set_tensor(root, name, tensor)
    copy = fx.Graph()
    output = copy.graph_copy(graph.graph, {})
    copy.output(output)
    module = fx.GraphModule(root, copy)
    for old, new in zip(graph.graph.nodes, module.graph.nodes, strict=True):
        new.meta = dict(old.meta)
    return module


def count_parameters(graph: fx.GraphModule) -> int:
    """Numbers in all tensors that the graph reads, each tensor once; indices are no parameters."""
    return sum({name: floats_in(tensor) for _, name, tensor in tensor_nodes(graph)}.values())


def record_shapes(graph: fx.GraphModule, example_inputs: Sequence[torch.Tensor]) -> None:
    """Write shape and type of every node's tensor for a batch of one sample into its `meta`."""
    one = tuple(example[:1] for example in example_inputs)
    recorder = _ShapeRecorder(graph)
    recorder.extra_traceback = False
    with torch.no_grad(), memory_budget.watched():
        recorder.run(*one)


def output_shape(graph: fx.GraphModule) -> Shape:
    """Shape of one sample's output. The shapes must have been recorded."""
    (output,) = (node for node in graph.graph.nodes if node.op == "output")
    shape: Shape = output.args[0].meta["shape"]
    return shape[1:]


class _ShapeRecorder(CheckedRun):
    def run_node(self, n: fx.Node) -> object:
        value = super().run_node(n)
        if isinstance(value, torch.Tensor):
            n.meta["shape"], n.meta["dtype"] = tuple(value.shape), value.dtype
        return value


def _bytes(tensor: torch.Tensor) -> bytes:
    return bytes(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
