"""Networks whose samples do not lie along the first dimension, or whose inputs are not per sample.

Inside of mpsearch everything is [N, …]. A network of sequences may return [T, N, C], take states
[L, N, H], or want a sampling rate beside the signal. `at_border` puts such a network into a module
that takes and gives samples along the first dimension and holds a constant for every fixed input.

Where the samples lie is said by the caller, or found by trying: the network runs on two and on
three samples, and a dimension that grows with them holds them.
"""

import contextlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree as pytree

from mpsearch.errors import InputError, first_line
from mpsearch.graph import memory_budget
from mpsearch.graph.border import (
    BatchDim,
    Fix,
    assignments,
    check_forms,
    check_names,
    checked_dim,
    fixed_value,
    grown,
    moved,
    shown,
    undecided,
)
from mpsearch.graph.inputs import Call, ExampleInputs
from mpsearch.graph.outputs import output_names
from mpsearch.graph.sample_layout import samples_mix

_BEHIND = "the model behind the border"  # children of a model are called `_model`, too


class Border(nn.Module):
    """A network with samples along the first dimension of every input and output.

    It has the parameters and modules of `model` under their own names. Its inputs are the tensors
    of `call` that have no constant, in order; its outputs are those of the model, by name where
    there are several.
    """

    samples_first = True

    def __init__(
        self,
        model: nn.Module,
        leaves: Mapping[str, Any],
        spec: pytree.TreeSpec,
        inputs: BatchDim,
        outputs: Mapping[str, int],
    ) -> None:
        mode = model.training
        self.__dict__[_BEHIND] = model
        super().__init__()
        self.training = mode
        self._modules, self._parameters, self._buffers = (
            model._modules, model._parameters, model._buffers
        )  # fmt: skip
        self.meta: dict[str, Any] = dict(getattr(model, "meta", {}))
        self._leaves, self._spec = dict(leaves), spec
        self._inputs, self._outputs = dict(inputs), dict(outputs)

        def forward(*given: torch.Tensor) -> Any:
            return self.run(given)

        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        parameters = [inspect.Parameter(name, kind) for name in inputs]
        forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        self.forward = forward

    @property
    def training(self) -> bool:
        """The mode of the model."""
        return bool(self.__dict__[_BEHIND].training)

    @training.setter
    def training(self, mode: bool) -> None:
        self.__dict__[_BEHIND].training = mode

    def run(self, given: Sequence[torch.Tensor]) -> Any:
        """The model's outputs for samples along the first dimension."""
        arranged = dict(zip(self._inputs, given, strict=True))
        result = _call(self.__dict__[_BEHIND], self._leaves, self._spec, arranged, self._inputs)
        values, spec = pytree.tree_flatten(result)
        names = output_names(spec)
        placed = [
            moved(value, self._outputs[name], 0) if self._outputs.get(name) else value
            for name, value in zip(names, values, strict=True)
        ]
        return pytree.tree_unflatten(placed, spec)


def _call(
    model: nn.Module, leaves: Mapping[str, Any], spec: pytree.TreeSpec,
    given: Mapping[str, torch.Tensor], dims: BatchDim,
) -> Any:  # fmt: skip
    """The model on samples [N, …], moved to where it expects them, and on its constants."""
    values = [
        moved(given[name], 0, dims[name]) if name in given else _constant(value)
        for name, value in leaves.items()
    ]
    args, kwargs = pytree.tree_unflatten(values, spec)
    return model(*args, **kwargs)


def _constant(value: Any) -> Any:
    """A tensor made where it is used: torch.export then knows its value, and so which branch."""
    if isinstance(value, torch.Tensor) and value.numel() <= 64:
        return torch.tensor(value.tolist(), dtype=value.dtype)
    return value


def at_border(
    model: nn.Module,
    example_inputs: ExampleInputs,
    batch_dim: BatchDim | None = None,
    fix: Fix | None = None,
    by_sample: bool = False,
) -> tuple[nn.Module, ExampleInputs]:
    """(module with samples along the first dimension, its example inputs).

    The model itself where it is such a module already. `example_inputs` are in the model's own
    layout or, `by_sample`, have the samples in front; those with a constant may be left out.
    Raises InputError where the samples cannot be told, and for options that do not fit.
    """
    check_forms(batch_dim, fix)
    batch_dim, fix = batch_dim or {}, fix or {}
    if getattr(model, "samples_first", False):
        return model, example_inputs
    leaves, spec = _leaves(model, example_inputs, fix)
    samples = {name: value for name, value in leaves.items() if name not in fix}
    if not batch_dim and not fix and len(samples) < 2:
        return model, example_inputs
    if not samples:
        raise InputError(
            f"every input has a constant ({', '.join(leaves)}); expected samples for one at least"
        )
    for name, value in samples.items():
        _check_sample(name, value, fix)
    trial = _Trial(model, leaves, spec, batch_dim, fix, by_sample)
    dims, outputs = trial.find()
    if not fix and not any(dims.values()) and not any(outputs.values()):
        return model, example_inputs
    border = Border(model, leaves, spec, dims, outputs)
    return border, tuple(trial.samples(dims).values())


