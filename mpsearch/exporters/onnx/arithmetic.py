"""Numbers element by element: arithmetic, comparisons, logic, choices, types."""

import torch

from mpsearch.exporters.onnx.call import Call, Writer, arithmetic_type, plain
from mpsearch.exporters.onnx.graph_builder import element_type


def _same(call: Call) -> str:
    return call.tensor("input" if call.given("self") is None else "self").name


def _cast(call: Call) -> str:
    return call.cast(call.tensor("a" if call.given("self") is None else "self"), call.result.dtype)


def _sum(operator: str, turned: bool = False) -> Writer:
    """a + alpha·b, a - alpha·b; turned: b - alpha·a."""

    def write(call: Call) -> str:
        dtype, alpha = call.result.dtype, call.number("alpha", 1)
        names = ["other", "self"] if turned else ["self", "other"]

        def add(read: list[str]) -> str:
            if alpha != 1:
                by = call.scalar(alpha, arithmetic_type(dtype))
                read = [read[0], call.add("Mul", [read[1], by])]
            return call.add(operator, read)

        return call.computed(dtype, names, add)

    return write


def _product(call: Call) -> str:
    return call.computed(call.result.dtype, ["self", "other"], lambda read: call.add("Mul", read))


def _quotient(call: Call) -> str:
    rounding = call.given("rounding_mode")
    if call.operator == "floor_divide":
        rounding = "floor"
    dtype = call.result.dtype

    def write(read: list[str]) -> str:
        if not dtype.is_floating_point:
            if rounding == "floor":  # the remainder has the sign of the divisor
                read = [call.add("Sub", [read[0], call.add("Mod", read)]), read[1]]
            return call.add("Div", read)
        made = call.add("Div", read)
        if rounding == "floor":
            return call.add("Floor", [made])
        if rounding == "trunc":
            negative = call.add("Less", [made, call.scalar(0.0)])
            ends = [call.add(operator, [made]) for operator in ("Ceil", "Floor")]
            return call.add("Where", [negative, *ends])
        return made

    return call.computed(dtype, ["self", "other"], write)


def _power(call: Call) -> str:
    return call.computed(
        call.result.dtype, ["self", "exponent"], lambda read: call.add("Pow", read)
    )


def _remainder(call: Call) -> str:
    dtype = call.result.dtype

    def write(read: list[str]) -> str:
        if call.operator == "fmod":
            return call.add("Mod", read, fmod=1)
        if not dtype.is_floating_point:
            return call.add("Mod", read)
        whole = call.add("Floor", [call.add("Div", read)])
        return call.add("Sub", [read[0], call.add("Mul", [whole, read[1]])])

    return call.computed(dtype, ["self", "other"], write)


def extreme(operator: str) -> Writer:
    """The larger or the smaller of two tensors, element by element."""
    return lambda call: call.computed(
        call.result.dtype, ["self", "other"], lambda read: call.add(operator, read)
    )


def _compared(operator: str, negated: bool = False) -> Writer:
    def write(call: Call) -> str:
        dtype = call.promoted("self", "other")
        if dtype not in (torch.float32, torch.int32):
            dtype = torch.int64
        read = [call.in_type(name, dtype) for name in ("self", "other")]
        made = call.add(operator, read)
        return call.add("Not", [made]) if negated else made

    return write


def _logical(operator: str) -> Writer:
    def write(call: Call) -> str:
        names = [name for name in ("self", "other") if call.has(name)]
        return call.add(operator, [call.in_type(name, torch.bool) for name in names])

    return write


def _bitwise(operator: str, on_flags: str) -> Writer:
    def write(call: Call) -> str:
        names = [name for name in ("self", "other") if call.has(name)]
        flags = call.result.dtype == torch.bool
        return call.add(on_flags if flags else operator, [call.in_type(name) for name in names])

    return write


def chosen(call: Call, condition: str, yes: str, no: str, dtype: torch.dtype) -> str:
    """Where, also of flags, which onnxruntime's does not take."""
    if dtype != torch.bool:
        return call.add("Where", [condition, yes, no])
    both = call.add("And", [condition, yes])
    return call.add("Or", [both, call.add("And", [call.add("Not", [condition]), no])])


def _where(call: Call) -> str:
    condition = call.in_type("condition", torch.bool)
    return _chosen_by_name(call, condition, "self", "other")


def _masked_fill(call: Call) -> str:
    return _chosen_by_name(call, call.in_type("mask", torch.bool), "value", "self")


def _chosen_by_name(call: Call, condition: str, yes: str, no: str) -> str:
    dtype = call.result.dtype
    kind = dtype if dtype in (torch.float32, torch.bool, torch.int64) else torch.int64
    read = [call.in_type(name, kind) for name in (yes, no)]
    return call.cast_name(chosen(call, condition, read[0], read[1], kind), kind, dtype)


