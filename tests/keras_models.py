"""Tiny Keras models, one per structure, and what Keras itself computes (torch backend)."""

import os
from collections.abc import Callable
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np
import pytest

keras: Any = pytest.importorskip("keras", reason="python -m pip install '.[keras]'")
if keras.backend.backend() != "torch":
    pytest.skip("Keras runs on another backend here", allow_module_level=True)
L = keras.layers


def randomize(model: Any, seed: int = 0) -> Any:
    """Weights as after training: variances positive, everything else around zero."""
    rng = np.random.default_rng(seed)
    for variable in model.variables:
        if "seed" in variable.path or variable.path.startswith("normalization"):
            continue
        drawn = rng.normal(0, 0.4, variable.shape)
        variable.assign(np.abs(drawn) + 0.5 if "var" in variable.path else drawn)
    return model


def chain(shape: tuple[int | None, ...], *layers: Any) -> Any:
    """A Sequential model behind an input called `x`."""
    return randomize(keras.Sequential([keras.Input(shape, name="x"), *layers]))


def adapted() -> Any:
    """A Normalization with the statistics of some data."""
    layer = L.Normalization()
    layer.adapt(np.random.default_rng(2).normal(3, 2, (5, 9, 8, 3)).astype(np.float32))
    return layer


IMAGE, LINE = (9, 8, 3), (11, 4)
"""Every layer alone; name -> (shape of a sample, the layers)."""
SINGLE: dict[str, tuple[tuple[int, ...], Callable[[], list[Any]]]] = {
    "conv2d-valid": (IMAGE, lambda: [L.Conv2D(4, (3, 2), activation="relu")]),
    "conv2d-same": (IMAGE, lambda: [L.Conv2D(4, 3, padding="same", use_bias=False)]),
    "conv2d-same-stride": (IMAGE, lambda: [L.Conv2D(4, 3, strides=2, padding="same")]),
    "conv2d-same-even": (IMAGE, lambda: [L.Conv2D(4, (4, 5), strides=(1, 3), padding="same")]),
    "conv2d-stride-over-kernel": (IMAGE, lambda: [L.Conv2D(4, 1, strides=3, padding="same")]),
    "conv2d-dilated": (IMAGE, lambda: [L.Conv2D(4, 3, dilation_rate=(2, 1), padding="same")]),
    "conv1d-same-stride": (LINE, lambda: [L.Conv1D(5, 4, strides=2, padding="same")]),
    "conv1d-causal": (LINE, lambda: [L.Conv1D(5, 3, dilation_rate=2, padding="causal")]),
    "depthwise": (IMAGE, lambda: [L.DepthwiseConv2D(3, depth_multiplier=2, padding="same")]),
    "depthwise-stride": (IMAGE, lambda: [L.DepthwiseConv2D(3, strides=2, padding="same")]),
    "depthwise1d": (LINE, lambda: [L.DepthwiseConv1D(3, padding="same")]),
    "separable": (IMAGE, lambda: [L.SeparableConv2D(5, 3, depth_multiplier=2, padding="same")]),
    "separable1d": (LINE, lambda: [L.SeparableConv1D(5, 3, strides=2, activation="tanh")]),
    "transposed-valid": (IMAGE, lambda: [L.Conv2DTranspose(4, 3, strides=2)]),
    "dense": ((7,), lambda: [L.Dense(4, activation="elu"), L.Dense(2, use_bias=False)]),
    "dense-sequence": (LINE, lambda: [L.Dense(3), L.BatchNormalization()]),
    "flatten-dense": (IMAGE, lambda: [L.Conv2D(4, 3), L.Flatten(), L.Dropout(0.5), L.Dense(3)]),
    "flatten-norm-dense": (
        IMAGE,
        lambda: [L.Conv2D(4, 3), L.Flatten(), L.BatchNormalization(), L.Dense(3)],
    ),
    "flatten-last": (IMAGE, lambda: [L.MaxPooling2D(), L.Flatten(), L.ReLU()]),
    "flatten-line": (LINE, lambda: [L.Conv1D(4, 3), L.Flatten(), L.Dense(3)]),
    "flatten-narrow": (IMAGE, lambda: [L.Conv2D(1, 3), L.Flatten(), L.Dense(3)]),
    "flatten-channels-first": (IMAGE, lambda: [L.Flatten("channels_first"), L.Dense(3)]),
    "batch-norm": (IMAGE, lambda: [L.Conv2D(4, 3), L.BatchNormalization(epsilon=0.01), L.ReLU()]),
    "batch-norm-plain": (IMAGE, lambda: [L.BatchNormalization(scale=False, center=False)]),
    "batch-norm-rows": (IMAGE, lambda: [L.BatchNormalization(axis=1)]),
    "batch-norm-columns": (IMAGE, lambda: [L.BatchNormalization(axis=2, scale=False)]),
    "layer-norm": (IMAGE, lambda: [L.LayerNormalization(), L.LayerNormalization(axis=(2, 3))]),
    "max-pool": (IMAGE, lambda: [L.MaxPooling2D((3, 2))]),
    "max-pool-same": (IMAGE, lambda: [L.MaxPooling2D(3, strides=2, padding="same")]),
    "max-pool-same-even": (IMAGE, lambda: [L.MaxPooling2D(2, strides=1, padding="same")]),
    "max-pool1d": (LINE, lambda: [L.MaxPooling1D(3, strides=2, padding="same")]),
    "average-pool": (IMAGE, lambda: [L.AveragePooling2D(2)]),
    "global-average": (IMAGE, lambda: [L.GlobalAveragePooling2D()]),
    "global-average-keep": (
        IMAGE,
        lambda: [L.Conv2D(4, 1), L.GlobalAveragePooling2D(keepdims=True), L.Conv2D(2, 1)],
    ),
    "global-max": (IMAGE, lambda: [L.GlobalMaxPooling2D()]),
    "global-max1d": (LINE, lambda: [L.GlobalMaxPooling1D(keepdims=True)]),
    "global-average1d": (LINE, lambda: [L.Conv1D(5, 1), L.GlobalAveragePooling1D()]),
    "reshape": (IMAGE, lambda: [L.Conv2D(4, 2), L.Reshape((7, -1)), L.Conv1D(2, 3)]),
    "permute": (IMAGE, lambda: [L.Conv2D(4, 2), L.Permute((3, 1, 2)), L.Dense(2)]),
    "padding": (IMAGE, lambda: [L.ZeroPadding2D(((0, 1), (2, 0))), L.Cropping2D((1, 0))]),
    "padding1d": (LINE, lambda: [L.ZeroPadding1D((2, 1)), L.Cropping1D(1)]),
    "up-sampling": (IMAGE, lambda: [L.UpSampling2D((2, 3)), L.Conv2D(2, 2)]),
    "up-sampling1d": (LINE, lambda: [L.UpSampling1D(2)]),
    "repeat": ((7,), lambda: [L.RepeatVector(3), L.Dense(2)]),
    "relu-general": (
        IMAGE,
        lambda: [L.ReLU(max_value=1.5, negative_slope=0.1, threshold=0.3), L.ReLU(0.7)],
    ),
    "prelu": (IMAGE, lambda: [L.PReLU(shared_axes=[1, 2]), L.PReLU(shared_axes=[3])]),
    "leaky-elu": (IMAGE, lambda: [L.LeakyReLU(negative_slope=0.2), L.ELU(0.7), L.LeakyReLU()]),
    "softmax-inside": (IMAGE, lambda: [L.Conv2D(4, 2), L.Softmax(), L.Conv2D(2, 2)]),
    "softmax-axis": (IMAGE, lambda: [L.Conv2D(4, 2), L.Softmax(axis=1), L.Conv2D(2, 2)]),
    "rescaling": (IMAGE, lambda: [L.Rescaling(1 / 3, offset=-0.5), L.Rescaling([1.0, 2.0, 3.0])]),
    "rescaling-same": (IMAGE, lambda: [L.Rescaling(0.5, -1.0), L.Conv2D(4, 3, padding="same")]),
    "rescaling-uneven": (
        IMAGE,
        lambda: [L.Rescaling(2.0, 0.3), L.DepthwiseConv2D(3, strides=2, padding="same"),
                 L.Rescaling(0.1, 0.2), L.SeparableConv2D(3, 2, use_bias=False)],
    ),
    "rescaling-dense": (IMAGE, lambda: [L.Rescaling(3.0, 0.5), L.Flatten(), L.Dense(3)]),
    "normalization": (IMAGE, lambda: [adapted(), L.Conv2D(2, 2)]),
    "normalization-given": (
        IMAGE,
        lambda: [L.Normalization(mean=[1.0, 2.0, 0.0], variance=[4.0, 1.0, 2.0])],
    ),
    "embedding": ((5,), lambda: [L.Embedding(6, 4), L.Conv1D(3, 2)]),
    "lstm": (LINE, lambda: [L.LSTM(5, return_sequences=True), L.LSTM(3, use_bias=False)]),
    "gru": (LINE, lambda: [L.GRU(5, return_sequences=True), L.GRU(3, go_backwards=True)]),
    "simple-rnn": (LINE, lambda: [L.SimpleRNN(5, return_sequences=True), L.Dense(2)]),
    "bidirectional": (
        LINE,
        lambda: [
            L.Bidirectional(L.LSTM(5, return_sequences=True)),
            L.Bidirectional(L.GRU(3, return_sequences=True), merge_mode="ave"),
            L.Bidirectional(L.SimpleRNN(3), merge_mode="mul"),
        ],
    ),
    "random-layers": (
        IMAGE,
        lambda: [L.RandomFlip(), L.GaussianNoise(0.5), L.SpatialDropout2D(0.5)],
    ),
    "layer-as-activation": (
        IMAGE,
        lambda: [L.Conv2D(4, 3, activation=L.ReLU(max_value=0.5)), L.Dense(3, activation="linear")],
    ),
}  # fmt: skip
ACTIVATIONS = """
    relu relu6 sigmoid tanh elu selu gelu silu swish softplus softsign mish exponential leaky_relu
    hard_sigmoid hard_silu hard_swish softmax log_softmax linear
""".split()


