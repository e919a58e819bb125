"""Tables of other tools: what Ω, bytes and choices become, against figures computed by hand."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from tool_tables import (
    AIMET,
    AUTO_ROUND,
    EXLLAMAV3,
    FC,
    FILES,
    MLX_LM,
    MODELOPT,
    K,
    Q,
    gguf,
    write_all,
)

import mpsearch
from mpsearch.cli import run
from mpsearch.errors import InputError
from mpsearch.foreign_tables import reading
from mpsearch.foreign_tables.reading import read_table
from mpsearch.foreign_tables.shapes import read_shapes
from mpsearch.running import plugins
from mpsearch.tables.table import Layer, LayerTable, Row

Cells = dict[tuple[str, str], tuple[float, int]]

# Of each file (and of further ones, and of --table-choices): layer and choice -> Ω and bytes.
EXPECTED: dict[str, Cells] = {
    "measurement.json": {  # 1,536 weights in the first group, 2 bits each in the base
        (Q, "bpw2.00"): (0.05, 384), (Q, "bpw3.00"): (0.03, 576), (Q, "bpw4.00"): (0, 768),
        (K, "bpw2.00"): (0, 0), (K, "bpw3.00"): (0, 0), (K, "bpw4.00"): (0, 0),
        (FC, "bpw2.00"): (0.01, 160), (FC, "bpw3.00"): (0.0101, 240), (FC, "bpw4.00"): (0, 320),
    },
    "modelopt.json": {  # a cost of 1 is a weight of 16 bits
        (Q, "w4g128a16"): (0.0009021877776831388, 512), (Q, "w16a16"): (0, 2048),
        (Q, "INT8_DEFAULT_CFG"): (9.14595784706762e-06, 1024),
        (FC, "w4g128a16"): (0.0008050890173763037 - 0.0007, 640),
        (FC, "NVFP4_DEFAULT_CFG"): (0, 720),
        (K, "w4g128a16"): (0, 0), (K, "NVFP4_DEFAULT_CFG"): (0, 0),
    },
    "scheme_00.json": {
        (Q, "w4g128a16"): (0.0625, 532), (Q, "mxfp4"): (0.25, 544), (Q, "w16a16"): (0, 2048),
        (FC, "w4g128a16"): (0.125, 351), (FC, "mxfp4"): (0.5, 340), (FC, "w16a16"): (0, 1280),
    },
    "accuracy_list.json": {  # the best score is 0.912
        (Q, "w8a8"): (0.002, 1024), (Q, "w4a8"): (0.112, 512), (Q, "w16a16"): (0, 2048),
        (FC, "w8a8"): (0.007, 640), (FC, "wfp16afp16"): (0, 1280), (FC, "w16a16"): (0, 1280),
        ("output.softmax", "a8"): (0.012, 0), ("output.softmax", "w16a16"): (0, 0),
    },
    "sensitivities.json": {  # 1,024, 512 and 640 weights; 4 bytes for each 64
        (Q, "w4g64a16"): (0.0128, 576), (Q, "w5g64a16"): (0, 704),
        (K, "w4g64a16"): (0, 288), (K, "w5g64a16"): (0.001024, 352),
        (FC, "w4g64a16"): (0.064, 360), (FC, "w5g64a16"): (0, 440),
    },
    "scores.json": {  # from the best one of both files, and then from each layer's best
        (Q, "w4a8"): (0.01, 512), (Q, "w8a8"): (0, 1024),
        (FC, "w4a8"): (0.15, 320), (FC, "w8a8"): (0, 640),
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tables")
    write_all(made)
    return made


def table_of(folder: Path, file: str, monkeypatch: pytest.MonkeyPatch) -> LayerTable:
    """As its command line reads it."""
    monkeypatch.chdir(folder)
    options: dict[str, Any] = {}
    files: list[str] = []
    words = iter(FILES[file][1].split())
    for word in words:
        if word.startswith("--"):
            options[word.rpartition("-")[2]] = next(words)
        else:
            files.append(word)
    return read_table(files, **options)


@pytest.mark.parametrize("file", EXPECTED)
def test_what_a_tool_measured_becomes(
    file: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = table_of(folder, file, monkeypatch)
    found: Cells = {
        (row.layer, str(row.choice)): (row.omega, int(row.resources["size_bytes"]))
        for row in table.rows()
    }
    assert found.keys() == EXPECTED[file].keys()
    for key, (omega, size) in EXPECTED[file].items():
        assert found[key][0] == pytest.approx(omega, abs=1e-12), key
        assert found[key][1] == size, key
    assert run(["table", *FILES[file][1].split(), "-o", "profile.csv"]) == 0
    again = LayerTable.read_csv("profile.csv")
    assert again.digest == table.digest
    assert mpsearch.solve(again, size="70%").choices == mpsearch.solve(table, size="70%").choices


def test_groups_of_a_file_share_a_choice(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = table_of(folder, "measurement.json", monkeypatch)
    assert [layer.group for layer in table.layers] == ["group 0", "group 0", ""]
    best = mpsearch.solve(table, size="1088B")
    assert best.bits[Q] == best.bits[K] == table.choices[-1]
    beyond = read_table("measurement.json")  # without shapes: bytes beyond the base model's
    assert beyond.resources["size_bytes"].tolist()[:6:2] == [0, 192, 384]
    assert mpsearch.solve(beyond, size="544B").choices == best.choices


def test_from_a_tool_and_back_to_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """ModelOpt's statistics become its recipe."""
    monkeypatch.chdir(folder)
    there = ["--shapes", "shapes.json"]  # a path is no data: it is said each time
    assert run(["solve", "modelopt.json", *there, "--for", "modelopt", "--size", "80%"]) == 0
    write = ["recipe", "--profile", "modelopt.json", "-o", "recipe.yaml"]
    assert run(write) == 2
    assert "was solved from another table" in capsys.readouterr().err
    assert run([*write, *there]) == 0
    text = Path("recipe.yaml").read_text()
    assert f'"{FC}.weight_quantizer", "cfg": {{"num_bits": "e2m1"' in text  # w4g128 does not fit 64
    assert text.count("weight_quantizer") == 3


