"""Multiply-accumulates as torch's own counter has them."""

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode


def torch_macs(model: nn.Module, inputs: tuple[torch.Tensor, ...]) -> int:
    """MACs of one sample by FlopCounterMode, which knows nothing of mpsearch.

    It counts neither the fused encoder nor the fused attention of a CPU; their parts it does.
    """
    one = tuple(x[:1] for x in inputs)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with (
            sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad()
        ):  # fmt: skip
            model(*one)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
    return int(counter.get_total_flops()) // 2
