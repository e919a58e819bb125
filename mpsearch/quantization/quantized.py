"""Applying an assignment: a fake-quantized network that computes what the integers mean."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import fx

from mpsearch.data import Data, bind
from mpsearch.errors import InputError
from mpsearch.files.whole import digest
from mpsearch.graph.layers import EMBEDDING, Layer, packet
from mpsearch.graph.network import Network, copy_graph
from mpsearch.graph.tensors import move, set_tensor
from mpsearch.quantization.calibration import Histogram
from mpsearch.quantization.kept_sample import KeptSample
from mpsearch.quantization.quantizer import (
    FLOAT_BITS,
    ActivationQuantizer,
    QuantizedWeight,
    check_choice,
    quantize_weight,
    weight_at,
)
from mpsearch.quantization.scale_layout import layout_of
from mpsearch.running.notebook import html_table
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.choice import Choice, counted

if TYPE_CHECKING:
    import mpsearch

SHOWN = 3  # layers that a message names
_LARGEST_BIAS = 2**31 - 1
_ROOM = _LARGEST_BIAS / 2  # for a bias, and as much for the products that are added to it
_FINE_BIAS = 2**22  # steps of a bias alone: 2^-23 of it is lost, as in float32


@dataclass(frozen=True)
class QuantizedLayer:
    """A layer's integers: weight codes and scales, bias codes, and its input's quantizer.

    `weight` is None for a layer left in float. A bias code counts steps of weight scale × input
    scale; with float activations or groups of weights the bias stays float, `bias_codes` is None.
    """

    choice: Choice
    weight: QuantizedWeight | None
    bias_codes: torch.Tensor | None
    activation: ActivationQuantizer

    def bias(self) -> torch.Tensor | None:
        """The bias that the codes stand for, float32; None when there are no codes."""
        if self.bias_codes is None or self.weight is None:
            return None
        return (self.bias_codes.double() * self.weight.bias_steps(self.activation.scale)).float()

    def to(self, device: torch.device) -> "QuantizedLayer":
        """The same integers on `device`."""
        weight, bias = self.weight, self.bias_codes
        if weight is not None:
            weight = weight.to(device)
        return replace(self, weight=weight, bias_codes=None if bias is None else bias.to(device))


@dataclass(frozen=True)
class QuantizedNetwork:
    """A network with every layer's weights replaced and its inputs fake-quantized."""

    source: Network
    """The network with the dequantized weights."""
    graph: fx.GraphModule
    """The same graph with the fake-quantizers in."""
    layers: Mapping[str, QuantizedLayer]
    """Every layer's integers, by name."""
    model_digest: str | None = None
    """Of the float network that it was made from, also after repairs and fine-tuning; None where
    that is not known."""
    undone: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Repair, as its option is called, -> the layers that it did harm to and was undone for."""
    input_ranges: tuple[tuple[float, float] | None, ...] | None = None
    """Smallest and largest value of every input on the calibration data, None for whole numbers;
    None where that is not known."""
    post_training: Mapping[str, Any] | None = None
    """The settings of `PostTraining` that it was made with; None after training and where not
    known."""
    stored: Mapping[str, ActivationQuantizer] | None = None
    """Node name -> the quantizer of a tensor that is stored in codes of its own, between layers
    (what is added, averaged, or read by several layers); None where no such choice was made:
    integers keep these tensors in 32 bits then."""
    sample: KeptSample | None = field(default=None, repr=False)
    """Calibration samples and FP32's outputs for them, so that the file can be exported and
    measured beside FP32 by itself; None: left out."""
    origin: Any = field(default=None, repr=False, compare=False)
    """In memory, (float network, calibration samples) that it was made from; None: not known."""

    if TYPE_CHECKING:  # bound by the package
        export = mpsearch.export
        to_module = mpsearch.to_module

    def calibration(self) -> Data | None:
        """Samples that it was calibrated on: in memory all of them, of a file those that it keeps;
        None where it keeps none."""
        if self.origin is not None:
            samples: Data = self.origin[1]
            return samples
        if self.sample is None:
            return None
        return bind(self.sample.named("the quantized network"), self.source, need_labels=False)

    def to(self, device: torch.device) -> "QuantizedNetwork":
        """The same on `device`; the network itself when it is there already."""
        source = self.source.to(device)
        if source is self.source:
            return self
        graph = copy_graph(self.graph)
        move(graph, device)
        layers = {name: layer.to(device) for name, layer in self.layers.items()}
        return replace(self, source=source, graph=graph, layers=layers)

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        """As `Network` does."""
        outputs = self.graph(*(x.to(self.source.device) for x in inputs))
        assert isinstance(outputs, torch.Tensor)
        return outputs

    def __repr__(self) -> str:
        return f"QuantizedNetwork({counted(self.assignment.values())}; {self.source!r})"

    def _repr_html_(self) -> str:
        """For notebooks: the bits of every layer."""
        rows = [
            [layer.name, layer.kind, f"{layer.weights:,}", str(self.layers[layer.name].choice)]
            for layer in self.source.layers
        ]
        return html_table([repr(self)], ["layer", "kind", "weights", "bits"], rows)

    @property
    def assignment(self) -> dict[str, Choice]:
        """Layer name -> choice."""
        return {name: layer.choice for name, layer in self.layers.items()}

    @property
    def digest(self) -> str:
        """SHA-256 over the operators, what the integers mean, and every layer's quantizers."""
        return digest(
            self.source.digest,
            *(
                f"{name}={layer.choice} {layer.activation.scale!r} {layer.activation.zero_point}"
                for name, layer in sorted(self.layers.items())
            ),
            *(
                f"stored {name}={q.bits} {q.scale!r} {q.zero_point}"
                for name, q in sorted((self.stored or {}).items())
            ),
        )

    def made_from(self, network: Network) -> "QuantizedNetwork":
        """The same, which says that it was made from this float network."""
        return replace(self, model_digest=network.digest)