def edited(document: Any, *path: Any, value: Any) -> Any:
    copy = json.loads(json.dumps(document))
    holder = copy
    for key in path[:-1]:
        holder = holder[key]
    holder[path[-1]] = value
    return copy


_SCHEME = AUTO_ROUND[0]
WRONG = {
    "groups[1].candidates[0].dkld": edited(
        EXLLAMAV3, "groups", 1, "candidates", 0, "dkld", value="x"
    ),
    "groups[0].candidates: got 1": edited(EXLLAMAV3, "groups", 0, "candidates", 1, value=None),
    "groups[1]: layer 'layers.0.k' is not as": edited(EXLLAMAV3, "groups", 1, "layers", value=[K]),
    "alts[0].bpw: got 1e+300": edited(EXLLAMAV3, "alts", 0, "bpw", value=1e300),
    "['fc.quant_recipe'].scores: got 1": edited(MODELOPT, "fc.quant_recipe", "scores", value=[1.0]),
    "['fc.quant_recipe'].costs[1]": edited(MODELOPT, "fc.quant_recipe", "costs", 1, value=-1),
    "['fc.quant_recipe'].formats[0] is": edited(
        MODELOPT, "fc.quant_recipe", "formats", 0, value="4"
    ),
    "['fc.quant_recipe'].formats[1]: a second row": edited(
        MODELOPT, "fc.quant_recipe", "formats", 1, value="INT4_BLOCKWISE_WEIGHT_ONLY_CFG"
    ),
    "layer_scores['fc'][1]": edited(_SCHEME, "layer_scores", FC, 1, value=None),
    "scheme.group_size": edited(_SCHEME, "scheme", "group_size", value="128"),
    "scheme is 'in t4": edited(_SCHEME, "scheme", "data_type", value="in t"),
    "[1][1]: got '((8, 8), 4)'": edited(AIMET, 1, 1, value="((8, 8), 4)"),
    "[2][0][0][0]: got 'x'": edited(AIMET, 2, 0, 0, 0, value="x"),
    "[2][1]: got": edited(MLX_LM, 2, 1, value=[1]),
    "[2]: a second row for layer 'layers.0.q'": edited(MLX_LM, 2, 0, value=Q),
    "--shapes has no layer 'layers.0.v'; did": edited(MLX_LM, 2, 0, value="layers.0.v"),
    "JSON of no form that is read here": {"a": {"b": 1}},
    "is a number for each layer": {"a": 1.5, "b": 2},
    "the key 'a' is there twice": '{"a": 1, "a": 2}',
    "NaN, which is no number of JSON (line 2)": '[["NaN", 1],\n["b", NaN]]',
    "more than 100 lists": "[" * 5000,
}  # fmt: skip


