"""A function for every aten operator, by the operator's name; what they compute with.

Ends such as `_batch` mark further cases of one operator.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

aten = torch.ops.aten
Functions = dict[str, Callable[[Any], Any]]


def named(home: Any, names: str, use: Callable[[Any, Any], Any]) -> Functions:
    """`use(function, values)` for functions by the names that they have in `home`."""

    def case(function: Any) -> Callable[[Any], Any]:
        return lambda v: use(function, v)

    return {name: case(getattr(home, name)) for name in names.split()}


def _of_dimensions(word: str, use: Callable[[Any, Any, Any, Any], Any]) -> Functions:
    """`use(function, values, input, weight)` for conv1d, conv2d, conv3d, or the transposed ones."""

    def case(place: int) -> Callable[[Any], Any]:
        function = getattr(F, f"{word}{place + 1}d")

        def run(v: Any) -> Any:
            source = (v.line, v.z, v.z[:, :, None])[place]
            return use(function, v, source, v.m.kernels[place] * v.z.new_ones(v.n).mean())

        return run

    return {f"{word}{place + 1}d": case(place) for place in range(3)}


class Values:
    """What the functions compute with, made of the layer's output z [N, 4, 6, 5]."""

    def __init__(self, z: torch.Tensor, m: nn.Module) -> None:
        self.m, self.z, self.n = m, z, z.shape[0]
        self.positive = z.abs() + 0.5
        self.small = torch.tanh(z) * 0.9
        self.rows = z.mean((2, 3))  # [N, 4]
        self.line = z.flatten(2)  # [N, 4, 30]
        self.whole = (z * 3).round().long()
        self.flags = z > 0.1


ARITHMETIC: Functions = {
    **named(
        torch,
        "abs asin atan atanh cos cosh erf exp reciprocal sign sin sinh tan tanh acos "
        "asinh floor ceil round neg square isnan expm1",
        lambda f, v: f(v.small),
    ),
    **named(torch, "log log1p rsqrt sqrt log2 log10", lambda f, v: f(v.positive)),
    "acosh": lambda v: torch.acosh(v.positive + 1),
    "add": lambda v: torch.add(v.z, v.rows[:, :, None, None], alpha=2),
    "add_batch": lambda v: (v.z + v.n) - 2 * v.n + v.n,
    "sub": lambda v: v.z - 0.25,
    "rsub": lambda v: torch.rsub(v.z, 3.0, alpha=2),
    "mul": lambda v: v.z * v.whole,
    "div": lambda v: v.whole / 3,
    "div_floor": lambda v: torch.div(v.z, 0.3, rounding_mode="floor"),
    "div_trunc": lambda v: (
        torch.div(v.whole, 2, rounding_mode="trunc").float()
        + torch.div(v.z, 0.7, rounding_mode="trunc")
    ),
    "floor_divide": lambda v: aten.floor_divide.default(v.whole, torch.tensor(2)),
    "pow": lambda v: v.z**2 + v.positive**v.small + 2.0**v.z,
    "remainder": lambda v: v.z % 0.7 + v.whole % 3,
    "fmod": lambda v: torch.fmod(v.z, 0.7) + torch.fmod(v.whole, 3),
    "maximum": lambda v: torch.maximum(v.z, v.z.flip(1)),
    "minimum": lambda v: torch.minimum(v.z, torch.zeros(())) + torch.min(v.z, v.small),
    "max": lambda v: torch.max(v.z, v.small) + v.z.max(1)[0][:, None] + v.z.max(2)[1][:, :, None],
    "min": lambda v: v.z.min(3, keepdim=True)[0] + v.whole.min(1)[0][:, None],
    **named(
        torch,
        "eq ne lt le gt ge",
        lambda f, v: torch.where(f(v.z, 0.3), v.z, v.small) + f(v.whole, 1),
    ),
    "logical_and": lambda v: torch.logical_and(v.flags, v.whole),
    "logical_or": lambda v: torch.logical_or(v.flags, v.whole),
    "logical_xor": lambda v: torch.logical_xor(v.flags, v.z < 1),
    "logical_not": lambda v: torch.logical_not(v.flags),
    "bitwise_and": lambda v: (v.flags & (v.z < 1)) + aten.bitwise_and.Tensor(v.whole, v.whole + 1),
    "bitwise_or": lambda v: (v.flags | (v.z > 1)) + aten.bitwise_or.Scalar(v.whole, 5),
    "bitwise_xor": lambda v: (v.flags ^ (v.z > 1)) + aten.bitwise_xor.Tensor(v.whole, v.whole + 1),
    "bitwise_not": lambda v: (~v.flags).float() + ~v.whole,
    "where": lambda v: torch.where(v.flags, v.z, 0.5) + torch.where(v.flags, v.flags, v.z > 3),
    "masked_fill": lambda v: v.z.masked_fill(v.flags, -2.0),
    "_to_copy": lambda v: aten._to_copy.default(v.z * 2, dtype=torch.int32),
    "to": lambda v: v.z.to(torch.int64) + v.flags.to(torch.float32),
    "type_as": lambda v: v.whole.type_as(v.z),
    "copy": lambda v: aten.copy.default(v.z, v.rows[:, :, None, None]),
    "add_flags": lambda v: v.flags + v.flags,
    "rounded": lambda v: torch.round(v.z, decimals=1),
    **named(aten, "alias detach", lambda f, v: f.default(v.z)),
    "clone": lambda v: v.z.clone(),
    "contiguous": lambda v: v.z.transpose(2, 3).contiguous(),
    "lift_fresh_copy": lambda v: aten.lift_fresh_copy.default(v.z),
    "dropout": lambda v: aten.dropout.default(v.z, 0.5, False),
    "feature_dropout": lambda v: aten.feature_dropout.default(v.z, 0.5, False),
}

