"""Several processes give the table of one."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import networks
import pytest

from mpsearch.cli import run
from mpsearch.network_file import save
from mpsearch.workers import Workers


def test_every_piece_has_one_owner() -> None:
    workers = [Workers(rank, 3) for rank in range(3)]
    assert [sum(w.owns(piece) for w in workers) for piece in range(10)] == [1] * 10


@pytest.mark.slow
@pytest.mark.parametrize("metric", ["perturbation", "hessian", "fisher"])
@pytest.mark.parametrize("batch", ["8", "64"])  # more batches than processes, and fewer
def test_two_gloo_processes_write_the_bytes_of_one(
    metric: str, batch: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model, inputs, labels = networks.build("two-inputs", samples=40)
    save(model, "model.pt", inputs, {"x0": inputs[0], "x1": inputs[1], "y": labels})
    options = f"profile model.pt --metric {metric} --bits 2,4,8 --batch-size {batch}".split()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "mpsearch", *options, "-o", "two.csv"],
            env={**os.environ, "RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank),
                 "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    results = [process.communicate(timeout=300) for process in processes]
    assert [p.returncode for p in processes] == [0, 0], results
    assert results[1][0] == ""  # only the first process speaks
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    alone = [sys.executable, "-m", "mpsearch", *options, "-o", "one.csv"]
    subprocess.run(alone, check=True, capture_output=True)
    assert (tmp_path / "two.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()
    assert not list(tmp_path.glob(".*.partial"))
    assert run(["solve", "two.csv", "--size", "80%"]) == 0
