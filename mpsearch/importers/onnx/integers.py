"""Operators over codes, as their float operators between DequantizeLinear and QuantizeLinear.

onnxruntime's quantizer writes a network in three ways: with QuantizeLinear and DequantizeLinear
around float operators, with operators of their own (QLinearConv, QLinearAdd), or with scales that
are found at run time (DynamicQuantizeLinear, MatMulInteger, ConvInteger). The second is put into
the form of the first, which `quantized` reads. In the third the numbers themselves pass in the
place of codes of scale 1, so that only the weights are codes.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np

from mpsearch.errors import InputError
from mpsearch.importers.onnx.steps import Array, Plan, Step

_FOREIGN = "com.microsoft."


class _Rewriting:
    """The plan's steps and constants, with what takes the place of operators over codes."""

    def __init__(self, plan: Plan) -> None:
        self.constants, self.origins = dict(plan.constants), dict(plan.origins)

    def constant(self, name: str, array: Array, origin: str = "") -> str:
        self.constants[name] = array
        if origin:
            self.origins[name] = self.origins.get(origin, origin)
        return name

    def known(self, step: Step, index: int) -> Array:
        """A constant input. Raises InputError for one that depends on the data."""
        name = step.inputs[index] if index < len(step.inputs) else ""
        if name not in self.constants:
            raise InputError(
                f"it is quantized already, and {step.label} has a scale or weight that depends on "
                "the data; expected the float model that it was made from"
            )
        return self.constants[name]

    def real(self, step: Step, index: int) -> Iterator[Step]:
        """Codes, scale and zero point at `index` as real numbers under the name `_real(…)`."""
        given = step.inputs[index : index + 3]
        yield replace(_inner(step, "DequantizeLinear", given, _real(step, index)))


def _inner(step: Step, operator: str, inputs: tuple[str, ...], output: str) -> Step:
    return Step(operator, step.name, inputs, (output,), {}, step.metadata)


def _real(step: Step, index: int) -> str:
    return f"{step.outputs[0]}/{index}"


def plain_integers(plan: Plan) -> Plan:
    """The plan without operators over codes; the plan itself without any."""
    if not any(step.operator in _OPERATORS for step in plan.steps):
        return plan
    rewriting = _Rewriting(plan)
    steps: list[Step] = []
    found = 0
    for step in plan.steps:
        rewrite = _OPERATORS.get(step.operator)
        steps += (step,) if rewrite is None else rewrite(step, rewriting)
        found += "Dynamic" in step.operator
    return replace(
        plan, steps=tuple(steps), constants=rewriting.constants, origins=rewriting.origins,
        unquantized=plan.unquantized + found,
    )  # fmt: skip


def _between(
    step: Step,
    rewriting: _Rewriting,
    operator: str,
    places: tuple[int, ...],
    scale: int,
    attributes: Mapping[str, object] | None = None,
) -> Iterator[Step]:
    """The float operator over the inputs at `places`; the output's scale stands at `scale`."""
    for place in places:
        yield from rewriting.real(step, place)
    inputs = tuple(_real(step, place) for place in places)
    given = step.attributes if attributes is None else attributes
    result = f"{step.outputs[0]}/real"
    yield replace(_inner(step, operator, inputs, result), attributes=given)
    yield _inner(step, "QuantizeLinear", (result, *step.inputs[scale : scale + 2]), step.outputs[0])


def _same(operator: str, inputs: int = 1) -> Callable[[Step, _Rewriting], Iterator[Step]]:
    places = tuple(3 * index for index in range(inputs))
    return lambda step, rewriting: _between(step, rewriting, operator, places, 3 * inputs)


def _weighted(operator: str) -> Callable[[Step, _Rewriting], Iterator[Step]]:
    """x, weight and a bias that counts in scale(x)·scale(weight): QLinearConv and QGemm."""

    def handler(step: Step, rewriting: _Rewriting) -> Iterator[Step]:
        bias, out = (8, 6) if operator == "Conv" else (6, 7)
        attributes = dict(step.attributes)
        rows = not attributes.get("transB", 0) if operator == "Gemm" else False
        codes, scale, zero = (rewriting.known(step, index) for index in (3, 4, 5))
        shape = [1] * codes.ndim
        if scale.size > 1:
            shape[1 if rows else 0] = scale.size
        scale, zero = (np.broadcast_to(x, scale.shape).reshape(shape if scale.size > 1 else ())
                       for x in (scale, zero))  # fmt: skip
        weight = np.asarray((codes.astype(np.int64) - zero) * scale, dtype=np.float32)
        inputs = [
            _real(step, 0),
            rewriting.constant(f"{step.outputs[0]}/weight", weight, step.inputs[3]),
        ]
        if bias < len(step.inputs) and step.inputs[bias]:
            unit = rewriting.known(step, 1).reshape(-1)[0] * scale.reshape(-1)
            unit = unit * float(str(attributes.get("alpha", 1.0)))
            whole = np.asarray(rewriting.known(step, bias) * unit, dtype=np.float32)
            inputs.append(rewriting.constant(f"{step.outputs[0]}/bias", whole, step.inputs[bias]))
        yield from rewriting.real(step, 0)
        result = f"{step.outputs[0]}/real"
        yield replace(_inner(step, operator, tuple(inputs), result), attributes=attributes)
        yield _inner(step, "QuantizeLinear", (result, *step.inputs[out : out + 2]), step.outputs[0])

    return handler