def shared() -> Any:
    """A dense layer used behind two flattened images of different shapes, and a nested model."""
    a, b = keras.Input((4, 4, 2), name="left"), keras.Input((4, 4, 2), name="right")
    inside = keras.Input((4, 4, 2))
    y = L.Conv2D(3, 2, padding="same", name="conv")(inside)
    y = L.BatchNormalization(name="norm")(y)
    y = L.Add()([y, L.DepthwiseConv2D(2, padding="same", name="depth")(L.Conv2D(3, 1)(inside))])
    tower = keras.Model(inside, y, name="tower")
    dense = L.Dense(4, activation="relu", name="both")
    left = dense(L.Flatten()(L.MaxPooling2D()(tower(a))))
    right = dense(L.Reshape((12,))(L.AveragePooling2D(2)(tower(b))))
    return randomize(keras.Model([a, b], L.Dense(3)(L.Concatenate()([left, right]))))


def frozen() -> Any:
    """A frozen sequential inside: `.h5` stores its weights behind the trained ones."""
    base = keras.Sequential(
        [keras.Input((6, 6, 2)), L.Conv2D(4, 3), L.BatchNormalization(), L.Conv2D(4, 1)],
        name="base",
    )
    base.layers[0].trainable = False
    x = keras.Input((6, 6, 2), name="x")
    return randomize(keras.Model(x, L.Dense(2)(L.GlobalAveragePooling2D()(base(x)))))


