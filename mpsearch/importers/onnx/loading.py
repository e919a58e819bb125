"""An ONNX file -> (nn.Module, example inputs), as every other format of a model file."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from mpsearch.errors import InputError, MpsearchError, first_line
from mpsearch.graph import memory_budget
from mpsearch.graph.sample_layout import random_samples
from mpsearch.importers.onnx.elementwise import DTYPES
from mpsearch.importers.onnx.interpreter import (
    BatchRewriter,
    OnnxModule,
    check_operators,
    check_rows,
    compute_constant,
)
from mpsearch.importers.onnx.reading import array_of, opset_of, read_model
from mpsearch.importers.onnx.steps import Plan, fold_constants, join_biases, steps_of


def load_onnx(
    path: str,
    input_shapes: Sequence[tuple[int, ...]] = (),
    given: Sequence[torch.Tensor] | Mapping[str, torch.Tensor] = (),
) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """(module, one zero sample per input). Raises InputError in one or two lines.

    `input_shapes`: shapes of one sample, for inputs whose sizes the file leaves open; `given`:
    samples of data that tell them, too, in order or by the file's own names. The module's first
    dimension is a free batch, also when the file fixes it. Weights of any floating-point width
    become float32.
    """
    try:
        with memory_budget.of_load(path):
            return _load(path, input_shapes, given)
    except InputError as error:
        named = error.lines[0].startswith(path)
        raise InputError(*error.lines_after("" if named else f"{path}: ")) from error
    except MpsearchError:
        raise
    except Exception as error:  # what a damaged file that passed the checker runs into
        raise InputError(f"{path}: damaged ONNX file: {first_line(error)}") from error


def _load(
    path: str,
    input_shapes: Sequence[tuple[int, ...]],
    given: Sequence[torch.Tensor] | Mapping[str, torch.Tensor],
) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    model = read_model(path)
    graph, opset = model.graph, opset_of(model)
    domains = [str(node.domain) for node in graph.node]
    _check_kinds(graph)
    steps = steps_of(graph)
    check_operators(steps, domains, opset)
    constants = {tensor.name: array_of(tensor) for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    if isinstance(given, Mapping):
        given = [given[value.name] for value in inputs if value.name in given]
    examples, batch, fixed = _examples(inputs, input_shapes, given)
    plan = Plan(
        inputs=tuple(value.name for value in inputs),
        outputs=tuple(value.name for value in graph.output),
        steps=steps,
        constants=constants,
        origins={},
        opset=opset,
    )
    module, _, rewritten = module_of(plan, examples, batch, fixed)
    if fixed or rewritten:
        check_rows(module, random_samples(examples))
    return module, examples


def module_of(
    plan: Plan, examples: Sequence[torch.Tensor], batch: int, fixed: bool
) -> tuple[OnnxModule, Mapping[str, tuple[int, ...]], bool]:
    """(module, shapes of all tensors by name at the file's batch size, whether a shape was freed).

    `examples`: one zero sample per input; `fixed`: the file is for `batch` samples only.
    """
    plan = join_biases(fold_constants(plan, compute_constant))
    rewriter = BatchRewriter(plan, batch, fixed)
    module = OnnxModule(plan, rewriter).eval()
    shapes: dict[str, tuple[int, ...]] = {
        name: (batch, *x.shape[1:]) for name, x in zip(plan.inputs, examples, strict=True)
    }
    with torch.no_grad(), memory_budget.watched():
        module.run(tuple(_rows(x, batch) for x in examples), shapes)
        rewriter.learn(shapes)
        module.run(tuple(_rows(x, 3) for x in examples))
    return module, shapes, bool(rewriter.targets)


def _check_kinds(graph: Any) -> None:
    """Graphs within attributes are control flow and are refused before they are looked at."""
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g") or attribute.graphs:
                raise InputError(
                    f"node {node.name or node.output[0]!r} ({node.op_type}) is control flow, which "
                    "has no place in one fixed graph.",
                    "Export the model again without it "
                    "(torch.onnx.export of a traced model, or fixed conditions)",
                )


def _examples(
    inputs: Sequence[Any], shapes: Sequence[tuple[int, ...]], given: Sequence[torch.Tensor]
) -> tuple[tuple[torch.Tensor, ...], int, bool]:
    """(one zero sample per input, the file's batch size, True when the file fixes it)."""
    if not inputs:
        raise InputError("the graph has no inputs")
    for what, count in (("--input-shape", len(shapes)), ("inputs in the data", len(given))):
        if count and count != len(inputs):
            names = ", ".join(value.name for value in inputs)
            raise InputError(f"got {count} × {what}; expected one for each of {names}")
    batches, examples = [], []
    for index, value in enumerate(inputs):
        if not value.type.HasField("tensor_type"):
            raise InputError(f"input {value.name!r} is no tensor; expected tensors only")
        tensor = value.type.tensor_type
        if tensor.elem_type not in DTYPES:
            raise InputError(f"input {value.name!r} has a type that cannot be read")
        sizes = [d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim]
        if not sizes and tensor.HasField("shape"):
            raise InputError(
                f"input {value.name!r} is a single number; expected a batch of samples"
            )
        batches.append(sizes[0] if sizes else None)
        known = list(shapes[index]) if shapes else sizes[1:]
        if None in known or not tensor.HasField("shape"):
            if not given and not shapes:
                raise InputError(
                    f"input {value.name!r} leaves its shape open; give --data, or --input-shape "
                    "once per input (for example --input-shape 3x32x32)"
                )
            known = known if shapes else list(given[index].shape[1:])
        fits = len(known) == max(0, len(sizes) - 1) or not sizes
        agree = all(s in (None, k) for s, k in zip(sizes[1:], known, strict=False))
        if not fits or not agree:
            wanted = "x".join("?" if s is None else str(s) for s in sizes[1:])
            raise InputError(
                f"input {value.name!r}: got the shape {'x'.join(map(str, known))}; "
                f"expected {wanted}"
            )
        known_sizes = [int(size) for size in known if size is not None]
        elements = math.prod(known_sizes)
        if elements <= 0:
            raise InputError(f"input {value.name!r} has the shape {known_sizes}, which is empty")
        memory_budget.reserve(
            8 * elements, f"input {value.name!r} of the shape {known_sizes} (one sample)"
        )
        examples.append(torch.zeros(1, *known_sizes, dtype=DTYPES[tensor.elem_type]))
    written = {batch for batch in batches if batch is not None}
    if len(written) > 1:
        raise InputError(f"its inputs have the batch sizes {sorted(written)}; expected one for all")
    batch = written.pop() if written else 1
    if not 1 <= batch <= 4096:
        raise InputError(f"got a batch size of {batch}")
    return tuple(examples), batch, any(b is not None for b in batches)


def _rows(example: torch.Tensor, count: int) -> torch.Tensor:
    return example.expand(count, *example.shape[1:]).contiguous()
