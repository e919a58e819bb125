"""Does the interpreter compute what the file means, and is that near the assigned network?

Running a LiteRT file in Python with ai-edge-litert, sample by sample.

What a LiteRT file means, in floating point: fake-quantizers wherever the file has 8 bits.

Only the places that no layer quantizes are added to the quantized network's own graph: sums,
means, softmax, outputs. LiteRT must agree with it up to rounding; the quantized network itself,
without them, is what the bits were chosen for.

`mpsearch export --format litert`: run the file, write it, list what was raised.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import fx

from mpsearch.data import Data
from mpsearch.exporters.agreement_of_outputs import Agreement, Reference, judge
from mpsearch.exporters.formats import Exported, ExportRequest, Trial
from mpsearch.exporters.litert.flatbuffer import SIGNATURE
from mpsearch.exporters.litert.inner import node_of
from mpsearch.exporters.litert.joined import WHOLE, joined_tensors
from mpsearch.exporters.litert.model import LiteRtModel, build, finer_activations
from mpsearch.exporters.reference_outputs import reference_of
from mpsearch.files.whole import digest, write_atomic
from mpsearch.graph.layers import packet
from mpsearch.graph.network import Network, copy_graph
from mpsearch.integer.graph import IntegerGraph, Step
from mpsearch.integer.inference import outputs, ranges_from
from mpsearch.integer.log_softmax import LogSoftmax
from mpsearch.integer.norms import Normalize
from mpsearch.integer.operators import LAYERS, MOVES
from mpsearch.quantization.packing import bops, size_bytes
from mpsearch.quantization.quantized import QuantizedNetwork
from mpsearch.quantization.quantizer import ActivationQuantizer
from mpsearch.running.plugins import litert
from mpsearch.tables.units import format_count, format_size

# With XNNPACK where it has the operator, as everybody gets it, with LiteRT's own kernels, and with
# those that are to be read, which lack depthwise convolutions with 4-bit weights.
_RESOLVERS = {
    "xnnpack": "AUTO",
    "plain": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",
    "reference": "BUILTIN_REF",
}
KERNELS = ("xnnpack", "plain")


class LiteRtNetwork:
    """Calls like the network that a file was made of: inputs [N, …] -> outputs [N, …].

    One sample at a time. Several outputs are read by their names and put side by side.
    """

    def __init__(self, content: bytes, network: Network, kernels: str = "xnnpack") -> None:
        module = litert("interpreter")
        self.names = network.input_names
        names = [output.name for output in network.outputs]
        self.outputs = names if len(names) > 1 else [WHOLE]
        self.interpreter: Any = module.Interpreter(
            model_content=content,
            num_threads=1,
            experimental_op_resolver_type=getattr(module.OpResolverType, _RESOLVERS[kernels]),
        )
        self.kernels = kernels
        self.runner = self.interpreter.get_signature_runner(SIGNATURE)

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        rows = []
        for row in range(len(inputs[0])):
            given = {
                name: _given(x[row : row + 1]) for name, x in zip(self.names, inputs, strict=True)
            }
            found = self.runner(**given)
            rows.append([found[name] for name in self.outputs])
        if len(self.outputs) == 1:
            return torch.from_numpy(np.concatenate([row[0] for row in rows]))
        flat = [np.concatenate([value.reshape(-1) for value in row]) for row in rows]
        return torch.from_numpy(np.stack(flat))


def reference_kernels(content: bytes, network: Network) -> LiteRtNetwork:
    """With the reference kernels; with LiteRT's own where the file has what these lack."""
    try:
        return LiteRtNetwork(content, network, "reference")
    except ValueError:
        return LiteRtNetwork(content, network, "plain")


def _given(x: torch.Tensor) -> np.ndarray:
    """As the file takes it: numbers of rows in 32 bits."""
    return (x if x.is_floating_point() else x.to(torch.int32)).contiguous().numpy()