ACTIVATIONS: Functions = {
    **named(
        F,
        "relu relu6 elu selu silu mish hardswish hardsigmoid softplus softsign leaky_relu celu",
        lambda f, v: f(v.z * 3),
    ),
    "sigmoid": lambda v: torch.sigmoid(v.z),
    "celu2": lambda v: F.celu(v.z, 2.0),
    "gelu": lambda v: F.gelu(v.z) + F.gelu(v.z, approximate="tanh"),
    "hardtanh": lambda v: F.hardtanh(v.z, -0.3, 0.4),
    "clamp": lambda v: v.z.clamp(-0.2, 0.4) + v.z.clamp(max=v.small) + v.whole.clamp(-1, 2),
    "clamp_min": lambda v: aten.clamp_min.default(v.z, 0.1),
    "clamp_max": lambda v: aten.clamp_max.default(v.z, 0.1) + aten.clamp_max.Tensor(v.z, v.small),
    "threshold": lambda v: F.threshold(v.z, 0.1, -2.0),
    "prelu": lambda v: v.m.prelu(v.z) + F.prelu(v.z, v.m.slope),
    "softplus_beta": lambda v: F.softplus(v.z, 2.0, 1.0),
    "log_sigmoid": lambda v: F.logsigmoid(v.z),
    "glu": lambda v: F.glu(v.z, 1),
    "softmax": lambda v: v.z.softmax(1) + v.z.softmax(-1),
    "log_softmax": lambda v: v.z.log_softmax(1),
    "_softmax": lambda v: aten._softmax.default(v.z, 2, False),
    "_log_softmax": lambda v: aten._log_softmax.default(v.z, 2, False),
    "_safe_softmax": lambda v: aten._safe_softmax.default(
        v.z.masked_fill(v.rows[:, :, None, None] > 0, -torch.inf), -1
    ),
}

