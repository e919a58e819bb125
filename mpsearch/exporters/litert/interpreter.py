"""Running a LiteRT file in Python with ai-edge-litert, sample by sample."""

from typing import Any

import numpy as np
import torch

from mpsearch.exporters.litert.flatbuffer import SIGNATURE, litert
from mpsearch.exporters.litert.joined import WHOLE
from mpsearch.graph.network import Network

# With XNNPACK where it has the operator, as everybody gets it, and with LiteRT's own kernels.
KERNELS = {"xnnpack": "AUTO", "plain": "BUILTIN_WITHOUT_DEFAULT_DELEGATES"}


class LiteRtNetwork:
    """Calls like the network that a file was made of: inputs [N, …] -> outputs [N, …].

    One sample at a time. Several outputs are read by their names and put side by side.
    """

    def __init__(self, content: bytes, network: Network, kernels: str = "xnnpack") -> None:
        module = litert("interpreter")
        self.names = network.input_names
        names = [output.name for output in network.outputs]
        self.outputs = names if len(names) > 1 else [WHOLE]
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
            found = self.runner(**given)
            rows.append([found[name] for name in self.outputs])
        if len(self.outputs) == 1:
            return torch.from_numpy(np.concatenate([row[0] for row in rows]))
        flat = [np.concatenate([value.reshape(-1) for value in row]) for row in rows]
        return torch.from_numpy(np.stack(flat))
