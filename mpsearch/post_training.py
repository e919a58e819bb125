"""Post-training quantization: an assignment and a calibration sample -> a quantized network.

The order is that of the literature: equalise, set the ranges, round, correct the biases.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from mpsearch.activation_ranges import check_method, choose_quantizers
from mpsearch.calibration import calibrate
from mpsearch.choice import Choice
from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.layer_by_layer import Decision, Use, quantize_in_order
from mpsearch.layers import Layer
from mpsearch.network import Network
from mpsearch.operators import EMBEDDING, packet
from mpsearch.quantized import (
    QuantizedLayer,
    QuantizedNetwork,
    assemble,
    bias_codes,
    check_layers,
    with_activation,
)
from mpsearch.quantizer import FLOAT_BITS, check_bits, quantize_weight

Rounding = Literal["nearest", "adaptive"]
_ADAPTIVE_UP_TO = 8  # at 16 bits rounding is no source of error, and codes have no room in float32


@dataclass(frozen=True)
class PostTraining:
    """How to quantize without training; the defaults are what `mpsearch profile` assumes.

    ranges: `activation_ranges.METHODS`. per_tensor: one weight scale for all channels of a layer
    (it is stored once per channel all the same). equalize, correct_bias, rounding: the repairs of
    `equalization`, `bias_correction` and `adaptive_rounding`. seed: draws the positions that
    adaptive rounding looks at.
    """

    ranges: str = "mse"
    per_tensor: bool = False
    equalize: bool = False
    correct_bias: bool = False
    rounding: Rounding = "nearest"
    seed: int = 0

    def __post_init__(self) -> None:
        check_method(self.ranges)
        if self.rounding not in ("nearest", "adaptive"):
            raise InputError(f"got rounding {self.rounding!r}; expected nearest or adaptive")


def quantize_after_training(
    network: Network,
    choices: Mapping[str, Choice],
    calibration: Data,
    settings: PostTraining | None = None,
    batch_size: int = 64,
    on_step: Callable[[], None] | None = None,
) -> QuantizedNetwork:
    """Quantize every layer as `choices` says, with what `settings` ask for.

    `network` is not changed. `on_step` is called once per layer. The result's `source` has the
    equalised weights and corrected biases. The same arguments give the same integers. Raises
    InputError for an assignment of another network, for unsupported bits and for an empty sample.
    """
    settings = settings or PostTraining()
    check_layers(network, choices)
    for choice in choices.values():
        check_bits(choice.w_bits)
        check_bits(choice.a_bits)
    if len(calibration) == 0:
        raise InputError(f"{calibration.name} has no samples; calibration needs at least one")
    given = network
    if settings.equalize:
        from mpsearch.equalization import equalize

        network = equalize(network)
    histograms = calibrate(network, calibration, batch_size)
    activations = choose_quantizers(
        network, choices, histograms, settings.ranges, calibration, batch_size
    )

    def nearest(layer: Layer) -> QuantizedLayer:
        choice = choices[layer.name]
        rows, _ = network.weight_rows(layer)
        weight = None
        if choice.w_bits != FLOAT_BITS:
            weight = quantize_weight(rows, choice.w_bits, settings.per_tensor or layer.scales == 1)
        return with_activation(network, layer, choice, weight, activations[layer.name])

    def decide(layer: Layer, uses: Sequence[Use]) -> Decision:
        decision = _repaired(network, layer, uses, nearest(layer), settings)
        if on_step is not None:
            on_step()
        return decision

    if settings.correct_bias or settings.rounding == "adaptive":
        return quantize_in_order(network, calibration, decide, batch_size).made_from(given)
    layers = {}
    for layer in network.layers:
        layers[layer.name] = nearest(layer)
        if on_step is not None:
            on_step()
    return assemble(network, layers).made_from(given)


def _repaired(
    network: Network,
    layer: Layer,
    uses: Sequence[Use],
    quantized: QuantizedLayer,
    settings: PostTraining,
) -> Decision:
    """The layer with adaptive rounding and a corrected bias, as far as the settings ask."""
    from mpsearch.adaptive_rounding import moments, round_adaptively
    from mpsearch.bias_correction import can_correct, mean_shift

    correct = settings.correct_bias and can_correct(network, layer)
    choice, bias = quantized.choice, network.bias(layer)
    weight = quantized.weight
    # What an embedding gives is the rounded rows themselves: for them the nearest codes are best.
    uses = [use for use in uses if packet(use.node) != EMBEDDING]
    adaptive = settings.rounding == "adaptive" and choice.w_bits <= _ADAPTIVE_UP_TO
    if adaptive and weight is not None and uses:
        generator = torch.Generator().manual_seed(settings.seed)
        seen = moments(network, layer, uses, quantized.activation, correct, generator)
        rows, _ = network.weight_rows(layer)
        weight = round_adaptively(rows, weight, choice.w_bits, seen)
        quantized = QuantizedLayer(choice, weight, quantized.bias_codes, quantized.activation)
    if not correct or bias is None:
        return quantized, bias
    shift = mean_shift(network, layer, uses, quantized).to(bias.device)
    in_use = quantized.bias()  # the shift was measured with the bias that the codes stand for
    bias = ((bias if in_use is None else in_use).double() + shift).to(bias.dtype)
    codes = quantized.bias_codes
    if codes is not None and weight is not None:
        codes = bias_codes(bias, weight, quantized.activation)
    return QuantizedLayer(choice, weight, codes, quantized.activation), bias
