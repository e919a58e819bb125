"""A Keras model as an `fx.GraphModule` that torch.export takes, with Keras's layer names."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import fx

from mpsearch.errors import InputError
from mpsearch.graph import memory_budget
from mpsearch.importers.keras import (
    activations,
    attention,
    normalizing,
    pooling,
    recurrent,
    shaping,
    weighted,
)
from mpsearch.importers.keras.layer_graph import (
    TIME_DISTRIBUTED,
    KerasLayer,
    KerasModel,
    Reference,
    clean_names,
    read_model,
)
from mpsearch.importers.keras.pooling import fold_rescaling
from mpsearch.importers.keras.reading import open_keras
from mpsearch.importers.keras.settings import Building, Convert, Emitter, Settings, Shape, Value
from mpsearch.importers.keras.variables import Path, read_variables

LAYERS: dict[str, Convert] = {
    **activations.LAYERS,
    **attention.LAYERS,
    **shaping.MERGING,
    **normalizing.LAYERS,
    **pooling.LAYERS,
    **recurrent.LAYERS,
    **shaping.LAYERS,
    **weighted.LAYERS,
}
# What a mask of steps changes; everything else hands it on.
_READS_MASKS = {
    *attention.LAYERS, *recurrent.LAYERS, "GlobalAveragePooling1D", "Softmax", TIME_DISTRIBUTED,
}  # fmt: skip
_WHOLE = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32")
# Losses of a sigmoid; without one of them it may be a regression that ends in it.
_ANSWERS = ("binary_crossentropy", "binarycrossentropy", "binary_focal", "binaryfocal", "bce")


@dataclass(frozen=True)
class Converted:
    """The module, one example per input, and what a user should know about the conversion."""

    module: fx.GraphModule
    examples: tuple[torch.Tensor, ...]
    notes: tuple[str, ...]


def convert(path: str | os.PathLike[str], input_shapes: Sequence[Shape] = ()) -> Converted:
    """Read a `.keras` or `.h5` file. Nothing in it is executed, Keras is not imported.

    `input_shapes`: shapes of one sample in Keras's order, for a file that leaves sizes open.
    Inputs stay as in Keras (`(32, 32, 3)`); an activation that only turns logits into
    probabilities is left out at the outputs. Raises InputError naming file and layer.
    """
    with memory_budget.of_load(path), open_keras(path) as file:
        model = read_model(file.config)
        _refuse_foreign(model)
        weights = read_variables(file, model)
        walk = _Walk(Emitter(file.major), weights, file.loss)
        try:
            return walk.convert(model, tuple(input_shapes))
        except RecursionError as error:
            raise InputError("damaged config: nested too deeply") from error


def _refuse_foreign(model: KerasModel) -> None:
    for layer in model.layers:
        if layer.model:
            _refuse_foreign(layer.model)
            continue
        known = (shaping.OPERATIONS if layer.operation else LAYERS).keys() | {"InputLayer"}
        if layer.class_name in known and not layer.foreign:
            continue
        if layer.operation and layer.class_name in ("NotEqual", "Any"):
            raise InputError(
                f"layer {layer.name!r:.60} computes a mask of steps from the data (Masking, or "
                "Embedding with mask_zero), which a later layer reads and which is not read here.",
                "Build the model without masks, for sequences of full length",
            )
        where = f" of {layer.foreign:.60}" if layer.foreign else ""
        code = (
            ", which carries Python code," if layer.class_name in ("Lambda", "TFOpLambda") else ""
        )
        raise InputError(
            f"layer {layer.name!r:.60} has the class {layer.class_name:.60}{where}{code} and "
            "cannot be read from the file.",
            "Build it from Keras's own layers, or write the model "
            "as ONNX: model.export('net.onnx', format='onnx')",
        )


@dataclass
class _Walk:
    """The walk through the model, outer and inner ones, in the order of the calls."""

    emit: Emitter
    weights: Mapping[Path, Mapping[str, Any]]
    loss: str

    def convert(self, model: KerasModel, shapes: tuple[Shape, ...]) -> Converted:
        layers = {layer.name: layer for layer in model.layers}
        starts = [layers[reference.layer] for reference in model.inputs]
        if any(layer.class_name != "InputLayer" for layer in starts):
            raise InputError("damaged config: an input that is no InputLayer")
        if shapes and len(shapes) != len(starts):
            raise InputError(f"has {len(starts)} inputs; got {len(shapes)} --input-shape")
        names = clean_names(layer.name for layer in starts)
        inputs, examples = [], []
        for number, layer in enumerate(starts):
            shape = _input_shape(layer, shapes[number] if shapes else None)
            whole = str(layer.config.get("dtype")).strip() in _WHOLE
            dtype = torch.int64 if whole else torch.float32
            node = self.emit.graph.placeholder(names[layer.name])
            inputs.append(Value(node, shape))
            examples.append(torch.zeros(1, *shape, dtype=dtype))
        outputs = self.model(model, inputs, (), "", 1)
        notes: list[str] = []
        named = {
            name: self.emit.plain(self._logits(value, notes))
            for name, value in zip(_unique(model), outputs, strict=True)
        }
        nodes = {name: value.node for name, value in named.items()}
        self.emit.graph.output(nodes if len(nodes) > 1 else next(iter(nodes.values())))
        module = fx.GraphModule(self.emit.root, self.emit.graph)
        fold_rescaling(module)
        return Converted(module.eval(), tuple(examples), tuple(notes))

    def model(
        self, model: KerasModel, inputs: Sequence[Value], path: Path, scope: str, calls: int
    ) -> list[Value]:
        """The outputs of a model on `inputs`; `calls`: how often it is used altogether."""
        if len(inputs) != len(model.inputs):
            raise InputError(f"model {'/'.join(path)}: {len(inputs)} inputs of {len(model.inputs)}")
        found = {(r.layer, r.call): [value] for r, value in zip(model.inputs, inputs, strict=True)}
        names = clean_names(layer.name for layer in model.layers)
        for layer, number in model.calls_in_order():
            if (layer.name, number) in found:
                continue
            here = f"{scope}.{names[layer.name]}" if scope else names[layer.name]
            operands = _look_up(layer.calls[number].args, found)
            uses = calls * len(layer.calls)
            found[layer.name, number] = self.layer(layer, number, operands, path, here, uses)
        return [_tensor(found, reference) for _, reference in model.outputs]

    def layer(
        self, layer: KerasLayer, number: int, operands: Sequence[Any], path: Path, scope: str,
        calls: int,
    ) -> list[Value]:  # fmt: skip
        """The outputs of one call of a layer."""
        values = list(_flat(operands))
        here = (*path, layer.name)
        title = f"{'/'.join(here)} ({layer.class_name})"
        settings = Settings(title, layer.config)
        tensors = [value for value in values if isinstance(value, Value)]
        masked = next((value.masked for value in tensors if value.masked), "")
        if masked and layer.class_name in _READS_MASKS:
            raise settings.error(
                f"reads the mask of {masked}, which depends on the data and is not read; "
                "expected sequences of full length, without a mask"
            )
        if layer.class_name == TIME_DISTRIBUTED and layer.model:
            return self._each_step(layer.model, settings, tensors, here, scope, calls)
        if layer.model:
            return self.model(layer.model, tensors, here, scope, calls)
        kwargs = dict(layer.calls[number].kwargs)
        causal = layer.class_name in attention.LAYERS and bool(kwargs.pop("use_causal_mask", False))
        mask = None
        if layer.class_name == "MultiHeadAttention" and kwargs.get("attention_mask") is not None:
            mask = attention.called_mask(settings, kwargs.pop("attention_mask"))
        _check_call(settings, kwargs)
        building = Building(
            settings, self.weights.get(here, {}), scope, layer.class_name, calls, self.emit, causal,
            mask, number,
        )  # fmt: skip
        try:
            if layer.operation:
                return [shaping.arithmetic(building, operands)]
            _check_policy(settings)
            if not all(isinstance(value, Value) for value in values):
                raise settings.error("is called with something that is no tensor")
            made = LAYERS[layer.class_name](building, values)
            return [replace(made, masked=masked) if masked else made]
        except InputError as error:
            text = str(error)
            raise error if title in text else settings.error(text) from error

    def _each_step(
        self, model: KerasModel, settings: Settings, values: Sequence[Value], path: Path,
        scope: str, calls: int,
    ) -> list[Value]:  # fmt: skip
        """TimeDistributed: every step is a sample of its own for what lies inside."""
        if len(values) != 1 or len(values[0].shape) < 2:
            raise settings.error("takes one input of steps: (time, …)")
        value = self.emit.plain(values[0])
        steps, *rest = value.shape
        apart = self.emit.call(torch.reshape, value.node, (-1, *rest))
        (made,) = self.model(model, [Value(apart, tuple(rest))], path, scope, calls)
        made = self.emit.plain(made)
        joined = self.emit.call(torch.reshape, made.node, (-1, steps, *made.shape))
        return [Value(joined, (steps, *made.shape))]

    def _logits(self, value: Value, notes: list[str]) -> Value:
        """The value ahead of a last softmax, or of a sigmoid that was trained on answers."""
        node = value.node
        softmax = node.target in (torch.softmax, torch.log_softmax)
        answers = any(word in self.loss for word in _ANSWERS)
        sigmoid = node.target is torch.sigmoid and len(value.shape) == 1 and answers
        if not (softmax or sigmoid):
            return value
        (source, *_) = node.args
        assert isinstance(source, fx.Node)
        name = "softmax" if softmax else "sigmoid"
        notes.append(
            f"the {name} at the output is left out: the network's outputs are logits, as losses "
            "and metrics expect them"
        )
        return value.same(source)


def _input_shape(layer: KerasLayer, given: Shape | None) -> Shape:
    settings = Settings(layer.title, layer.config)
    shape = settings.get("batch_shape", settings.get("batch_input_shape", settings.get("shape")))
    if shape is None and given is not None:
        return given
    if not isinstance(shape, list) or not shape:
        raise InputError(
            f"the file does not say the shape of input {layer.name!r:.60}; give --input-shape"
        )
    sizes = shape[1:]
    if given is not None and (
        len(given) != len(sizes)
        or any(s not in (None, g) for s, g in zip(sizes, given, strict=True))
    ):
        raise InputError(f"input {layer.name!r:.60} is {tuple(sizes)} in the file; got {given}")
    sizes = list(given or sizes)
    if any(size is None for size in sizes):
        text = "x".join("?" if size is None else str(size) for size in sizes)
        raise InputError(
            f"input {layer.name!r:.60} has open sizes ({text}); give --input-shape, for example "
            f"--input-shape {text.replace('?', '32')}"
        )
    if not all(type(size) is int and 0 < size < 1 << 28 for size in sizes):
        raise InputError(f"damaged config: input {layer.name!r:.60} of shape {shape}")
    memory_budget.reserve(4 * math.prod(sizes), f"input {layer.name!r:.60} of shape {shape}")
    return tuple(sizes)


def _check_call(settings: Settings, kwargs: Mapping[str, Any]) -> None:
    for key, value in kwargs.items():
        if value in (None, False) or key == "name":
            continue
        raise settings.error(f"is called with {key}={str(value)[:40]}, which is not read")


def _check_policy(settings: Settings) -> None:
    """Quantized layers keep other weights; what Keras computes in half is computed in float32."""
    policy = settings.get("dtype")
    if isinstance(policy, dict):
        inner = policy.get("config")
        name = str(policy.get("class_name", "")) + str(
            inner.get("name") if isinstance(inner, dict) else ""
        )
    else:
        name = str(policy)
    if (
        "Quantized" in name
        or "int8" in name
        or "float8" in name
        or settings.get("quantization_config")
    ):
        raise settings.error("is quantized already; expected the float model")


def _unique(model: KerasModel) -> list[str]:
    """The outputs' names; a layer with two of them gives `name`, `name_1`."""
    seen: dict[str, int] = {}
    names = []
    for name, _ in model.outputs:
        count = seen.get(name, 0)
        seen[name] = count + 1
        names.append(f"{name}_{count}" if count else name)
    return names


def _look_up(value: Any, found: Mapping[tuple[str, int], list[Value]]) -> Any:
    if isinstance(value, Reference):
        return _tensor(found, value)
    if isinstance(value, list | tuple):
        return [_look_up(item, found) for item in value]
    return value


def _tensor(found: Mapping[tuple[str, int], list[Value]], reference: Reference) -> Value:
    values = found.get((reference.layer, reference.call), [])
    if not 0 <= reference.tensor < len(values):
        raise InputError(f"damaged config: no output {reference.tensor} of {reference.layer!r:.60}")
    return values[reference.tensor]


def _flat(value: Any) -> list[Any]:
    if isinstance(value, list | tuple):
        return [inner for item in value for inner in _flat(item)]
    return [value]
