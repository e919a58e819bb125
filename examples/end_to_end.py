"""The Python API from a trained model to a measured, saved network: `python end_to_end.py`."""

import torch
from torch import nn

import mpsearch as mp


def samples(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy pictures of four fixed patterns: put your own data here."""
    patterns = torch.randn(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(count) % 4
    noise = torch.randn(count, 1, 16, 16, generator=torch.Generator().manual_seed(seed))
    return 0.2 * patterns[labels] + noise, labels


def trained(x: torch.Tensor, y: torch.Tensor) -> nn.Module:
    """A small network: put your own trained model here."""
    torch.manual_seed(0)
    head = (nn.Flatten(), nn.Linear(32 * 6 * 6, 32), nn.ReLU(), nn.Linear(32, 4))
    first = (nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU())
    model = nn.Sequential(*first, nn.Conv2d(16, 32, 3), nn.ReLU(), nn.MaxPool2d(2), *head)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(5):
        for batch in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[batch]), y[batch]).backward()
            optimizer.step()
    return model.eval()


def main() -> None:
    train, test = samples(2048, seed=1), samples(1000, seed=2)
    model = trained(*train)

    table = mp.profile(model, train, choices=("w2a8", "w4a8", "w8a8"))
    best = table.solve(size="40%")
    print(best, best.bits, f"the exact front has {len(table.front())} points", sep="\n")

    quantized = best.apply()
    measured = mp.evaluate({"FP32": model, "mixed": quantized}, test)
    for row in measured.rows:
        low, high = row.accuracy_interval
        print(f"{row.name}: {row.accuracy:.1%} [{low:.1%}, {high:.1%}] of {row.n}")

    best.save("assignment.json")
    mp.save(quantized, "quantized.pt")


if __name__ == "__main__":
    main()
