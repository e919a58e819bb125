"""MLPerf Tiny's DS-CNN for keyword spotting, with the clips below MPSEARCH_DATA/kws.

There are no training clips: of the 1,000, in the order of numpy's generator 0, the first 300 stand
in for them and the other 700 are unseen.
"""

import os
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.graph.network import Network

_STEP, _ZERO = 0.58470291, 83  # of the clips' int8 features
_SEEN = 300


class DSCNN(nn.Module):
    """One convolution, four depthwise-separable ones, a mean and a linear layer: [N, 1, 49, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.pad = nn.ZeroPad2d((1, 1, 4, 5))
        self.conv0 = nn.Conv2d(1, 64, (10, 4), 2)
        for i in range(1, 5):
            setattr(self, f"dw{i}", nn.Conv2d(64, 64, 3, padding=1, groups=64))
            setattr(self, f"pw{i}", nn.Conv2d(64, 64, 1))
        self.fc = nn.Linear(64, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features to class logits, [N, 12]."""
        x = torch.relu(self.conv0(self.pad(x)))
        for i in range(1, 5):
            x = torch.relu(getattr(self, f"dw{i}")(x))
            x = torch.relu(getattr(self, f"pw{i}")(x))
        logits: torch.Tensor = self.fc(x.mean((2, 3)))
        return logits


def module() -> DSCNN:
    """With MLPerf Tiny's weights, batch norms folded."""
    model = DSCNN().eval()
    model.load_state_dict(load_file(_folder() / "dscnn_kws_bnfolded.safetensors"))
    return model


def load_ds_cnn() -> tuple[Network, Data, Data]:
    """(network, clips to profile on, unseen clips)."""
    stored = np.load(_folder() / "kws01_open_mfcc.npz")
    x = torch.from_numpy((stored["mfcc"].astype(np.float32) - _ZERO) * np.float32(_STEP))[:, None]
    y = torch.from_numpy(stored["labels"].astype(np.int64))
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(x)))
    seen, unseen = order[:_SEEN], order[_SEEN:]
    network = Network.from_module(module(), (x[:2],))
    return (
        network,
        Data("kws: 300 clips", (x[seen],), y[seen]),
        Data("kws: 700 clips", (x[unseen],), y[unseen]),
    )


def _folder() -> Path:
    folder = Path(os.environ.get("MPSEARCH_DATA", ""), "kws")
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; set MPSEARCH_DATA to where kws/ is")
    return folder