def _concat(step: Step, rewriting: _Rewriting) -> Iterator[Step]:
    """The output's scale comes first."""
    moved = replace(step, inputs=(*step.inputs[2:], *step.inputs[:2]))
    places = tuple(range(0, len(step.inputs) - 2, 3))
    yield from _between(moved, rewriting, "Concat", places, len(step.inputs) - 2)


def _softmax(step: Step, rewriting: _Rewriting) -> Iterator[Step]:
    axis = {"axis": step.attributes.get("axis", -1)}
    yield from _between(step, rewriting, "Softmax", (0,), 3, axis)


def _dynamic(step: Step, rewriting: _Rewriting) -> Iterator[Step]:
    yield _inner(step, "Identity", step.inputs[:1], step.outputs[0])
    for name, value in zip(step.outputs[1:], (np.float32(1), np.int64(0)), strict=False):
        rewriting.constant(name, np.asarray(value))


def _product(operator: str) -> Callable[[Step, _Rewriting], Iterator[Step]]:
    """MatMulInteger and ConvInteger over numbers that are real already, and codes of a weight."""

    def handler(step: Step, rewriting: _Rewriting) -> Iterator[Step]:
        inputs = list(step.inputs[:2])
        for index in (0, 1):
            name = step.inputs[index]
            if name not in rewriting.constants:
                continue
            codes = rewriting.constants[name].astype(np.int64)
            if index + 2 < len(step.inputs) and step.inputs[index + 2]:
                zero = rewriting.known(step, index + 2).astype(np.int64)
                by_row = operator == "Conv" or index == 0
                shape = (-1, *[1] * (codes.ndim - 1)) if by_row else (-1,)
                codes = codes - (zero.reshape(shape) if zero.size > 1 else zero.reshape(-1)[0])
            real = codes.astype(np.float32)
            inputs[index] = rewriting.constant(f"{step.outputs[0]}/{index}", real, name)
        yield replace(step, operator=operator, inputs=tuple(inputs))

    return handler


def _lstm(step: Step, rewriting: _Rewriting) -> Iterator[Step]:
    """Its weights are [directions, inputs, 4·hidden], with one scale for each direction or gate."""
    inputs = [*step.inputs[:8]]
    for index, scale in ((1, 8), (2, 10)):
        codes = rewriting.known(step, index).astype(np.int64)
        scales, zeros = (rewriting.known(step, place) for place in (scale, scale + 1))
        if codes.ndim != 3 or scales.size not in (
            1,
            codes.shape[0],
            codes.shape[0] * codes.shape[2],
        ):
            raise InputError(f"{step.label}: got {scales.size} scales for codes {codes.shape}")
        each = (-1, 1, codes.shape[2] if scales.size > codes.shape[0] else 1)
        zero = zeros.astype(np.int64).reshape(each if zeros.size == scales.size else (1, 1, 1))
        real = ((codes - zero) * scales.reshape(each)).astype(np.float32).transpose(0, 2, 1)
        name = f"{step.outputs[0]}/{index}"
        inputs[index] = rewriting.constant(name, np.ascontiguousarray(real), step.inputs[index])
    yield replace(step, operator="LSTM", inputs=tuple(inputs))


_OPERATORS: dict[str, Callable[[Step, _Rewriting], Iterator[Step]]] = {
    "DynamicQuantizeLinear": _dynamic,
    "MatMulInteger": _product("MatMul"),
    "ConvInteger": _product("Conv"),
    "QLinearConv": _weighted("Conv"),
    f"{_FOREIGN}DynamicQuantizeLSTM": _lstm,
    f"{_FOREIGN}QGemm": _weighted("Gemm"),
    "QLinearMatMul": _same("MatMul", 2),
    f"{_FOREIGN}QLinearAdd": _same("Add", 2),
    f"{_FOREIGN}QLinearMul": _same("Mul", 2),
    f"{_FOREIGN}QLinearSigmoid": _same("Sigmoid"),
    f"{_FOREIGN}QLinearLeakyRelu": _same("LeakyRelu"),
    f"{_FOREIGN}QLinearAveragePool": _same("AveragePool"),
    f"{_FOREIGN}QLinearGlobalAveragePool": _same("GlobalAveragePool"),
    f"{_FOREIGN}QLinearConcat": _concat,
    f"{_FOREIGN}QLinearSoftmax": _softmax,
}