def meaning(
    quantized: QuantizedNetwork,
    graph: IntegerGraph,
    quantizers: Mapping[str, ActivationQuantizer],
) -> Callable[..., torch.Tensor]:
    """The quantized network with the file's further quantizers; inputs [N, …] as the network's."""
    tensors = graph.tensors
    copy = copy_graph(quantized.graph)
    nodes = {node.name for node in copy.graph.nodes}
    joined = {node_of(name, nodes) for name in joined_tensors(graph)}
    added = {
        node_of(name, nodes): quantizer
        for name, quantizer in quantizers.items()
        if tensors[name].signed or tensors[name].bits > 8
    }
    for node in list(copy.graph.nodes):
        if node.name in added and node.meta["dtype"].is_floating_point:
            _quantize_output(copy, node, added[node.name], joined)
    copy.recompile()

    def run(*inputs: torch.Tensor) -> torch.Tensor:
        result = copy(*inputs)
        assert isinstance(result, torch.Tensor)
        return result

    return run


def _quantize_output(
    graph: fx.GraphModule, node: fx.Node, quantizer: ActivationQuantizer, joined: set[str]
) -> None:
    users = list(node.users)
    if node.name in joined:  # what joins outputs reads floats
        users = [user for user in users if user.op != "output" and user.name not in joined]
    if node.op == "placeholder":  # layers read the float input through their own quantizer
        users = [user for user in users if packet(user) not in LAYERS | MOVES | {_FAKE}]
    with graph.graph.inserting_after(node):
        fake = graph.graph.call_function(
            torch.ops.aten.fake_quantize_per_tensor_affine.default,
            (node, quantizer.scale, quantizer.zero_point, 0, 2**quantizer.bits - 1),
        )
    for user in users:
        user.replace_input_with(node, fake)


_FAKE = "fake_quantize_per_tensor_affine"


SAMPLES = 256
# Steps that LiteRT has no integers for, or too coarse ones, by the name that people know.
IN_FLOAT: dict[type[Step], str] = {Normalize: "norm", LogSoftmax: "log_softmax"}


@dataclass(frozen=True)
class Checked:
    """One set of kernels, output by output: against the assigned network, whose activations may be
    finer here, and against what the file means."""

    kernels: str
    network: tuple[Agreement, ...]
    meaning: tuple[Agreement, ...]

    @property
    def ok(self) -> bool:
        """Every output is within the tolerance of both."""
        return all(entry.ok for entry in (*self.network, *self.meaning))

    def figures(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "kernels": self.kernels,
            "network": [entry.figures() for entry in self.network],
            "meaning": [entry.figures() for entry in self.meaning],
            "ok": self.ok,
        }


def check(model: LiteRtModel, data: Data) -> tuple[Checked, ...]:
    """Run up to 256 samples with XNNPACK and with LiteRT's own kernels."""
    data = some(data)
    source = model.network.source
    networks = {kernels: LiteRtNetwork(model.content, source, kernels) for kernels in KERNELS}
    return compare(model, data, {name: outputs(each, data) for name, each in networks.items()})


def some(data: Data) -> Data:
    """The samples that a file is checked with: at most 256."""
    return data if len(data) <= SAMPLES else data.take(SAMPLES, 0)


def compare(
    model: LiteRtModel, data: Data, given: Mapping[str, torch.Tensor]
) -> tuple[Checked, ...]:
    """Judge what each set of kernels gave for all of `data`."""
    assigned = reference_of(model.assigned, data)
    raised = any(entry.assigned.a_bits != entry.stored.a_bits for entry in model.raised)
    finer = outputs(finer_activations(model.assigned), data).numpy() if raised else None
    meant = outputs(meaning(model.network, model.graph, model.quantizers), data).numpy()
    found = []
    for kernels, values in given.items():
        got = values.numpy()
        found.append(
            Checked(
                kernels,
                judge(assigned, got, rounded=True, meant=finer),
                judge(Reference(meant, assigned.parts, assigned.ways), got, rounded=True),
            )
        )
    return tuple(found)


