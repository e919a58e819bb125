"""The public names: one list for Python, type checkers and readers, imported on use, and right."""

import ast
import doctest
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import pytest
from documentation import PAGES, ROOT, blocks

import mpsearch
from mpsearch.cli import COMMANDS
from mpsearch.errors import InputError

NAMES = sorted(set(mpsearch.__all__) - {"__version__"})
BESIDE = {  # verbs that are no commands
    "calibrate", "hessian_traces", "load", "quantize", "ranges", "refine", "save", "what_if",
}  # fmt: skip
VERBS = sorted((set(COMMANDS) & set(NAMES)) | BESIDE)
FACE = ast.parse(Path(mpsearch.__file__).read_text())


def test_every_name_is_what_it_says_and_has_a_docstring() -> None:
    for name in NAMES:
        found = getattr(mpsearch, name)
        assert found.__name__ == name
        text = inspect.getdoc(found)
        assert text, f"{name} has no docstring"
        assert not text.startswith(f"{name}("), f"{name} has the one of its fields alone"
    assert len(set(NAMES)) == len(mpsearch.__all__) - 1
    assert set(dir(mpsearch)) == set(mpsearch.__all__)
    with pytest.raises(AttributeError, match=r"module 'mpsearch' has no attribute 'solves'"):
        _ = mpsearch.solves  # type: ignore[attr-defined]


def _fields_without_a_line(cls: type) -> list[str]:
    """Of a class, as its source has it: what sphinx reads is a text right under a field."""
    module = ast.parse(inspect.getsource(sys.modules[cls.__module__]))
    (body,) = (
        n.body for n in module.body if isinstance(n, ast.ClassDef) and n.name == cls.__name__
    )
    following = zip(body, [*body[1:], None], strict=True)
    return [
        ast.unparse(field.target)
        for field, below in following
        if isinstance(field, ast.AnnAssign)
        and not (
            isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
            and isinstance(below.value.value, str)
            and below.value.value.strip()
        )
    ]


def test_every_field_has_a_line_under_it() -> None:
    classes = [found for name in NAMES if inspect.isclass(found := getattr(mpsearch, name))]
    assert sum(map(is_dataclass, classes)) > 40
    assert {c.__name__: _fields_without_a_line(c) for c in classes} == {
        c.__name__: [] for c in classes
    }


def _for_type_checkers(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for node in body:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from node.body


def test_type_checkers_read_the_same_list() -> None:
    imported = {
        alias.asname: (node.module, alias.name)
        for node in _for_type_checkers(FACE.body)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mpsearch.")
        for alias in node.names
    }
    assert imported == {name: (home, name) for name, home in mpsearch._HOME.items()}


def test_type_checkers_read_the_methods_that_are_bound() -> None:
    """With the parameters of the verb, but for the one that the noun takes the place of."""
    code = (
        "import mpsearch\nprint({noun: dict(verbs) for noun, verbs in mpsearch._METHODS.items()})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    methods = ast.literal_eval(done.stdout)
    assert sum(map(len, methods.values())) > 12
    for noun, verbs in methods.items():
        cls = getattr(mpsearch, noun)
        module = ast.parse(inspect.getsource(sys.modules[cls.__module__]))
        body = next(n.body for n in module.body if isinstance(n, ast.ClassDef) and n.name == noun)
        declared: dict[str, Any] = {}
        for node in _for_type_checkers(body):
            if isinstance(node, ast.Assign):
                declared[ast.unparse(node.targets[0])] = ast.unparse(node.value)
            elif isinstance(node, ast.FunctionDef):
                declared[node.name] = [argument.arg for argument in node.args.args[1:]]
        assert declared.keys() == verbs.keys()
        for name, (verb, place) in ((name, verb.split()) for name, verb in verbs.items()):
            assert callable(getattr(cls, name)), "bound when it runs"
            wanted = [*inspect.signature(mpsearch._find(verb)).parameters]
            if place == "second":
                assert declared[name] == ["model", "data"] == [wanted[0], wanted[2]]
            elif isinstance(declared[name], list):
                assert declared[name] == wanted[1 : 1 + len(declared[name])]
            else:
                assert declared[name] == f"mpsearch.{verb}"


def test_importing_it_loads_nothing_and_solving_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; before = set(sys.modules); import mpsearch\n"
        "print(*sorted(set(sys.modules) - before), file=sys.stderr)\n"
        "import pandas\n"
        "table = pandas.DataFrame({'layer': ['a', 'a'], 'w_bits': [4, 8], 'a_bits': [8, 8],\n"
        "    'omega': [0.5, 0.1], 'size_bytes': [40, 80]})\n"
        "best = mpsearch.solve(table, size=50, exclude={'a': 'w8a8'})\n"
        "assert best.bits['a'].name == 'w4a8' and best._repr_html_() and best.to_dict()\n"
        "best.explain(), best.what_if('a=w4a8'), mpsearch.front(table), mpsearch.ranges(table)\n"
        "best.save('a.json'), mpsearch.gate(best, max_size='1KB')\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert (done.stderr.split(), done.stdout.split()) == (["mpsearch"], ["False"])


def test_rooms_use_no_public_name_when_they_run() -> None:
    """The contract on imports does not look behind the package: that nothing calls upward there."""
    rooms = ("mpsearch", "models", "reports", "sensitivity", "solvers")
    for path in (path for room in rooms for path in (ROOT / room).rglob("*.py")):
        text = path.read_text()
        if "import mpsearch\n" not in text and "from mpsearch import" not in text:
            continue
        tree = ast.parse(text)
        typed = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef)
            for part_of in _for_type_checkers(node.body)
            for inner in ast.walk(part_of)
        }
        used = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and ast.unparse(node.value) == "mpsearch"
            and id(node) not in typed
        }
        imported = {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module == "mpsearch"
            for alias in node.names
        }
        assert (used | imported).isdisjoint(NAMES), path