def _rounded(call: Call) -> str:
    source, decimals = call.in_type("self"), call.number("decimals", 0)
    if not call.result.dtype.is_floating_point:
        return source
    if not decimals:
        return call.add("Round", [source])
    by = call.scalar(10.0 ** abs(decimals))
    to, back = ("Mul", "Div") if decimals > 0 else ("Div", "Mul")
    return call.add(back, [call.add("Round", [call.add(to, [source, by])]), by])


def _to_whole(operator: str) -> Writer:
    def write(call: Call) -> str:
        source = call.in_type("self")
        return call.add(operator, [source]) if call.result.dtype.is_floating_point else source

    return write


def _logarithm(base: float) -> Writer:
    def write(call: Call) -> str:
        natural = call.add("Log", [call.in_type("self")])
        by = torch.tensor(base, dtype=torch.float64).log().item()
        return call.add("Div", [natural, call.scalar(by)])

    return write


def _log1p(call: Call) -> str:
    return call.add("Log", [call.add("Add", [call.in_type("self"), call.scalar(1.0)])])


def _expm1(call: Call) -> str:
    return call.add("Sub", [call.add("Exp", [call.in_type("self")]), call.scalar(1.0)])


def _reciprocal_root(call: Call) -> str:
    return call.add("Reciprocal", [call.add("Sqrt", [call.in_type("self")])])


def _square(call: Call) -> str:
    source = call.in_type("self")
    return call.add("Mul", [source, source])


def _copied(call: Call) -> str:
    """The other tensor in this one's sizes and type."""
    source, target = call.tensor("src"), call.result
    return call.expand(call.cast(source, target.dtype), source.sizes, target.sizes)


def _negative(call: Call) -> str:
    return call.computed(call.result.dtype, ["self"], lambda read: call.add("Neg", read))


def _is_not_a_number(call: Call) -> str:
    tensor = call.tensor("self")
    if tensor.dtype.is_floating_point:
        return call.add("IsNaN", [tensor])
    zero = call.add("Mul", [call.cast(tensor, torch.int64), call.scalar(0, torch.int64)])
    return call.add("Cast", [zero], to=element_type(torch.bool))


_IDENTITIES = (
    "alias clone contiguous detach dropout feature_dropout lift_fresh_copy"  # without training
)
_CASTS = "to _to_copy type_as convert_element_type"
_UNARY = {
    "abs": "Abs", "acos": "Acos", "acosh": "Acosh", "asin": "Asin", "asinh": "Asinh",
    "atan": "Atan", "atanh": "Atanh", "cos": "Cos", "cosh": "Cosh", "erf": "Erf", "exp": "Exp",
    "log": "Log", "reciprocal": "Reciprocal", "sign": "Sign", "sin": "Sin", "sinh": "Sinh",
    "sqrt": "Sqrt", "tan": "Tan", "tanh": "Tanh",
}  # fmt: skip

WRITERS: dict[str, Writer] = {
    **dict.fromkeys(_IDENTITIES.split(), _same),
    **dict.fromkeys(_CASTS.split(), _cast),
    **{name: plain(operator) for name, operator in _UNARY.items()},
    "add": _sum("Add"),
    "sub": _sum("Sub"),
    "rsub": _sum("Sub", turned=True),
    "mul": _product,
    "div": _quotient,
    "floor_divide": _quotient,
    "pow": _power,
    "remainder": _remainder,
    "fmod": _remainder,
    "maximum": extreme("Max"),
    "minimum": extreme("Min"),
    "eq": _compared("Equal"),
    "ne": _compared("Equal", negated=True),
    "lt": _compared("Less"),
    "le": _compared("LessOrEqual"),
    "gt": _compared("Greater"),
    "ge": _compared("GreaterOrEqual"),
    "logical_and": _logical("And"),
    "logical_or": _logical("Or"),
    "logical_xor": _logical("Xor"),
    "logical_not": _logical("Not"),
    "bitwise_and": _bitwise("BitwiseAnd", "And"),
    "bitwise_or": _bitwise("BitwiseOr", "Or"),
    "bitwise_xor": _bitwise("BitwiseXor", "Xor"),
    "bitwise_not": _bitwise("BitwiseNot", "Not"),
    "__and__": _bitwise("BitwiseAnd", "And"),
    "__or__": _bitwise("BitwiseOr", "Or"),
    "__xor__": _bitwise("BitwiseXor", "Xor"),
    "where": _where,
    "masked_fill": _masked_fill,
    "round": _rounded,
    "floor": _to_whole("Floor"),
    "ceil": _to_whole("Ceil"),
    "neg": _negative,
    "log1p": _log1p,
    "log2": _logarithm(2.0),
    "log10": _logarithm(10.0),
    "expm1": _expm1,
    "rsqrt": _reciprocal_root,
    "square": _square,
    "copy": _copied,
    "isnan": _is_not_a_number,
}
