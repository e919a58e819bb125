"""What edge networks are made of, small: a U-Net, a recurrent line reader, a streaming step, blocks
that shuffle channels with a detector's head, tokens."""

import torch
from torch import nn
from torch.nn import functional as f


class UNet(nn.Module):
    """One level down, three ways up, concatenated with what was on this level."""

    SHAPE = (2, 6, 6)

    def __init__(self) -> None:
        super().__init__()
        self.top, self.bottom = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(3, 4, 3, padding=1)
        self.up, self.after = nn.ConvTranspose2d(4, 3, 2, 2), nn.Conv2d(14, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        here = torch.relu(self.top(x))
        below = torch.relu(self.bottom(f.max_pool2d(here, 2)))
        nearest = f.interpolate(below, scale_factor=2)
        linear = f.interpolate(below, scale_factor=2, mode="bilinear", align_corners=False)
        ups = [self.up(below), nearest, linear]
        result: torch.Tensor = self.after(torch.cat([here, *ups], 1)).sigmoid()
        return result


class Reader(nn.Module):
    """A convolution, then a GRU in both directions and an LSTM over three steps."""

    SHAPE = (2, 4, 3)

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3, padding=1)
        self.gru = nn.GRU(3, 2, batch_first=True, bidirectional=True)
        self.lstm = nn.LSTM(4, 3, batch_first=True)
        self.head = nn.Linear(3, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        lines = torch.relu(self.conv(x)).amax(2).transpose(1, 2)
        result: torch.Tensor = self.head(self.lstm(self.gru(lines)[0])[0])
        return result


class Stream(nn.Module):
    """One step of a GRU: features and the state come in, scores and the new state go out."""

    SHAPE = (9,)

    def __init__(self) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(4, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        out, state = self.gru(x[:, None, :4], x[:, 4:].unsqueeze(0))
        return self.head(out[:, 0]), state.squeeze(0)


class Blocks(nn.Module):
    """A block of a ShuffleNet, one of a TC-ResNet on its lines, and a head with anchors."""

    SHAPE = (4, 3, 4)

    def __init__(self) -> None:
        super().__init__()
        self.one, self.deep = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 3, padding=1, groups=2)
        self.line, self.again = nn.Conv1d(12, 4, 3, padding=1), nn.Conv1d(4, 4, 3, padding=1)
        self.anchors = nn.Conv2d(4, 10, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = x.chunk(2, dim=1)
        right = torch.relu(self.deep(torch.relu(self.one(right))))
        shuffled = f.channel_shuffle(torch.cat([left, right], 1), 2)
        line = torch.relu(self.line(shuffled.flatten(1, 2)))
        line = torch.relu(self.again(line) + line)
        boxes = (
            self.anchors(shuffled + line.unsqueeze(2)).view(-1, 2, 5, 3, 4).permute(0, 1, 3, 4, 2)
        )
        place, size, score = boxes.split([2, 2, 1], 4)
        parts = [place.sigmoid() * 2 - 0.5, size.tanh().exp(), score.sigmoid()]
        return torch.cat([part.flatten(1, 3) for part in parts], 2)


class Tokens(nn.Module):
    """Rows of tables with one scale per row and with one together, by number."""

    SHAPE = (7,)
    vocabulary = 5

    def __init__(self) -> None:
        super().__init__()
        self.long, self.short = nn.Embedding(5, 20), nn.Embedding(5, 3)
        self.conv, self.head = nn.Conv1d(20, 4, 3), nn.Linear(7, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = self.long(x) - 1e2 * (x == 0)[:, :, None].to(torch.float32)  # 0 is padding
        seen = torch.relu(self.conv(rows.transpose(1, 2))).amax(2)
        result: torch.Tensor = self.head(
            torch.cat([seen, (self.short(x) * (x > 1.5).unsqueeze(-1).float()).mean(1)], 1)
        )
        return result


FAMILIES = (UNet, Reader, Stream, Blocks, Tokens)