REDUCTIONS: Functions = {
    "sum": lambda v: v.z.sum((2, 3)) + v.flags.sum((1, 2, 3))[:, None],
    "mean": lambda v: v.z.mean(1, keepdim=True),
    "amax": lambda v: v.z.amax((2, 3)),
    "amin": lambda v: v.z.amin(-1),
    "prod": lambda v: v.z.prod(1),
    "var": lambda v: v.z.var((2, 3)) + v.z.var(1, unbiased=False)[:, :1, :4].sum(2),
    "std": lambda v: v.z.std(1, correction=0),
    "logsumexp": lambda v: v.z.logsumexp((1, 2)),
    "linalg_vector_norm": lambda v: (
        torch.linalg.vector_norm(v.z, dim=1)
        + torch.linalg.vector_norm(v.z, 1, dim=1)
        + torch.linalg.vector_norm(v.z, 3, dim=1)
        + torch.linalg.vector_norm(v.z, float("inf"), dim=1)
    ),
    "any": lambda v: v.flags.any(1).float() + v.whole.any(1),
    "all": lambda v: v.flags.all(1),
    "argmax": lambda v: v.z.argmax(1) + v.rows.argmax(1, keepdim=True)[:, :, None],
    "argmin": lambda v: v.z.argmin(-1),
    "cumsum": lambda v: v.z.cumsum(1) + v.whole.cumsum(-1),
    "topk": lambda v: (
        torch.cat([*v.line.topk(3, dim=2)], 1) + v.line.topk(3, largest=False)[0].repeat(1, 2, 1)
    ),
}