def squeeze_excite() -> Any:
    """A gate of one number per channel; arithmetic on Keras tensors; other ways to merge."""
    x = keras.Input((6, 6, 4), name="x")
    y = L.Conv2D(4, 3, padding="same", activation="hard_silu")(x)
    gate = L.Reshape((1, 1, 4))(L.GlobalAveragePooling2D()(y))
    gate = L.Conv2D(4, 1, activation="hard_sigmoid")(gate)
    y = L.Multiply()([y, gate])
    y = L.Maximum()([L.Average()([x, y, x]), L.Subtract()([y, x]), L.Minimum()([x, y])])
    y = 1.5 - y * 0.5 + x / 2.0
    return randomize(keras.Model(x, L.Dense(2)(L.Flatten()(L.Concatenate(axis=1)([y, x])))))


def broadcast() -> Any:
    """Additions of tensors with different numbers of dimensions."""
    x = keras.Input((5, 4), name="x")
    return randomize(keras.Model(x, L.Add()([L.Conv1D(4, 1)(x), L.GlobalMaxPooling1D()(x)])))


def attentive() -> Any:
    """Self and cross attention, causal and masked ones, inputs by name, heads that share keys."""
    a, b = keras.Input((6, 8), name="left"), keras.Input((5, 3), name="right")
    x = L.MultiHeadAttention(2, 4, value_dim=3, name="own")(a, a, use_causal_mask=True)
    near, masked = np.abs(np.subtract.outer(range(6), range(6))) < 2, L.MultiHeadAttention(2, 3)
    x = masked(x, x, attention_mask=near[None])
    x = masked(x, x, attention_mask=np.arange(36).reshape(6, 6) % 5 < 4, use_causal_mask=True)
    x = L.RMSNormalization()(x)
    x = L.MultiHeadAttention(3, 4, output_shape=7, use_bias=False)(query=x, value=b, key=b)
    y = L.GroupQueryAttention(4, 4, 2)(x, x)
    y = L.Attention(use_scale=True)([x, y, x], use_causal_mask=True)
    return randomize(keras.Model([a, b], L.AdditiveAttention()([y, x])))


