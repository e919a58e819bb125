"""Convolutions and linear layers: stored weights, biases and the operator around them."""

from dataclasses import dataclass, field

import numpy as np

from mpsearch.errors import InputError
from mpsearch.exporters.litert.flatbuffer import Scales
from mpsearch.exporters.litert.layouts import FIRST, LAST, Tensors, cut, scales_of, stored_shape
from mpsearch.exporters.litert.windows import VALID, clip_of, padding_for, write_clipped
from mpsearch.integer.graph import Convolution, Embedding, Linear, TransposedConvolution
from mpsearch.quantization.quantized import QuantizedLayer, QuantizedNetwork

# The oldest version of an operator that takes these weights, as LiteRT's own converter numbers
# them; a runtime that is too old then says so when it loads the file.
_CONVOLUTION = {8: 3, 4: 7}  # depthwise ones too
_LINEAR = {8: 4, 4: 10, 2: 14}
_GROUPED, _KEEP_DIMENSIONS, _NO_BIAS = 6, 5, 6


@dataclass(frozen=True)
class StoredLayer:
    """Bytes in the file's buffers for one layer."""

    layer: str
    operator: str
    w_bits: int
    weight_bytes: int
    bias_bytes: int
    scale_bytes: int

    @property
    def size_bytes(self) -> int:
        """All of it, counted as in profile.csv: weights, biases, one float32 scale per channel."""
        return self.weight_bytes + self.bias_bytes + self.scale_bytes


