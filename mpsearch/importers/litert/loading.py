"""A LiteRT file -> (nn.Module, example inputs), as every other format of a model file."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice

import torch
from torch import nn

from mpsearch.errors import InputError
from mpsearch.graph import memory_budget
from mpsearch.graph.sample_layout import random_samples, samples_mix
from mpsearch.importers.kinds import LITERT, read_within_bounds
from mpsearch.importers.litert.arranging import ARRANGING
from mpsearch.importers.litert.constants import dtype_of, is_quantized
from mpsearch.importers.litert.dilation import join_dilated
from mpsearch.importers.litert.elementwise import ELEMENTWISE, REDUCING
from mpsearch.importers.litert.imaging import IMAGING
from mpsearch.importers.litert.node import Node
from mpsearch.importers.litert.reading import LiteRtGraph, Tensor, read_graph
from mpsearch.importers.litert.recurrent import RECURRENT
from mpsearch.importers.litert.slicing import SLICING
from mpsearch.importers.litert.translation import OPSET, Translation
from mpsearch.importers.litert.variables import open_states
from mpsearch.importers.litert.weighted import WEIGHTED
from mpsearch.importers.onnx.inputs import Inputs
from mpsearch.importers.onnx.interpreter import compute_constant
from mpsearch.importers.onnx.loading import notes_of, read_plan
from mpsearch.importers.onnx.steps import Plan, fold_constants, without_unused

OPERATORS: dict[str, Callable[[Node], None]] = {
    **WEIGHTED, **ELEMENTWISE, **REDUCING, **IMAGING, **ARRANGING, **SLICING, **RECURRENT,
}  # fmt: skip
_LARGEST_BATCH = 4096
_CONTROL = ("IF", "WHILE", "CALL")


def load_litert(
    path: str, input_shapes: Sequence[tuple[int, ...]] = ()
) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """(module, one zero sample per input); `module.meta["notes"]`: what its user should know.

    Inputs and outputs have the file's own shapes, with channels last, behind a free batch. Codes of
    weights become real numbers. Raises InputError in one or two lines, MissingExtraError without
    ai-edge-litert.
    """
    with read_within_bounds(path, LITERT):
        return _load(path, input_shapes)


def _load(
    path: str, input_shapes: Sequence[tuple[int, ...]]
) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    graph = open_states(read_graph(path))
    _check_operators(graph)
    graph = _sized(join_dilated(graph), input_shapes)
    examples, batch = _examples(graph, input_shapes)
    with torch.no_grad(), memory_budget.watched():
        translation = _translated(graph)
    plan = Plan(
        inputs=tuple(name for name, _ in graph.inputs),
        outputs=tuple(name for name, _ in graph.outputs),
        steps=tuple(translation.steps),
        constants=translation.constants,
        origins={},
        opset=OPSET,
    )
    samples = dict(zip(plan.inputs, examples, strict=True))
    inputs = Inputs(samples, dict.fromkeys(samples, 0), batch, is_fixed=True)
    plan = without_unused(fold_constants(plan, compute_constant))
    module, _ = read_plan(plan, inputs, {})
    with torch.no_grad():
        if samples_mix(module, random_samples(examples)):
            raise InputError(
                f"it is for {batch} sample(s) at a time, and its samples mix when there are more.",
                "Convert the model again with a free first dimension, or with outputs that keep it",
            )
    notes = (*graph.notes, *_notes(graph), *translation.notes, *notes_of(module.plan))
    module.meta = {"notes": notes}
    return module, examples


def _check_operators(graph: LiteRtGraph) -> None:
    """Raise InputError that lists everything that cannot be read, with one tensor for each."""
    problems: dict[str, str] = {}
    for operator in graph.operators:
        if operator.name not in OPERATORS:
            first = graph.tensors[operator.outputs[0]].name if operator.outputs else ""
            problems.setdefault(operator.name, f" ({first[:80]!r})" if first else "")
    if not problems:
        return
    listed = ", ".join(f"{name[:80]}{where}" for name, where in islice(problems.items(), 12))
    more = f" and {len(problems) - 12} more" if len(problems) > 12 else ""
    if any(name in _CONTROL for name in problems):
        way = "it has control flow: convert it from a model with a fixed graph (an RNN with " \
              "unroll=True)"  # fmt: skip
    elif any(name.startswith("CUSTOM") for name in problems):
        way = "convert the model again without custom operators, up to what they read"
    else:
        way = "docs/litert-import.md lists what can be read"
    raise InputError(f"it uses operators that cannot be read: {listed}{more}.", f"To go on: {way}")


def _sized(graph: LiteRtGraph, given: Sequence[tuple[int, ...]]) -> LiteRtGraph:
    """The graph with the sizes that are given where its inputs leave them open."""
    tensors = list(graph.tensors)
    for (_, number), shape in zip(graph.inputs, given, strict=False):
        tensor = tensors[number]
        stated = tensor.signature[1:]
        if len(stated) == len(shape) and all(
            size > 0 and wanted in (-1, size) for size, wanted in zip(shape, stated, strict=True)
        ):
            full = (tensor.shape[0], *shape)
            tensors[number] = replace(tensor, shape=full, signature=(tensor.signature[0], *shape))
    return replace(graph, tensors=tuple(tensors))


def _examples(
    graph: LiteRtGraph, given: Sequence[tuple[int, ...]]
) -> tuple[tuple[torch.Tensor, ...], int]:
    """(one zero sample per input, the file's batch size)."""
    names = ", ".join(name for name, _ in graph.inputs)
    if given and len(given) != len(graph.inputs):
        raise InputError(f"got {len(given)} × --input-shape; expected one for each of {names}")
    examples, batches = [], set()
    for index, (name, number) in enumerate(graph.inputs):
        tensor = graph.tensors[number]
        shape = tensor.shape
        if -1 in tensor.signature[1:]:
            text = "x".join("?" if size < 0 else str(size) for size in tensor.signature[1:])
            raise InputError(
                f"input {name!r} leaves its sizes open ({text}); say those of one sample, for "
                f"example --input-shape {text.replace('?', '16')}"
            )
        if len(shape) < 1 or math.prod(shape) == 0 or not 1 <= shape[0] <= _LARGEST_BATCH:
            raise InputError(f"input {name!r} has the shape {list(shape)}; expected [1, …]")
        if given and tuple(given[index]) != shape[1:]:
            wanted = "x".join(map(str, shape[1:]))
            got = "x".join(map(str, given[index]))
            raise InputError(f"input {name!r}: got the shape {got}; expected {wanted}")
        memory_budget.reserve(8 * math.prod(shape[1:]), f"input {name!r} of shape {list(shape)}")
        examples.append(torch.zeros(1, *shape[1:], dtype=dtype_of(tensor)))
        batches.add(shape[0])
    if len(batches) > 1:
        raise InputError(f"its inputs have the batch sizes {sorted(batches)}; expected one for all")
    return tuple(examples), batches.pop()


def _translated(graph: LiteRtGraph) -> Translation:
    translation = Translation(graph)
    for number, operator in enumerate(graph.operators):
        node = Node(translation, number, operator)
        try:
            OPERATORS[operator.name](node)
        except InputError as error:
            raise InputError(*error.lines_after(f"{node.label}: ")) from error
    for name, number in graph.outputs:
        translation.step("Identity", [translation.plain(number)], [name])
    return translation


def _notes(graph: LiteRtGraph) -> list[str]:
    weights = [t for t in graph.tensors if t.data is not None and len(t.shape) > 1]
    coded = [t for t in weights if is_quantized(t)]
    halves = sum(t.kind == "FLOAT16" for t in weights)
    inner = {n for o in graph.operators for n in o.outputs}
    whole = any(is_quantized(graph.tensors[n]) for n in inner)
    notes = []
    if whole:
        notes.append(
            "a file of integers, read as the float network that it stands for: weights and biases "
            "are codes times scales, the rounding of activations is left out"
        )
    elif coded:
        kinds = ", ".join(sorted({t.kind.lower() for t in coded}))
        notes.append(f"{len(coded)} weights are {kinds} codes; read as codes times scales")
    if halves:
        notes.append(f"{halves} weights are float16; read as float32")
    for name, number in graph.inputs:
        if is_quantized(graph.tensors[number]):
            notes.append(f"input {name!r} takes real numbers, {_codes(graph.tensors[number])}")
    return notes


def _codes(tensor: Tensor) -> str:
    assert tensor.quantization is not None
    scale, zero = tensor.quantization.scales[0], tensor.quantization.zero_points[0]
    return f"not the file's {tensor.kind.lower()} codes: x = {scale:g}·(q - {zero})"
