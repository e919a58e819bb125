"""Several processes give the table, the measured front and the refined assignment of one."""

import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import networks
import pytest
import torch
from measuring import make_folder

from mpsearch.cli import run
from mpsearch.graph.network_file import save
from mpsearch.running.workers import Workers

# More batches than processes, and fewer.
CASES = list(itertools.product(["perturbation", "hessian", "fisher"], ["8", "64"]))
MEASURED = (
    "evaluate model.pt --front front.csv --data test.npz --points 5",
    "solve --size 62% --refine 11 --data test.npz --rounding nearest --no-bias-correction",
)
# All cases in one process each, because torch takes seconds to start; each joins anew.
WORKER = """
import os, sys
from mpsearch.cli import run
start = os.getcwd()
for line in sys.argv[1:]:
    os.environ["MASTER_PORT"], folder, *words = line.split()
    os.chdir(os.path.join(start, folder))
    if run(words):
        sys.exit(f"exit code not 0: {line}")
"""


def _profile(metric: str, batch: str, output: str) -> str:
    options = f"--metric {metric} --bits 2,4,8 --batch-size {batch}"
    return f"profile model.pt {options} -o {output}/{metric}-{batch}.csv"


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def test_every_piece_has_one_owner() -> None:
    workers = [Workers(rank, 3) for rank in range(3)]
    assert [sum(w.owns(piece) for w in workers) for piece in range(10)] == [1] * 10


@pytest.mark.slow
def test_two_gloo_processes_give_what_one_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model, inputs, labels = networks.build("two-inputs", samples=40)
    save(model, "model.pt", inputs, {"x0": inputs[0], "x1": inputs[1], "y": labels})
    for folder in ("one", "two"):
        Path(folder).mkdir()
    Path("measured").mkdir()
    with _one_thread(), monkeypatch.context() as patch:
        patch.chdir("measured")
        make_folder(Path())
    shutil.copytree("measured", "measured-two")
    calls = [f". {_profile(*case, 'two')}" for case in CASES]
    calls += [f"measured-two {words}" for words in MEASURED]
    calls = [f"{port} {call}" for port, call in zip(_free_ports(len(calls)), calls, strict=True)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, *calls],
            env={**os.environ, "RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank),
                 "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    results = [process.communicate(timeout=300) for process in processes]
    assert [p.returncode for p in processes] == [0, 0], results
    assert results[1][0] == ""  # only the first process speaks
    for metric, batch in CASES:
        with _one_thread():
            assert run(_profile(metric, batch, "one").split()) == 0
        name = f"{metric}-{batch}.csv"
        assert Path("two", name).read_bytes() == Path("one", name).read_bytes(), name
    assert not list(tmp_path.glob("*/.*.partial"))
    assert run(["solve", "two/fisher-8.csv", "--size", "80%"]) == 0
    with _one_thread(), monkeypatch.context() as patch:
        patch.chdir("measured")
        for command in MEASURED:
            assert run(command.split()) == 0
    for name in ("front.csv", "front.json"):
        assert Path("measured-two", name).read_bytes() == Path("measured", name).read_bytes()
    one, two = (_without_seconds(folder) for folder in ("measured", "measured-two"))
    assert one == two
    seen = [trial["samples"] for trial in one["refined"]["candidates"]]
    assert len(seen) == 11
    assert min(seen) < max(seen)  # some stopped, which has to come out the same


def _without_seconds(folder: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(Path(folder, "assignment.json").read_text())
    del document["seconds"]
    return document
