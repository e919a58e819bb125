"""Running a LiteRT file in Python with ai-edge-litert, sample by sample."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from mpsearch.litert_export.flatbuffer import SIGNATURE, litert

# With XNNPACK where it has the operator, as everybody gets it, and with LiteRT's own kernels.
KERNELS = {"xnnpack": "AUTO", "plain": "BUILTIN_WITHOUT_DEFAULT_DELEGATES"}


class LiteRtNetwork:
    """Calls like a network: inputs [N, …] -> outputs [N, …], one sample at a time."""

    def __init__(self, content: bytes, names: Sequence[str], kernels: str = "xnnpack") -> None:
        module = litert("interpreter")
        self.names = tuple(names)
        self.interpreter: Any = module.Interpreter(
            model_content=content,
            num_threads=1,
            experimental_op_resolver_type=getattr(module.OpResolverType, KERNELS[kernels]),
        )
        self.runner = self.interpreter.get_signature_runner(SIGNATURE)

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        rows = []
        for row in range(len(inputs[0])):
            given = {
                name: x[row : row + 1].contiguous().numpy()
                for name, x in zip(self.names, inputs, strict=True)
            }
            rows.append(self.runner(**given)["output"])
        return torch.from_numpy(np.concatenate(rows))
