"""An ONNX file -> (nn.Module, example inputs), as every other format of a model file."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from mpsearch.errors import InputError
from mpsearch.graph import memory_budget
from mpsearch.graph.border import BatchDim, Fix, check_names, grown, undecided
from mpsearch.graph.sample_layout import random_samples
from mpsearch.importers.kinds import ONNX, read_within_bounds
from mpsearch.importers.onnx.batch import BatchRewriter, Shape, check_rows
from mpsearch.importers.onnx.branches import fold, take_branches
from mpsearch.importers.onnx.inputs import Inputs, constants_of, declared, readings
from mpsearch.importers.onnx.interpreter import OnnxModule
from mpsearch.importers.onnx.quantized import NOTE
from mpsearch.importers.onnx.reading import array_of, opset_of, read_model
from mpsearch.importers.onnx.steps import (
    Plan,
    join_biases,
    steps_of,
    without_constant_outputs,
)


def load_onnx(
    path: str,
    input_shapes: Sequence[tuple[int, ...]] = (),
    given: Sequence[torch.Tensor] | Mapping[str, torch.Tensor] = (),
    batch_dim: BatchDim | None = None,
    fix: Fix | None = None,
) -> tuple[OnnxModule, tuple[torch.Tensor, ...]]:
    """(module, one zero sample per input). Raises InputError in one or two lines.

    `input_shapes`: shapes of one sample, for inputs whose sizes the file leaves open; `given`:
    samples of data that tell them, too, in order or by the file's own names. `batch_dim`: the
    dimension of an input or output that holds the samples, where neither names nor runs tell;
    `fix`: constants for inputs that are not per sample. The module takes and gives samples along
    the first dimension, a free batch, also when the file fixes it. Weights of any floating-point
    width become float32.
    """
    with read_within_bounds(path, ONNX):
        return _load(path, input_shapes, given, batch_dim or {}, fix or {})


def _load(
    path: str,
    input_shapes: Sequence[tuple[int, ...]],
    given: Sequence[torch.Tensor] | Mapping[str, torch.Tensor],
    batch_dim: BatchDim,
    fix: Fix,
) -> tuple[OnnxModule, tuple[torch.Tensor, ...]]:
    model = read_model(path)
    graph, opset = model.graph, opset_of(model)
    _check_kinds(graph)
    constants = {tensor.name: array_of(tensor) for tensor in graph.initializer}
    inputs = [
        declared(value) for value in graph.input if value.name not in constants or value.name in fix
    ]
    outputs = tuple(value.name for value in graph.output)
    check_names(batch_dim, fix, [value.name for value in inputs], outputs)
    rest = [value for value in inputs if value.name not in fix]
    plan = Plan(
        inputs=tuple(value.name for value in rest),
        outputs=outputs,
        steps=steps_of(graph),
        constants={**constants, **constants_of(inputs, fix)},
        origins={},
        opset=opset,
    )
    plan = fold(plan)
    ways = readings(rest, input_shapes, given, batch_dim)
    # a converter may leave the batch free and yet write 1 for it in a Reshape
    settled = any(step.branches for step in plan.steps)
    first: InputError | None = None
    found: list[tuple[OnnxModule, Inputs]] = []
    plain = True
    for way in ways:
        for reading in (way,) if way.is_fixed or settled else (way, replace(way, is_fixed=True)):
            try:
                module, freed = read_plan(plan, reading, batch_dim)
                if reading.is_fixed or freed or not plain:
                    check_rows(module, random_samples(tuple(reading.samples.values())))
                found.append((module, reading))
                break
            except InputError as error:
                first = first or error
        if plain and found:
            break
        plain = False
    if not found:
        assert first is not None
        raise first
    if len(found) > 1:
        _say_which(found)
    module, reading = found[0]
    module.meta["notes"] = notes_of(module.plan)
    return module, tuple(reading.samples.values())


def notes_of(plan: Plan) -> list[str]:
    """What was done to the file that its user should know."""
    notes = [NOTE.format(count=plan.unquantized)] if plan.unquantized else []
    if plan.left_out:
        names = ", ".join(plan.left_out)
        notes.append(f"outputs that are the same for all data are left out: {names}")
    return notes


def read_plan(plan: Plan, inputs: Inputs, batch_dim: BatchDim) -> tuple[OnnxModule, bool]:
    """(module of one reading, which has run, whether a shape was freed for it).

    Raises InputError when it does not run. Whether its samples mix is for the caller to see.
    """
    batch, samples = inputs.batch, tuple(inputs.samples.values())
    other = 3 if batch != 3 else 2
    sizes = (batch,) if inputs.is_fixed else (2, 3)
    plan = take_branches(plan, [_placed(samples, size, inputs.dims) for size in sizes])
    plan = join_biases(without_constant_outputs(plan))
    rewriter = BatchRewriter(plan, batch, inputs.is_fixed)
    module = OnnxModule(plan, rewriter, inputs.dims).eval()
    shapes: dict[str, Shape] = {
        name: _shape(x, batch, inputs.dims[name]) for name, x in inputs.samples.items()
    }
    with torch.no_grad(), memory_budget.watched():
        module.run(tuple(_rows(x, batch) for x in samples), shapes)
        rewriter.learn(shapes)
        found: dict[str, Shape] = {
            name: _shape(x, other, inputs.dims[name]) for name, x in inputs.samples.items()
        }
        outputs = module.run(tuple(_rows(x, other) for x in samples), found)
    if isinstance(outputs, torch.Tensor):
        outputs = {plan.outputs[0]: outputs}
    module.output_dims = {
        name: grown(name, shapes[name], found[name], batch_dim.get(name), (batch, other))
        for name, value in outputs.items()
        if value.is_floating_point() or len(outputs) == 1  # others are left out
    }
    return module, bool(rewriter.targets)


def _say_which(found: Sequence[tuple[OnnxModule, Inputs]]) -> None:
    """Raise InputError for samples that may lie along several dimensions of an input."""
    for name in found[0][1].dims:
        dims = sorted({inputs.dims[name] for _, inputs in found})
        if len(dims) > 1:
            raise undecided(name, dims)


def _check_kinds(graph: Any) -> None:
    """The branches of an If are read; other graphs within attributes are refused unseen."""
    for node in graph.node:
        for attribute in node.attribute:
            inner = attribute.HasField("g")
            if attribute.graphs or (inner and node.op_type != "If"):
                raise InputError(
                    f"node {node.name or node.output[0]!r} ({node.op_type}) is control flow, which "
                    "has no place in one fixed graph.",
                    "Export the model again without it "
                    "(torch.onnx.export of a traced model, or fixed conditions)",
                )
            if inner:
                _check_kinds(attribute.g)


def _rows(example: torch.Tensor, count: int) -> torch.Tensor:
    return example.expand(count, *example.shape[1:]).contiguous()


def _placed(
    samples: Sequence[torch.Tensor], count: int, dims: Mapping[str, int]
) -> tuple[torch.Tensor, ...]:
    """The samples in the file's own layout."""
    pairs = zip(samples, dims.values(), strict=True)
    return tuple(_rows(x, count).movedim(0, dim) for x, dim in pairs)


def _shape(example: torch.Tensor, count: int, dim: int) -> Shape:
    sizes = list(example.shape[1:])
    return (*sizes[:dim], count, *sizes[dim:])
