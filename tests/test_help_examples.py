"""Every example of every --help runs as written, on what the examples before it wrote.

Beside what a user brings: a network, one for another loss, an ONNX file, samples, folders of files.
"""

import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

import mpsearch
from mpsearch.cli import COMMANDS, cli, run

# What cannot run in a test, by a pattern of the command, and where it is tested instead.
ELSEWHERE = {
    "raspberrypi": "a device behind ssh: tests/test_device_ssh.py",
    "/dev/tty": "a board: tests/test_serial.py",
    "--board": "needs QEMU: tests/test_boards.py",
    "^export.* --target cortex": "needs a compiler: tests/test_boards.py",
    "^run.* --target cortex": "as `export --target`: tests/test_boards.py",
    "^device": "needs a compiler: tests/test_device_run.py, tests/test_device_table.py",
    "^train ": "minutes of training: tests/test_train_command.py",
    "^reproduce": "an hour of training: tests/test_reproduction.py",
    "^demo": "minutes of training: tests/test_real_loop.py",
    "^data ": "needs sounds: tests/test_data_command.py",
    "safetensors": "real data: tests/test_real_loop.py",
    "exported.pt2": "an archive of torch.export: tests/test_model_files.py",
    "--keras": "needs Keras: tests/test_keras_tinym2net.py",
    "--format litert": "needs LiteRT: tests/test_litert.py",
    "kld.csv": "another tool's table: tests/test_allocate.py",
    "net.onnx": "needs onnx: tests/test_onnx_import.py",
    "--format onnx": "needs onnx: tests/test_onnx_export.py",
    "--package": "other systems' folders: tests/test_packages.py",
    "model.onnx": "needs onnx: tests/test_onnx_export.py",
}
EXIT_CODES = {"gate": (0, 1)}


def examples() -> Iterator[tuple[str, str]]:
    """(command's name, example) of every command and subcommand, in the order of the help."""

    def of(command: click.Command, path: list[str]) -> Iterator[tuple[str, str]]:
        shown = CliRunner().invoke(cli, [*path, "--help"]).output
        found = re.search(r"Examples?:\n((?: +.*\n)+)", shown)
        assert found, path
        for line in found[1].splitlines():
            assert len(line) <= 80, f"an example is whole on a terminal of 80 columns: {line}"
            yield " ".join(path), line.strip()
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                inner = command.get_command(context, name)
                assert inner is not None
                yield from of(inner, [*path, name])

    for name in COMMANDS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        yield from of(command, [name])


def elsewhere(example: str) -> str | None:
    words = example.removeprefix("mpsearch ")
    return next((why for part, why in ELSEWHERE.items() if re.search(part, words)), None)


class Small(nn.Module):
    """Three named layers, two classes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3)
        self.fc1 = nn.Linear(288, 16)
        self.fc = nn.Linear(16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = torch.relu(self.fc1(torch.relu(self.conv1(x)).flatten(1)))
        logits: torch.Tensor = self.fc(features)
        return logits


def bring(folder: Path) -> None:
    """What the examples take for granted that a user has."""
    torch.manual_seed(0)
    y = torch.arange(160) % 2
    x = torch.randn(160, 1, 8, 8) + (y * 2 - 1).float()[:, None, None, None] / 2
    for name, rows in (("train", slice(0, 96)), ("test", slice(96, 160))):
        np.savez(folder / f"{name}.npz", x0=x[rows].numpy(), y=y[rows].numpy())
    sample = {"x0": x[:96], "y": y[:96]}
    mpsearch.save(Small().eval(), folder / "model.pt", example_inputs=(x[:1],), sample=sample)
    coder = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 64)).eval()
    coder.append(nn.Unflatten(1, (1, 8, 8)))
    sample = {"x0": x[:64]}
    mpsearch.save(coder, folder / "autoencoder.pt", example_inputs=(x[:1],), sample=sample)


def test_every_example_runs_on_what_the_ones_before_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with torch.random.fork_rng():
        bring(tmp_path)
    ran = set()
    for name, example in examples():
        assert example.startswith(f"mpsearch {name}") or " " not in name, example
        if elsewhere(example) is not None:
            continue
        code = run(shlex.split(example)[1:])
        printed = capsys.readouterr()
        allowed = EXIT_CODES.get(name, (0,))
        assert code in allowed, f"{example}\nexit code {code}\n{printed.out[-1500:]}{printed.err}"
        ran.add(name)
    assert len(ran) > 12, ran


def test_what_is_said_to_be_tested_elsewhere_is() -> None:
    listed = [example for _, example in examples()]
    for part, why in ELSEWHERE.items():
        assert any(re.search(part, example.removeprefix("mpsearch ")) for example in listed), part
        for file in re.findall(r"tests/\w+\.py", why):
            assert (Path(__file__).parent.parent / os.fspath(file)).is_file(), file