ARRANGING: Functions = {
    "view": lambda v: v.z.view(v.n, 4, 30),
    "reshape": lambda v: v.z.reshape(-1, 30).reshape(v.n, 120),
    "_unsafe_view": lambda v: aten._unsafe_view.default(v.z, [v.n, 120]),
    "flatten": lambda v: v.z.flatten(1),
    "flattened_batch": lambda v: v.z.flatten(0, 1).sum((1, 2)).view(v.n, 4),
    "squeeze": lambda v: v.z[:, :1].squeeze(1),
    "unsqueeze": lambda v: v.z.unsqueeze(2),
    "unflatten": lambda v: v.z.unflatten(1, (2, 2)),
    "view_as": lambda v: aten.view_as.default(v.z, v.z.flip(1)),
    "permute": lambda v: v.z.permute(0, 3, 1, 2),
    "permute_batch": lambda v: v.z.permute(2, 0, 1, 3).cumsum(0).movedim(1, 0),
    "transpose": lambda v: v.z.transpose(1, 3),
    "swapaxes": lambda v: aten.swapaxes.default(v.z, 1, 2),
    "movedim": lambda v: aten.movedim.int(v.z, 1, 3) + aten.movedim.intlist(v.z, [3, 1], [2, 3]),
    "t": lambda v: aten.t.default(v.rows).relu().permute(1, 0),
    "expand": lambda v: (
        v.rows[:, :, None].expand(-1, -1, 3) + torch.ones(1, 1).expand(v.n, 4)[:, :, None]
    ),
    "expand_as": lambda v: aten.expand_as.default(v.rows[:, :, None, None], v.z),
    "broadcast_tensors": lambda v: torch.broadcast_tensors(v.z, v.rows[:, :, None, None])[1],
    "meshgrid": lambda v: sum(
        grid + v.rows[:, :1, None]
        for grid in torch.meshgrid(v.m.five * v.z.new_ones(v.n).mean(), v.m.five, indexing="xy")
    ),
    "cat": lambda v: torch.cat([v.z, v.whole], 1),
    "stack": lambda v: torch.stack([v.z, v.small], -1),
    "chunk": lambda v: torch.cat(v.z.chunk(3, 3)[::-1], 3),
    "split": lambda v: v.z.split(2, 1)[1],
    "split_with_sizes": lambda v: v.z.split([1, 3], 1)[1],
    "unbind": lambda v: v.z.unbind(1)[2],
    "repeat": lambda v: v.z.repeat(1, 2, 1, 1).flatten(1).repeat(1, 2),
    "repeat_interleave": lambda v: v.z.repeat_interleave(2, 1),
    "flip": lambda v: v.z.flip((1, 3)),
    "roll": lambda v: v.z.roll((1, -2), (1, 2)),
    "tril": lambda v: v.z.tril(-1),
    "triu": lambda v: v.z.triu(1) + v.flags.triu(),
    "pad": lambda v: (
        F.pad(v.z, (1, 2, -1, 0), value=0.5) + F.pad(v.z, (1, 2, 0, -1), mode="circular")
    ),
    "constant_pad_nd": lambda v: aten.constant_pad_nd.default(v.whole, [1, 1], 2),
    "reflection_pad2d": lambda v: aten.reflection_pad2d.default(v.z, [1, 2, 3, 1]),
    "reflection_pad1d": lambda v: aten.reflection_pad1d.default(v.line, [2, 3]),
    "replication_pad2d": lambda v: (
        F.pad(v.z, (2, 1, 2, 1), "reflect") + aten.replication_pad2d.default(v.z, [2, 1, 2, 1])
    ),
    "replication_pad1d": lambda v: aten.replication_pad1d.default(v.line, [2, 3]),
    "zeros": lambda v: torch.zeros(v.n, 3) + v.rows[:, :3],
    "zeros_like": lambda v: torch.zeros_like(v.z) + v.z,
    "new_zeros": lambda v: v.z.new_zeros(v.n, 4) + v.rows,
    "ones": lambda v: torch.ones(v.n, 4) * v.rows,
    "ones_like": lambda v: torch.ones_like(v.z, dtype=torch.int64) + v.z,
    "new_ones": lambda v: v.z.new_ones(v.n, 4) + v.rows,
    "full": lambda v: torch.full((v.n, 4), 0.5) + v.rows,
    "full_like": lambda v: torch.full_like(v.z, 0.5) + v.z,
    "new_full": lambda v: v.z.new_full((v.n, 2), 0.5) + v.rows[:, :2],
    "fill": lambda v: aten.fill.Scalar(v.z, 2.0) + v.z,
    "scalar_tensor": lambda v: aten.scalar_tensor.default(2.5) + v.z,
    "arange": lambda v: torch.arange(v.n)[:, None] // 100 + v.rows,
    "channel_shuffle": lambda v: aten.channel_shuffle.default(v.z, 2),
    "pixel_shuffle": lambda v: F.pixel_shuffle(v.z, 2),
    "pixel_unshuffle": lambda v: F.pixel_unshuffle(v.z[..., :4], 2),
    "slice": lambda v: v.z[:, 1:-1, ::2],
    "narrow": lambda v: aten.narrow.default(v.z, 2, -3, 2),
    "select": lambda v: v.z.select(1, -1),
    "index_select": lambda v: v.z.index_select(1, v.m.places),
    "gather": lambda v: v.line.gather(2, v.line.argmax(2, keepdim=True)),
    "scatter": lambda v: (
        v.line.scatter(2, v.line.argmax(2, keepdim=True), 9.0)
        + v.line.scatter(2, v.whole.flatten(2).clamp(0, 2)[:, :, :1], v.line[:, :, :1])
    ),
    "select_scatter": lambda v: torch.select_scatter(v.z, v.small[:, 0], 1, 2),
    "slice_scatter": lambda v: torch.slice_scatter(v.z, v.small[..., :2], 3, 1, 4, 2),
    "index": lambda v: (
        v.z[:, v.m.places]
        + v.z[:, :, v.m.places[:3], v.m.places[:3]][:, :1, :, None].sum(2, keepdim=True)
    ),
    "im2col": lambda v: F.unfold(v.z, (3, 2), (1, 2), (1, 0), (2, 1)),
    "unfold": lambda v: v.z.unfold(2, 3, 2),
    "diff": lambda v: v.z.diff(dim=2) + v.z.diff(2, dim=1)[:, :1, :5],
    "sort": lambda v: v.line.sort(2, descending=True)[0] + v.line.argsort(2),
    "index_apart": lambda v: (
        v.z[:, v.m.places[:3], :, v.m.places[:3]].permute(1, 0, 2)
        + v.z[torch.arange(v.n), v.rows.argmax(1)][:, :3, :1].expand(-1, 3, 6)
    ),
    "embedding": lambda v: (
        aten.embedding.default(v.m.table * v.rows.new_ones(v.n).mean(), v.m.places)[None, :, :]
        + v.rows[:, :1, None]
    ),
}

