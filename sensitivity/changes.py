"""Changes of outputs as text: float16 with one scale per array, for the journal."""

import base64

import numpy as np
import torch


def encode(change: torch.Tensor) -> dict[str, object]:
    """A change [n, C] as base64 of float16 and the scale that keeps it within float16's range."""
    values = change.detach().cpu().double().numpy()
    largest = float(np.abs(values).max(initial=0.0))
    scale = largest if largest > 0 else 1.0
    packed = (values / scale).astype("<f2").tobytes()
    return {"scale": scale, "shape": list(values.shape), "data": base64.b64encode(packed).decode()}


def decode(document: dict[str, object]) -> np.ndarray:
    """The change [n, C] in float32 that `encode` wrote, to 11 bits of its largest element."""
    packed = base64.b64decode(str(document["data"]))
    shape = document["shape"]
    assert isinstance(shape, list)
    values = np.frombuffer(packed, dtype="<f2").reshape(shape).astype(np.float32)
    return values * np.float32(str(document["scale"]))
