"""A choice's name: its identity, its order, and nobody else who takes it apart."""

import ast
import random
from pathlib import Path

import pytest
from tables import HAND

import mpsearch
from mpsearch.errors import InputError
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.budget import values_of
from mpsearch.tables.choice import Choice, WeightBits, fits, is_choice, named
from mpsearch.tables.table import LayerTable

BITS = (1, 2, 3, 4, 8, 10, 16, 32, 64)
CHOICES = [Choice(w, a) for w in BITS for a in BITS]


def test_the_name_is_the_identity() -> None:
    names = [f"w{w}a{a}" for w in BITS for a in BITS]
    assert [choice.name for choice in CHOICES] == names
    assert [str(choice) for choice in CHOICES] == names
    assert [Choice.parse(f" {name.upper()} ") for name in names] == CHOICES
    assert [named(name) for name in names] == CHOICES
    assert [Choice.from_json({"layer": "a", **one.to_json()}) for one in CHOICES] == CHOICES


def test_the_order_is_that_of_the_bits_and_not_of_the_letters() -> None:
    mixed = random.Random(0).sample(CHOICES, len(CHOICES))
    assert sorted(mixed) == CHOICES
    assert [choice.name for choice in sorted(map(Choice.parse, ("w10a8", "w2a8", "w2a16")))] == [
        "w2a8", "w2a16", "w10a8",
    ]  # fmt: skip


def test_groups_and_labels_are_names_too() -> None:
    grouped = [Choice(4, 16), *(Choice(4, 16, size) for size in (128, 64, 32))]
    assert [str(one) for one in grouped] == ["w4a16", "w4g128a16", "w4g64a16", "w4g32a16"]
    assert sorted(random.Random(0).sample(grouped, 4)) == grouped
    labels = [Choice.called("Q4_K", 4.5), Choice.called("nvfp4"), Choice.called("int8", 8, 8)]
    everything = [*grouped, *labels]
    assert [Choice.called(str(one)) for one in everything] == everything
    assert len({*everything, *(Choice.called(str(one)) for one in everything)}) == 7
    assert [Choice.from_json(one.to_json()) for one in everything] == everything
    assert [fits(one, WeightBits(4)) for one in everything] == [True] + 6 * [False]
    assert fits(Choice(4, 8, 32), WeightBits(4, 32))
    assert named("w4g32") == WeightBits(4, 32)
    assert labels[0].to_json() == {"choice": "Q4_K", "w_bits": 4.5}


@pytest.mark.parametrize(
    "text", ["", "w4", "a8", "w4a", "w4a8 w8a8", "4,8", "w100a8", "w-4a8", "w4g0a8", "Q4_K"]
)
def test_other_texts_are_no_choices(text: str) -> None:
    assert not is_choice(text)
    with pytest.raises(InputError, match=r"got the choice .*; expected the form w4a8"):
        Choice.parse(text)


def test_weight_bits_stand_for_every_choice_that_has_them() -> None:
    assert named("w4") == WeightBits(4)
    assert WeightBits(4).name == "w4"
    assert [c.name for c in CHOICES if fits(c, WeightBits(10))] == [f"w10a{a}" for a in BITS]
    assert [c for c in CHOICES if fits(c, Choice(4, 8))] == [Choice(4, 8)]
    assert named("w4a") is None


@pytest.mark.parametrize(
    "entry",
    [
        {},
        {"w_bits": 8},
        {"w_bits": True, "a_bits": 8},
        {"w_bits": 8, "a_bits": 65},
        {"w_bits": 8.0, "a_bits": 8},
    ],
)
def test_files_of_other_bits_are_refused(entry: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"w_bits and a_bits are .*; expected 1 to 64"):
        Choice.from_json(entry)


def test_a_table_goes_by_the_choices_and_not_by_their_digits(tmp_path: Path) -> None:
    """Rows in any order, bits of one and two digits: every row is found at its own choice."""
    path = tmp_path / "profile.csv"
    rows = [(w, a) for w, a in ((11, 2), (1, 12), (64, 1), (1, 64))]
    path.write_text(
        "layer,w_bits,a_bits,omega,size_bytes\n"
        + "".join(f"a,{w},{a},{w + a / 100},{w}\n" for w, a in rows)
    )
    table = LayerTable.read_csv(path)
    assert [choice.name for choice in table.choices] == ["w1a12", "w1a64", "w11a2", "w64a1"]
    for w, a in rows:
        assert table.uniform_total("omega", Choice(w, a)) == w + a / 100
    assert [row.choice for row in table.rows()] == [Choice(w, a) for w, a in rows]
    assert list(zip(table.w_bits.tolist(), table.a_bits.tolist(), strict=True)) == rows
    assert values_of(table, "count:w1").tolist() == [0, 1, 0, 1]
    assert values_of(table, "count:w1a64").tolist() == [0, 0, 0, 1]
    table.write_csv(tmp_path / "again.csv")
    assert LayerTable.read_csv(tmp_path / "again.csv").digest == table.digest


def test_digests_and_files_are_those_of_earlier_releases(tmp_path: Path) -> None:
    """What fronts and assignments on users' disks carry."""
    path = tmp_path / "profile.csv"
    path.write_text(HAND)
    assert LayerTable.read_csv(path).digest == (
        "sha256:cc31480735661af21d62b0ebfa2b2983eacaaaaf7c9d54a73cbbecb9d459b633"
    )
    Assignment({"conv1": Choice(8, 4)}).save(tmp_path / "assignment.json")
    text = (tmp_path / "assignment.json").read_text()
    assert '"conv1": {\n      "w_bits": 8,\n      "a_bits": 4\n    }' in text


def test_only_one_file_takes_a_name_apart() -> None:
    """No other pattern begins like a choice's name: a new kind of name has one place to go to."""
    root = Path(mpsearch.__file__).parent
    found = {
        path.name
        for path in root.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and node.value.startswith((r"w(\d", r"w\d"))
    }
    assert found == {"choice.py"}


@pytest.mark.parametrize("text", ["w4g0a8", "W4G100000A8", "w100a8", "w0a8", "w65a8", "w8", "w100"])
def test_slips_of_our_own_names_are_no_formats_of_other_tools(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        Choice.called(text)