CHANNELS: Functions = {
    "mv": lambda v: aten.mv.default(v.rows, v.m.five[:4]),
    "bilinear": lambda v: F.bilinear(v.rows, v.rows, v.m.kernels[0][:, :, :1].expand(4, 4, 4)),
    "grid_sampler": lambda v: (
        F.grid_sample(v.z, v.small[:, :2].permute(0, 2, 3, 1), align_corners=False)
        + F.grid_sample(
            v.z, v.z[:, 2:].permute(0, 2, 3, 1), "nearest", "border", align_corners=True
        )
    ),
    "matmul": lambda v: v.line @ v.line.transpose(1, 2),
    "mm": lambda v: aten.mm.default(v.rows, (v.m.table * v.rows.new_ones(v.n).mean()).mT),
    "bmm": lambda v: torch.bmm(v.line, v.line.transpose(1, 2)),
    "addmm": lambda v: torch.addmm(
        v.m.five, v.rows * 2, v.m.table.T * v.rows.new_ones(v.n).mean(), beta=0.5, alpha=2
    ),
    "baddbmm": lambda v: torch.baddbmm(
        v.rows[:, :, None], v.line, v.line.transpose(1, 2), beta=0.5, alpha=2
    ),
    "einsum": lambda v: torch.einsum("nchw, ndhw -> ncd", v.z, v.z),
    "linear": lambda v: F.linear(v.rows, v.m.table * v.rows.new_ones(v.n).mean()),
    "scaled_dot_product_attention": lambda v: (
        F.scaled_dot_product_attention(v.z, v.z, v.small)
        + F.scaled_dot_product_attention(v.z, v.z, v.small, is_causal=True)
        + F.scaled_dot_product_attention(v.z, v.z, v.small, v.z[..., :1] > v.m.five[:1] - 1)
        + F.scaled_dot_product_attention(
            v.z, v.z, v.small, v.z[..., :1] * v.z[..., :1].mT, scale=0.3
        )
    ),
    "attention_heads": lambda v: F.scaled_dot_product_attention(
        v.z, v.z[:, :2], v.small[:, :2], enable_gqa=True
    ),
    "batch_norm": lambda v: v.m.bn(v.small),
    "native_batch_norm": lambda v: aten.native_batch_norm.default(
        v.z, None, None, v.m.bn.running_mean, v.m.bn.running_var, False, 0.1, 1e-3
    )[0],
    "_native_batch_norm_legit_no_training": lambda v: (
        aten._native_batch_norm_legit_no_training.default(
            v.z, v.m.bn.weight, v.m.bn.bias, v.m.bn.running_mean, v.m.bn.running_var, 0.1, 1e-3
        )[0]
    ),
    "instance_norm": lambda v: (
        v.m.inorm(v.z) + F.instance_norm(v.line, eps=1e-3)[..., None, :6, None].sum(2)
    ),
    "layer_norm": lambda v: v.m.ln(v.z) + F.layer_norm(v.z, (6, 5)),
    "native_layer_norm": lambda v: sum(
        aten.native_layer_norm.default(v.z, [5], v.m.ln.weight, None, 1e-3)
    ),
    "group_norm": lambda v: v.m.gn(v.z) + F.group_norm(v.rows, 2, eps=1e-3)[:, :, None, None],
    "native_group_norm": lambda v: aten.native_group_norm.default(
        v.z, v.m.gn.weight, v.m.gn.bias, v.n, 4, 30, 2, 1e-3
    )[0],
    "rms_norm": lambda v: F.rms_norm(v.z, (5,), v.m.ln.weight, 1e-3) + F.rms_norm(v.z, (6, 5)),
    **_of_dimensions("conv", lambda f, v, x, weight: f(x, weight)),
    **_of_dimensions(
        "conv_transpose", lambda f, v, x, weight: f(x, weight, v.m.five[:4], stride=2)
    ),
    "convolution": lambda v: aten.convolution.default(
        v.z,
        v.m.kernels[1] * v.positive.new_ones(v.n).mean(),
        None,
        [2, 1],
        [1, 0],
        [1, 2],
        False,
        [0, 0],
        1,
    ),
}