@dataclass
class Layers:
    """Writes layers; a layer that is used twice is stored once."""

    tensors: Tensors
    network: QuantizedNetwork
    entries: frozenset[str] = frozenset()
    stored: dict[str, StoredLayer] = field(default_factory=dict)
    numbers: dict[str, list[int]] = field(default_factory=dict)

    def convolution(self, step: Convolution) -> None:
        """CONV_2D or DEPTHWISE_CONV_2D, with a PAD before it where LiteRT's paddings differ."""
        tensors = self.tensors
        layer = self.network.layers[step.weights.layer]
        outputs, inputs, *kernel = step.weights.codes.shape
        depthwise = step.groups > 1 and inputs == 1
        size = stored_shape(tensors.shapes[step.sources[0]], LAST)[1:3]
        stored = stored_shape(step.output.shape, LAST)
        padding = padding_for(
            size, stored[1:3], (kernel[0], kernel[1]), step.stride, step.dilation, step.padding[:2]
        )
        source = tensors.read(step.sources[0], LAST)
        if any(any(pad) for pad in padding.pads):
            source = pad(tensors, step.sources[0], source, padding.pads)
        operator = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
        if depthwise:
            codes, axis = np.moveaxis(step.weights.codes[:, 0], 0, -1)[None], 3
        else:
            codes, axis = step.weights.codes.transpose(0, 2, 3, 1), 0
        constants = self._constants(step, layer, operator, codes, axis, always_bias=True)
        clip = clip_of(step.low, step.high, step.output, tensors.quantizers[step.output.name])
        options = {
            "padding": padding.scheme,
            "strideH": step.stride[0],
            "strideW": step.stride[1],
            "dilationHFactor": step.dilation[0],
            "dilationWFactor": step.dilation[1],
            "fusedActivationFunction": clip.fused,
        }
        version = _CONVOLUTION[layer.choice.w_bits]
        if depthwise:
            options["depthMultiplier"] = outputs // step.groups
        elif step.groups > 1:
            version = max(version, _GROUPED)
        table = "DepthwiseConv2DOptions" if depthwise else "Conv2DOptions"

        def write(target: int) -> None:
            tensors.file.operator(
                operator, version, [source, *constants], [target], table, **options
            )

        write_clipped(tensors, step.output, LAST, clip, write)

    def transposed(self, step: TransposedConvolution) -> None:
        """TRANSPOSE_CONV without padding, of which what is padded is cut off after.

        Raises InputError for groups and dilated kernels.
        """
        if step.groups > 1 or step.dilation != (1, 1):
            what = "groups" if step.groups > 1 else "a dilated kernel"
            raise InputError(
                f"layer {step.weights.layer!r} is a transposed convolution with {what}: LiteRT's "
                "cannot compute that; change the layer, or export with --format c"
            )
        tensors, codes = self.tensors, step.weights.codes
        layer = self.network.layers[step.weights.layer]
        height, width = stored_shape(tensors.shapes[step.sources[0]], LAST)[1:3]
        output = stored_shape(step.output.shape, LAST)
        top, left = step.padding[:2]
        full = (
            1,
            max((height - 1) * step.stride[0] + codes.shape[2], top + output[1]),
            max((width - 1) * step.stride[1] + codes.shape[3], left + output[2]),
            output[3],
        )
        source = tensors.read(step.sources[0], LAST)
        weight, bias = self._constants(
            step, layer, "TRANSPOSE_CONV", codes.transpose(0, 2, 3, 1), 0, always_bias=True
        )
        quantizer = tensors.quantizers[step.output.name]
        clip = clip_of(step.low, step.high, step.output, quantizer, fusable=False)

        def write(target: int) -> None:
            whole = target
            if full != output:
                whole = tensors.scratch(f"{step.output.name} whole", full, quantizer)
            tensors.file.operator(
                "TRANSPOSE_CONV", 3, [tensors.indices(full), weight, source, bias], [whole],
                "TransposeConvOptions", padding=VALID, strideH=step.stride[0],
                strideW=step.stride[1],
            )  # fmt: skip
            if full != output:
                ends = [0, top + output[1], left + output[2], output[3]]
                cut(tensors, whole, target, [0, top, left, 0], [1, *ends[1:]])

        write_clipped(tensors, step.output, LAST, clip, write)

    def embedding(self, step: Embedding) -> None:
        """GATHER from a table of the result's own codes: its rows need no scales.

        Raises InputError for row numbers that the network computes.
        """
        (name,) = step.sources
        tensors, table = self.tensors, step.weights.codes
        if name not in self.entries:
            raise InputError(
                f"layer {step.weights.layer!r} looks up numbers that the network moves before; a "
                "LiteRT file takes them from an input as it is: export with --format c"
            )
        quantizer = tensors.quantizers[step.output.name]
        target = tensors.new(step.output.name, step.output.shape, quantizer)
        layer = self.network.layers[step.weights.layer]
        assert layer.weight is not None
        real = layer.weight.dequantize().double().numpy()
        codes = np.rint(real / quantizer.scale) + quantizer.zero_point
        stored = np.clip(codes, 0, 255).astype(np.int64) - 128
        key = f"{step.weights.layer} {quantizer}"
        if key not in self.numbers:
            number = tensors.file.tensor(
                step.weights.layer, table.shape, "INT8", scales_of(quantizer), stored
            )
            self.numbers[key] = [number]
            self.stored[step.weights.layer] = StoredLayer(
                step.weights.layer, "GATHER", 8, table.size, 0, 0
            )
        tensors.file.operator(
            "GATHER", 2, [*self.numbers[key], tensors.read(name, FIRST)], [target],
            "GatherOptions", axis=0, batchDims=0,
        )  # fmt: skip

    def linear(self, step: Linear) -> None:
        """FULLY_CONNECTED over the last axis."""
        tensors = self.tensors
        layer = self.network.layers[step.weights.layer]
        source = tensors.read(step.sources[0], FIRST)
        constants = self._constants(step, layer, "FULLY_CONNECTED", step.weights.codes, 0)
        clip = clip_of(step.low, step.high, step.output, tensors.quantizers[step.output.name])
        several = len(step.output.shape) > 1
        version = max(
            _LINEAR[layer.choice.w_bits],
            _KEEP_DIMENSIONS if several else 0,
            _NO_BIAS if len(constants) == 1 else 0,
        )

        def write(target: int) -> None:
            tensors.file.operator(
                "FULLY_CONNECTED", version, [source, *constants], [target],
                "FullyConnectedOptions", keepNumDims=several, fusedActivationFunction=clip.fused,
            )  # fmt: skip

        write_clipped(tensors, step.output, FIRST, clip, write)

    def _constants(
        self, step: Convolution | Linear, layer: QuantizedLayer, operator: str, codes: np.ndarray,
        axis: int, always_bias: bool = False,
    ) -> list[int]:  # fmt: skip
        """The weight and, where there is one, the bias; LiteRT's convolutions cannot be without."""
        name = step.weights.layer
        if name in self.numbers:
            return self.numbers[name]
        assert layer.weight is not None
        file, bits = self.tensors.file, layer.choice.w_bits
        scales = tuple(layer.weight.channel_scales().tolist())
        numbers = [file.tensor(name, codes.shape, f"INT{bits}", Scales(scales, 0, axis), codes)]
        if layer.bias_codes is not None or always_bias:
            bias = tuple(layer.weight.bias_steps(layer.activation.scale).tolist())
            numbers.append(
                file.tensor(
                    f"{name} bias", (len(scales),), "INT32", Scales(bias), step.weights.bias
                )
            )
        sizes = [len(file.buffers[file.tensors[number].buffer].data) for number in numbers]
        self.stored[name] = StoredLayer(
            name, operator, bits, sizes[0], sum(sizes[1:]), 4 * len(scales)
        )
        self.numbers[name] = numbers
        return numbers


def pad(tensors: Tensors, name: str, source: int, pads: tuple[tuple[int, int], ...]) -> int:
    """`source`, channels last, with the zero point around: ((top, bottom), (left, right))."""
    stored = stored_shape(tensors.shapes[name], LAST)
    wider = (
        1,
        *(size + sum(pad) for size, pad in zip(stored[1:3], pads, strict=True)),
        stored[3],
    )
    target = tensors.scratch(f"{name} padded", wider, tensors.quantizers[name])
    around = tensors.indices((0, 0, *pads[0], *pads[1], 0, 0), (4, 2))
    tensors.file.operator("PAD", 2, [source, around], [target], "PadOptions")
    return target
