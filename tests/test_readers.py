"""What the readers of JSON, zips, npz, CSV and TOML refuse, by message; what they read is exact."""

import ast
import io
import struct
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from damaging import packed
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from mpsearch.errors import InputError
from mpsearch.files.archives import open_archive, read_npz
from mpsearch.files.json_file import (
    DEPTH,
    by_name,
    check_form,
    flag,
    list_of,
    null_or,
    number,
    one_of,
    parse_json,
    read_json,
    text,
    whole,
)
from mpsearch.files.whole import read_rows, read_toml

ROOT = Path(__file__).parent.parent
PRODUCT = ("mpsearch", "models", "reports", "sensitivity", "solvers")
# what this program wrote itself and nobody else can have: pieces signed with their digest, a
# checkpoint's history under the digest of all of it, the reply of our own child, our own table
OWN_JSON = {
    "mpsearch/exporters/c/code_bytes.py",
    "mpsearch/running/journal.py",
    "mpsearch/finetuning/training.py",
    "mpsearch/profiling/profile.py",
    "solvers/pulp_model.py",
}


def test_there_is_one_reader_of_json() -> None:
    found = set()
    for part in PRODUCT:
        for path in (ROOT / part).rglob("*.py"):
            name = path.relative_to(ROOT).as_posix()
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Attribute):  # json.loads
                    reads = isinstance(node.value, ast.Name) and node.value.id == "json"
                    names = [node.attr] if reads else []
                elif isinstance(node, ast.ImportFrom) and node.module == "json":
                    names = [alias.name for alias in node.names]
                else:
                    continue
                if {"load", "loads", "JSONDecoder"} & {*names}:
                    found.add(name)
    assert found == {"mpsearch/files/json_file.py", *OWN_JSON}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 100_000, f"more than {DEPTH} lists or objects in each other"),
        (b'{"a":' * (DEPTH + 1) + b"1" + b"}" * (DEPTH + 1), "in each other"),
        (b'["' + b'\\"[' * 200 + b'"', "delimiter"),  # brackets in a text are no lists
        (b'["' + b'\\"' * 100_000, "Unterminated string"),
        (b"[NaN]", "NaN, which is no number of JSON"),
        (b"[-Infinity]", "-Infinity, which is no number of JSON"),
        (b"[-1e400]", "-1e400, which is too large for a double"),
        (b"[" + b"9" * 5000 + b"]", "a number of 5000 digits; expected at most 300"),
        (b'{"a": 1, "b": 2, "a": 3}', "the key 'a' is there twice"),
        (b'["\\ud800"]', "half of a surrogate pair"),
        (b'["\xff"]', "can't decode byte 0xff"),
        (b"", "Expecting value"),
    ],
)
def test_what_is_no_json_of_ours(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_json(path, "assignment.json", 1)
    assert str(error.value).startswith(f"{path} is not an assignment.json: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_json_is_bounded_before_it_is_parsed(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b" " * (1 << 20) + b"1")
    with pytest.raises(InputError, match=r"too large for a front\.json; expected less than 1 MiB"):
        read_json(tmp_path / "a.json", "front.json", 1)
    assert parse_json(b'\xef\xbb\xbf["\\ud83d\\ude00", 1e-400, -0.0]') == ["😀", 0.0, -0.0]
    assert parse_json("[" * DEPTH + "]" * DEPTH)


FORM = {
    "name": text, "n": whole(), "share": number(0, 1), "held": flag, "mode": one_of("a", "b"),
    "ends": [null_or(number()), null_or(number())], "rows?": list_of({"x": whole(1, 9)}, 1),
    "by?": by_name(number()),
}  # fmt: skip
GOOD = {"name": "x", "n": 0, "share": 1, "held": True, "mode": "b", "ends": [None, -1.5], "new": 1}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": None}, "name: got None; expected a text"),
        ({"n": True}, "n: got True; expected a whole number of 0 or more"),
        ({"n": 1.0}, "n: got 1.0; expected a whole number"),
        ({"share": 1.5}, "share: got 1.5; expected a number from 0 to 1"),
        ({"share": "1"}, "share: got '1'; expected a finite number"),
        ({"share": float("nan")}, "share: got nan; expected a finite number"),
        ({"held": 1}, "held: got 1; expected true or false"),
        ({"mode": []}, "mode: got []; expected a or b"),
        ({"ends": [1]}, "ends: got [1]; expected a list of 2"),
        ({"ends": [1, "x"]}, "ends[1]: got 'x'; expected a finite number"),
        ({"rows": []}, "rows: got []; expected a list of 1 or more"),
        ({"rows": [{"x": 1}, {}]}, "rows[1].x is missing"),
        ({"rows": [{"x": 10}]}, "rows[0].x: got 10; expected a whole number from 1 to 9"),
        ({"by": {"\x1b": None}}, "by['\\x1b']: got None; expected a finite number"),
        ({"by": [1]}, "by: got [1]; expected an object"),
    ],
)
def test_a_form_names_the_place(change: dict[str, object], message: str) -> None:
    check_form(GOOD, FORM, "")
    with pytest.raises(ValueError, match=r"expected|missing") as error:
        check_form({**GOOD, **change}, FORM, "")
    assert str(error.value).startswith(message)
    with pytest.raises(ValueError, match=r"^top\.n: got"):
        check_form({**GOOD, "n": "x" * 10**6}, FORM, "top")


