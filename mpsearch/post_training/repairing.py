"""Post-training quantization: an assignment and a calibration sample -> a quantized network.

The order is that of the literature: equalise, set the ranges, round, correct the biases; then learn
scales and biases together. Last come the quantizers of what is stored between the layers.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import torch

from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.graph.layers import EMBEDDING, Layer, packet
from mpsearch.graph.network import Network, copy_graph
from mpsearch.graph.tensors import set_tensor
from mpsearch.post_training import stored_tensors
from mpsearch.post_training.activation_ranges import (
    MEASURING,
    check_method,
    choose_quantizers,
    quantizer_of,
)
from mpsearch.post_training.equalization import Pair, equalize, find_pairs
from mpsearch.post_training.kept_repairs import PER_TENSOR, Yardstick, keep_what_helps
from mpsearch.post_training.layer_by_layer import (
    Decide,
    Decision,
    Use,
    correct_bias,
    has_own_bias,
    quantize_in_order,
    same_numbers,
)
from mpsearch.post_training.stored_tensors import Wide
from mpsearch.quantization.calibrated_inputs import input_ranges
from mpsearch.quantization.calibration import Histogram, calibrate
from mpsearch.quantization.quantized import (
    QuantizedLayer,
    QuantizedNetwork,
    assemble,
    check_layers,
    with_activation,
)
from mpsearch.quantization.quantizer import (
    FLOAT_BITS,
    ActivationQuantizer,
    QuantizedWeight,
    quantize_weight,
)
from mpsearch.quantization.scale_layout import layout_of
from mpsearch.tables.choice import Choice

Rounding = Literal["nearest", "adaptive"]
_ADAPTIVE_UP_TO = 8  # at 16 bits rounding is no source of error, and codes have no room in float32


@dataclass(frozen=True)
class PostTraining:
    """How to quantize without training.

    By default weights are rounded so that layer outputs are kept, and biases take up what is left
    of their mean; `PLAIN` does neither.
    """

    ranges: str = "auto"
    """Of activations: `auto`, `mse`, `minmax`, `percentile:99.9`, `entropy` or `measured`."""
    per_tensor: bool = False
    """One weight scale for all channels of a layer (stored once per channel all the same); groups
    of weights keep theirs."""
    equalize: bool = False
    """Whether pairs of layers get equal weight ranges, channel by channel (`equalization`)."""
    correct_bias: bool = True
    """Whether biases take up the mean error of their layer (`bias_correction`)."""
    rounding: Rounding = "adaptive"
    """`adaptive` to the layer's output (`compensated_rounding`), or `nearest`."""
    seed: int = 0
    """Draws what adaptive rounding looks at, and the batches that scales are learned from."""
    learn_scales: bool = False
    """Train scales and biases by the network's outputs (`learned_scales`)."""
    wide: Wide = "auto"
    """Bits of what is stored between layers, sums and what several read: `8`, `16`, `auto` (8, and
    16 where the outputs suffer), or `32`: not quantized (`stored_tensors`)."""

    def __post_init__(self) -> None:
        stored_tensors.check_wide(self.wide)
        check_method(self.ranges)
        if self.rounding not in ("nearest", "adaptive"):
            raise InputError(f"got rounding {self.rounding!r}; expected nearest or adaptive")

    def to_json(self) -> dict[str, Any]:
        """The fields by name, as evaluation.json and quantized files keep them."""
        return asdict(self)


# Each layer by itself, no repair, and nothing between layers.
PLAIN = PostTraining("mse", correct_bias=False, rounding="nearest", wide="32")


