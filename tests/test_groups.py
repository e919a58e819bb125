"""A scale for every few weights: `w4g32a8` from the quantizer to the file, against loops."""

from dataclasses import replace

import networks
import pytest
import torch
from torch import nn
from torch.nn import functional

import mpsearch
from mpsearch.data import Data
from mpsearch.graph.layers import Layer
from mpsearch.graph.network import Network
from mpsearch.post_training.repairing import PLAIN, PostTraining, quantize_after_training
from mpsearch.quantization.packing import layer_bytes, packed_bytes
from mpsearch.quantization.quantized import QuantizedNetwork
from mpsearch.quantization.quantized_file import load_quantized, save_quantized
from mpsearch.quantization.quantizer import QuantizedWeight, quantize_weight
from mpsearch.quantization.scale_layout import ScaleLayout, layout_of
from mpsearch.tables.choice import Choice

KINDS = {
    "token": 12, "c1": 15, "up": 8, "c2": 27, "each": 9, "attention": 12, "out": 12, "head": 20,
}  # fmt: skip


class Everything(nn.Module):
    """A layer of each kind; beside its name how many weights an output channel has."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Embedding(20, 12)
        self.c1 = nn.Conv1d(3, 6, 5)
        self.up = nn.ConvTranspose1d(6, 4, 4, groups=2)
        self.c2 = nn.Conv2d(3, 5, 3)
        self.each = nn.Conv2d(5, 5, 3, groups=5)
        self.attention = nn.MultiheadAttention(12, 2, batch_first=True)
        self.out = nn.Linear(12, 5)
        self.head = nn.Linear(20, 4)

    def forward(self, tokens, sound, image):
        x = self.token(tokens)
        x = self.out(x + self.attention(x, x, x, need_weights=False)[0]).mean(1)
        y = self.up(torch.relu(self.c1(sound))).mean(2)
        z = self.each(torch.relu(self.c2(image))).mean((2, 3))
        rest = functional.pad(z, (0, 6))
        return self.head(torch.cat([x, y, rest], 1))


torch.manual_seed(3)
model = Everything().eval()
x = (torch.randint(0, 20, (24, 5)), torch.randn(24, 3, 12), torch.randn(24, 3, 8, 8))
net = Network.from_module(model, x)
for l in net.layers:
    print(l.name, l.kind, l.weights // l.channels, net.weight_rows(l)[0].shape)
data = Data("x", x, None)
import time
for g in (4, 5, 8, 12, 64):
    c = Choice(3, 8, g)
    for s in (PLAIN, PostTraining(), PostTraining(rounding="nearest"), PostTraining(learn_scales=True), PostTraining(per_tensor=True, equalize=True)):
        t = time.time()
        q = quantize_after_training(net, {l.name: c for l in net.layers}, data, s)
        from mpsearch.post_training.kept_repairs import Yardstick
        print(g, s.rounding, s.correct_bias, s.learn_scales, Yardstick(net, data).noise(q), time.time() - t, q.undone)
        save_quantized(q, "/tmp/groups_q2.pt")
        again = load_quantized("/tmp/groups_q2.pt")
        assert torch.equal(again(*x), q(*x))
        m = mpsearch.to_module(q, net)
        assert mpsearch.from_module(m).digest == q.digest
        assert torch.equal(m(*x), q(*x))