def test_the_page_has_every_name_and_pages_and_examples_no_module() -> None:
    page = (ROOT / "docs" / "python.md").read_text()
    listed = re.findall(r"^\.\. auto\w+:: mpsearch\.(\S+)$", page, re.MULTILINE)
    assert sorted(listed) == NAMES
    shown = [
        (p.name, b.text) for p in PAGES for b in blocks(p.read_text()) if b.language == "python"
    ]
    shown += [(p.name, p.read_text()) for p in (ROOT / "examples").glob("*.py")]
    assert [name for name, text in shown if re.search(r"(from|import) mpsearch\.", text)] == []


def test_every_command_has_its_call_on_the_page_or_a_reason_for_none() -> None:
    page = (ROOT / "docs" / "python.md").read_text()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in page.splitlines()
        if line.startswith("| `mpsearch ")
    ]
    named = {word for command, _ in rows for word in re.findall(r"mpsearch (\w+)", command)}
    assert named == set(COMMANDS)
    nouns = {
        "table": "LayerTable", "solution": "Solution", "front": "Front", "evaluations":
        "Evaluations", "quantized": "QuantizedNetwork", "refined": "Refined",
    }  # fmt: skip
    for command, call in rows:
        calls = re.findall(r"`([^`]+)`", call)
        assert call.startswith("none: ") or calls, command
        for text in (text for text in calls if "(" in text):
            ast.parse(text.replace("…", "..."))
            for owner, name in re.findall(r"\b(\w+)\.(\w+)\(", text):
                cls = mpsearch if owner == "mp" else getattr(mpsearch, nouns[owner])
                assert callable(getattr(cls, name, None)), text


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What the first block of the page makes, in a folder of its own."""
    first = next(b for b in blocks((ROOT / "docs" / "python.md").read_text()))
    names: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("python"))
        exec(compile(first.text, "docs/python.md", "exec"), names)
        names["mpsearch"] = mpsearch
        yield names


@pytest.mark.parametrize("verb", VERBS)
def test_the_example_of_a_verb_runs(verb: str, begun: dict[str, Any]) -> None:
    text = inspect.getdoc(getattr(mpsearch, verb)) or ""
    test = doctest.DocTestParser().get_doctest(text, begun, verb, None, None)
    assert test.examples, f"{verb} has no example"
    said: list[str] = []
    result = doctest.DocTestRunner(verbose=False).run(test, out=said.append)
    assert not result.failed, "".join(said)


def test_methods_are_the_verbs(begun: dict[str, Any]) -> None:
    table, solution, model, x = (begun[n] for n in ("table", "solution", "model", "x"))
    assert table.solve(size="60%", pin={"0": "w8a8"}).bits == solution.bits
    assert len(table.front()) == len(mpsearch.front(table)) > 1
    wanted = begun["quantized"].digest
    assert solution.to_assignment().apply(model, x).digest == wanted
    assert solution.apply(model=model, data=x).digest == wanted
    plain = mpsearch.PostTraining("mse", correct_bias=False, rounding="nearest")
    changed = solution.apply(model, x, plain)
    assert changed.post_training == plain.to_json() != begun["quantized"].post_training
    named = solution.apply(rounding="nearest", correct_bias=False)
    assert (named.post_training, named.digest) == (changed.post_training, changed.digest)


def test_verbs_refuse_what_is_not_possible(begun: dict[str, Any], tmp_path: Path) -> None:
    table, quantized = begun["table"], begun["quantized"]
    nothing = table.solve(mpsearch.Budget({"size_bytes": 1}))
    with pytest.raises(InputError, match="no assignment to apply: the solution is infeasible"):
        nothing.apply()
    with pytest.raises(InputError, match="got the format 'tflite'; did you mean 'litert'"):
        quantized.export(tmp_path / "x", "tflite")
    with pytest.raises(InputError, match='format="onnx" has no wide_bits='):
        quantized.export(tmp_path / "x.onnx", "onnx", wide_bits=16)
    with pytest.raises(InputError, match="got the format 'pdf'; expected html, md, json"):
        mpsearch.report(".", format="pdf")


def test_the_gate_says_what_the_command_says(begun: dict[str, Any]) -> None:
    table = begun["table"]
    assignment = mpsearch.Assignment.from_solution(begun["solution"], table.digest)
    report = mpsearch.gate(assignment, table, max_size=1)
    assert report.says_no
    assert report.conclusion.startswith("the gate says no")
    with pytest.raises(AssertionError, match="the gate says no"):
        mpsearch.assert_budget(assignment, table, max_size=1)