def changed(field: int, width: str, value: int) -> bytes:
    """An archive whose directory says this of its only member."""
    content = bytearray(packed({"x0.npy": npy(np.arange(3))}))
    struct.pack_into(f"<{width}", content, content.index(b"PK\x01\x02") + field, value)
    return bytes(content)


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def headed(shape: str, kind: str = "<f8", data: bytes = b"") -> bytes:
    """An array whose header claims this."""
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}}}".encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


UTF8 = changed(8, "H", 0x800)
NAMELESS = UTF8.replace(b"x0.npy", b"\xff\xfe.npy")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (changed(8, "H", 1), "'x0.npy' is encrypted"),
        (changed(10, "H", 99), "'x0.npy' is packed in a way that is not read"),
        (changed(10, "H", 12), "'x0.npy' is packed in a way that is not read"),
        (changed(24, "I", 1 << 30), "it would unpack to over 100 times its size"),
        (changed(24, "I", 100), "damaged"),
        (changed(16, "I", 1), "Bad CRC-32"),
        (changed(42, "I", 9), "damaged archive"),
        (NAMELESS, "can't decode byte 0xff"),
        (packed({"x0.npy": npy(np.arange(3))})[:-9], "File is not a zip file"),
        (packed({"a.txt": b""}), "other things than arrays"),
        (packed({"x0.npy": b""}), "'x0' has a damaged header"),
        (packed({"x0.npy": headed("(" * 500)}), "'x0' has a damaged header"),
        (packed({"x0.npy": headed("(1e400,)")}), "'x0' has a damaged header"),
        (packed({"x0.npy": headed("(" + "1," * 40 + ")")}), "40 dimensions"),
        (packed({"x0.npy": headed("(3,)", "|O")}), "has type object; expected numbers"),
        (packed({"x0.npy": headed("(3,)", "<U9")}), "has type <U9; expected numbers"),
        (packed({"x0.npy": headed("(300000000000,)")}), "0 bytes, which its shape"),
        (packed({"x0.npy": headed("(-1,)")}), "0 bytes, which its shape (-1,) does not fit"),
        (packed({"x0.npy": headed("(0, 99999999999999)")}), "does not fit"),
        (packed({"x0.npy": headed("(2,)", data=bytes(15))}), "15 bytes, which its shape"),
    ],
)
def test_what_is_no_npz_of_numbers(content: bytes, message: str) -> None:
    """Before anything of the size that is claimed is allocated."""
    tracemalloc.start()
    try:
        with pytest.raises(InputError) as error:
            read_npz(content, "data.npz")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(error.value).startswith("data.npz: ")
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert peak < 4 << 20


def test_two_members_of_one_name_are_refused() -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # zipfile's own
        archive.writestr("x", "1")
        archive.writestr("x", "2")
    with (
        pytest.raises(InputError, match="'x' is there twice"),
        open_archive(stream.getvalue(), "a"),
    ):
        pass


KINDS = st.sampled_from([np.dtype(kind) for kind in ("<f4", ">f8", "<f2", ">i4", "u1", "?", "<i8")])


@given(KINDS.flatmap(lambda kind: arrays(kind, array_shapes(min_dims=0, min_side=0, max_dims=4))),
       st.booleans(), st.booleans())  # fmt: skip
def test_arrays_are_read_as_numpy_reads_them(
    array: np.ndarray, fortran: bool, compressed: bool
) -> None:
    stream = io.BytesIO()
    write = np.savez_compressed if compressed else np.savez
    write(stream, x0=np.asarray(array, order="F" if fortran else "C"), y=np.array("é"))
    found = read_npz(stream.getvalue(), "a", kinds="fiubU")
    np.testing.assert_array_equal(found["x0"], array)
    assert found["x0"].dtype == array.dtype.newbyteorder("=")
    assert str(found["y"]) == "é"


def test_texts_that_are_none(tmp_path: Path) -> None:
    for code in (0x110000, 0xD800):
        wrong = packed({"t.npy": headed("(1,)", "<U1", struct.pack("<I", code))})
        with pytest.raises(InputError, match="holds what is no text"):
            read_npz(wrong, "a", kinds="U")
    path = tmp_path / "a.csv"
    path.write_bytes(b"a,b\n1\n2,3,4\n")
    assert read_rows(path, ["a"]) == [{"a": "1", "b": ""}, {"a": "2", "b": "3"}]
    for content, message in (
        (b"a,\xff\n", "as CSV: 'utf-8' codec"),
        (b"a\n" + b"x" * 200_000, "as CSV: field larger than"),
        (b"b\x1b\n1\n", r"has no column 'a'; it has b\\x1b"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            read_rows(path, ["a"])
    path = tmp_path / "a.toml"
    for content, message in (
        (b"a = " + b"[" * 5000, "too many lists in each other"),
        (b"a = [[" + b"9" * 30 + b"]]", "a number takes more than 64 bits"),
        (b"a = \xff", "is not a TOML file: 'utf-8' codec"),
        (b"#" * (1 << 20) + b"#", "expected less than 1 MiB"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            read_toml(path)
