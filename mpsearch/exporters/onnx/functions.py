"""Numbers element by element that ONNX has no operator for, from those that it has."""

import math

import torch

from mpsearch.exporters.onnx.call import Call, Writer


def _angle(call: Call) -> str:
    """atan2: atan(y / x), half a turn further where x is negative; zero at the origin."""
    y, x = call.in_type("self"), call.in_type("other")
    zero, half = call.scalar(0.0), call.scalar(math.pi)
    negative = call.add("Less", [x, zero])
    turned = call.add("Where", [call.add("Less", [y, zero]), call.scalar(-math.pi), half])
    still = call.add("And", [call.add("Equal", [y, zero]), call.add("Equal", [x, zero])])
    divisor = call.add("Where", [still, call.scalar(1.0), x])
    angle = call.add("Atan", [call.add("Div", [y, divisor])])
    return call.add("Add", [angle, call.add("Where", [negative, turned, zero])])


def _negative_sign(call: Call, source: str) -> str:
    """True for numbers below zero and for -0, whose reciprocal is -inf."""
    zero = call.scalar(0.0)
    below = call.add("Less", [source, zero])
    return call.add("Or", [below, call.add("Less", [call.add("Reciprocal", [source]), zero])])


def _sign_bit(call: Call) -> str:
    return _negative_sign(call, call.in_type("self", torch.float32))


def _with_sign(call: Call) -> str:
    size = call.add("Abs", [call.in_type("self")])
    negative = _negative_sign(call, call.in_type("other"))
    return call.add("Where", [negative, call.add("Neg", [size]), size])


def _truncated(call: Call, source: str) -> str:
    below = call.add("Less", [source, call.scalar(0.0)])
    return call.add("Where", [below, call.add("Ceil", [source]), call.add("Floor", [source])])


def _whole_part(call: Call) -> str:
    source = call.in_type("self")
    return _truncated(call, source) if call.result.dtype.is_floating_point else source


def _fraction(call: Call) -> str:
    source = call.in_type("self")
    return call.add("Sub", [source, _truncated(call, source)])


def _hypotenuse(call: Call) -> str:
    names = [call.in_type(name) for name in ("self", "other")]
    squares = [call.add("Mul", [name, name]) for name in names]
    return call.add("Sqrt", [call.add("Add", squares)])


def _extreme_of_numbers(operator: str) -> Writer:
    """fmax and fmin: the other one where one is not a number."""

    def write(call: Call) -> str:
        dtype = call.result.dtype
        if not dtype.is_floating_point:
            return call.computed(dtype, ["self", "other"], lambda read: call.add(operator, read))
        a, b = call.in_type("self"), call.in_type("other")
        first = call.add("Where", [call.add("IsNaN", [a]), b, a])
        second = call.add("Where", [call.add("IsNaN", [b]), a, b])
        return call.add(operator, [first, second])

    return write


def _power_of_two(call: Call) -> str:
    return call.add("Pow", [call.scalar(2.0), call.in_type("self")])


def _complement(call: Call) -> str:
    return call.add("Sub", [call.scalar(1.0), call.add("Erf", [call.in_type("self")])])


def _infinite(call: Call) -> str:
    return call.add("IsInf", [call.in_type("self", torch.float32)])


def _shifted(left: bool) -> Writer:
    """x·2^k, or x / 2^k rounded down: ONNX shifts unsigned numbers only."""

    def write(call: Call) -> str:
        power = call.add("Pow", [call.scalar(2, torch.int64), call.in_type("other", torch.int64)])
        source = call.in_type("self", torch.int64)
        if not left:
            source = call.add("Sub", [source, call.add("Mod", [source, power])])
        made = call.add("Mul" if left else "Div", [source, power])
        return call.cast_name(made, torch.int64, call.result.dtype)

    return write


def _counted_below(call: Call) -> str:
    """How many of the sorted boundaries lie below (or, `right`, not above) each number."""
    first = call.operator == "bucketize"
    source, line = call.tensor("self"), call.tensor("boundaries" if first else "sorted_sequence")
    if line.form.rank != 1 or call.has("sorter"):
        raise call.refuse("has a row of boundaries for each sample")
    right = call.flag("right") or call.given("side") == "right"
    wide = call.add("Unsqueeze", [call.cast(source, torch.float32), call.whole_list([-1])])
    ends = call.cast(line, torch.float32)
    below = call.add("LessOrEqual" if right else "Less", [ends, wide])
    counted = call.cast_name(below, torch.bool, torch.int64)
    made = call.add("ReduceSum", [counted, call.whole_list([-1])], keepdims=0)
    return call.cast_name(made, torch.int64, call.result.dtype)


def _leaky(call: Call) -> str:
    """rrelu without training: the mean of its two slopes."""
    slope = (float(call.number("lower")) + float(call.number("upper"))) / 2
    return call.add("LeakyRelu", [call.tensor("self")], alpha=slope)


def _distances(call: Call) -> str:
    """cdist: between all pairs of rows."""
    first, second, order = call.tensor("x1"), call.tensor("x2"), float(call.number("p"))
    a = call.add("Unsqueeze", [first, call.whole_list([-2])])
    b = call.add("Unsqueeze", [second, call.whole_list([-3])])
    apart, axes = call.add("Sub", [a, b]), call.whole_list([-1])
    if order in (1.0, 2.0):
        return call.add(f"ReduceL{int(order)}", [apart, axes], keepdims=0)
    size = call.add("Abs", [apart])
    if math.isinf(order):
        return call.add("ReduceMax", [size, axes], keepdims=0)
    powers = call.add("Pow", [size, call.scalar(order)])
    total = call.add("ReduceSum", [powers, axes], keepdims=0)
    return call.add("Pow", [total, call.scalar(1 / order)])


WRITERS: dict[str, Writer] = {
    "atan2": _angle,
    "signbit": _sign_bit,
    "copysign": _with_sign,
    "trunc": _whole_part,
    "fix": _whole_part,
    "frac": _fraction,
    "hypot": _hypotenuse,
    "fmax": _extreme_of_numbers("Max"),
    "fmin": _extreme_of_numbers("Min"),
    "exp2": _power_of_two,
    "erfc": _complement,
    "isinf": _infinite,
    "bitwise_left_shift": _shifted(left=True),
    "__lshift__": _shifted(left=True),
    "bitwise_right_shift": _shifted(left=False),
    "__rshift__": _shifted(left=False),
    "bucketize": _counted_below,
    "searchsorted": _counted_below,
    "rrelu": _leaky,
    "cdist": _distances,
    "_cdist_forward": _distances,
}
