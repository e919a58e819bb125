"""The layer table: exact round trips, and a place for every complaint."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tables import HAND, hand_table, random_table

from mpsearch.errors import InputError
from mpsearch.tables.choice import Choice
from mpsearch.tables.table import Layer, LayerTable, Row


def read(tmp_path: Path, text: str) -> LayerTable:
    path = tmp_path / "profile.csv"
    path.write_text(text)
    return LayerTable.read_csv(path)


def test_hand_written_file_is_enough(tmp_path: Path) -> None:
    table = read(tmp_path, HAND)
    assert table.layer_names == ("conv1", "conv2", "fc")
    assert table.choices == (Choice(4, 4), Choice(8, 8))
    assert table.resources["size_bytes"].dtype == "int64"
    assert table.uniform_total("size_bytes", Choice(4, 4)) == 5500
    assert table.uniform_total("omega", Choice(8, 8)) == 0.175


def test_column_order(tmp_path: Path) -> None:
    """A promise of the format."""
    read(tmp_path, HAND).write_csv(tmp_path / "out.csv")
    header = (tmp_path / "out.csv").read_text().splitlines()[0]
    assert header == (
        "layer,kind,group,weights,macs,w_bits,a_bits,omega,omega_stderr,size_bytes,bops"
    )


numbers = st.floats(0, 1e12, allow_nan=False) | st.floats(0, 1e-9)


@given(st.lists(st.tuples(numbers, numbers, st.integers(0, 2**60)), min_size=1, max_size=8))
def test_round_trip_is_exact(cells: list[tuple[float, float, int]]) -> None:
    layers = [Layer(f'a,"b"\n{n}', "conv2d", "g", n, 3 * n) for n in range(len(cells))]
    resources = ("size_bytes", "latency_s")
    rows = [
        Row(
            layer.name,
            Choice(4, 8),
            omega,
            0.0,
            dict(zip(resources, (size, latency), strict=True)),
            {"omega_loss": latency - omega, "omega_kl": omega},
        )
        for layer, (omega, latency, size) in zip(layers, cells, strict=True)
    ]
    import tempfile

    table = LayerTable.from_rows(layers, rows)
    with tempfile.TemporaryDirectory() as folder:
        table.write_csv(Path(folder) / "t.csv")
        again = LayerTable.read_csv(Path(folder) / "t.csv")
    assert list(again.rows()) == rows
    assert again.layers == table.layers
    assert again.digest == table.digest


def test_digest_follows_the_content(tmp_path: Path) -> None:
    table = read(tmp_path, HAND)
    lines = HAND.splitlines()
    swapped = read(tmp_path, "\n".join([lines[0], lines[2], lines[1], *lines[3:]]))
    changed = read(tmp_path, HAND.replace("0.125", "0.126"))
    assert table.digest == swapped.digest
    assert table.digest != changed.digest


def with_metric(values: str) -> str:
    """HAND with a column omega_loss at its end."""
    cells = ["omega_loss", *values.split()]
    lines = zip(HAND.splitlines(), cells, strict=True)
    return "".join(f"{line},{cell}\n" for line, cell in lines)


def test_metrics_stand_beside_omega(tmp_path: Path) -> None:
    """Signed, found by name, written after omega_stderr, no resources, and not in the digest."""
    table = read(tmp_path, with_metric("1 -2 3 -4.5 5 0"))
    assert table.columns == ("size_bytes", "bops")
    assert table.column("omega_loss").tolist() == [1, -2, 3, -4.5, 5, 0]
    assert table.uniform_total("omega_loss", Choice(8, 8)) == -6.5
    assert table.digest == read(tmp_path, HAND).digest
    table.write_csv(tmp_path / "out.csv")
    header = (tmp_path / "out.csv").read_text().splitlines()[0]
    assert header.endswith("omega,omega_stderr,omega_loss,size_bytes,bops")
    with pytest.raises(
        InputError, match=r"is minimised .* and not limited; expected a resource: s"
    ):
        table.resource("omega_loss")


def test_a_name_says_whether_a_column_is_a_metric() -> None:
    row = Row("a", Choice(4, 4), 1.0, 0.0, {"omega_kl": 1})
    with pytest.raises(InputError, match="'omega_kl' among the resources; expected metrics, and"):
        LayerTable.from_rows([Layer("a")], [row])
    row = Row("a", Choice(4, 4), 1.0, 0.0, {"bops": 1}, {"kl": 1.0})
    with pytest.raises(InputError, match="'kl' among the metrics"):
        LayerTable.from_rows([Layer("a")], [row])


def test_totals_are_decimal() -> None:
    """Three times 0.1 is 0.3 in a file, whatever the doubles say."""
    layers = [Layer(name) for name in "abc"]
    rows = [Row(layer.name, Choice(8, 8), 0.1, 0.0, {"latency_s": 0.1}) for layer in layers]
    table = LayerTable.from_rows(layers, rows)
    assert table.uniform_total("latency_s", Choice(8, 8)) == 0.3


def edit(old: str, new: str) -> str:
    assert old in HAND
    return HAND.replace(old, new)


BAD = {
    "empty": ("", "is empty"),
    "header only": (HAND.splitlines()[0], "has a header and no rows"),
    "foreign": ("PK\x03\x04 not a table\n1\n", "lacks the column(s)"),
    "quote left open": (edit("fc,8", '"fc,8'), "is not a CSV table"),
    "missing column": (edit("omega", "ohm"), "lacks the column(s) omega"),
    "column twice": (edit("bops", "size_bytes"), "'size_bytes' twice"),
    "no resource": ("layer,w_bits,a_bits,omega\na,8,8,1\n", "no resource column"),
    "cut off": (HAND[:-12], "line 7: got 4 cells, expected 6"),
    "duplicated row": (edit("fc,8,8", "fc,4,4"), "line 7: a second row for layer 'fc' at w4a4"),
    "nan": (edit("0.125", "nan"), "line 6: omega of layer 'fc' is nan"),
    "inf": (edit("1600\n", "inf\n"), "line 6: bops of layer 'fc' is inf"),
    "negative omega": (edit("0.125", "-0.125"), "line 6: omega of layer 'fc' is -0.125"),
    "negative size": (edit(",500,", ",-500,"), "line 6: size_bytes of layer 'fc' is -500"),
    "metric inf": (with_metric("1 2 3 4 -inf 6"), "line 6: omega_loss of layer 'fc' is -inf; exp"),
    "metrics alone": ("layer,w_bits,a_bits,omega,omega_kl\na,8,8,1,1\n", "no resource column"),
    "not a number": (edit("0.125", "low"), "line 6: omega is 'low'"),
    "empty cell": (edit(",500,", ",,"), "line 6: size_bytes is ''"),
    "fractional bits": (edit("fc,4,4", "fc,4.5,4"), "line 6: w_bits is '4.5'"),
    "zero bits": (edit("fc,4,4", "fc,0,4"), "line 6: w_bits is 0"),
    "no name": (edit("fc,4,4", ",4,4"), "line 6: the layer has no name"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_tables_name_the_place(tmp_path: Path, case: str) -> None:
    text, words = BAD[case]
    with pytest.raises(InputError) as error:
        read(tmp_path, text)
    assert words in str(error.value)
    assert "profile.csv" in str(error.value)
    assert "\n" not in str(error.value)


def test_binary_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(bytes(range(256)))
    with pytest.raises(InputError, match="is not a CSV table"):
        LayerTable.read_csv(tmp_path / "x.csv")
    with pytest.raises(InputError, match="there is no table"):
        LayerTable.read_csv(tmp_path / "none.csv")
    with pytest.raises(InputError, match="is a folder"):
        LayerTable.read_csv(tmp_path)


def test_differing_descriptions_of_a_layer(tmp_path: Path) -> None:
    text = "layer,group,w_bits,a_bits,omega,bops\na,g,4,4,1,1\na,h,8,8,1,1\n"
    with pytest.raises(
        InputError, match="line 3: kind, group, weights, macs or shape of layer 'a'"
    ):
        read(tmp_path, text)


def test_unknown_layer_suggests_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'conv1'"):
        read(tmp_path, HAND).row_of("conv_1", Choice(8, 8))


def test_to_pandas_has_the_columns_of_the_file(tmp_path: Path) -> None:
    import pandas as pd

    table = random_table(1, 3, 3, 1.0, groups=True)
    table.write_csv(tmp_path / "t.csv")
    from_file = pd.read_csv(tmp_path / "t.csv", keep_default_na=False)
    pd.testing.assert_frame_equal(table.to_pandas(), from_file, check_dtype=False)


def test_solving_imports_neither_torch_nor_pandas(tmp_path: Path) -> None:
    """Start-up is a promise: only the chosen backend is imported."""
    code = (
        "import sys; from mpsearch.cli import run; "
        f"table = {str(hand_table(tmp_path))!r}; "
        "assert run(['solve', table, '--size', '9KB']) == 0; "
        "named = ['--columns', 'layer=layer,choice=kind,omega=omega,size_bytes=size_bytes']; "
        "open('t.csv', 'w').write('layer,kind,omega,size_bytes\\nfc,w16a16,0,9\\n'); "
        "assert run(['allocate', 't.csv', '--size', '9KB', *named]) == 0; "
        "assert run(['allocate', 't.csv', '--for', 'modelopt', '-o', 'r.yaml', *named]) == 2; "
        "bad = {'torch', 'pandas', 'ortools', 'pulp', 'matplotlib', 'scipy'} & set(sys.modules); "
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)


NAMED = (
    "layer,shape,choice,w_bits,a_bits,omega,size_bytes\n"
    "down,256x256,Q4_K,4.5,,0.5,36864\ndown,256x256,nvfp4,,,0.75,36864\n"
    "down,256x256,w4g32a16,4,16,0.625,40960\ndown,256x256,W8A8,,,0.125,65536\n"
)


def test_formats_of_others_go_through_by_name(tmp_path: Path) -> None:
    table = read(tmp_path, NAMED)
    assert [str(c) for c in table.choices] == ["w4g32a16", "Q4_K", "w8a8", "nvfp4"]
    assert [c.w_bits for c in table.choices] == [4, 4.5, 8, 0]
    assert table.layers[0].shape == (256, 256)
    table.write_csv(tmp_path / "again.csv")
    again = LayerTable.read_csv(tmp_path / "again.csv")
    assert again.digest == table.digest
    assert again.layers == table.layers
    assert LayerTable.from_pandas(table.to_pandas()).digest == table.digest
    other = read(tmp_path, NAMED.replace("nvfp4", "mxfp4"))
    assert other.digest != table.digest
    assert table.total({"down": Choice.called("Q4_K")}, "size_bytes") == 36864


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("Q4_K,4.5", "Q4 K,4.5", "line 2: choice is 'Q4 K'; expected w4a8"),
        ("Q4_K,4.5", "w4,4", "line 2: choice is 'w4'; expected w4a8"),
        ("w4g32a16,4", "w4g32a16,3", "line 4: choice is w4g32a16 with w_bits 3 and a_bits 16"),
        ("nvfp4,", "Q4_K,4", "line 3: Q4_K has w_bits 4 and a_bits 0; .*line 2 says 4.5 and 0"),
        ("Q4_K,4.5", "Q4_K,65", "line 2: w_bits is '65'; expected bits such as 4 or 4.5"),
        ("down,256x256,Q4", "down,256x0,Q4", "line 2: shape is '256x0'; expected lengths such as"),
    ],
)
def test_bad_names_are_said(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read(tmp_path, NAMED.replace(old, new))


def test_a_shape_has_the_weights_that_are_stated(tmp_path: Path) -> None:
    text = "layer,weights,shape,w_bits,a_bits,omega,bops\na,12,3x5,4,4,1,1\n"
    with pytest.raises(InputError, match="line 2: layer 'a' has 12 weights and the shape 3x5, wh"):
        read(tmp_path, text)