def quantize(
    network: Network, choices: Mapping[str, Choice], histograms: Mapping[str, Histogram]
) -> QuantizedNetwork:
    """Quantize every layer of `network` as `choices` says.

    Raises InputError naming the first layer that `choices` and the network do not share.
    """
    check_layers(network, choices)
    layers = {
        layer.name: quantize_layer(network, layer, choices[layer.name], histograms[layer.name])
        for layer in network.layers
    }
    return assemble(network, layers).made_from(network)


def check_layers(network: Network, choices: Mapping[str, Choice]) -> None:
    """Raise InputError unless `choices` names exactly the network's layers, at choices of ours."""
    for choice in {*choices.values()}:
        check_choice(choice)
    names = {layer.name for layer in network.layers}
    foreign = [name for name in choices if name not in names]
    missing = [layer.name for layer in network.layers if layer.name not in choices]
    if not foreign and not missing:
        return
    parts = [f"{_layers(foreign)} that the network lacks"] if foreign else []
    parts += (
        [f"no choice for the network's {_layers(missing).removeprefix('a ')}"] if missing else []
    )
    raise InputError(
        f"the assignment has {' and '.join(parts)}; profile this network and solve again, "
        "or name the assignment that is of it"
    )


def check_assignment(network: Network, assignment: Assignment) -> None:
    """The same, and for layers of other shapes than those of the table it was chosen from."""
    check_layers(network, assignment.layers)
    there = assignment.weights
    other = [
        f"{layer.name!r} has {layer.weights:,} weights, there {there[layer.name]:,}"
        for layer in network.layers if there.get(layer.name, layer.weights) != layer.weights
    ]  # fmt: skip
    if other:
        more = f", and {len(other) - SHOWN} more differ" if len(other) > SHOWN else ""
        raise InputError(
            f"the assignment was chosen for layers of other shapes: {', '.join(other[:SHOWN])}"
            f"{more}; profile this network and solve again"
        )