def _check_sample(name: str, value: Any, fix: Fix) -> None:
    if not isinstance(value, torch.Tensor):
        raise InputError(
            f"the example inputs hold {type(value).__name__} for {name!r}; expected a tensor of "
            f"samples, or a constant: --fix {name}={shown(value)}"
        )
    if value.dim() == 0:
        raise InputError(
            f"example input {name!r} is a single number; expected samples along a dimension, or a "
            f"constant: --fix {name}={shown(value)}"
        )


def _leaves(
    model: nn.Module, example_inputs: ExampleInputs, fix: Fix
) -> tuple[dict[str, Any], pytree.TreeSpec]:
    """(values of all inputs by name, how they lie in the call), constants in their places."""
    signature = inspect.signature(model.forward)
    bound = _bound(signature, example_inputs, fix)
    given = (bound.args, bound.kwargs)
    values, spec = pytree.tree_flatten(given)
    paths = pytree.tree_flatten_with_path(dict(bound.arguments))[0]
    names: list[str] = []
    for path, _ in paths:
        steps = [getattr(step, "key", None) for step in path[1:]]
        keys = [step for step in steps if isinstance(step, str)]
        places = [str(getattr(k, "idx", getattr(k, "key", ""))) for k in path]
        wanted = keys[-1] if keys else "_".join(part for part in places if part)
        names.append(wanted if wanted not in names else f"{wanted}_{len(names)}")
    if len(names) != len(values):
        raise InputError("the model takes its inputs in a form that cannot be told apart by name")
    leaves = dict(zip(names, values, strict=True))
    check_names({}, fix, names, ())
    for name, value in fix.items():
        leaves[name] = _typed(name, value, leaves[name], signature.parameters.get(name))
    return leaves, spec


def _bound(
    signature: inspect.Signature, example_inputs: ExampleInputs, fix: Fix
) -> inspect.BoundArguments:
    """The call of the examples, with constants for inputs that these leave out."""
    own = [name for name in fix if name in signature.parameters]
    if isinstance(example_inputs, Mapping):
        everything = {**fix, **example_inputs}
        try:
            return signature.bind(**everything)
        except TypeError:
            return signature.bind(everything)
    call = example_inputs if isinstance(example_inputs, Call) else Call(tuple(example_inputs), {})
    error: TypeError | None = None
    positional = [
        name
        for name, parameter in signature.parameters.items()
        if name not in fix and parameter.kind != inspect.Parameter.KEYWORD_ONLY
    ]
    left_out = {name: fix[name] for name in own if name not in call.kwargs}
    named = dict(zip(positional, call.args, strict=False))
    try:  # all inputs, or all but those with a constant
        full = signature.bind(*call.args, **call.kwargs)
        if all(name in full.arguments for name in own):
            return full
    except TypeError as caught:
        error = caught
    try:
        if len(named) == len(call.args):
            return signature.bind(**named, **call.kwargs, **left_out)
    except TypeError as caught:
        error = error or caught
    count = len(call.args) + len(call.kwargs)
    known = ", ".join(signature.parameters)
    wrong = [name for name in fix if name not in signature.parameters]
    if wrong:
        raise InputError(f"--fix {wrong[0]}={shown(fix[wrong[0]])}: the model takes {known}")
    raise InputError(f"the model does not take {count} inputs: {error}; it takes {known}")


def _typed(name: str, value: Any, example: Any, parameter: inspect.Parameter | None) -> Any:
    """The constant as the model wants it: a tensor, or a number of Python."""
    if isinstance(example, torch.Tensor) and example is not value:
        return fixed_value(name, value, tuple(example.shape), example.dtype)
    wanted = None if parameter is None else parameter.annotation
    if wanted in (int, float, bool):
        kind = {int: torch.int64, float: torch.float64, bool: torch.bool}[wanted]
        return fixed_value(name, value, (), kind).item()
    if isinstance(value, torch.Tensor) or value is None:
        return value
    plain = value.tolist() if hasattr(value, "tolist") else value
    if wanted is torch.Tensor:
        whole = all(isinstance(part, int) for part in np.asarray(plain).reshape(-1).tolist())
        return fixed_value(name, plain, None, torch.int64 if whole else torch.float32)
    fixed_value(name, plain, None, torch.float64)
    return plain