@pytest.mark.parametrize("expected", WRONG)
def test_what_is_wrong_is_told_with_its_place(
    expected: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = WRONG[expected]
    path = tmp_path / "t.json"
    if expected.startswith("groups[0].candidates: got 1"):
        document["groups"][0]["candidates"].pop()
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    assert run(["table", str(path), "--shapes", str(folder / "shapes.json")]) == 2
    said = capsys.readouterr().err
    assert expected in said, said
    assert "t.json" in said
    assert len(said.splitlines()) <= 2


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("sensitivities.json", "give the network's weights"),
        (
            "sensitivities.json --table-choices w4a16 --shapes shapes.json",
            "the low and the high bits",
        ),
        ("measurement.json modelopt.json", "several tools"),
        ("measurement.json measurement.json", "no further file"),
        ("scores.json --columns omega=x --shapes shapes.json", "0 for 1)"),
        ("accuracy_list.json --table-choices Q4_K --shapes shapes.json", "such as w16a16"),
        ("statistics.txt", "llama-imatrix's statistics"),
        ("modelopt.json --table-choices w16a16", "of which --table-choices says nothing"),
    ],
)
def test_what_is_missing_is_said(
    words: str, expected: str, folder: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.chdir(folder)
    heading = "Computing tensor statistics\n\n Layer\t            Tensor\t    Σ E[Act²]\t     Min\n"
    Path("statistics.txt").write_text(f"{heading}==========\n   11\tffn_down    \t 12.5\t0.1\n")
    assert run(["table", *words.split()]) == 2
    assert expected in capsys.readouterr().err


def test_shapes_of_a_gguf_file(tmp_path: Path) -> None:
    """Against the writer of gguf itself, and with lengths that lie."""
    path = tmp_path / "m.gguf"
    path.write_bytes(gguf(("blk.0.ffn_down.weight", (64, 256)), ("output_norm.weight", (64,))))
    assert read_shapes([path]) == {"blk.0.ffn_down": (64, 256), "output_norm": (64,)}
    whole = path.read_bytes()
    for cut in (3, 5, 20, 40, len(whole) - 13):
        path.write_bytes(whole[:cut])
        with pytest.raises(InputError, match="no safetensors or GGUF file"):
            read_shapes([path])
    string, array = struct.pack("<Q", 1) + b"k", struct.pack("<IIQ", 9, 8, 1 << 50)
    path.write_bytes(gguf(keys=string + array, count=1))
    with pytest.raises(InputError, match="strings"):
        read_shapes([path])
    module = pytest.importorskip("gguf")
    import numpy as np

    writer = module.GGUFWriter(path, "llama")
    writer.add_array("tokenizer.ggml.tokens", ["a", "bc"])
    writer.add_array("lengths", [1, 2, 3])
    writer.add_float32("eps", 1e-5)
    writer.add_tensor("blk.0.attn_q.weight", np.zeros((32, 64), np.float32))
    writer.add_tensor("blk.0.ffn_exps.weight", np.zeros((4, 8, 64), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert read_shapes([path]) == {"blk.0.attn_q": (32, 64), "blk.0.ffn_exps": (4, 8, 64)}


def test_a_reader_of_another_package_is_asked_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Theirs:
        name, description, takes = "theirs", "one number", ()

        def recognises(self, source: Any) -> bool:
            return bool(source.text.startswith("theirs"))

        def read(self, sources: Any, asked: Any) -> LayerTable:
            rows = [Row("a", mpsearch.Choice(4, 8), 1.0, resources={"size_bytes": 5})]
            return LayerTable.from_rows([Layer("a")], rows)

    class Point:
        def __init__(self, found: Any) -> None:
            self.load = found

    points = {"theirs": Point(Theirs), "broken": Point(lambda: 1 / 0)}
    monkeypatch.setattr(plugins, "installed", lambda group: points)
    reading.readers.cache_clear()
    try:
        (tmp_path / "t.txt").write_text("theirs")
        table = read_table(tmp_path / "t.txt")
        assert (table.layer_names, table.provenance["read_as"]) == (("a",), "theirs")
        assert run(["tables"]) == 0
        assert "cannot be loaded: ZeroDivisionError" in capsys.readouterr().out
    finally:
        reading.readers.cache_clear()
