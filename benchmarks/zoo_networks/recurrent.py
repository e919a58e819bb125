"""Recurrent networks: classifiers, streams with states, recognition of lines."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from zoo_networks.network import ZooNetwork, floats, indices


class LastState(nn.Module):
    """The last states of every direction decide."""

    def __init__(self, cell: Callable[..., nn.RNNBase], bidirectional: bool = False) -> None:
        super().__init__()
        self.rnn = cell(12, 16, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(32 if bidirectional else 16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        last = self.rnn(x)[1]
        last = last[0] if isinstance(last, tuple) else last
        return self.head(torch.cat(list(last), 1))


class StreamingGru(nn.Module):
    """One step of a stream; the state is an input and an output."""

    def __init__(self) -> None:
        super().__init__()
        self.front, self.cell, self.head = nn.Linear(20, 16), nn.GRUCell(16, 16), nn.Linear(16, 1)

    def forward(self, x: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        h = self.cell(torch.relu(self.front(x)), h)
        return torch.sigmoid(self.head(h)), h


class VoiceActivity(nn.Module):
    """Convolutions, a cell, a probability (the shape of Silero's network)."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv1d(1, 16, 16, 8), nn.Conv1d(16, 16, 3, 2, 1)
        self.cell, self.head = nn.LSTMCell(16, 16), nn.Conv1d(16, 1, 1)

    def forward(
        self, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        y = torch.relu(self.two(torch.relu(self.one(x.unsqueeze(1)))))
        h, c = self.cell(y.mean(-1), (h, c))
        return torch.sigmoid(self.head(torch.relu(h).unsqueeze(-1))).mean((1, 2)), h, c


class Crnn(nn.Module):
    """Convolutions over a line of text, a bidirectional LSTM, log probabilities per column."""

    def __init__(self, time_major: bool = False) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)
        self.rnn = nn.LSTM(64, 16, bidirectional=True)
        self.head, self.time_major = nn.Linear(32, 11), time_major

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.max_pool2d(torch.relu(self.one(x)), 2)
        y = functional.max_pool2d(torch.relu(self.two(y)), (2, 1))
        y = self.rnn(y.flatten(1, 2).permute(2, 0, 1))[0]
        y = functional.log_softmax(self.head(y), -1)
        return y if self.time_major else y.transpose(0, 1)


class ConvGru(nn.Module):
    """Filter bank, convolution, two GRUs, a mask for each band (RNNoise, DeepFilterNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(22, 16, 3, padding=1)
        self.rnn = nn.GRU(16, 16, num_layers=2, batch_first=True)
        self.head = nn.Linear(16, 22)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.tanh(self.conv(x)).transpose(1, 2)
        return x * torch.sigmoid(self.head(self.rnn(y)[0])).transpose(1, 2)


class Tagger(nn.Module):
    """Embedding, bidirectional LSTM, a tag for each word."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 12, padding_idx=0)
        self.rnn = nn.LSTM(12, 8, batch_first=True, bidirectional=True)
        self.head = nn.Linear(16, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.rnn(self.words(x))[0])


FAMILY = "recurrent"
SERIES = floats((10, 12))
NETWORKS = (
    ZooNetwork(
        FAMILY, "lstm", lambda: LastState(nn.LSTM), SERIES, 3, "W, U, head",
        10 * 4 * 16 * (12 + 16),
    ),
    ZooNetwork(
        FAMILY, "bi_gru", lambda: LastState(nn.GRU, True), SERIES, 5, "2 x (W, U), head",
    ),
    ZooNetwork(
        FAMILY, "streaming_gru", StreamingGru, floats((20,), (16,)), 4, "front, W, U, head",
    ),
    ZooNetwork(
        FAMILY, "voice_activity", VoiceActivity, floats((512,), (16,), (16,)), 5,
        "2 + W, U + head",
    ),
    ZooNetwork(
        FAMILY, "crnn_ctc", Crnn, floats((1, 16, 24)), 7, "2 + 2 x (W, U) + head",
        2 * 12 * 4 * 16 * (64 + 16),
    ),
    ZooNetwork(
        FAMILY, "crnn_time_major", lambda: Crnn(True), floats((1, 16, 24)), 7,
        "2 + 2 x (W, U) + head", 2 * 12 * 4 * 16 * (64 + 16),
    ),
    ZooNetwork(
        FAMILY, "conv_gru_denoiser", ConvGru, floats((22, 12)), 6, "conv + 2 x (W, U) + head",
    ),
    ZooNetwork(
        FAMILY, "bi_lstm_tagger", Tagger, indices(50, 9), 6, "words + 2 x (W, U) + head",
        2 * 9 * 4 * 8 * (12 + 8),
    ),
)  # fmt: skip
