"""Peak memory of this process."""

import resource
import sys


def peak_bytes(device: str = "cpu") -> int:
    """Peak resident bytes of the process so far, or peak allocated bytes of the GPU for `cuda`."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.max_memory_allocated())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # Linux counts in KB
