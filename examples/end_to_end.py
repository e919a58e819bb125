"""The Python API from a trained model to a measured, saved network: `python end_to_end.py`."""

import torch
from torch import nn

import mpsearch


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
    train_x, train_y = samples(2048, seed=1)
    test_x, test_y = samples(1000, seed=2)
    test = mpsearch.Data("test", (test_x,), test_y)
    sample = mpsearch.Data("train", (train_x,), train_y).take(256, seed=0)

    network = mpsearch.Network.from_module(trained(train_x, train_y), (train_x[:1],))
    choices = tuple(map(mpsearch.Choice.parse, ("w2a8", "w4a8", "w8a8")))
    settings = mpsearch.ProfileSettings(choices=choices)
    table, _ = mpsearch.profile(network, sample, "profile.csv", settings)
    solution = table.solve(mpsearch.Budget.parse(table, size="40%"))
    print(f"{solution.status}: Ω {solution.omega:.3g}, {solution.totals['size_bytes']} bytes")
    print(*(f"{layer} {choice}" for layer, choice in solution.choices.items()), sep=", ")
    print(f"the exact front has {len(table.front())} points")

    quantized = solution.apply(network, sample)
    for name, candidate in (("FP32", network), ("mixed", quantized)):
        measured = mpsearch.evaluate(name, candidate, test)
        low, high = measured.accuracy_interval
        print(f"{name}: {measured.accuracy:.1%} [{low:.1%}, {high:.1%}] of {measured.n}")

    mpsearch.Assignment.from_solution(solution, table.digest).save("assignment.json")
    mpsearch.save_quantized(quantized, "quantized.pt")


if __name__ == "__main__":
    main()