WINDOWS: Functions = {
    "max_pool1d": lambda v: F.max_pool1d(v.line, 3, 2, 1, ceil_mode=True),
    "max_pool2d": lambda v: F.max_pool2d(v.z, 3, 2, dilation=(2, 1), ceil_mode=True),
    "max_pool3d": lambda v: F.max_pool3d(v.z[:, None], 2, padding=1),
    "avg_pool1d": lambda v: F.avg_pool1d(v.line, 4, 3, 2, ceil_mode=True),
    "avg_pool2d": lambda v: (
        F.avg_pool2d(v.z, 2)
        + F.avg_pool2d(v.z, 2, divisor_override=3)
        + F.avg_pool2d(v.z, 3, 2, 1, count_include_pad=False)[:, :, :, :2]
    ),
    "avg_pool3d": lambda v: F.avg_pool3d(
        v.z[:, None], 2, 1, 1, ceil_mode=True, count_include_pad=False
    ),
    "adaptive_avg_pool1d": lambda v: F.adaptive_avg_pool1d(v.line, 7),
    "adaptive_avg_pool2d": lambda v: (
        F.adaptive_avg_pool2d(v.z, (3, 5)) + F.adaptive_avg_pool2d(v.z, 1)
    ),
    "adaptive_avg_pool3d": lambda v: F.adaptive_avg_pool3d(v.z[:, None], (3, 4, 2)),
    "adaptive_max_pool1d": lambda v: F.adaptive_max_pool1d(v.line, 6),
    "adaptive_max_pool2d": lambda v: F.adaptive_max_pool2d(v.z, (4, 2)),
    "upsample_nearest1d": lambda v: F.interpolate(v.line, 47),
    "upsample_nearest2d": lambda v: (
        F.interpolate(v.z, scale_factor=2)
        + F.interpolate(v.z, scale_factor=(2.05, 2.1))[:, :, :12, :10]
    ),
    "upsample_nearest3d": lambda v: F.interpolate(v.z[:, None], (2, 9, 10)),
    "upsample_linear1d": lambda v: F.interpolate(v.line, 47, mode="linear"),
    "upsample_bilinear2d": lambda v: (
        F.interpolate(v.z, (9, 7), mode="bilinear")
        + F.interpolate(v.z, (9, 7), mode="bilinear", align_corners=True)
        + F.interpolate(v.z, scale_factor=(1.55, 1.45), mode="bilinear")
    ),
    "upsample_trilinear3d": lambda v: F.interpolate(v.z[:, None], (3, 9, 7), mode="trilinear"),
    "upsample_bicubic2d": lambda v: (
        F.interpolate(v.z, (9, 7), mode="bicubic")
        + F.interpolate(v.z, (9, 7), mode="bicubic", align_corners=True)
        + F.interpolate(v.z, scale_factor=(1.55, 1.45), mode="bicubic")
    ),
}

FAMILIES = {
    "arithmetic": ARITHMETIC,
    "activations": ACTIVATIONS,
    "reductions": REDUCTIONS,
    "arranging": ARRANGING,
    "channels": CHANNELS,
    "windows": WINDOWS,
}


class Everything(nn.Module):
    def __init__(self, functions: Functions) -> None:
        super().__init__()
        self.functions = functions
        self.layer = nn.Conv2d(2, 4, 1)
        self.prelu, self.bn = nn.PReLU(), nn.BatchNorm2d(4)
        self.ln, self.gn = nn.LayerNorm(5), nn.GroupNorm(2, 4)
        self.inorm = nn.InstanceNorm2d(4, affine=True)
        self.slope, self.five = nn.Parameter(torch.rand(4)), nn.Parameter(torch.rand(5))
        self.table = nn.Parameter(torch.randn(5, 4))
        shapes = ([4, 4, 3], [4, 4, 2, 3], [4, 4, 1, 2, 2])
        self.kernels = nn.ParameterList(torch.randn(shape) for shape in shapes)
        self.register_buffer("edges", torch.tensor([-0.7, -0.2, 0.1, 0.1, 0.6]))
        self.register_buffer("places", torch.tensor([3, 0, 2, 1]))
        for norm in (self.bn, self.ln, self.gn, self.inorm):
            for parameter in norm.parameters():
                nn.init.normal_(parameter)
        self.bn.running_mean, self.bn.running_var = torch.randn(4), torch.rand(4) + 0.5

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        values = Values(self.layer(x), self)
        return {name: function(values).float() for name, function in self.functions.items()}