def _layers(names: Sequence[str]) -> str:
    """`a layer 'conv1'`, `layers 'conv1', 'conv2', 'conv3' and 4 more`."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    listed = ", ".join(map(repr, names[:SHOWN])) + more
    return f"a layer {listed}" if len(names) == 1 else f"layers {listed}"


def quantize_layer(
    network: Network,
    layer: Layer,
    choice: Choice,
    histogram: Histogram,
    scales: torch.Tensor | None = None,
) -> QuantizedLayer:
    """One layer at one choice: codes, scales and its input's range.

    `scales` are those that `quantize_weight` found before at the same bits, to save the search.
    """
    activation = histogram.quantizer(choice.a_bits)
    weight = None
    if choice.w_bits != FLOAT_BITS:
        rows, _ = network.weight_rows(layer)
        bits, layout = choice.w_bits, layout_of(layer, choice)
        if scales is None:
            scales = quantize_weight(rows, bits, layout).scales
        weight = weight_at(rows, scales, bits, layout.group_size)
    return with_activation(network, layer, choice, weight, activation)


def with_activation(
    network: Network,
    layer: Layer,
    choice: Choice,
    weight: QuantizedWeight | None,
    activation: ActivationQuantizer,
) -> QuantizedLayer:
    """The layer of given weight codes and input quantizer; `weight` None stays in float.

    A channel whose bias would not fit 32 bits gets a larger scale, and codes for it; one without
    weights gets a scale that suits its bias.
    """
    bias = network.bias(layer)
    if weight is None or bias is None or not counts_bias(choice, weight):
        return QuantizedLayer(choice, weight, None, activation)
    rows, _ = network.weight_rows(layer)
    weight = with_scales_for_bias(rows, weight, choice.w_bits, bias, activation.scale)
    return QuantizedLayer(choice, weight, bias_codes(bias, weight, activation.scale), activation)


def counts_bias(choice: Choice, weight: QuantizedWeight) -> bool:
    """Whether the bias is counted in steps of weights and inputs."""
    return choice.a_bits != FLOAT_BITS and not weight.group_size


def bias_codes(
    bias: torch.Tensor, weight: QuantizedWeight, step: float | torch.Tensor
) -> torch.Tensor:
    """Whole steps of weight scale × input scale `step`, int32."""
    codes = torch.round(bias.double() / weight.bias_steps(step))
    return codes.clamp_(-_LARGEST_BIAS, _LARGEST_BIAS).to(torch.int32)


def with_scales_for_bias(
    rows: torch.Tensor,
    weight: QuantizedWeight,
    bits: int,
    bias: torch.Tensor,
    step: float | torch.Tensor,
) -> QuantizedWeight:
    """Scales at which the bias can be counted, whatever its size: `weight` itself where its own do.

    `step` is the input's scale: a float, or a float64 of no dimensions.
    """
    return _with_fine_bias(with_room_for_bias(rows, weight, bits, bias, step), bias, step)


def with_room_for_bias(
    rows: torch.Tensor,
    weight: QuantizedWeight,
    bits: int,
    bias: torch.Tensor,
    step: float | torch.Tensor,
    room: float = _ROOM,
) -> QuantizedWeight:
    """The codes of `rows` with larger scales for channels whose bias would exceed `room` steps.

    A step is the weight's scale times `step`, the input's. It happens to dead channels: a folded
    batch norm leaves weights near 1e-8 beside a bias near 1.
    """
    least = (bias.detach().abs().double() / (room * step)).float()
    scales = weight.channel_scales()
    if not bool((least > scales).any()):
        return weight
    wanted = least.max() if weight.has_one_scale else least
    return weight_at(rows, torch.maximum(scales, wanted), bits)


def _with_fine_bias(
    weight: QuantizedWeight, bias: torch.Tensor, step: float | torch.Tensor
) -> QuantizedWeight:
    """Smaller scales for channels without weights: their scale means nothing but the bias's step.

    At a scale of 1 a pruned channel's bias of 3 became 0, or 6.7 where the inputs' steps are that.
    """
    dead = (weight.codes == 0).all(1)
    wanted = (bias.detach().abs().double() / (_FINE_BIAS * step)).float()
    if weight.has_one_scale:
        dead, wanted = dead.all().expand_as(dead), wanted.max().expand_as(wanted)
    scales = weight.channel_scales()
    finer = dead & (wanted < scales) & (wanted >= torch.finfo(torch.float32).tiny)
    if not bool(finer.any()):
        return weight
    return weight.with_channel_scales(torch.where(finer, wanted, scales))


def assemble(
    network: Network,
    layers: Mapping[str, QuantizedLayer],
    stored: Mapping[str, ActivationQuantizer] | None = None,
) -> QuantizedNetwork:
    """The quantized network of layers that are quantized already, and of tensors by node name that
    are stored in codes of their own; a graph that was cut may lack some."""
    source = copy_graph(network.graph)
    for layer in network.layers:
        quantized = layers[layer.name]
        if quantized.weight is None:
            continue
        _, restore = network.weight_rows(layer)
        set_tensor(source, layer.weight_name, restore(quantized.weight.dequantize()))
        bias = quantized.bias()
        if bias is not None:
            set_tensor(source, layer.bias_name, bias)
    graph = copy_graph(source)
    nodes = {node.name: node for node in graph.graph.nodes}
    for layer in network.layers:
        for name in layer.nodes:
            _quantize_input(graph, nodes[name], layers[layer.name].activation)
    for name, quantizer in (stored or {}).items():
        if name in nodes:
            _quantize_output(graph, nodes[name], quantizer)
    graph.recompile()
    return QuantizedNetwork(
        replace(network, graph=source),
        graph,
        dict(layers),
        stored=None if stored is None else dict(stored),
    )


def without_stored(quantized: QuantizedNetwork) -> QuantizedNetwork:
    """The same layers, and what lies between them as it comes."""
    if quantized.stored is None:
        return quantized
    plain = assemble(quantized.source, quantized.layers)
    return replace(quantized, graph=plain.graph, stored=None)


def _quantize_input(graph: fx.GraphModule, node: fx.Node, quantizer: ActivationQuantizer) -> None:
    if quantizer.bits == FLOAT_BITS:
        return
    if packet(node) == EMBEDDING:
        return  # indices stay as they are
    with graph.graph.inserting_before(node):
        fake = _fake_quantizer(graph, node.args[0], quantizer)
    node.args = (fake, *node.args[1:])


def _quantize_output(graph: fx.GraphModule, node: fx.Node, quantizer: ActivationQuantizer) -> None:
    """For all that reads it; a layer with the same quantizer needs no second one."""
    last = next(n for n in reversed(graph.graph.nodes) if n.op == "placeholder" or n is node)
    with graph.graph.inserting_after(last if node.op == "placeholder" else node):
        fake = _fake_quantizer(graph, node, quantizer)
    for user in list(node.users):
        if user is fake:
            continue
        if user.target == fake.target and user.args[1:] == fake.args[1:]:
            user.replace_all_uses_with(fake)
            graph.graph.erase_node(user)
        else:
            user.replace_input_with(node, fake)


def _fake_quantizer(graph: fx.GraphModule, source: Any, quantizer: ActivationQuantizer) -> fx.Node:
    return graph.graph.call_function(
        torch.ops.aten.fake_quantize_per_tensor_affine.default,
        (source, quantizer.scale, quantizer.zero_point, 0, 2**quantizer.bits - 1),
    )
