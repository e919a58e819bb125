"""What the rest of mpsearch knows about single aten operators."""

from collections.abc import Callable

import torch
from torch import fx

CONVOLUTIONS = {"conv1d": 1, "conv2d": 2, "conv3d": 3}
TRANSPOSED = {"conv_transpose1d": 1, "conv_transpose2d": 2, "conv_transpose3d": 3}
LINEAR_OPERATORS = {*CONVOLUTIONS, *TRANSPOSED, "linear", "convolution"}
EMBEDDING = "embedding"  # reads whole rows of its weight: no arithmetic, no input to quantize

# Operators that an mpsearch file may name: functions of their arguments and nothing else. None
# of them reads a file, a clock or a random number, allocates by a given address or calls back.
ALLOWED = frozenset(
    """
    _native_batch_norm_legit_no_training _safe_softmax _softmax _log_softmax _to_copy _unsafe_view
    _weight_norm abs adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d
    adaptive_max_pool2d add addmm alias all amax amin any arange argmax argmin avg_pool1d avg_pool2d
    avg_pool3d baddbmm batch_norm bitwise_and bitwise_not bitwise_or bmm broadcast_tensors cat
    ceil channel_shuffle chunk clamp clamp_max clamp_min clone constant_pad_nd contiguous conv1d
    conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution copy cos cumsum
    detach div dropout einsum elu embedding eq erf exp expand expand_as feature_dropout
    fill flatten flip floor floor_divide full full_like gather ge gelu glu group_norm gru gt
    hardsigmoid hardswish hardtanh index index_select instance_norm layer_norm le leaky_relu
    lift_fresh_copy linalg_vector_norm linear log log1p log_sigmoid log_softmax logical_and
    logical_not logical_or lstm lt masked_fill matmul max max_pool1d max_pool2d max_pool3d maximum
    mean meshgrid min minimum mish mm mul movedim narrow native_batch_norm native_group_norm
    native_layer_norm ne neg new_full new_ones new_zeros ones ones_like pad permute pixel_shuffle
    pixel_unshuffle pow prelu prod reciprocal reflection_pad1d reflection_pad2d relu relu6 remainder
    repeat repeat_interleave replication_pad1d replication_pad2d reshape rms_norm roll round rsqrt
    rsub scalar_tensor scaled_dot_product_attention scatter select select_scatter selu sigmoid sign
    silu sin slice slice_scatter softmax softplus softsign split split_with_sizes sqrt square
    squeeze stack std sub sum swapaxes sym_size t tanh threshold to topk transpose tril triu
    type_as unbind unflatten unsqueeze upsample_bilinear2d upsample_nearest1d upsample_nearest2d
    var view view_as where zeros zeros_like
    gru_cell lstm_cell rnn_relu rnn_relu_cell rnn_tanh rnn_tanh_cell
    acos acosh asin asinh atan atanh cosh fmod isnan logical_xor logsumexp sinh tan
    upsample_bicubic2d upsample_linear1d upsample_nearest3d upsample_trilinear3d
    """.split()
)


def packet(node: fx.Node) -> str:
    """The operator's name without namespace and overload: `conv2d`; empty for other nodes."""
    if node.op != "call_function":
        return ""
    if isinstance(node.target, torch._ops.OpOverload):
        return node.target._schema.name.partition("::")[2]
    return str(getattr(node.target, "__name__", ""))


def argument(node: fx.Node, name: str) -> object:
    """The value of the operator's argument `name` as called, or its default."""
    assert isinstance(node.target, torch._ops.OpOverload)
    for index, parameter in enumerate(node.target._schema.arguments):
        if parameter.name == name:
            if name in node.kwargs:
                return node.kwargs[name]
            return node.args[index] if index < len(node.args) else parameter.default_value
    raise KeyError(name)


def weight_position(layer: fx.Node) -> int:
    """Where the weight stands among the arguments: first in `embedding(weight, indices)`."""
    return 0 if packet(layer) == EMBEDDING else 1


def layer_input(layer: fx.Node) -> fx.Node:
    """The node whose values meet the weight: activations, or the indices of an embedding."""
    source = layer.args[1 - weight_position(layer)]
    assert isinstance(source, fx.Node)
    return source


def is_transposed(layer: fx.Node) -> bool:
    """True when the weight's first dimension is the input channels."""
    if packet(layer) == "convolution":
        return bool(argument(layer, "transposed"))
    return packet(layer) in TRANSPOSED


def groups(layer: fx.Node) -> int:
    """Number of convolution groups; 1 for linear layers and embeddings."""
    if packet(layer) in ("linear", EMBEDDING):
        return 1
    count = argument(layer, "groups")
    assert isinstance(count, int)
    return count


def output_channels_last(layer: fx.Node) -> bool:
    """True for a linear layer over more than one position, whose channels are not dimension 1."""
    shape = layer.meta.get("shape")
    return packet(layer) == "linear" and shape is not None and len(shape) > 2


def output_channels_view(
    layer: fx.Node, weight: torch.Tensor
) -> tuple[torch.Tensor, Callable[[torch.Tensor], torch.Tensor]]:
    """(weight as [output channels, rest], function that undoes it).

    A transposed convolution stores [in, out/groups, …]; its output channel g·(out/groups) + j takes
    the inputs of group g: weight [6, 4, 3, 3] with 2 groups -> [8, 27].
    """
    if not is_transposed(layer):
        shape = weight.shape
        return weight.reshape(shape[0], -1), lambda rows: rows.reshape(shape)
    count = groups(layer)
    inputs, outputs, *kernel = weight.shape
    split = (count, inputs // count, outputs, *kernel)
    rows = weight.reshape(split).transpose(1, 2).reshape(count * outputs, -1)

    def restore(rows: torch.Tensor) -> torch.Tensor:
        swapped = rows.reshape(count, outputs, inputs // count, *kernel)
        return swapped.transpose(1, 2).reshape(weight.shape)

    return rows, restore
