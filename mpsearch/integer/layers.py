"""A quantized layer as an integer step: stored codes, bias, proven accumulator, factors.

In which integer form each tensor of a network is kept.

A layer reads the codes of its activation quantizer. A quantizer is monotone and works element by
element, so it may move back through ReLU, max-pooling, concatenation and everything that only moves
elements: the layer before can write its results directly as the codes that the next layer reads.
What is added, averaged, or read by several layers is stored in codes of its own (`stored`), and
read with a factor. Everything else keeps the wide form: signed, 16 bits, zero point 0. Tensors in
wide form that meet in moves form a class with one scale; a much larger tensor that one which a
function, a product or another step at scales of its own reads or writes is put beside does not join
its class: there it is written once more, at that scale.

Without stored tensors (`--wide 32` and 16) what is added and averaged is wide, too, with 32 bits or
16, in one class, so that adding takes no multiplication; a class that a step at scales of its own
reads or writes has 16 bits.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import fx

from mpsearch.errors import InputError
from mpsearch.graph.layers import Layer, argument, groups, is_transposed, packet
from mpsearch.integer.fixed_point import OUTPUT_BITS, Integers, rescale_of
from mpsearch.integer.graph import (
    Convolution,
    Embedding,
    IntegerTensor,
    Linear,
    TransposedConvolution,
    Weights,
    reciprocal,
)
from mpsearch.integer.operators import (
    JOINING,
    LAYERS,
    MOVES,
    OWN_SCALES,
    PRODUCTS,
    REARRANGEMENTS,
    SOFTMAXES,
    adds_at_one_scale,
    convolution_padding,
    pair,
    sources,
)
from mpsearch.integer.pointwise import PointFunction, sources_of
from mpsearch.integer.stored import carried, is_scaled
from mpsearch.quantization.quantized import QuantizedLayer
from mpsearch.quantization.quantizer import FLOAT_BITS, ActivationQuantizer

LARGEST_BOUND = 2**62
MUCH_LARGER = 16  # four bits of sixteen would be lost


def check_integer(name: str, layer: QuantizedLayer) -> None:
    """Raise InputError for a layer that is left in float."""
    if FLOAT_BITS in (layer.choice.w_bits, layer.choice.a_bits):
        raise InputError(
            f"layer {name!r} is left in float ({layer.choice}); integer inference needs integer "
            "bits in every layer: choose 2 to 8 or 16"
        )


def layer_step(
    node: fx.Node,
    layer: Layer,
    quantized: QuantizedLayer,
    weight_shape: torch.Size,
    source: IntegerTensor,
    output: IntegerTensor,
) -> Convolution | Linear:
    """The step of one use of a layer. Raises InputError where 64 bits could overflow."""
    assert quantized.weight is not None
    codes: Integers = quantized.weight.codes.cpu().numpy().astype(np.int16)
    bias: Integers = np.zeros(len(codes), dtype=np.int32)
    if quantized.bias_codes is not None:
        bias = quantized.bias_codes.cpu().numpy().astype(np.int32)
    is_table = packet(node) == "embedding"
    bound = int(np.abs(codes).max()) if is_table else _bound(codes, bias, source)
    if bound >= LARGEST_BOUND:
        raise InputError(f"layer {layer.name!r}: its sums could exceed 62 bits; use fewer bits")
    scales = quantized.weight.channel_scales().cpu().numpy().astype(np.float64)
    if is_table and (scales == scales[0]).all():
        scales = scales[:1]  # short rows have one scale together
    factors = scales * source.scale * reciprocal(output)
    rescale = rescale_of(factors, pre_shift=max(0, bound.bit_length() - 31))
    if is_table:
        weights = Weights(layer.name, quantized.choice.w_bits, codes, bias, 0, bound)
        return Embedding((source.name,), output, weights, rescale, output.low, output.high)
    is_linear, flat = packet(node) == "linear", len(weight_shape) == 3
    transposed = is_transposed(node)
    kernel = (1, weight_shape[-1]) if flat else tuple(weight_shape[2:])
    inputs = weight_shape[0] // groups(node) if transposed else weight_shape[1]
    weights = Weights(
        layer.name,
        quantized.choice.w_bits,
        codes if is_linear else codes.reshape(len(codes), inputs, *kernel),
        bias,
        source.zero_point,
        bound,
    )
    common = ((source.name,), output, weights, rescale, output.low, output.high)
    if is_linear:
        return Linear(*common)
    dilation = pair(argument(node, "dilation"), flat, 1)
    return (TransposedConvolution if transposed else Convolution)(
        *common,
        stride=pair(argument(node, "stride"), flat, 1),
        padding=convolution_padding(node, (kernel[0], kernel[1]), dilation, flat),
        dilation=dilation,
        groups=groups(node),
    )


def _bound(codes: Integers, bias: Integers, source: IntegerTensor) -> int:
    """The largest |Σ w·(q - z) + bias| over all codes q: no partial sum, in any order, exceeds
    it."""
    reach = max(source.zero_point - source.low, source.high - source.zero_point)
    sums = np.abs(codes.astype(np.int64)).sum(axis=1) * reach + np.abs(bias.astype(np.int64))
    return int(sums.max())


PROBABILITIES = ActivationQuantizer(16, 2.0**-OUTPUT_BITS, 0)  # what the integer softmax writes
WIDE = None
Form = ActivationQuantizer | None


@dataclass(frozen=True)
class Forms:
    """`wanted`: by node name, the forms that its users read, in order of use; `kept`: the form that
    the node's own operation writes; `classes`: by node name, the class of its wide form; `short`:
    the classes that have 16 bits, whatever others have, each with the unit that its range is a
    power of two of (0: any range); `operands`: the forms that products of two activations read, and
    sums of codes; `scaled`: the nodes that sum codes; `codes`: of stored tensors, and of what moves
    their elements, the form; `is_stored`: whether the network has quantizers for these."""

    wanted: Mapping[str, tuple[Form, ...]]
    kept: Mapping[str, Form]
    classes: Mapping[str, str]
    short: Mapping[str, int]
    operands: Mapping[str, tuple[Form, ...]]
    scaled: frozenset[str]
    codes: Mapping[str, ActivationQuantizer]
    is_stored: bool


def choose_forms(
    result: fx.Node,
    order: list[fx.Node],
    quantizers: Mapping[str, ActivationQuantizer],
    functions: Mapping[str, PointFunction],
    sizes: Mapping[str, float],
    stored: Mapping[str, ActivationQuantizer] | None,
) -> Forms:
    """Forms for the nodes of `order`, of which `result` leaves the network; `quantizers` are those
    of the layers, and `sizes` the largest magnitudes of tensors, by node name. `stored`: the
    quantizers of stored tensors; None: there are none, and sums are wide."""
    codes = carried(order, functions, stored or {})
    scaled = {node.name for node in order if stored is not None and is_scaled(node, functions)}
    operands: dict[str, tuple[Form, ...]] = {}
    for node in order:
        if packet(node) in PRODUCTS:
            operands[node.name] = tuple(map(_operand_form, sources(node)))
        elif node.name in scaled:
            operands[node.name] = tuple(codes.get(source.name, WIDE) for source in sources(node))
    own = {node.name for node in order if node.name in functions or at_own_scale(node)} | scaled
    wanted: dict[str, list[Form]] = {node.name: [] for node in order}
    kept: dict[str, Form] = {}
    if packet(result) not in {"argmax", *SOFTMAXES}:  # these leave in a form of their own
        wanted[result.name].append(WIDE)
    for node in reversed(order):
        forms = wanted[node.name]
        single = len(forms) == 1 and (packet(node) in LAYERS | MOVES or node.name in own)
        kept[node.name] = codes.get(node.name, forms[0] if single else WIDE)
        if node.op == "placeholder":
            continue
        read = sources_of(node, functions)
        if node.name in quantizers and packet(node) != "embedding":  # it reads numbers of rows
            needed: tuple[Form, ...] = (quantizers[node.name],) * len(read)
        else:
            moves = packet(node) in MOVES and node.name not in own
            same = kept[node.name] if moves else WIDE
            needed = operands.get(node.name, (same,) * len(read))
        for source, form in zip(read, needed, strict=True):
            if form not in wanted[source.name]:
                wanted[source.name].append(form)
    touched = [
        name
        for node in order
        if node.name in own
        for name, form in _read_and_written(node, kept, operands, functions)
        if form is WIDE
    ]
    classes = _classes(order, kept, own, touched, sizes)
    short: dict[str, int] = {}
    for node in order:
        if packet(node) in JOINING and kept[node.name] is WIDE:
            apart = {classes[source.name] for source in sources(node)} - {classes[node.name]}
            if apart:
                short.setdefault(classes[node.name], 0)
        if node.name in own:
            function = functions.get(node.name)
            unit = function.unit if function else 0
            for name, form in _read_and_written(node, kept, operands, functions):
                if form is WIDE:
                    short[classes[name]] = max(unit, short.get(classes[name], 0))
    return Forms(
        {name: tuple(reversed(forms)) for name, forms in wanted.items()}, kept, classes, short,
        operands, frozenset(scaled), codes, stored is not None,
    )  # fmt: skip


def _read_and_written(
    node: fx.Node, kept: Mapping[str, Form], operands: Mapping[str, tuple[Form, ...]],
    functions: Mapping[str, PointFunction],
) -> list[tuple[str, Form]]:  # fmt: skip
    """The node and what its step reads, each in its form."""
    read = sources_of(node, functions)
    forms = (kept[node.name], *operands.get(node.name, (WIDE,) * len(read)))
    return list(zip((node.name, *(s.name for s in read)), forms, strict=True))


def _operand_form(source: fx.Node) -> Form:
    """Probabilities as the softmax writes them, also through moves; everything else in 16 bits."""
    while packet(source) in REARRANGEMENTS | {"getitem"} and sources(source):
        (source,) = sources(source)
    return PROBABILITIES if packet(source) in SOFTMAXES else WIDE


def at_own_scale(node: fx.Node) -> bool:
    """True for what reads 16 bits and writes them, or a layer's codes, with a factor of its own."""
    return packet(node) in OWN_SCALES and not adds_at_one_scale(node)


def _classes(
    order: list[fx.Node], kept: Mapping[str, Form], own: Collection[str],
    touched: Sequence[str], sizes: Mapping[str, float],
) -> dict[str, str]:  # fmt: skip
    """Union of every wide node with the sources that it shares the scale with: all but small ones
    of 16 bits that are joined with large ones."""
    parent = {node.name: node.name for node in order}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    joins = []
    for node in order:
        own_scale = (
            node.op == "placeholder"
            or node.name in own
            or packet(node) in {*LAYERS, *SOFTMAXES, "argmax"}
        )
        if not own_scale and kept[node.name] is WIDE:
            if packet(node) in JOINING:
                joins.append(node)
                continue
            for source in sources(node):
                parent[root(source.name)] = root(node.name)
    short = {root(name) for name in touched}
    for node in joins:
        for source in sources(node):
            is_small = MUCH_LARGER * sizes.get(source.name, 0.0) < sizes.get(node.name, 0.0)
            if not is_small or root(source.name) not in short:
                parent[root(source.name)] = root(node.name)
    return {name: root(name) for name in parent}
