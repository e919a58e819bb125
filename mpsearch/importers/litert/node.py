"""One operator of a LiteRT file: what its translation may ask of it, and how it says its steps.

An activation that is fused to it becomes a step of its own. Integer files leave a ReLU to the range
of the output where that begins at 0: it is written out, for a float network has no such range.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mpsearch.errors import InputError
from mpsearch.importers.litert.constants import is_quantized
from mpsearch.importers.litert.reading import Array, Operator, Tensor
from mpsearch.importers.litert.translation import LAST, Translation

# Activations that are fused to an operator, in the schema's numbers.
_FUSED: dict[int, tuple[str, dict[str, Any]]] = {
    1: ("Relu", {}),
    2: ("Clip", {"min": -1.0, "max": 1.0}),
    3: ("Clip", {"min": 0.0, "max": 6.0}),
    4: ("Tanh", {}),
}
RELU, RELU6 = 1, 3


@dataclass(frozen=True)
class Node:
    """One operator of the file and what its function of a family may ask and say."""

    translation: Translation
    number: int
    operator: Operator

    @property
    def label(self) -> str:
        """For messages: `'model/conv2d/Conv2D' (CONV_2D)`."""
        named = self.translation.name_of(self.operator.outputs[0]) if self.operator.outputs else ""
        return f"{named!r:.80} ({self.operator.name})"

    def has(self, index: int) -> bool:
        """Whether the operator was given its optional input."""
        return index < len(self.operator.inputs) and self.operator.inputs[index] is not None

    def input(self, index: int) -> int:
        """The number of the tensor that it reads. Raises InputError without one."""
        found = self.operator.inputs[index] if index < len(self.operator.inputs) else None
        if found is None:
            raise InputError(f"input {index} is missing")
        return self.translation.origin(found)

    @property
    def output(self) -> int:
        """The number of its first output."""
        if not self.operator.outputs:
            raise InputError("it has no output")
        return self.operator.outputs[0]

    def tensor(self, index: int) -> Tensor:
        """An input as the file describes it."""
        return self.translation.tensor(self.input(index))

    def shape(self, index: int) -> tuple[int, ...]:
        """The shape of an input at the file's batch size, in the file's layout."""
        return self.translation.shape(self.input(index))

    def is_constant(self, index: int) -> bool:
        """Whether the file holds the input's numbers."""
        return self.translation.is_constant(self.input(index))

    def array(self, index: int) -> Array:
        """The numbers of an input that is constant or follows from shapes. Raises InputError."""
        return self.translation.array(self.input(index))

    def integers(self, index: int, count: int | None = None) -> list[int]:
        """A constant input's whole numbers; `count` of them where that is known."""
        array = self.array(index)
        if array.dtype.kind not in "iub" or array.ndim > 2 or count not in (None, array.size):
            raise InputError(
                f"input {index} has {array.size} numbers of type {array.dtype}; expected "
                f"{'whole numbers' if count is None else f'{count} whole numbers'}"
            )
        return [int(value) for value in array.reshape(-1)]

    def option(self, name: str, default: Any = 0) -> Any:
        """An option as the file has it."""
        value = self.operator.options.get(name)
        return default if value is None else value

    def plain(self, index: int) -> str:
        """The name of an input in the file's layout."""
        return self.translation.plain(self.input(index))

    def first(self, index: int, rank: int | None = None) -> str:
        """The name of an input with channels first. Raises InputError for another rank."""
        shape = self.shape(index)
        if len(shape) < 3 or rank not in (None, len(shape)):
            raise InputError(
                f"input {index} has the shape {list(shape)}; expected {rank or 3} axes"
            )
        return self.translation.first(self.input(index))

    def lies_first(self, index: int) -> bool:
        """Whether an input is at hand with channels first only."""
        return self.translation.lies_first(self.input(index))

    def constant(self, label: str, values: Any) -> str:
        """A constant of this step."""
        return self.translation.constant(
            f"{self.translation.name_of(self.output)} {label}", np.asarray(values)
        )

    def sizes(self, label: str, values: Sequence[int]) -> str:
        """A constant list of sizes, axes or positions."""
        return self.constant(label, np.array(list(values), dtype=np.int64))

    def emit(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """An inner step of one output; its name."""
        name = self.translation.fresh(f"{self.translation.name_of(self.output)} {operator}")
        self.translation.step(operator, inputs, [name], **attributes)
        return name

    def write(
        self, operator: str, inputs: Sequence[str], layout: str = LAST, output: int = 0,
        **attributes: Any,
    ) -> None:  # fmt: skip
        """The step that gives an output, and the activation that is fused to it."""
        translation, number = self.translation, self.operator.outputs[output]
        fused = self._fused() if output == 0 else None
        if fused is not None:
            between = self.emit(operator, *inputs, **attributes)
            operator, inputs, attributes = fused[0], [between], fused[1]
        translation.step(operator, inputs, [translation.written(number, layout)], **attributes)

    def reshape(self, source: str, shape: Sequence[int], layout: str = LAST) -> None:
        """The output, which is `source` in a shape of the file's layout."""
        self.translation.reshape(source, self.output, layout, shape)

    def alias(self, index: int = 0) -> None:
        """The output is the input itself."""
        self.translation.same[self.output] = self.input(index)

    def weight(
        self, index: int, role: str, change: Callable[[Array], Array], label: str = ""
    ) -> str:
        """A constant input as the parameter `role` of the layer; shared weights are one."""
        translation, number = self.translation, self.input(index)
        key = (number, f"{role} {label}")
        if key not in translation.weights:
            layer = translation.layers.get(self.number) or self.operator.name.lower()
            translation.weights[key] = translation.constant(
                f"{layer}.{role}", change(self.array(index))
            )
        return translation.weights[key]

    def _fused(self) -> tuple[str, dict[str, Any]] | None:
        if "fusedActivationFunction" not in self.operator.options:
            return None
        kind = int(self.option("fusedActivationFunction"))
        if kind not in (0, *_FUSED):
            raise InputError(f"got the fused activation {kind}; expected ReLU, ReLU6, tanh or none")
        return _FUSED.get(kind or self._saturation())

    def _saturation(self) -> int:
        """A ReLU that is left to the range of an integer output, which begins at 0."""
        if self.operator.name in ("AVERAGE_POOL_2D", "MAX_POOL_2D", "CONCATENATION"):
            return 0  # these add nothing below what they read
        if not self._begins_at_zero(self.output):
            return 0
        numbers = [n for n in self.operator.inputs if n is not None]
        if self.operator.name in ("ADD", "MUL") and all(map(self._begins_at_zero, numbers)):
            return 0  # sums and products of what is not negative
        tensor = self.translation.tensor(self.output)
        assert tensor.quantization is not None
        scale = float(tensor.quantization.scales[0])
        return RELU6 if abs(255 * scale - 6) <= scale / 2 else RELU

    def _begins_at_zero(self, number: int) -> bool:
        tensor = self.translation.tensor(number)
        lowest = {"INT8": -128, "UINT8": 0}.get(tensor.kind)
        if not is_quantized(tensor) or lowest is None or tensor.quantization is None:
            return False
        return len(tensor.quantization.scales) == 1 and tensor.quantization.zero_points[0] == lowest
