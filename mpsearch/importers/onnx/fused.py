"""Nodes that onnxruntime's optimizer writes, taken apart into those of ONNX.

`com.microsoft.FusedConv` is a Conv with its activation, `BiasGelu` an Add and a Gelu: as plain
steps they are read, and layers found, like in the file from before.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from mpsearch.errors import InputError
from mpsearch.importers.onnx.steps import Step

Operator = tuple[str, Mapping[str, Any]]
_DOMAIN = "com.microsoft."
# attributes of an activation in the order of `activation_params`
_ACTIVATIONS: dict[str, tuple[str, ...]] = {
    "Relu": (), "Sigmoid": (), "Tanh": (), "LeakyRelu": ("alpha",), "Clip": ("min", "max"),
    "HardSigmoid": ("alpha", "beta"), "Elu": ("alpha",), "Softplus": (),
}  # fmt: skip


def plain_steps(steps: Iterable[Step]) -> tuple[Step, ...]:
    """The steps with every fused one as several. Raises InputError for a form that is not known."""
    return tuple(part for step in steps for part in _parts(step))


def _parts(step: Step) -> tuple[Step, ...]:
    take_apart = _FUSED.get(step.operator)
    return (step,) if take_apart is None else tuple(take_apart(step))


def _chain(step: Step, inputs: tuple[str, ...], *operators: Operator) -> Iterator[Step]:
    """One operator after the other: the first over `inputs`, the last one's output is the step's.

    An operator may read more than what comes before it: `Add b`.
    """
    for index, (text, attributes) in enumerate(operators):
        operator, *others = text.split(" ")
        output = f"{step.outputs[0]}/{index}" if index < len(operators) - 1 else step.outputs[0]
        yield Step(operator, step.name, (*inputs, *others), (output,), attributes, step.metadata)
        inputs = (output,)


def _activation(step: Step, values: Mapping[str, float] | None = None) -> list[Operator]:
    name = step.attributes.get("activation", "")
    if not name:
        return []
    if name not in _ACTIVATIONS:
        raise InputError(f"{step.label}: got the activation {name!r}, which is not known")
    if values is None:
        given = step.attributes.get("activation_params", [])
        values = dict(zip(_ACTIVATIONS[name], given, strict=False))
    return [(name, values)]


def _conv(step: Step) -> Iterator[Step]:
    own = {k: v for k, v in step.attributes.items() if not k.startswith("activation")}
    added: list[Operator] = (
        [(f"Add {step.inputs[3]}", {})] if len(step.inputs) > 3 and step.inputs[3] else []
    )
    return _chain(step, step.inputs[:3], ("Conv", own), *added, *_activation(step))


def _gemm(step: Step) -> Iterator[Step]:
    own = {k: v for k, v in step.attributes.items() if not k.startswith("activation")}
    values = {
        name: step.attributes[f"activation_{name}"]
        for name in ("alpha", "beta")
        if f"activation_{name}" in step.attributes
    }
    return _chain(step, step.inputs, ("Gemm", own), *_activation(step, values))


def _matmul(step: Step) -> Iterator[Step]:
    """alpha · A' · B', where A' and B' may have their last two dimensions exchanged."""
    if step.attributes.get("transBatchA", 0) or step.attributes.get("transBatchB", 0):
        raise InputError(f"{step.label}: got transBatchA or transBatchB; expected neither")
    inputs = list(step.inputs[:2])
    for index, key in enumerate(("transA", "transB")):
        if step.attributes.get(key, 0):
            turned = f"{step.outputs[0]}/{key}"
            yield Step("TransposeLast", step.name, (inputs[index],), (turned,), {}, step.metadata)
            inputs[index] = turned
    alpha = float(step.attributes.get("alpha", 1.0))
    scaled = [] if alpha == 1 else [("Scale", {"factor": alpha})]
    yield from _chain(step, tuple(inputs), ("MatMul", {}), *scaled)


def _gelu(step: Step) -> Iterator[Step]:
    name = step.operator.removeprefix(_DOMAIN)
    how = {"approximate": "tanh"} if name == "FastGelu" else {}
    if name == "QuickGelu":
        how = {"alpha": step.attributes.get("alpha", 1.702)}
    last = ("Swish" if name == "QuickGelu" else "Gelu", how)
    with_bias = len(step.inputs) > 1 and step.inputs[1]
    return _chain(step, step.inputs[:2] if with_bias else step.inputs[:1],
                  *([("Add", {})] if with_bias else []), last)  # fmt: skip


def _skip_norm(step: Step) -> Iterator[Step]:
    """normalize(x + skip + bias); the sum is its fourth output."""
    simplified = "Simplified" in step.operator
    names = [*step.inputs, *[""] * 5][:5]
    gamma, beta, bias = (names[2], "", names[3]) if simplified else names[2:5]
    total = step.outputs[3] if len(step.outputs) > 3 and step.outputs[3] else ""
    total = total or f"{step.outputs[0]}/sum"
    # the bias first, so that it joins the product whose output this is
    added: list[Operator] = [(f"Add {bias}", {})] if bias else []
    skip: Operator = (f"Add {names[1]}", {})
    yield from _chain(replace(step, outputs=(total,)), step.inputs[:1], *added, skip)
    kind = "RMSNormalization" if simplified else "LayerNormalization"
    inputs = tuple(name for name in (total, gamma, beta) if name)
    epsilon = {"epsilon": step.attributes.get("epsilon", 1e-12)}
    yield Step(kind, step.name, inputs, step.outputs[:1], epsilon, step.metadata)


def _simplified_norm(step: Step) -> Iterator[Step]:
    yield replace(step, operator="RMSNormalization", outputs=step.outputs[:1])


_FUSED: dict[str, Callable[[Step], Iterable[Step]]] = {
    f"{_DOMAIN}FusedConv": _conv,
    f"{_DOMAIN}FusedGemm": _gemm,
    f"{_DOMAIN}FusedMatMul": _matmul,
    f"{_DOMAIN}Gelu": _gelu,
    f"{_DOMAIN}BiasGelu": _gelu,
    f"{_DOMAIN}FastGelu": _gelu,
    f"{_DOMAIN}QuickGelu": _gelu,
    f"{_DOMAIN}SkipLayerNormalization": _skip_norm,
    f"{_DOMAIN}SkipSimplifiedLayerNormalization": _skip_norm,
    "SimplifiedLayerNormalization": _simplified_norm,
}
