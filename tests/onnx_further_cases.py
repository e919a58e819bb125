"""More of `onnx_operator_cases`: what torch composes of other operators, and rarer ones."""

import torch
from onnx_operator_cases import Functions, named
from torch.nn import functional as F

aten = torch.ops.aten


# Written as torch itself composes them of others.
COMPOSED: Functions = {
    **named(
        aten,
        "absolute arcsin arcsinh arctan arctanh arccos deg2rad rad2deg positive negative sgn sinc "
        "atleast_1d atleast_2d atleast_3d isfinite isneginf isposinf nan_to_num hardshrink "
        "softshrink fliplr conj conj_physical resolve_conj resolve_neg real",
        lambda f, v: f.default(v.small) if hasattr(f, "default") else f(v.small),
    ),
    **named(
        aten,
        "divide multiply subtract true_divide greater greater_equal less less_equal not_equal",
        lambda f, v: f.Tensor(v.z, v.positive),
    ),
    **named(aten, "logaddexp logaddexp2 heaviside", lambda f, v: f.default(v.z, v.z.flip(1).exp())),
    "arccosh": lambda v: aten.arccosh.default(v.positive + 1),
    "arctan2": lambda v: aten.arctan2.default(v.z, v.z.flip(1)),
    "atan2": lambda v: torch.atan2(v.z, v.z.flip(1)),
    "logit": lambda v: aten.logit.default(v.positive / 9),
    "xlogy": lambda v: aten.xlogy.Tensor(v.z, v.positive),
    "isclose": lambda v: torch.isclose(v.z, v.z + 1e-3, atol=2e-3),
    "isin": lambda v: torch.isin(v.whole, v.m.places),
    "lerp": lambda v: torch.lerp(v.z, v.small, 0.3),
    "clip": lambda v: aten.clip.default(v.z, -0.2, 0.3),
    "addcmul": lambda v: torch.addcmul(v.z, v.small, v.small, value=0.5),
    "addcdiv": lambda v: torch.addcdiv(v.z, v.small, v.positive, value=0.5),
    "aminmax": lambda v: sum(aten.aminmax.default(v.z, dim=1)),
    "count_nonzero": lambda v: torch.count_nonzero(v.whole, 1),
    "nanmean": lambda v: v.z.nanmean(1),
    "nansum": lambda v: v.z.nansum(1),
    "norm": lambda v: aten.norm.ScalarOpt_dim(v.z, 2, [1]),
    "frobenius_norm": lambda v: aten.frobenius_norm.dim(v.z, [2, 3]),
    "linalg_norm": lambda v: torch.linalg.norm(v.z, dim=1),
    "linalg_matrix_norm": lambda v: torch.linalg.matrix_norm(v.z),
    "linalg_vecdot": lambda v: torch.linalg.vecdot(v.z, v.small, dim=1),
    "linalg_matmul": lambda v: aten.linalg_matmul.default(v.line, v.line.mT),
    "linalg_cross": lambda v: torch.linalg.cross(v.z[:, :3], v.small[:, 1:], dim=1),
    "cross": lambda v: aten.cross.default(v.z[:, :3], v.small[:, 1:], 1),
    "inner": lambda v: torch.inner(v.z, v.m.five * v.z.new_ones(v.n).mean()),
    "tensordot": lambda v: torch.tensordot(v.z, v.m.table, dims=([1], [1])),
    "cosine_similarity": lambda v: F.cosine_similarity(v.z, v.small.flip(2), 1),
    "pairwise_distance": lambda v: F.pairwise_distance(v.z, v.small.flip(2)),
    "broadcast_to": lambda v: aten.broadcast_to.default(v.z[:, :1], [v.n, 4, 6, 5]),
    **named(aten, "concat concatenate", lambda f, v: f.default([v.z, v.small], 1)),
    **named(aten, "hstack column_stack dstack", lambda f, v: f.default([v.z, v.small])),
    "diag_embed": lambda v: torch.diag_embed(v.z),
    "mH": lambda v: aten.mH.default(v.z),
    "moveaxis": lambda v: aten.moveaxis.int(v.z, 1, 3),
    "swapdims": lambda v: aten.swapdims.default(v.z, 1, 2),
    "msort": lambda v: aten.msort.default(v.z.transpose(0, 1)).transpose(0, 1),
    "rot90": lambda v: torch.rot90(v.z, 1, (2, 3)),
    "tile": lambda v: aten.tile.default(v.z, [1, 2, 1, 1]),
    "unsafe_split": lambda v: aten.unsafe_split.Tensor(v.z, 2, 1)[1],
    "unsafe_chunk": lambda v: aten.unsafe_chunk.default(v.z, 2, 1)[1],
    "unsafe_split_with_sizes": lambda v: aten.unsafe_split_with_sizes.default(v.z, [1, 3], 1)[1],
    "one_hot": lambda v: F.one_hot(v.whole.clamp(0, 3), 4),
    "affine_grid_generator": lambda v: F.affine_grid(
        v.z[:, :2, 0, :3], [v.n, 1, 4, 5], align_corners=False
    ),
    "log_sigmoid_forward": lambda v: aten.log_sigmoid_forward.default(v.z)[0],
    "outer": lambda v: torch.outer(v.m.five, v.m.five * v.z.new_ones(v.n).mean()) + v.z[:, :, :5],
    "alpha_dropout": lambda v: aten.alpha_dropout.default(v.z, 0.5, False),
    "feature_alpha_dropout": lambda v: aten.feature_alpha_dropout.default(v.z, 0.5, False),
}
FURTHER: Functions = {
    **named(aten, "trunc fix frac exp2 erfc isinf signbit", lambda f, v: f.default(v.z * 3)),
    **named(aten, "copysign", lambda f, v: f.Tensor(v.z, v.z.flip(1))),
    **named(aten, "hypot fmax fmin", lambda f, v: f.default(v.z, v.z.flip(1))),
    "bitwise_left_shift": lambda v: aten.bitwise_left_shift.Tensor_Scalar(v.whole, 2),
    "bitwise_right_shift": lambda v: aten.bitwise_right_shift.Tensor_Scalar(v.whole * 5, 1),
    "__lshift__": lambda v: v.whole << 1,
    "__rshift__": lambda v: v.whole >> 1,
    "bucketize": lambda v: torch.bucketize(v.small, v.m.edges, right=True),
    "searchsorted": lambda v: torch.searchsorted(v.m.edges, v.small),
    "cdist": lambda v: torch.cdist(v.z[:, 0], v.z[:, 1]) + torch.cdist(v.z[:, 0], v.z[:, 1], 1.0),
    "rrelu": lambda v: F.rrelu(v.z),
    "std_mean": lambda v: sum(torch.std_mean(v.z, 1)),
    "var_mean": lambda v: sum(torch.var_mean(v.z, 1)),
    "scatter_add": lambda v: v.line.scatter_add(2, v.line.argmax(2, True), v.line[:, :, :1]),
    "scatter_reduce": lambda v: v.line.scatter_reduce(
        2, v.line.argmin(2, True), v.line[:, :, :1] * 9, "amax"
    ),
    "index_add": lambda v: v.z.index_add(1, v.m.places, v.small, alpha=2),
    "index_copy": lambda v: v.z.index_copy(1, v.m.places[:3], v.small[:, :3]),
    "index_fill": lambda v: v.z.index_fill(1, v.m.places[:2], 0.5),
    "index_put": lambda v: torch.index_put(v.z, (torch.arange(v.n), v.rows.argmax(1)), v.z[:, 0]),
    "diagonal": lambda v: v.z.diagonal(1, 2, 3),
    "median": lambda v: v.z.median(2)[0],
    "kthvalue": lambda v: v.z.kthvalue(2, 1, True)[0],
    "col2im": lambda v: F.fold(F.unfold(v.z, 2, padding=1), (6, 5), 2, padding=1),
    "max_pool2d_with_indices": lambda v: sum(aten.max_pool2d_with_indices.default(v.z, [2, 3])),
    "max_pool3d_with_indices": lambda v: sum(
        aten.max_pool3d_with_indices.default(v.z[:, None], [2, 2, 2])
    ),
    "max_pool1d_with_indices": lambda v: aten.max_pool1d_with_indices.default(v.line, [2])[1],
    "adaptive_max_pool3d": lambda v: F.adaptive_max_pool3d(v.z[:, None], (2, 3, 2)),
    "_upsample_nearest_exact1d": lambda v: F.interpolate(v.line, 47, mode="nearest-exact"),
    "_upsample_nearest_exact2d": lambda v: F.interpolate(v.z, (4, 9), mode="nearest-exact"),
    "_upsample_nearest_exact3d": lambda v: F.interpolate(
        v.z[:, None], (3, 5, 9), mode="nearest-exact"
    ),
    "_upsample_bilinear2d_aa": lambda v: F.interpolate(
        v.z, (4, 3), mode="bilinear", antialias=True
    ),
    "_upsample_bicubic2d_aa": lambda v: F.interpolate(v.z, (4, 3), mode="bicubic", antialias=True),
    "reflection_pad3d": lambda v: aten.reflection_pad3d.default(v.z[:, None], [1] * 6),
    "replication_pad3d": lambda v: aten.replication_pad3d.default(v.z[:, None], [1] * 6),
    "addmv": lambda v: aten.addmv.default(v.rows[:, 0], v.rows, v.m.five[:4], alpha=0.5),
    "grid_sampler_2d": lambda v: aten.grid_sampler_2d.default(
        v.z, v.small[:, :2].permute(0, 2, 3, 1), 0, 2, True
    ),
    "grid_sampler_3d": lambda v: aten.grid_sampler_3d.default(
        v.z[:, None], v.small[:, :3].permute(0, 2, 3, 1)[:, None], 0, 1, False
    ),
    "reshape_as": lambda v: aten.reshape_as.default(v.line, v.z),
    "stft": lambda v: torch.view_as_real(
        torch.stft(
            v.line.flatten(1), 8, 3, 6, torch.hann_window(6), center=False, return_complex=True
        )
    ),
    "fft_rfft": lambda v: torch.view_as_real(aten.fft_rfft.default(v.line, None, 1)),
}
