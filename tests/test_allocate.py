"""`mpsearch allocate`: a table of any tool in, proven bits out, as a tool's own file."""

import json
import random
import re
from pathlib import Path

import pytest

import mpsearch
from mpsearch.cli import run
from mpsearch.tables.assignment import Assignment

BITS = {"Q3_K": 3.4375, "Q4_K": 4.5, "Q6_K": 6.5625}  # of llama.cpp, in blocks of 256 weights
COLUMNS = "layer=tensor,choice=type,w_bits=bpw,omega=kld"


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Eight tensors as llama.cpp names them, with what each loses at three of its types."""
    monkeypatch.chdir(tmp_path)
    rng = random.Random(4)
    lines = ["tensor,shape,type,bpw,kld"]
    for block in range(2):
        for part in ("attn_q", "attn_k", "attn_v", "ffn_down"):
            harm = rng.lognormvariate(0, 1)
            for name, bits in BITS.items():
                cells = (f"blk.{block}.{part}", "64x512", name, bits, harm * 4.0**-bits)
                lines.append(",".join(map(str, cells)))
    Path("kld.csv").write_text("\n".join(lines) + "\n")
    return "kld.csv"


def words(size: str, *more: str) -> list[str]:
    return ["allocate", "kld.csv", "--columns", COLUMNS, "--size", size, *more]


def test_one_command_does_what_three_do(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    """The tool's file is that of `solve --for` and `recipe`; what is printed is what is in it, and
    within the budget by llama.cpp's own sizes of blocks."""
    group = ("--group", "blk.*.attn_{q,k,v}")
    asked = ("--for", "llama.cpp", *group, "--pin", "blk.0.ffn_down=Q6_K")
    assert run(words("145KB", *asked, "-o", "types.txt")) == 0
    out = capsys.readouterr().out
    written = Path("types.txt").read_text()
    found = dict(re.findall(r"^\^?([\w.\\]+?)(?:\\.weight)?\$?=(\w+)$", written, re.MULTILINE))
    found = {name.replace("\\", ""): kind.upper() for name, kind in found.items()}
    assert len(found) == 8
    assert found["blk.0.ffn_down"] == "Q6_K"
    assert len({found[f"blk.1.attn_{part}"] for part in "qkv"}) == 1
    taken = sum(64 * 512 * BITS[kind] / 8 for kind in found.values())
    assert taken <= 145 * 1024
    for kind in set(found.values()):
        count = str([*found.values()].count(kind))
        row = next(line.split() for line in out.splitlines() if line.strip().startswith(kind))
        assert row[:2] == [kind, count]
    assert "optimal, proven" in out
    assert out.endswith("wrote types.txt\n")
    line = ["solve", table, "--columns", COLUMNS, *asked, "--size", "145KB", "-o", "a.json"]
    assert run(line) == 0
    assert Assignment.load("a.json").totals["llama_cpp_bytes"] == taken
    assert run(["report", "--profile", table, "--assignment", "a.json", "-o", "r.json"]) == 0
    assert json.loads(Path("r.json").read_text())["limits"][0]["column"] == "llama_cpp_bytes"
    best = mpsearch.solve(
        table, size="145KB", columns=COLUMNS, groups="blk.*.attn_{q,k,v}", recipe="llama.cpp",
        pin={"blk.0.ffn_down": "Q6_K"},
    )  # fmt: skip
    assert mpsearch.recipe(best).content == written.encode()


def test_a_data_frame_in_python(table: str) -> None:
    import pandas as pd

    frame = pd.read_csv(table)
    columns = dict(pair.split("=") for pair in COLUMNS.split(","))
    found = mpsearch.allocate(
        frame, size="140KB", recipe="llama.cpp", to="types.txt", columns=columns
    )
    best = mpsearch.solve(frame, size="140KB", columns=columns)
    assert found.bits == best.bits  # size_bytes are llama.cpp's here
    assert run(words("140KB", "--for", "llama.cpp", "-o", "again.txt")) == 0
    assert Path("types.txt").read_bytes() == Path("again.txt").read_bytes()
    assert found.recipe is not None
    assert found.recipe.content == Path("types.txt").read_bytes()
    plain = mpsearch.allocate(frame, size="140KB", to="a.json", columns=columns)
    assert plain.recipe is None
    assert Assignment.load(plain.path).bits == best.bits
    nothing = mpsearch.allocate(frame, size="1KB", to="none.json", columns=columns)
    assert (nothing.solution.status, nothing.path, nothing.bits) == ("infeasible", "", {})
    assert [str(one) for one in nothing.solution.remedies] == ["--size 110KB"]
    assert not Path("none.json").exists()


def test_what_cannot_be_writes_nothing(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    for line, code, expected in (
        (words("1KB", "--for", "llama.cpp", "-o", "t.txt"), 1, "--size 110KB"),
        (words("1KB", "--pin", "blk.0.ffn_down=Q6_K", "-o", "t.txt"), 1, "--size 122.5KB"),
        (words("1MB", "--for", "llama.cpp"), 2, "without a file for it; name one with -o FILE"),
        (words("1MB", "--model", "m.gguf", "-o", "t.txt"), 2, "name one of them: `--for llama.cpp"),
        (words("1MB", "--for", "torchao", "-o", "t.txt"), 2, "torchao takes no choice of layer"),
        (words("1MB", "--for", "lama.cpp", "-o", "t.txt"), 2, "did you mean 'llama.cpp'?"),
    ):
        assert run(line) == code, line
        assert expected in capsys.readouterr().err
        assert not Path("t.txt").exists()
    assert run(words("140KB", "--json", "-o", "t.json")) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["output"] == "t.json"
    assert document["for"] is None
    assert document["layers"]["blk.0.ffn_down"]["choice"] in BITS