@dataclass(frozen=True, eq=False)
class Shared:
    """What several assignments have in common that are quantized with the same other arguments.

    decisions: what adaptive rounding made of a layer, by choices and ranges of all layers up to it,
    as it sees nothing else. weights: nearest rounding by layer and bits. ranges: those that were
    measured, by layer and bits.
    """

    network: Network
    calibration: Data
    batch_size: int
    decisions: dict[tuple[tuple[Any, ...], ...], Decision] = field(default_factory=dict)
    weights: dict[tuple[str, str], QuantizedWeight] = field(default_factory=dict)
    ranges: dict[tuple[str, int], ActivationQuantizer] = field(default_factory=dict)

    @cached_property
    def yardstick(self) -> Yardstick:
        """The float network's outputs."""
        return Yardstick(self.network, self.calibration, self.batch_size)

    @cached_property
    def histograms(self) -> Mapping[str, Histogram]:
        """What reaches each layer of the float network."""
        return calibrate(self.network, self.calibration, self.batch_size)

    @cached_property
    def input_ranges(self) -> tuple[tuple[float, float] | None, ...]:
        """What the network's inputs are on the calibration data."""
        return input_ranges(self.network, self.calibration)


def quantize_after_training(
    network: Network,
    choices: Mapping[str, Choice],
    calibration: Data,
    settings: PostTraining | None = None,
    batch_size: int = 64,
    on_step: Callable[[], None] | None = None,
    shared: Shared | None = None,
) -> QuantizedNetwork:
    """Quantize every layer as `choices` says, with what `settings` ask for.

    `network` is not changed. `on_step` is called once per layer. The result's `source` has the
    equalised weights and corrected biases. The same arguments give the same integers, whatever is
    `shared` with calls for other choices that have all other arguments in common. Raises
    InputError for an assignment of another network, for unsupported bits and for an empty sample.
    """
    settings = settings or PostTraining()
    check_layers(network, choices)
    if len(calibration) == 0:
        raise InputError(f"{calibration.name} has no samples; calibration needs at least one")
    shared = shared or Shared(network, calibration, batch_size)
    run = _Run(choices, calibration, settings, batch_size, on_step or _nothing, shared)
    state = run.nearest(network, shared.yardstick)
    measuring = settings.ranges in MEASURING
    groups = [n.name for n in network.layers if layout_of(n, choices[n.name]).group_size]
    undone = {PER_TENSOR: tuple(groups)} if settings.per_tensor and groups else {}
    for option, repair in (
        ("--equalize", _equalized if settings.equalize else None),
        (f"--ranges {settings.ranges}", _measured_ranges if measuring else None),
        ("--rounding adaptive", _rounded if settings.rounding == "adaptive" else None),
        ("--bias-correction", _corrected if settings.correct_bias else None),
        ("--learn-scales", _learned if settings.learn_scales else None),
    ):
        if repair is not None:
            state, names = repair(run, state)
            undone.update({option: tuple(names)} if names else {})
    quantized = replace(
        stored_tensors.store_tensors(
            state.network, state.layers, calibration, settings.wide, state.yardstick.noise,
            batch_size,
        ),
        undone=undone,
        input_ranges=shared.input_ranges,
        post_training=settings.to_json(),
    )  # fmt: skip
    return quantized.made_from(network)


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class _State:
    """Quantized layers of a float network, which repairs change too; `noise` is measured once.

    `adapted`: the layers that were rounded for what the quantized ones before them give.
    """

    yardstick: Yardstick
    network: Network
    histograms: Mapping[str, Histogram]
    layers: Mapping[str, QuantizedLayer]
    adapted: frozenset[str] = frozenset()

    @cached_property
    def quantized(self) -> QuantizedNetwork:
        return assemble(self.network, self.layers)

    @cached_property
    def noise(self) -> float:
        return self.yardstick.noise(self.quantized)


