"""The Python API takes what people have, and says what would fit where something does not."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import mpsearch as mp
from mpsearch.python import given
from mpsearch.python.given import as_arrays, as_data, as_network
from mpsearch.running.python_words import in_python
from mpsearch.tables.table import TableLayer

ANY: Any = mp  # calls that type checkers would refuse
CHOICES = ("w2a8", "w4a8", "w8a8")


class Own(NamedTuple):
    model: nn.Module
    x: torch.Tensor
    y: torch.Tensor
    table: Any
    best: mp.Solution
    quantized: mp.QuantizedNetwork


@pytest.fixture(scope="module")
def own() -> Own:
    """A small trained network, left in training mode, with what `profile` to `apply` make of it."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(96) % 3
    x = 2 * torch.eye(3).repeat(1, 2)[y] + torch.randn(96, 6, generator=generator)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        hidden = (nn.Linear(6, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(0.5))
        model = nn.Sequential(*hidden, nn.Linear(24, 3))
        optimizer = torch.optim.Adam(model.parameters(), 0.05)
        for _ in range(20):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    table = mp.profile(model, (x, y), choices=CHOICES, metric="weight-mse")
    best = mp.solve(table, size="85%", pin={"4": "w8a8"})
    return Own(model, x, y, table, best, best.apply())


class Stream(IterableDataset[Any]):
    """Samples one after the other, without a length."""

    def __init__(self, own: Own) -> None:
        self.own = own

    def __iter__(self) -> Any:
        return zip(self.own.x, self.own.y, strict=True)


FORMS: dict[str, Callable[[Own, Path], Any]] = {
    "tensors": lambda own, _: (own.x, own.y),
    "float64": lambda own, _: (own.x.numpy().astype(np.float64), own.y.numpy()),
    "lists": lambda own, _: (own.x.tolist(), own.y.tolist()),
    "one-hot": lambda own, _: (own.x, nn.functional.one_hot(own.y).float()),
    "class numbers as floats": lambda own, _: (own.x.numpy(), own.y.numpy().astype(float)),
    "a column of labels": lambda own, _: (own.x, own.y[:, None]),
    "inputs in a list": lambda own, _: ([own.x], own.y),
    "by name": lambda own, _: {"x0": own.x.numpy(), "y": own.y},
    "pandas": lambda own, _: (pd.DataFrame(own.x.numpy()), pd.Series(own.y.numpy())),
    "Data": lambda own, _: mp.Data("own", (own.x,), own.y),
    "Data without its tuple": lambda own, _: ANY.Data("own", own.x.numpy(), own.y.numpy()),
    "Dataset": lambda own, _: TensorDataset(own.x, own.y),
    "DataLoader": lambda own, _: DataLoader(TensorDataset(own.x, own.y), batch_size=40),
    "IterableDataset": lambda own, _: Stream(own),
    "as datasets call it": lambda own, _: {"image": own.x, "label": own.y},
    "samples by name in a list": lambda own, _: _by_name(own),
    "a DataLoader by name": lambda own, _: DataLoader(_by_name(own), batch_size=40),
    "samples in a list": lambda own, _: list(zip(own.x, own.y, strict=True)),
    "batches in a list": lambda own, _: list(zip(own.x.split(40), own.y.split(40), strict=True)),
    "a generator": lambda own, _: iter(DataLoader(TensorDataset(own.x, own.y), batch_size=40)),
    "a path": lambda own, place: _written(own, place),
}


def _by_name(own: Own) -> Any:
    """As Hugging Face's datasets give them."""
    return [{"labels": int(y), "pixels": x} for x, y in zip(own.x, own.y, strict=True)]


def _written(own: Own, place: Path) -> Path:
    np.savez(place / "own.npz", x0=own.x.numpy(), y=own.y.numpy())
    return place / "own.npz"


@pytest.mark.parametrize("form", FORMS)
def test_samples_in_any_form_are_the_same_samples(form: str, own: Own, tmp_path: Path) -> None:
    network = own.table.origin[0]
    found = as_data(FORMS[form](own, tmp_path), network)
    wanted = as_data((own.x, own.y), network)
    assert (found.digest, found.loss) == (wanted.digest, wanted.loss)
    assert found.labels is not None
    assert found.labels.dtype == torch.int64


def test_several_inputs_and_whole_numbers(own: Own) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.last = nn.Embedding(5, 6), nn.Linear(6, 3)

        def forward(self, word: torch.Tensor, image: torch.Tensor) -> Any:
            return self.last(self.words(word) + image)

    word, image = torch.arange(96) % 5, own.x
    network = as_network(Two(), [word, image])
    assert network.input_names == ("word", "image")
    wanted = as_data([word, image], network).digest
    assert as_data({"image": image.double(), "word": word.int()}, network).digest == wanted
    assert as_data((word, image, None), network).digest == wanted
    named = {"first": word, "second": image, "target": own.y}
    assert as_data(named, network).digest == as_data(([word, image], own.y), network).digest
    with pytest.raises(
        mp.InputError, match="of arrays by name, labels are called y, label, labels"
    ):
        as_data({"word": word, "picture": image}, network)
    labelled = as_data(([word, image], own.y), network)
    assert labelled.labels is not None
    with pytest.raises(mp.InputError, match="of a tuple the last is labels; inputs alone are a li"):
        as_data((word, image), network)
    with pytest.raises(mp.InputError, match=r"inputs and labels are a tuple: \(x, y\)"):
        as_data([own.x, own.y], own.table.origin[0])
    pixels = torch.arange(96 * 6, dtype=torch.uint8).reshape(96, 6)
    assert as_data(pixels, as_network(own.model, pixels.numpy())).inputs[0].dtype == torch.float32


def test_a_module_is_traced_in_evaluation_mode_and_left_as_it_was(own: Own) -> None:
    assert own.model.training
    by_name = as_network(own.model, {"pixels": own.x, "label": own.y})
    assert by_name.digest == as_network(own.model, (own.x, own.y)).digest
    before = [p.clone() for p in own.model.state_dict().values()]
    network = as_network(own.model, own.x)
    assert own.model.training
    assert all(map(torch.equal, before, own.model.state_dict().values()))
    own.model.eval()
    with torch.no_grad():
        assert torch.allclose(network(own.x), own.model(own.x), atol=1e-5)
    own.model.train()
    assert as_network(nn.DataParallel(own.model), own.x).digest == network.digest
    assert as_network(mp.NetworkFile(network, {})) is network is as_network(network)


def test_of_a_loader_no_more_is_read_than_is_needed_and_that_is_said(
    own: Own, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = TensorDataset(own.x, own.y)
    first = as_arrays(DataLoader(rows, batch_size=40), 60)
    assert torch.equal(first.tensors["x0"], own.x[:60])
    assert first.name == "60 of 96 samples of a DataLoader"
    assert capsys.readouterr().err.startswith("note: 60 of 96 samples of a DataLoader are read")
    drawn = as_arrays(rows, 60)
    assert not torch.equal(drawn.tensors["x0"], own.x[:60])
    assert set(drawn.tensors["y"].tolist()) == {0, 1, 2}
    assert torch.equal(drawn.tensors["x0"], as_arrays(rows, 60).tensors["x0"])
    assert len(as_arrays(Stream(own), 60).tensors["x0"]) == 60
    capsys.readouterr()
    assert len(as_arrays(rows, 96).tensors["y"]) == 96
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(given, "MOST", 60)
    assert mp.evaluate(own.quantized, DataLoader(rows, batch_size=40)).n == 96


WRONG: dict[str, tuple[Callable[[Own], Any], str]] = {
    "a table that is none": (lambda own: ANY.solve(3), "expected a LayerTable of mpsearch.profile"),
    "a size in a list": (lambda own: own.table.solve(size=["45KB"]), "expected a text such as '4"),
    "half a byte": (lambda own: own.table.solve(size=0.5), "whole bytes, or a text such as '45KB"),
    "limits as pairs": (lambda own: own.table.solve(limits=[("bops", 3)]), "'latency_s': '20ms'}"),
    "a budget twice": (
        lambda own: own.table.solve(ANY.Budget(), size="50%"),
        "expected all limits in one",
    ),
    "a budget of another type": (lambda own: own.table.solve([1]), r"or a Budget"),
    "a pin by number": (lambda own: own.table.solve(pin={"0": 8}), "expected 'w8a8' or Choice"),
    "a pin of nothing": (lambda own: own.table.solve(pin={"fc": "w8a8"}), "has no layer 'fc'"),
    "bits by name": (lambda own: ANY.profile(own.model, own.x, bits=8.5), r"such as \(4, 8\)"),
    "choices by bits": (
        lambda own: ANY.profile(own.model, own.x, choices=(4, 8)),
        "got the choice '4'; expected",
    ),
    "settings with a number": (lambda own: ANY.ProfileSettings(choices=(4,)), "a text such as 'w4"),
    "a class": (lambda own: ANY.profile(nn.Linear, own.x), r"got the class Linear; expected"),
    "a state dict": (lambda own: ANY.profile(own.model.state_dict(), own.x), "without the network"),
    "a quantized network": (lambda own: ANY.profile(own.quantized, own.x), "the float model that"),
    "a number as a model": (lambda own: ANY.profile(3, own.x), "got int for the model; expected a"),
    "no samples": (lambda own: ANY.profile(own.model), r"what its inputs look like; give samples"),
    "no samples of a network": (lambda own: ANY.profile(own.table.origin[0]), "profile needs data"),
    "a number as data": (
        lambda own: ANY.profile(own.model, 3),
        "got int for the data; expe",
    ),
    "words": (lambda own: ANY.profile(own.model, (["a"], own.y)), "of numbers, in one of these"),
    "a pin by bits": (
        lambda own: own.table.solve(pin={"0": (8, 8)}),
        r"choice \(8, 8\) in pin; exp",
    ),
    "half a choice": (
        lambda own: ANY.apply(own.model, "w4", own.x),
        "all layers such as 'w4a8', {",
    ),
    "a type": (lambda own: ANY.apply(own.model, "int8", own.x), "got the assignment 'int8'; expec"),
    "an assignment by number": (
        lambda own: ANY.apply(own.model, 8, own.x),
        "got int for the",
    ),
    "a layer's bits by number": (
        lambda own: ANY.apply(own.model, {"0": 8}, own.x),
        "expected a text such as 'w4a8'",
    ),
    "an export of a float model": (
        lambda own: ANY.export(own.model, "x"),
        "expected what mpsearch.apply returned",
    ),
    "a solution that knows nothing": (
        lambda own: own.best.to_assignment().apply(),
        r"expected \(model, data\) as profile takes",
    ),
    "an explanation of choices": (lambda own: ANY.explain(own.best.bits), "expected a Solution of"),
    "a loss by number": (lambda own: ANY.profile(own.model, own.x, loss=3), "a name such as 'mse'"),
    "data without a target": (lambda own: own.table.solve(data=own.x), "min_accuracy='88%'"),
    "Data without a name": (lambda own: ANY.Data(own.x, own.y, None), r'Data\("own", x, y\)'),
    "Data of other lengths": (lambda own: ANY.Data("d", own.x, own.y[:5]), "of 96, 5 samples"),
    "Data of words": (lambda own: ANY.Data("d", np.array(["a"]), None), "of numbers"),
    "Data of a number": (lambda own: ANY.Data("d", np.array(1.0), None), "a single number"),
    "a report of a table": (lambda own: ANY.report(own.table), "expected a folder, or what"),
    "labels apart": (
        lambda own: ANY.profile(own.model, own.x, own.y),
        r"are one argument: \(x, y\)",
    ),
    "labels apart, in lists": (
        lambda own: ANY.profile(own.model, own.x.tolist(), own.y.tolist()),
        r"got a list as output of profile; data are one argument: \(x, y\)",
    ),
    "labels apart, too many": (
        lambda own: ANY.evaluate(own.quantized, own.x.numpy(), own.y),
        r"got an array and a tensor as arguments 2 and 3 of evaluate; data are one argument: \(x",
    ),
    "labels apart, validated on": (
        lambda own: ANY.finetune(own.model, own.best, own.x, own.y),
        r"data are one argument: \(x, y\)",
    ),
    "labels apart, data by name": (
        lambda own: own.table.front().measure(2, own.x, own.y),
        r"as arguments 3 and 4 of measure; data are one argument: data=\(x, y\)",
    ),
    "half a bit": (lambda own: ANY.profile(own.model, own.x, bits=(3.5, 8)), "got bits='3.5'; exp"),
    "no condition": (
        lambda own: ANY.gate(own.best),
        "at least one of max_size=, max_bops=, max_ram=,",
    ),
    "an option that a format lacks": (
        lambda own: own.quantized.export("x.onnx", "onnx", wide_bits=16),
        'format="onnx" has no wide_bits=; it goes with c',
    ),
    "no path": (
        lambda own: ANY.export(own.quantized, own.x),
        "got a tensor as output of export; data",
    ),
    "an argument too many": (
        lambda own: ANY.quantize(own.model, "w8a8", own.x, "mse"),
        "got 'mse' as argument 4 of quantize; expected model, assignment, data",
    ),
    "an argument too few": (lambda own: ANY.apply(own.model), r"expected apply\(model, assignment"),
    "an argument twice": (lambda own: own.table.solve(table=own.table), "table of solve twice"),
    "an unknown argument": (lambda own: own.table.solve(siez="4KB"), "'siez'; did you mean 'size'"),
    "an unknown condition": (lambda own: ANY.gate(own.best, max_sise=1), "did you mean 'max_size'"),
    "a count as text": (
        lambda own: ANY.refine(own.best, "4"),
        "got count='4' of refine; expected a whole number",
    ),
    "half a sample": (
        lambda own: ANY.profile(own.model, own.x, samples=8.5),
        "a whole number or N",
    ),
    "settings by name": (
        lambda own: ANY.apply(own.model, "w8a8", own.x, "adaptive"),
        "got settings='adaptive' of apply; expected PostTraining or None",
    ),
    "an unknown policy": (
        lambda own: ANY.gate(own.best, max_size=1, policy="hard"),
        "got policy='hard' of gate; expected 'measured', 'strict' or 'lenient'",
    ),
    "interactions without a file": (
        lambda own: ANY.profile(own.model, own.x, interactions=True),
        "give an output, as profile.c",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_fit_is_told_what_would(what: str, own: Own) -> None:
    call, message = WRONG[what]
    with pytest.raises(mp.InputError, match=message) as caught:
        call(own)
    assert 1 <= len(caught.value.lines) <= 2


def test_a_profile_in_memory_is_the_one_that_is_written(
    own: Own, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    again = mp.profile(own.model, (own.x, own.y), choices=CHOICES, metric="weight-mse")
    assert os.listdir() == []
    assert again.digest == own.table.digest
    written = mp.profile(
        own.model, (own.x, own.y), "p.csv", choices=",".join(CHOICES), metric="weight-mse"
    )
    read = mp.LayerTable.read_csv("p.csv")
    assert sorted(os.listdir()) == ["p.csv", "p.json"]
    assert read.digest == written.digest == own.table.digest
    assert read.provenance == json.loads(Path("p.json").read_text()) == written.provenance
    assert (read.origin, read.provenance["metric"]) == (None, "weight-mse")
    assert [mp.profile(own.model, own.x, bits=(4, 8), samples=8).choices] == [
        (mp.Choice(4, 4), mp.Choice(8, 8))
    ]


def test_texts_and_tables_in_any_form_give_the_same_answer(own: Own, tmp_path: Path) -> None:
    table, wanted = own.table, own.best
    table.write_csv(tmp_path / "t.csv")
    limit = wanted.limits["size_bytes"]
    budget = mp.Budget.parse(table, size="85%")
    for found in (
        mp.solve(tmp_path / "t.csv", "85%", pin="4=w8a8"),
        mp.solve(table.to_pandas(), size="85%", pin=["4=w8a8"]),
        mp.solve(table, budget, pin={"4": mp.Choice(8, 8)}),
        mp.solve(table, {"size_bytes": limit}, pins={"4": "w8a8"}),
        table.solve(size=limit, allow={"4": "w8a8"}),
        table.solve(size=float(limit), exclude={"4": ["w2a8", "w4a8"]}),
    ):
        assert found == wanted or found.bits == wanted.bits
    assert mp.LayerTable.from_pandas(table.to_pandas()).digest == table.digest
    assert table.front(pin={"4": "w8a8"}).search == {"pin": ("4=w8a8",)}
    least = mp.solve(table, minimize="size_bytes", omega_limit=own.best.omega)
    assert least.totals["size_bytes"] <= wanted.totals["size_bytes"]
    assert not table.solve("1B").choices


def test_a_solution_knows_its_model_its_samples_and_its_table(own: Own, tmp_path: Path) -> None:
    applied = mp.apply(own.model, own.best.bits, (own.x, own.y))
    assert applied.digest == own.quantized.digest == own.best.apply(own.model).digest
    assert applied.digest != mp.apply(own.model, "w2a8", own.x).digest
    own.best.save(tmp_path / "a.json")
    saved = mp.Assignment.load(tmp_path / "a.json")
    assert saved == own.best.to_assignment()
    assert saved.search == {"pin": ("4=w8a8",)}
    assert (saved.table_digest, saved.model_digest) == (
        own.table.digest,
        own.table.origin[0].digest,
    )
    assert mp.apply(own.model, tmp_path / "a.json", own.x).assignment == own.best.bits
    said = json.loads(json.dumps(own.best.to_dict()))
    assert said["layers"]["4"] == {"w_bits": 8, "a_bits": 8}
    assert own.best.what_if({"0": "w4a8"}, time_limit=5).pins == {"0": mp.Choice(4, 8)}
    assert own.best.explain().status == "optimal"


def test_a_solution_as_a_module_to_train_and_back(own: Own, tmp_path: Path) -> None:
    module = own.best.to_module()
    assert mp.from_module(module).digest == own.quantized.digest
    assert own.quantized.to_module(own.model).state_dict().keys() == module.state_dict().keys()
    assert mp.evaluate(module, (own.x, own.y)) == mp.evaluate(own.quantized, (own.x, own.y))
    mp.save(module, tmp_path / "q.pt")
    assert torch.equal(mp.load_quantized(tmp_path / "q.pt")(own.x), own.quantized(own.x))


def test_networks_measured_beside_each_other(own: Own, tmp_path: Path) -> None:
    found = mp.evaluate({"mixed": own.quantized, "float": own.model}, (own.x, own.y))
    assert [row.name for row in found.rows] == ["float", "mixed"]
    alone = mp.evaluate(own.quantized, (own.x, own.y), name="mixed")
    assert found.named("mixed") == alone
    right = int((own.quantized(own.x).argmax(1) == own.y).sum())
    assert alone.accuracy == right / 96
    assert alone.size_bytes == own.best.totals["size_bytes"]
    assert set(mp.evaluate(own.best, own.x).metrics) == {"agreement", "kl", "sqnr"}
    found.save(tmp_path / "evaluation.json")
    assert mp.evaluate(own.quantized, (own.x, own.y), integer=True).n == 96
    frame = found.to_pandas()
    assert frame["network"].tolist() == ["float", "mixed"]
    assert not found.held_out, "they were calibrated on these samples"


def test_searches_that_measure_write_nothing_without_an_output(
    own: Own, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plain = mp.PostTraining("mse", correct_bias=False, rounding="nearest", wide="32")
    refined = own.best.refine(3, settings=plain)
    assert refined.solution is not None
    assert refined.solution.bits["4"] == mp.Choice(8, 8), "the pin holds"
    assert refined.solution.to_assignment().refined["asked"] == 3
    front = own.table.front().measure(2, settings=plain)
    values = front.to_pandas()["accuracy"]
    assert np.flatnonzero(~np.isnan(values)).tolist() == [0, len(front) - 1]
    every = front.measure("all", settings=plain)
    reached = np.flatnonzero(every.measured["accuracy"] >= 0.8)
    target: dict[str, Any] = {
        "min_accuracy": "80%",
        "most": "all",
        "tolerance": "0",
        "settings": plain,
    }
    smallest = own.table.solve(**target)
    assert smallest.bits == front.assignment(reached[0])
    assert smallest.to_assignment().measured["holds"] is True
    none = own.table.solve(**target | {"min_accuracy": "99.9%"})
    assert (none.status, none.bits) == ("no-solution", {})
    assert none.notes[0].startswith("no measured assignment has an accuracy of at least 99.9 %")
    assert os.listdir() == []


def assert_repeats(calls: tuple[str, ...], own: Own) -> None:
    """The calls of a report give the same table, assignment, front and rows."""
    names: dict[str, Any] = {"mpsearch": mp, "model": own.model, "data": (own.x, own.y)}
    for call in calls:
        exec(call, names)
    assert names["table"].digest == own.table.digest
    assert names["solution"].bits == own.best.bits
    assert len(names["front"]) == len(own.table.front())
    assert [row.name for row in names["evaluations"].rows] == ["FP32", "assignment"]


def test_the_gate_and_the_report_take_objects(own: Own, tmp_path: Path) -> None:
    measured = mp.gate(own.quantized, data=(own.x, own.y), max_size="1KB", min_accuracy="50%",
                       max_drop=50)  # fmt: skip
    assert [verdict.passed for verdict in measured.verdicts] == [True, True, True]
    assert mp.gate(own.best, max_size=1).says_no
    both = mp.evaluate({"FP32": own.model, "assignment": own.quantized}, (own.x, own.y))
    assert not mp.gate(own.best, evaluation=both, min_accuracy="50%", max_drop=50).says_no
    with pytest.raises(mp.InputError, match="other bits than the assignment"):
        mp.gate(own.table.solve(), evaluation=both, max_drop=5)
    output = tmp_path / "report.json"
    made = mp.report(own.best, output, front=own.table.front(), evaluation=both)
    assert made.written == (str(output),)
    assert made.facts.fp32 is not None
    assert_repeats(made.facts.commands, own)
    assert not [one for one in made.facts.measure if one.startswith("mpsearch ")]
    tuned = own.best.finetune(data=(own.x, own.y), epochs=1)
    assert tuned.network.assignment == own.best.bits
    exported = tuned.network.export(tmp_path / "net", check=False)
    assert exported.ok
    assert exported.lines[1] in exported._repr_html_()
    checks = mp.check(own.model, own.x).values()
    changed = mp.diff(own.best.to_assignment(), own.table.solve("70%").to_assignment())
    for one in (made, exported, tuned, tuned.best, measured, changed, *checks):
        assert_short(one)
    assert repr(tuned).startswith(f"FineTuned({tuned.best!r}")
    assert repr(exported).startswith(f"Exported({exported.lines[0]}; ")
    many = mp.TargetCheck("c", False, tuple(mp.Refusal("cumsum", f"n{i}", "why") for i in range(9)))
    assert repr(many) == "TargetCheck(c: no; 9 refused, first cumsum ('n0') why)"


def test_what_changed_between_objects(own: Own, tmp_path: Path) -> None:
    """The same as between their files, and of what `solve` returned also what its table knows."""
    other = own.table.solve("70%")
    own.best.save(tmp_path / "assignment.json")
    own.table.write_csv(tmp_path / "profile.csv")
    from_file = mp.diff(tmp_path / "assignment.json", other)
    from_object = mp.diff(own.best, other)
    changed = {name for name, choice in own.best.bits.items() if other.bits[name] != choice}
    assert {one.name for one in from_object.layers} == changed != set()
    assert (from_file.layers, from_file.totals) == (from_object.layers, from_object.totals)
    assert {one.column for one in from_object.totals} >= {"size_bytes", "bops", "omega"}
    applied = mp.diff(own.best, own.quantized)
    assert (applied.same, applied.unchanged) == (True, len(own.best.bits))
    assert mp.diff(own.table.origin[0], own.quantized).unchanged == len(own.best.bits)
    with pytest.raises(mp.InputError, match="got dict; expected what mp"):
        mp.diff(own.best, own.best.bits)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("--size 5.84KB", 'size="5.84KB"'),
        ("leave out --pin fc=w8a8", 'leave out pin={"fc": "w8a8"}'),
        ("got both --bits and --choices;", "got both bits= and choices=;"),
        ("(--min-agreement 98%, --max-kl 0.05).", '(min_agreement="98%", max_kl=0.05).'),
        ("export with --format c, or --no-check.", 'export with format="c", or check=False.'),
        ("--no-bias-correction --bops-limit 3M", 'correct_bias=False bops="3M"'),
        ("pass --trust here", "pass mpsearch.ModelSource(…, trust=True) here"),
        ("(--batch-dim NAME=DIM)", '(mpsearch.save(…, batch_dim={"NAME": DIM}))'),
        ("with w2a2: mpsearch profile … --choices w2a2,w4a8",
         'with w2a2: mpsearch.profile(…, choices="w2a2,w4a8")'),
        ("make one with `mpsearch solve --size 3KB`", "make one with `mpsearch solve --size 3KB`"),
        ("a--b and x --- y", "a--b and x --- y"),
    ],
)  # fmt: skip
def test_options_in_messages_are_arguments(text: str, said: str) -> None:
    assert in_python(text, {"size", "format"}) == said
    assert in_python(said, {"size", "format"}) == said


def test_names_of_files_are_no_markup() -> None:
    layers = [TableLayer("<script>alert(1)</script>"), TableLayer("b&\x1b[31m")]
    rows = [
        mp.Row(layer.name, mp.Choice(bits, 8), 1 / bits, resources={"size_bytes": 100 * bits})
        for layer in layers
        for bits in (2, 8)
    ]
    table = mp.LayerTable.from_rows(layers, rows)
    best = table.solve(size="60%")
    shown: list[Any] = [table, best, best.to_assignment(), table.front(), best.explain()]
    for text in [one._repr_html_() for one in shown]:
        assert "<script" not in text
        assert "\x1b" not in text
    assert all("&lt;script&gt;alert(1)" in one._repr_html_() for one in shown if one != shown[3])


def assert_short(noun: object) -> None:
    """A line that a terminal shows, whatever there is to tell."""
    assert repr(noun).startswith(f"{type(noun).__name__}(")
    assert len(repr(noun)) < 400
    assert "\n" not in repr(noun)


def test_nouns_are_said_in_a_line_or_two(own: Own) -> None:
    front = own.table.front()
    rows = mp.evaluate({"FP32": own.model, "mixed": own.quantized}, (own.x, own.y))
    report = mp.gate(own.best, max_size="1KB")
    for one in (own.table, own.best, own.best.to_assignment(), own.quantized, front, rows, report,
                rows.rows[0], own.best.explain(), *own.table.origin):  # fmt: skip
        assert_short(one)
    assert repr(own.best).startswith("Solution(optimal, proven: Ω ")
    assert "; size_bytes " in repr(own.best)
    least = own.table.solve("1B").smallest["size_bytes"].alone
    assert f'; feasible with size="{least}B")' in repr(own.table.solve("1B"))
    assert "points lost" in rows._repr_html_()
    assert front.plot()._repr_svg_().lstrip().startswith("<?xml")