def write(request: ExportRequest) -> Exported:
    """Run the calibration data through the .tflite file, then write it.

    Raises InputError as `build`, and without calibration data; MissingExtraError without
    ai-edge-litert. Not `ok`, and nothing written, where an output differs beyond the tolerance.
    """
    litert("schema_py_generated")
    data = ranges_from(request.data)
    model = build(request.quantized, data)
    checked = () if request.check is False else check(model, data)
    figures = describe(request.quantized, model)
    figures["agreement"] = [entry.figures() for entry in checked]
    found = [line for entry in checked for line in checked_lines(entry)]
    if not all(entry.ok for entry in checked):
        lines = (
            "not written: LiteRT does not give what the network computes (--no-check writes the "
            "file)",
            *found,
        )
        return Exported(figures, lines, ok=False)
    write_atomic(request.output, model.content)
    first = f"wrote {request.output}: LiteRT with integers for {len(model.layers)} layers"
    return Exported(figures, (first, *stored_lines(figures, model), *found))


def trial(quantized: QuantizedNetwork, data: Data) -> Trial:
    """Build the file without running it. Raises InputError as `build`; MissingExtraError."""
    litert("schema_py_generated")
    raised = build(quantized, data).raised
    return Trial(raised={each.layer: (str(each.assigned), str(each.stored)) for each in raised})


def describe(assigned: QuantizedNetwork, model: LiteRtModel) -> dict[str, Any]:
    """Sizes as assigned and as stored, what was raised, every layer's bytes in the file."""
    network, stored = assigned.source, model.network.assignment
    parts = {
        kind: sum(getattr(layer, f"{kind}_bytes") for layer in model.layers)
        for kind in ("weight", "bias", "scale")
    }
    return {
        "assigned_bytes": size_bytes(network, assigned.assignment),
        "stored_bytes": sum(parts.values()),
        "parts": parts,
        "file_bytes": len(model.content),
        "file_digest": digest(model.content),
        "assigned_bops": bops(network, assigned.assignment),
        "stored_bops": bops(network, stored),
        "in_float": dict(
            Counter(IN_FLOAT[type(step)] for step in model.graph.steps if type(step) in IN_FLOAT)
        ),
        "outputs": [
            {"name": output.name, "shape": list(output.shape)} for output in network.outputs
        ],
        "raised": [
            {
                "layer": entry.layer,
                "kind": entry.kind,
                "assigned": str(entry.assigned),
                "stored": str(entry.stored),
            }
            for entry in model.raised
        ],
        "layers": [
            {
                "layer": layer.layer,
                "operator": layer.operator,
                "choice": str(stored[layer.layer]),
                "weight_bytes": layer.weight_bytes,
                "bias_bytes": layer.bias_bytes,
                "scale_bytes": layer.scale_bytes,
            }
            for layer in model.layers
        ],
    }


def stored_lines(
    figures: Mapping[str, Any], model: LiteRtModel, runtime: str = "LiteRT"
) -> tuple[str, ...]:
    """What was raised, what runs in float, and the sizes."""
    parts = ", ".join(f"{kind} {format_size(size)}" for kind, size in figures["parts"].items())
    raised = [
        f"    {entry.layer}: {entry.assigned} -> {entry.stored} ({entry.kind})"
        for entry in model.raised
    ]
    counted = ", ".join(f"{name} x{count}" for name, count in figures["in_float"].items())
    floating = [f"  runs in float: {counted}"] if counted else []
    what = f"  raised to what {runtime} has: {len(raised)} of {len(model.layers)} layers"
    return (
        what if raised else "  no bits were raised",
        *raised,
        *floating,
        f"  stored {format_size(figures['stored_bytes'])} ({parts}); assigned "
        f"{format_size(figures['assigned_bytes'])}; the file has "
        f"{format_size(figures['file_bytes'])}",
        f"  BOPS {format_count(figures['stored_bops'])}; assigned "
        f"{format_count(figures['assigned_bops'])}",
    )


def checked_lines(checked: Checked) -> list[str]:
    """A line per output, and one more where the file does not compute what it means."""
    samples = checked.network[0].samples
    lines = [f"  {checked.kernels} kernels on {samples} samples, in steps of an 8-bit output:"]
    for network, meaning in zip(checked.network, checked.meaning, strict=True):
        lines.append(f"    {network.line()}")
        if not meaning.ok:
            lines.append(f"    against what the file means, {meaning.line()}")
    return lines