@dataclass(frozen=True)
class _Run:
    """What all repairs of one call share."""

    choices: Mapping[str, Choice]
    calibration: Data
    settings: PostTraining
    batch_size: int
    on_step: Callable[[], None]
    shared: Shared

    def nearest(self, network: Network, yardstick: Yardstick) -> _State:
        """Nearest rounding, and ranges by the rule that is asked for (mse before measuring)."""
        known = self.shared.weights if network is self.shared.network else {}
        histograms = (
            self.shared.histograms
            if network is self.shared.network
            else calibrate(network, self.calibration, self.batch_size)
        )
        rule = "mse" if self.settings.ranges in MEASURING else self.settings.ranges
        layers = {}
        for layer in network.layers:
            choice, weight = self.choices[layer.name], None
            if choice.w_bits != FLOAT_BITS:
                key = layer.name, choice.weights
                if key not in known:
                    rows, _ = network.weight_rows(layer)
                    layout = layout_of(layer, choice, self.settings.per_tensor)
                    known[key] = quantize_weight(rows, choice.w_bits, layout)
                weight = known[key]
            activation = quantizer_of(histograms[layer.name], choice.a_bits, rule)
            layers[layer.name] = with_activation(network, layer, choice, weight, activation)
            if self.settings.rounding == "nearest":
                self.on_step()
        return _State(yardstick, network, histograms, layers)


Repaired = tuple[_State, list[str]]  # and the layers that it was undone for


def _equalized(run: _Run, start: _State) -> Repaired:
    """Pairs of layers whose weight ranges were made equal."""
    network, quiet = start.network, replace(run, on_step=_nothing)
    pairs = find_pairs(network.graph)
    layer_of = {node: layer.name for layer in network.layers for node in layer.nodes}

    def repaired(kept: list[Pair]) -> _State:
        equal = equalize(network, run.calibration, kept, run.batch_size)
        return quiet.nearest(equal, start.yardstick)

    state, undone = keep_what_helps(pairs, start, repaired)
    names = [f"{layer_of[pair.first.name]} -> {layer_of[pair.second.name]}" for pair in undone]
    return state, names


def _measured_ranges(run: _Run, start: _State) -> Repaired:
    """Of each layer the range that the network's outputs suffer least."""
    network = start.network
    known = run.shared.ranges if network is run.shared.network else {}
    keys = {layer.name: (layer.name, run.choices[layer.name].a_bits) for layer in network.layers}
    if any(key not in known for key in keys.values()):
        found = choose_quantizers(
            network, run.choices, start.histograms, run.settings.ranges, run.calibration,
            run.batch_size,
        )  # fmt: skip
        known.update({keys[name]: quantizer for name, quantizer in found.items()})
    wanted = {name: known[key] for name, key in keys.items()}
    if run.settings.wide != "32":
        wanted = stored_tensors.shared_quantizers(network, wanted)
    changed = {
        layer.name: (
            with_activation(network, layer, before.choice, before.weight, activation),
            network.bias(layer),
        )
        for layer in network.layers
        if (before := start.layers[layer.name]).activation != (activation := wanted[layer.name])
    }
    return _keep_layers(start, changed)


def _rounded(run: _Run, start: _State) -> Repaired:
    """Weights rounded up or down so that the layer's output is kept.

    With bias correction, a layer's bias takes up its mean and the rounding the rest: one repair.
    """
    from mpsearch.post_training.compensated_rounding import round_to_outputs
    from mpsearch.post_training.layer_moments import moments

    network = start.network
    decisions = run.shared.decisions if network is run.shared.network else {}
    before: list[tuple[Any, ...]] = []

    def decide(layer: Layer, uses: Sequence[Use]) -> Decision:
        run.on_step()
        own = start.layers[layer.name]
        before.append((layer.name, own.choice, own.activation))
        key = tuple(before)
        if key not in decisions:
            decisions[key] = round_layer(layer, uses)
        return decisions[key]

    def round_layer(layer: Layer, uses: Sequence[Use]) -> Decision:
        quantized, bias = start.layers[layer.name], network.bias(layer)
        weight, bits = quantized.weight, quantized.choice.w_bits
        # What an embedding gives is the rounded rows themselves: there the nearest codes are best.
        uses = [use for use in uses if packet(use.node) != EMBEDDING]
        if weight is None or bits > _ADAPTIVE_UP_TO or not uses:
            return quantized, bias
        generator = torch.Generator().manual_seed(run.settings.seed)
        centred = run.settings.correct_bias and has_own_bias(network, layer)
        seen = moments(network, layer, uses, quantized.activation, centred, generator)
        layout = layout_of(layer, quantized.choice, run.settings.per_tensor)
        weight = round_to_outputs(weight.scales, bits, seen, layout)
        quantized = with_activation(network, layer, quantized.choice, weight, quantized.activation)
        if not centred:
            return quantized, bias
        return correct_bias(network, layer, uses, quantized, exact=False)

    state, undone = _kept(run, start, decide)
    adapted = {name for name, layer in state.layers.items() if layer is not start.layers[name]}
    return replace(state, adapted=frozenset(adapted)), undone


