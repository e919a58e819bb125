"""The operators that an mpsearch file may name, and how a name becomes one.

Each is a function of its arguments and nothing else: none reads a file, a clock, a generator of
random numbers, memory by address or strides (`as_strided`) or memory that nothing was written to
(`empty`), and none calls back. torch's schemas and tags say most of it (not mutable, not seeded),
so they are asked. Only operators that check their own arguments are here, not the kernels behind
them (`_fft_c2r`, `_unsafe_index`). The size of a result follows from sizes and numbers that are
known before the operator runs (`memory_watch`), not from the data; `index`, `one_hot` and
`repeat_interleave` are the exceptions, and bounded by what they are given.

What is made from nothing alone (eye, linspace, a window) is missing: the export makes it a tensor.
"""

import torch
from torch import fx

from mpsearch.graph.layers import argument

ALLOWED = frozenset(
    """
    abs absolute acos acosh adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d
    adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d add addbmm addcdiv addcmul addmm
    addmv addr affine_grid_generator alias all alpha_dropout amax amin aminmax __and__ angle any
    arange arccos arccosh arcsin arcsinh arctan arctan2 arctanh argmax argmin argsort asin asinh
    atan atan2 atanh atleast_1d atleast_2d atleast_3d avg_pool1d avg_pool2d avg_pool3d baddbmm
    batch_norm bilinear bitwise_and bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift
    bitwise_xor block_diag bmm broadcast_tensors broadcast_to bucketize cat cdist ceil celu
    chain_matmul channel_shuffle chunk clamp clamp_max clamp_min clip clone col2im column_stack
    complex concat concatenate conj _conj conj_physical constant_pad_nd contiguous conv1d conv2d
    conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution copy copysign cos cosh
    cosine_similarity count_nonzero cross cummax cummin cumprod cumsum deg2rad detach diag
    diag_embed diagonal diagonal_scatter diff dist div divide dot dropout dstack einsum elu
    embedding eq erf erfc erfinv exp exp2 expand expand_as expm1 fake_quantize_per_channel_affine
    fake_quantize_per_tensor_affine feature_alpha_dropout feature_dropout fft_fft fft_fft2 fft_fftn
    fft_fftshift fft_hfft fft_ifft fft_ifft2 fft_ifftn fft_ifftshift fft_ihfft fft_irfft fft_irfft2
    fft_irfftn fft_rfft fft_rfft2 fft_rfftn fill fix flatten flip fliplr flipud float_power floor
    floor_divide fmax fmin fmod frac frobenius_norm full full_like gather ge gelu ger glu greater
    greater_equal grid_sampler grid_sampler_2d grid_sampler_3d group_norm gru gru_cell gt hardshrink
    hardsigmoid hardswish hardtanh heaviside hstack hypot im2col imag index index_add index_copy
    index_fill index_put index_reduce index_select inner instance_norm isclose isfinite isin isinf
    isnan isneginf isposinf istft kron kthvalue layer_norm ldexp le leaky_relu lerp less less_equal
    lgamma lift_fresh_copy linalg_cross linalg_matmul linalg_matrix_norm linalg_multi_dot
    linalg_norm linalg_vecdot linalg_vector_norm linear log log10 log1p log2 log_sigmoid
    log_sigmoid_forward _log_softmax log_softmax logaddexp logaddexp2 logcumsumexp logical_and
    logical_not logical_or logical_xor logit logsumexp __lshift__ lstm lstm_cell lt mH mT
    masked_fill masked_scatter matmul max max_pool1d max_pool1d_with_indices max_pool2d
    max_pool2d_with_indices max_pool3d max_pool3d_with_indices max_unpool2d max_unpool3d maximum
    mean median meshgrid min minimum mish mm moveaxis movedim msort mul multiply mv nan_to_num
    nanmean nansum narrow native_batch_norm _native_batch_norm_legit_no_training native_group_norm
    native_layer_norm ne neg negative new_full new_ones new_zeros norm not_equal numpy_T one_hot
    ones ones_like __or__ outer pad pairwise_distance permute pixel_shuffle pixel_unshuffle polar
    positive pow prelu prod rad2deg ravel real reciprocal reflection_pad1d reflection_pad2d
    reflection_pad3d relu relu6 remainder renorm repeat repeat_interleave replication_pad1d
    replication_pad2d replication_pad3d reshape reshape_as resolve_conj resolve_neg rms_norm
    rnn_relu rnn_relu_cell rnn_tanh rnn_tanh_cell roll rot90 round row_stack rrelu __rshift__ rsqrt
    rsub _safe_softmax scalar_tensor scaled_dot_product_attention scatter scatter_add scatter_reduce
    searchsorted select select_scatter selu sgn sigmoid sign signbit silu sin sinc sinh slice
    slice_scatter _softmax softmax softplus softshrink sort split split_with_sizes sqrt square
    squeeze stack std std_mean stft sub subtract sum swapaxes swapdims sym_numel sym_size t take
    take_along_dim tan tanh tensordot threshold tile to _to_copy topk trace transpose tril triu
    true_divide trunc type_as unbind unflatten unfold unsafe_chunk unsafe_split
    unsafe_split_with_sizes _unsafe_view unsqueeze upsample_bicubic2d _upsample_bicubic2d_aa
    upsample_bilinear2d _upsample_bilinear2d_aa upsample_linear1d upsample_nearest1d
    upsample_nearest2d upsample_nearest3d _upsample_nearest_exact1d _upsample_nearest_exact2d
    _upsample_nearest_exact3d upsample_trilinear3d var var_mean vdot view view_as view_as_complex
    view_as_real vstack _weight_norm where xlogy __xor__ zeros zeros_like
    """.split()
)

# They draw random numbers where they are trained: one of the arguments below has to say no.
_IN_TRAINING = {
    "alpha_dropout", "dropout", "feature_alpha_dropout", "feature_dropout", "gru", "lstm",
    "rnn_relu", "rnn_tanh", "rrelu", "scaled_dot_product_attention",
}  # fmt: skip
_OFF = {"train": False, "training": False, "dropout": 0, "dropout_p": 0, "p": 0}


def find_operator(name: str) -> torch._ops.OpOverload | None:
    """torch's operator for `aten.conv2d.default`; None where a file may not name it."""
    namespace, _, rest = name.partition(".")
    packet, _, overload = rest.partition(".")
    if namespace != "aten" or packet not in ALLOWED:
        return None
    operators = getattr(torch.ops.aten, packet)
    if overload not in operators.overloads():
        return None
    found = getattr(operators, overload)
    assert isinstance(found, torch._ops.OpOverload)
    seeded = torch.Tag.nondeterministic_seeded in found.tags and packet not in _IN_TRAINING
    return None if found._schema.is_mutable or seeded else found


def draws(node: fx.Node) -> bool:
    """Whether an operator of the allow-list is called so that it draws random numbers."""
    if not isinstance(node.target, torch._ops.OpOverload):
        return False
    if torch.Tag.nondeterministic_seeded not in node.target.tags:
        return False
    names = {parameter.name for parameter in node.target._schema.arguments}
    return all(argument(node, name) != off for name, off in _OFF.items() if name in names)