class _Trial:
    """Runs of a model with its samples along different dimensions of its inputs."""

    def __init__(
        self, model: nn.Module, leaves: Mapping[str, Any], spec: pytree.TreeSpec,
        batch_dim: BatchDim, fix: Fix, by_sample: bool,
    ) -> None:  # fmt: skip
        self._model, self._leaves, self._spec = model, leaves, spec
        self._fix, self._by_sample = fix, by_sample
        self._inputs = {name: x for name, x in leaves.items() if name not in fix}
        self._said = dict(batch_dim)
        check_names({n: d for n, d in batch_dim.items() if n in leaves}, fix, [*leaves], ())

    def find(self) -> tuple[dict[str, int], dict[str, int]]:
        """(dimension by input, dimension by output)."""
        said = {
            name: checked_dim(name, dim, self._inputs[name].dim())
            for name, dim in self._said.items()
            if name in self._inputs
        }
        first: InputError | None = None
        found: list[tuple[dict[str, int], dict[str, int]]] = []
        for dims in assignments(said, self._choices(said)):
            try:
                found.append((dims, self._outputs(dims)))
            except InputError as error:
                first = first or error
                continue
            if not any(dim for name, dim in dims.items() if name not in said):
                return found[0]
        apart = found if len(found) < 2 else [f for f in found if not self._mixes(*f)]
        if len(apart) == 1:
            return apart[0]
        if first is not None and not apart:
            raise first
        name = next(n for n in self._inputs if len({dims[n] for dims, _ in apart or found}) > 1)
        raise undecided(name, sorted({dims[name] for dims, _ in apart or found}))

    def _choices(self, said: BatchDim) -> dict[str, list[int]]:
        """Every dimension, or those whose size is the number of samples in the examples."""
        if self._by_sample:
            return {name: [*range(x.dim())] for name, x in self._inputs.items()}
        sizes = [x.shape[said.get(name, 0)] for name, x in self._inputs.items()]
        shared = [
            size for size in dict.fromkeys(sizes)
            if all(size in x.shape for x in self._inputs.values())
        ]  # fmt: skip
        size = shared[0] if shared else sizes[0]
        return {
            name: [d for d, s in enumerate(x.shape) if s == size] or [0]
            for name, x in self._inputs.items()
        }

    def samples(self, dims: BatchDim) -> dict[str, torch.Tensor]:
        """The examples with the samples in front."""
        if self._by_sample:
            return dict(self._inputs)
        return {name: x.movedim(dims[name], 0) for name, x in self._inputs.items()}

    def _outputs(self, dims: BatchDim) -> dict[str, int]:
        two, three = (self._run(dims, count) for count in (2, 3))
        names = [*self._leaves]
        check_names(self._said, self._fix, names, [*two])
        return {
            name: grown(name, tuple(x.shape), tuple(three[name].shape), self._said.get(name))
            for name, x in two.items()
        }

    def _run(self, dims: BatchDim, count: int) -> dict[str, torch.Tensor]:
        given = {}
        for name, x in self.samples(dims).items():
            if len(x) == 0:
                raise InputError(f"example input {name!r} has no samples; expected at least one")
            given[name] = torch.cat([x[:1], x[-1:], x[:1]][:count]).contiguous()
        return self._on(given, dims)

    def _on(self, given: Mapping[str, torch.Tensor], dims: BatchDim) -> dict[str, torch.Tensor]:
        try:
            with _evaluating(self._model), torch.no_grad(), memory_budget.watched():
                result = _call(self._model, self._leaves, self._spec, given, dims)
        except InputError:
            raise
        except Exception as error:  # whatever the model's own code raises
            where = ", ".join(f"{name}={dim}" for name, dim in dims.items())
            raise InputError(
                f"the model does not run with its samples along the dimensions {where}: "
                f"{first_line(error)};",
                "say where they are (--batch-dim NAME=DIM), or give a constant to an input that "
                "is not per sample (--fix NAME=VALUE)",
            ) from error
        values, spec = pytree.tree_flatten(result)
        return {
            name: value
            for name, value in zip(output_names(spec), values, strict=True)
            if isinstance(value, torch.Tensor)
        }

    def _mixes(self, dims: BatchDim, outputs: Mapping[str, int]) -> bool:
        def run(*rows: torch.Tensor) -> dict[str, torch.Tensor]:
            found = self._on(dict(zip(self._inputs, rows, strict=True)), dims)
            return {name: x.movedim(outputs[name], 0).float() for name, x in found.items()}

        generator = torch.Generator().manual_seed(0)
        rows = []
        for x in self.samples(dims).values():
            shape = (3, *x.shape[1:])
            noise = torch.randn(shape, generator=generator, dtype=torch.float32)
            rows.append(noise.to(x.dtype) if x.is_floating_point() else x[:1].expand(shape))
        return samples_mix(run, rows)


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode for a while; its own flags are put back."""
    training = [module for module in model.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
