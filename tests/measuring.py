"""A tiny network in a folder, with labelled data on which fewer bits really cost accuracy."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from mpsearch.cli import run
from mpsearch.graph.network_file import save

SAMPLES = 150
PLAINLY = "--rounding nearest --no-bias-correction"  # fast, where repairs are not the subject


def build() -> nn.Module:
    """Four linear layers; without biases its classes are about equally frequent."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        layers: list[nn.Module] = []
        for wide, narrow in ((6, 12), (12, 9), (9, 10)):
            layers += [nn.Linear(wide, narrow, bias=False), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(10, 4, bias=False)).eval()


def make_folder(folder: Path, bits: str = "2,3,4,8") -> None:
    """model.pt (sample inside), test.npz, fresh.npz, profile.csv, front.csv in `folder`, run in it.

    The labels are what the float network says, but for one in ten.
    """
    module = build()
    generator = torch.Generator().manual_seed(5)
    for name in ("sample", "test", "fresh"):
        inputs = torch.randn(SAMPLES, 6, generator=generator)
        with torch.no_grad():
            labels = module(inputs).argmax(1)
        labels[::10] = (labels[::10] + 1) % 4
        if name == "sample":
            save(module, str(folder / "model.pt"), (inputs,), {"x0": inputs, "y": labels})
        else:
            np.savez(folder / f"{name}.npz", x0=inputs.numpy(), y=labels.numpy())
    assert run(["profile", "model.pt", "--bits", bits, "--samples", "32"]) == 0
    assert run(["front", "-o", "front.csv"]) == 0
