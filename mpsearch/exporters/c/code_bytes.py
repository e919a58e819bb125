"""Flash that code takes on a microcontroller: what each function of the export does.

Bytes are from `code_bytes.json`, which benchmarks/code_bytes.py measures, and never below what a
linked firmware takes.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from mpsearch.errors import InputError
from mpsearch.exporters.c.kernels import Kernel

TABLE = "code_bytes.json"
CALL = 80  # bytes of one step's call and of what describes its tensors, at most
_CALL_OF = re.compile(r"^ +(mps_\w+)\(", re.MULTILINE)

# What computes a step: of layers by the kernel.
_LAYERS = {
    ("Convolution", Kernel.PLAIN.name): "mps_convolve",
    ("Convolution", Kernel.PATCHES.name): "mps_convolve_patches",
    ("Convolution", Kernel.DEPTHWISE.name): "mps_convolve_depthwise",
    ("Linear", Kernel.PLAIN.name): "mps_multiply",
    ("Linear", Kernel.PATCHES.name): "mps_multiply_patches",
}
LAYERS = tuple(sorted(_LAYERS.values()))
_OTHERS = {
    "TransposedConvolution": "mps_convolve_transposed", "Embedding": "mps_embed",
    "Requantize": "mps_requantize", "Clamp": "mps_clamp", "Add": "mps_add",
    "MaxPool": "mps_max_pool", "AveragePool": "mps_average_pool", "Mean": "mps_mean",
    "Concatenate": "mps_move", "Permute": "mps_move", "Slice": "mps_move", "Arrange": "mps_move",
    "Pad": "mps_move mps_fill", "Softmax": "mps_softmax", "ArgMax": "mps_argmax",
    "Reshape": "", "Lookup": "mps_look_up", "Interval": "mps_compare",
    "Affine": "mps_transform mps_combine", "Multiply": "mps_times", "Prelu": "mps_prelu",
    "LogSoftmax": "mps_log_softmax", "Normalize": "mps_normalize",
    "MatMul": "mps_multiply_matrices", "Gather": "mps_gather mps_move",
    "Fill": "mps_fill mps_move", "Resize": "mps_resize", "Beside": "mps_move mps_fill",
}  # fmt: skip


@dataclass(frozen=True)
class Flash:
    """What a firmware for one microcontroller takes, beside the constants of layers."""

    target: str
    base: int
    code: Mapping[str, int]
    """Function -> bytes, with all that it calls."""
    together: Mapping[str, int]
    """Several kernels of layers, by their names in order -> bytes."""
    step: Mapping[str, int]
    """Function -> bytes of the description that each of its calls has."""

    def of_functions(self, functions: Iterable[str]) -> int:
        """Their code."""
        names = set(functions)
        layers = " ".join(name for name in LAYERS if name in names)
        own = self.together.get(layers, self.code.get(layers, 0))
        return own + sum(self.code[name] for name in names.difference(LAYERS))

    def of_call(self, functions: Iterable[str]) -> int:
        """One step's call and its description."""
        return max((self.step[function] for function in functions), default=0) + CALL

    def of_source(self, network: str) -> int:
        """All of a firmware but its constants, by its network.c, at most."""
        _, _, steps = network.partition("\nvoid network_run(void)")
        calls = [name for name in _CALL_OF.findall(steps) if name in self.code]
        return self.base + self.of_functions(calls) + sum(self.of_call([name]) for name in calls)


@cache
def known_targets() -> Mapping[str, Flash]:
    """The figures of every microcontroller that has some, by its name."""
    text = (files("mpsearch.exporters.c") / TABLE).read_text(encoding="utf-8")
    return {
        target: Flash(
            target,
            known["base"],
            {name: one["code"] for name, one in known["functions"].items()},
            known["layers"],
            {name: one["step"] for name, one in known["functions"].items()},
        )
        for target, known in json.loads(text)["targets"].items()
    }


def flash_of(target: str) -> Flash:
    """The figures of a microcontroller. Raises InputError for a target without."""
    known = known_targets()
    if target not in known:
        raise InputError(
            f"--flash counts the code of {', '.join(known)}; got --target {target}: leave --flash "
            "out, or limit the constants with --size"
        )
    return known[target]


def functions_of(kind: str, kernel: str) -> tuple[str, ...]:
    """The C functions that a step of this kind may call; `kernel` is a layer's."""
    if (kind, kernel) in _LAYERS:
        return (_LAYERS[kind, kernel],)
    return tuple(_OTHERS[kind].split())