def _corrected(run: _Run, start: _State) -> Repaired:
    """Biases without the mean shift of their layer's output, where rounding has not seen to it.

    Weights take the scales that leave the bias the least to make up for.
    """
    from mpsearch.post_training.compensated_rounding import nearest_to_outputs
    from mpsearch.post_training.layer_moments import moments

    if len(start.adapted) == len(start.layers):
        return start, []
    network = start.network

    def decide(layer: Layer, uses: Sequence[Use]) -> Decision:
        quantized = start.layers[layer.name]
        if layer.name in start.adapted:
            return quantized, network.bias(layer)
        weight, choice = quantized.weight, quantized.choice
        exact = [replace(use, inputs=use.exact) for use in uses if packet(use.node) != EMBEDDING]
        rounds = run.settings.rounding == "nearest" and choice.w_bits <= _ADAPTIVE_UP_TO
        if rounds and weight is not None and exact and has_own_bias(network, layer):
            generator = torch.Generator().manual_seed(run.settings.seed)
            seen = moments(network, layer, exact, quantized.activation, True, generator)
            rows, _ = network.weight_rows(layer)
            layout = layout_of(layer, choice, run.settings.per_tensor)
            weight = nearest_to_outputs(rows, weight.scales, choice.w_bits, seen, layout)
            quantized = with_activation(network, layer, choice, weight, quantized.activation)
        return correct_bias(network, layer, uses, quantized, exact=True)

    return _kept(run, start, decide)


def _learned(run: _Run, start: _State) -> Repaired:
    """Scales and biases that bring the network's outputs nearer to FP32's."""
    from mpsearch.post_training.learned_scales import learn_scales

    exact, seed = start.yardstick.exact, run.settings.seed
    changed = learn_scales(start.network, start.layers, exact, run.calibration, seed)
    learned = _with(start, changed)  # together, as they were learned for each other
    return (learned, []) if learned.noise <= start.noise else (start, list(changed))


def _kept(run: _Run, start: _State, decide: Decide) -> Repaired:
    """What `decide` makes of the layers, where it helps."""
    network = start.network
    found = quantize_in_order(network, run.calibration, decide, run.batch_size)
    changed = {
        layer.name: found[layer.name]
        for layer in network.layers
        if not same_numbers(found[layer.name], (start.layers[layer.name], network.bias(layer)))
    }
    return _keep_layers(start, changed)


def _keep_layers(start: _State, changed: Mapping[str, Decision]) -> Repaired:
    """The changed layers that help."""
    names = list(changed)
    return keep_what_helps(names, start, lambda kept: _with(start, {n: changed[n] for n in kept}))


def _with(start: _State, changed: Mapping[str, Decision]) -> _State:
    """`start` with these layers and their biases."""
    graph = copy_graph(start.network.graph)
    for layer in start.network.layers:
        if layer.name in changed and (bias := changed[layer.name][1]) is not None:
            set_tensor(graph, layer.bias_name, bias)
    layers = {**start.layers, **{name: quantized for name, (quantized, _) in changed.items()}}
    return replace(start, network=replace(start.network, graph=graph), layers=layers)
