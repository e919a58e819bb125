"""Augmentation of a training batch, so that few recordings are not learned by heart."""

from collections.abc import Sequence

import torch
from torch.nn import functional as F

SHIFT = 3  # pixels an image moves at most
CHANNEL = 0.5  # standard deviation of what is added to a cepstral coefficient, in its own units
WHOLE_INPUT = 0.3  # probability that one of several inputs is blanked
MIXUP = 0.4  # of the Beta distribution; Zhang et al. use 0.1 to 0.4


def augmented(
    inputs: Sequence[torch.Tensor], generator: torch.Generator
) -> tuple[torch.Tensor, ...]:
    """The batch, changed at random: what has three channels as an image, one as a spectrogram.

    Images are mirrored and shifted; spectrograms `[N, 1, time, coefficient]` are shifted in time,
    get a constant per coefficient (cepstra of another microphone and room differ by one) and lose
    a band of time and of coefficients (SpecAugment, Park et al., Interspeech 2019). Of several
    inputs, sometimes one is blanked, so that each learns to decide alone. Zero is each feature's
    training mean.
    """
    changed = [
        _image(x, generator) if x.shape[1] == 3 else _spectrogram(x, generator) for x in inputs
    ]
    if len(changed) > 1:
        count = len(changed[0])
        blanked = torch.rand(count, generator=generator) < WHOLE_INPUT
        which = torch.randint(len(changed), (count,), generator=generator)
        for index, x in enumerate(changed):
            keep = ~(blanked & (which == index))
            changed[index] = x * keep.view(-1, 1, 1, 1)
    return tuple(changed)


def mixed(
    inputs: Sequence[torch.Tensor], labels: torch.Tensor, generator: torch.Generator
) -> tuple[tuple[torch.Tensor, ...], torch.Tensor, float]:
    """(every sample blended with another of the batch, the others' labels, the own share λ).

    x' = λx + (1 - λ)x_π with one λ ~ Beta(0.4, 0.4) for the batch; the loss is blended likewise
    (Zhang et al., mixup, ICLR 2018).
    """
    # Beta from two Gammas, because these take torch's own generator.
    first, second = torch._standard_gamma(torch.full((2,), MIXUP), generator=generator).tolist()
    share = first / (first + second) if first + second > 0 else 1.0
    other = torch.randperm(len(labels), generator=generator)
    blended = tuple(share * x + (1 - share) * x[other] for x in inputs)
    return blended, labels[other], share


def _image(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    mirror = torch.rand(len(x), 1, 1, 1, generator=generator) < 0.5
    x = torch.where(mirror, x.flip(3), x)
    height, width = x.shape[2:]
    x = F.pad(x, (SHIFT, SHIFT, SHIFT, SHIFT), mode="reflect")
    move = torch.randint(2 * SHIFT + 1, (2, len(x), 1), generator=generator)
    rows = move[0] + torch.arange(height)
    columns = move[1] + torch.arange(width)
    sample = torch.arange(len(x)).view(-1, 1, 1)
    # Indexing around the channel axis puts it last.
    return x[sample, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def _spectrogram(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    count, _, frames, coefficients = x.shape
    move = torch.randint(frames, (count, 1), generator=generator)
    order = (torch.arange(frames) + move) % frames
    x = x.gather(2, order.view(count, 1, frames, 1).expand_as(x))
    x = x + CHANNEL * torch.randn(count, 1, 1, coefficients, generator=generator)
    x = x * _without_band(count, frames, frames // 5, generator).view(count, 1, frames, 1)
    return x * _without_band(count, coefficients, 3, generator).view(count, 1, 1, coefficients)


def _without_band(count: int, length: int, widest: int, generator: torch.Generator) -> torch.Tensor:
    """Ones `[count, length]` with a random band of at most `widest` zeros."""
    width = torch.randint(widest + 1, (count, 1), generator=generator)
    start = (torch.rand(count, 1, generator=generator) * (length - width + 1)).long()
    place = torch.arange(length)
    return ((place < start) | (place >= start + width)).float()
