"""Random numbers that depend on a key alone: the same on every machine and every device."""

from hashlib import sha256

import torch


def generator(key: str) -> torch.Generator:
    """A random stream that depends on `key` alone; torch's own state stays as it was."""
    return torch.Generator().manual_seed(seed_of(key))


def seed_of(key: str) -> int:
    """A seed that depends on `key` alone, on every machine."""
    return int.from_bytes(sha256(key.encode()).digest()[:7], "little")


def signs(like: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """Independent ±1 of the shape of `like`, drawn on the CPU: equal numbers on every device."""
    drawn = torch.randint(0, 2, like.shape, generator=random).mul_(2).sub_(1)
    return drawn.to(like)
