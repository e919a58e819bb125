"""Activations: what torch's arguments mean, with ONNX's own operator where it is the same."""

import torch

from mpsearch.exporters.onnx.call import Call, Writer, plain
from mpsearch.exporters.onnx.sizes import Size


def _clamp(call: Call) -> str:
    """Between two ends, either may be missing: numbers, or tensors that broadcast."""
    low, high = "min", "max"
    if call.operator == "hardtanh":
        low, high = "min_val", "max_val"
    dtype = call.result.dtype
    ends = {
        name: None if call.operator == "clamp_min" and name == high else name
        for name in (low, high)
    }
    if call.operator == "clamp_max":
        ends[low] = None
    named = [name for name in (low, high) if ends[name] is not None and call.has(name)]
    numbers = {name: call.given(name) for name in named}
    if dtype.is_floating_point and all(isinstance(v, int | float) for v in numbers.values()):
        if not numbers:
            return call.tensor("self").name
        bounds = [None if numbers.get(n) is None else float(numbers[n]) for n in (low, high)]
        return call.build.clamp(call.in_type("self"), bounds[0], bounds[1], call.fresh("Clip"))

    def write(read: list[str]) -> str:
        made = read[0]
        for name, end in zip(named, read[1:], strict=True):
            made = call.add("Max" if name == low else "Min", [made, end])
        return made

    return call.computed(dtype, ["self", *named], write)


def _relu6(call: Call) -> str:
    return call.build.clamp(call.in_type("self"), 0.0, 6.0, call.fresh("Clip"))


def _threshold(call: Call) -> str:
    source = call.in_type("self")
    above = call.add("Greater", [source, call.scalar(call.number("threshold"))])
    return call.add("Where", [above, source, call.scalar(call.number("value"))])


def _leaky_relu(call: Call) -> str:
    slope = float(call.number("negative_slope"))
    return call.add("LeakyRelu", [call.tensor("self")], alpha=slope)


def _prelu(call: Call) -> str:
    """The slopes lie along dimension 1."""
    source, slope = call.tensor("self"), call.tensor("weight")
    name = slope.name
    if source.form.rank > 2 and slope.form.rank == 1:
        name = call.reshape(slope, (*slope.sizes, *[Size(1)] * (source.form.rank - 2)))
    return call.add("PRelu", [source, name])


def _elu(call: Call) -> str:
    """scale·x above zero, scale·alpha·(exp(input_scale·x) - 1) below (celu is one of them)."""
    alpha, scale, inner = (
        float(call.number(name, 1.0)) for name in ("alpha", "scale", "input_scale")
    )
    if call.operator == "celu":
        inner = 1 / alpha
    source = call.in_type("self")
    if inner == 1:
        made = call.add("Elu", [source], alpha=alpha)
    else:
        low = call.add("Min", [source, call.scalar(0.0)])
        power = call.add("Exp", [call.add("Mul", [low, call.scalar(inner)])])
        below = call.add("Mul", [call.add("Sub", [power, call.scalar(1.0)]), call.scalar(alpha)])
        made = call.add("Add", [call.add("Relu", [source]), below])
    return made if scale == 1 else call.add("Mul", [made, call.scalar(scale)])


def _gelu(call: Call) -> str:
    return call.add("Gelu", [call.tensor("self")], approximate=str(call.given("approximate")))


def _silu(call: Call) -> str:
    source = call.tensor("self")
    return call.add("Mul", [source, call.add("Sigmoid", [source])])


def _mish(call: Call) -> str:
    source = call.tensor("self")
    return call.add("Mul", [source, call.add("Tanh", [call.add("Softplus", [source])])])


def _softplus(call: Call) -> str:
    """log(1 + exp(beta·x)) / beta; x itself where beta·x is above the threshold."""
    source, beta = call.in_type("self"), float(call.number("beta", 1))
    scaled = source if beta == 1 else call.add("Mul", [source, call.scalar(beta)])
    made = call.add("Softplus", [scaled])
    if beta != 1:
        made = call.add("Div", [made, call.scalar(beta)])
    threshold = float(call.number("threshold", 20))
    if threshold >= 20:  # there the two are the same float32
        return made
    above = call.add("Greater", [scaled, call.scalar(threshold)])
    return call.add("Where", [above, source, made])


def _log_sigmoid(call: Call) -> str:
    return call.add("Neg", [call.add("Softplus", [call.add("Neg", [call.tensor("self")])])])


def _gated(call: Call) -> str:
    source = call.tensor("self")
    axis = call.axis("dim")
    halves = call.several("Split", [source], 2, axis=axis, num_outputs=2)
    return call.add("Mul", [halves[0], call.add("Sigmoid", [halves[1]])])


def _along_axis(operator: str) -> Writer:
    def write(call: Call) -> str:
        return call.add(operator, [call.in_type("self", torch.float32)], axis=call.axis("dim"))

    return write


def _safe_softmax(call: Call) -> str:
    return safe_softmax(call, call.in_type("self", torch.float32), call.axis("dim"))


def safe_softmax(call: Call, source: str, axis: int) -> str:
    """Softmax that gives zeros where everything is masked away with -inf."""
    largest = call.add("ReduceMax", [source, call.whole_list([axis])], keepdims=1)
    empty = call.add("Equal", [largest, call.scalar(-torch.inf)])
    made = call.add("Softmax", [source], axis=axis)
    return call.add("Where", [empty, call.scalar(0.0), made])


WRITERS: dict[str, Writer] = {
    **dict.fromkeys(("clamp", "clamp_min", "clamp_max", "hardtanh"), _clamp),
    "relu": plain("Relu"),
    "relu6": _relu6,
    "threshold": _threshold,
    "leaky_relu": _leaky_relu,
    "prelu": _prelu,
    "_prelu_kernel": _prelu,
    "elu": _elu,
    "celu": _elu,
    "selu": plain("Selu", alpha=1.6732632423543772, gamma=1.0507009873554805),
    "gelu": _gelu,
    "silu": _silu,
    "mish": _mish,
    "sigmoid": plain("Sigmoid"),
    "hardsigmoid": plain("HardSigmoid", alpha=1 / 6, beta=0.5),
    "hardswish": plain("HardSwish"),
    "softplus": _softplus,
    "softsign": plain("Softsign"),
    "log_sigmoid": _log_sigmoid,
    "glu": _gated,
    **dict.fromkeys(("softmax", "_softmax"), _along_axis("Softmax")),
    **dict.fromkeys(("log_softmax", "_log_softmax"), _along_axis("LogSoftmax")),
    "_safe_softmax": _safe_softmax,
}