def attentive_axes() -> Any:
    """Attention over one axis of an image, over both, and with an output of two axes."""
    x = keras.Input((3, 4, 5), name="x")
    heads = [
        L.MultiHeadAttention(2, 3, attention_axes=2)(x, x),
        L.MultiHeadAttention(2, 3, attention_axes=(1, 2))(x, x),
        L.MultiHeadAttention(2, 3, output_shape=(2, 3), attention_axes=1)(x, x),
    ]
    return randomize(keras.Model(x, heads))


def each_step() -> Any:
    """A model, a convolution and a layer without weights for every frame of a film."""
    x = keras.Input((3, 8, 8, 2), name="x")
    tower = keras.Sequential(
        [keras.Input((8, 8, 2)), L.Conv2D(3, 3), L.MaxPooling2D(), L.Flatten(), L.Dense(4)],
        name="tower",
    )
    y = L.TimeDistributed(L.Flatten())(L.TimeDistributed(L.Conv2D(2, 3))(x))
    return randomize(keras.Model(x, L.Concatenate()([L.TimeDistributed(tower)(x), y])))


def unread_masks() -> Any:
    """Masks that no layer reads: of words, and of steps that are all the mask's value."""
    x = keras.Input((5,), name="x")
    words = L.Dense(3, activation="relu")(L.Embedding(7, 4, mask_zero=True)(x))
    steps = L.Masking(2.0)(L.Reshape((5, 1))(x))
    return randomize(keras.Model(x, L.Dense(2)(L.Flatten()(L.Concatenate()([words, steps])))))


STRUCTURES: dict[str, Callable[[], Any]] = {
    "attention": attentive,
    "attention-axes": attentive_axes,
    "each-step": each_step,
    "unread-masks": unread_masks,
    "shared": shared,
    "frozen": frozen,
    "squeeze-excite": squeeze_excite,
    "broadcast": broadcast,
}


def samples(model: Any, count: int = 3, seed: int = 1) -> list[np.ndarray[Any, Any]]:
    """Random inputs; small whole numbers where the model takes an embedding's indices."""
    rng = np.random.default_rng(seed)
    whole = any(isinstance(layer, L.Embedding) for layer in model.layers)
    arrays = []
    for tensor in model.inputs:
        shape = (count, *tensor.shape[1:])
        drawn = rng.integers(0, 6, shape) if whole else rng.normal(0, 1, shape)
        arrays.append(drawn.astype(np.float32))
    return arrays


def outputs(model: Any, arrays: list[np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
    """What Keras computes in inference."""
    found = model(arrays if len(arrays) > 1 else arrays[0], training=False)
    listed = found if isinstance(found, list | tuple) else [found]
    return [keras.ops.convert_to_numpy(tensor) for tensor in listed]
