"""action.yml and the pre-commit hooks: what they run, and that no input is ever run."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import mpsearch
from mpsearch.cli import COMMANDS
from mpsearch.commands.gate import gate
from mpsearch.gating.conditions import CONDITIONS, FLAGS, KEYS, METRICS

ROOT = Path(__file__).parent.parent
ACTION = (ROOT / "action.yml").read_text()
HOOKS = (ROOT / ".pre-commit-hooks.yaml").read_text()
RUNS = [
    "\n".join(line[8:] for line in block.splitlines())
    for block in re.findall(r"^      run: \|\n((?:        .*\n|\n)+)", ACTION, flags=re.MULTILINE)
]
VARIABLES = dict(re.findall(r"^        (\w+): \$\{\{ inputs\.([\w-]+) \}\}$", ACTION, re.MULTILINE))
INPUTS = re.findall(r"^  ([\w-]+):\n    description:", ACTION, flags=re.MULTILINE)
NASTY = "$(touch run) `touch run` ; touch run # ' \" \\ ${{ x }} && touch run\n--lenient"

needs_bash = pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")


def called(folder: Path, inputs: dict[str, str]) -> list[str]:
    """The words that the script passes to mpsearch, run as GitHub runs it."""
    folder.joinpath("mpsearch").write_text(
        f"#!{sys.executable}\nimport json, sys\njson.dump(sys.argv[1:], open('words.json', 'w'))\n"
    )
    folder.joinpath("mpsearch").chmod(0o755)
    folder.joinpath("script.sh").write_text(RUNS[1])
    environment = {name: inputs.get(name_of, "") for name, name_of in VARIABLES.items()}
    environment |= {"PATH": f"{folder}:{os.environ['PATH']}"}
    subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "script.sh"],
        cwd=folder, env=environment, check=True, timeout=60,
    )  # fmt: skip
    words = json.loads(folder.joinpath("words.json").read_text())
    assert isinstance(words, list)
    return words


@needs_bash
def test_without_inputs_the_gate_takes_its_defaults(tmp_path: Path) -> None:
    assert called(tmp_path, {"strict": "false"}) == ["gate", "--github"]


@needs_bash
def test_inputs_become_options(tmp_path: Path) -> None:
    inputs = {
        "model": "quantized.pt", "data": "my data/test.npz", "max-size": "145KB", "strict": "true",
        "max-drop-baseline": "0.5", "baseline": "main.json", "arguments": "--batch-size\n8\n\n",
        "max-latency-growth": "5%", "max": "mae=0.05\nbox.mse=1\n", "unverified": "true",
    }  # fmt: skip
    assert called(tmp_path, inputs) == [
        "gate", "--github", "--data=my data/test.npz", "--baseline=main.json", "--max-size=145KB",
        "--max-drop-baseline=0.5", "--max-latency-growth=5%", "--max=mae=0.05", "--max=box.mse=1",
        "--strict", "--unverified", "--batch-size", "8", "--", "quantized.pt",
    ]  # fmt: skip


@needs_bash
def test_nothing_in_an_input_is_run_or_becomes_an_option(tmp_path: Path) -> None:
    names = sorted(set(VARIABLES.values()) - {*FLAGS, *METRICS, "arguments"})
    words = called(tmp_path, dict.fromkeys(names, NASTY))
    assert not (tmp_path / "run").exists()
    assert len(words) == 2 + len(names) + 1  # gate --github, one each, and the -- before the model
    assert sum(word.endswith(NASTY) for word in words) == len(names)
    assert words[-2:] == ["--", NASTY]
    for flag in FLAGS:
        assert called(tmp_path, {flag: NASTY}) == ["gate", "--github"]
    for name in METRICS:  # one limit a line
        assert called(tmp_path, {name: NASTY})[2:] == [f"--{name}={x}" for x in NASTY.split("\n")]
    assert called(tmp_path, {"arguments": NASTY})[2:] == NASTY.split("\n")
    assert not (tmp_path / "run").exists()


def test_no_script_holds_an_expression() -> None:
    """`${{ inputs.x }}` inside a script would be pasted into it as text."""
    assert len(RUNS) == 2
    assert all("${{" not in script for script in RUNS)


def test_every_input_is_used_and_every_option_exists() -> None:
    used = set(re.findall(r"inputs\.([\w-]+)", ACTION))
    assert used == set(INPUTS)
    options = {
        name for option in gate.params for name in (*option.opts, *getattr(option, "old", ()))
    }
    words = set(re.findall(r"(?<![\w-])--[a-z][\w-]+", RUNS[1]))
    assert words <= options
    assert len(words) > 20
    # an input is called as the option that it becomes
    for option, variable in re.findall(r"add(?:_lines)? --([\w-]+) \"\$(\w+)\"", RUNS[1]):
        assert VARIABLES[variable] == option


def test_every_condition_and_what_decides_it_is_an_input() -> None:
    """Whatever `mpsearch gate` can be asked in a file, a workflow can ask too."""
    assert set(KEYS) <= set(INPUTS)
    assert {"max-latency-growth", "max-rise", "unverified"} <= set(KEYS)
    for condition in CONDITIONS:
        variable = condition.name.upper()
        assert f"\n        {variable}: ${{{{ inputs.{condition.key} }}}}\n" in ACTION
        add = "add_lines" if condition.of_metrics else "add"
        assert f'\n        {add} --{condition.key} "${variable}"\n' in ACTION


def test_the_packages_that_the_action_installs_are_enough(tmp_path: Path) -> None:
    """The gate without a model runs where the other dependencies cannot be imported."""
    (line,) = re.findall(r"pip install ([a-z ]+)$", RUNS[0], flags=re.MULTILINE)
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {re.split(r"[^\w-]", text)[0] for text in dependencies}
    installed = set(line.split())
    assert installed < names
    (tmp_path / "profile.csv").write_text("layer,w_bits,a_bits,omega,size_bytes\na,8,8,1,100\n")
    (tmp_path / "assignment.json").write_text(
        '{"format": "mpsearch.assignment", "version": 1, "layers": {"a": '
        '{"w_bits": 8, "a_bits": 8}}}'
    )
    code = (
        "import sys\n"
        f"for name in {sorted(names - installed)!r}: sys.modules[name] = None\n"
        "from mpsearch.cli import run\n"
        "sys.exit(run(['gate', '--max-size', '1KB', '--github', '--junit', 'j.xml']))"
    )
    environment = {**os.environ, "GITHUB_STEP_SUMMARY": str(tmp_path / "summary.md")}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
    assert "● judged" in (tmp_path / "summary.md").read_text()


def test_the_hooks_call_the_gate_where_a_file_of_a_run_changes() -> None:
    entries = re.findall(r"^- id: (\S+)$", HOOKS, flags=re.MULTILINE)
    assert entries == ["mpsearch-gate", "mpsearch-gate-installed"]
    assert HOOKS.count("\n  entry: mpsearch gate\n") == 2
    assert HOOKS.count("\n  pass_filenames: false\n") == 2  # the names would be taken for a MODEL
    first, second = re.findall(r"^  files: (.*)$", HOOKS, flags=re.MULTILINE)
    assert first == second
    for name in ("assignment.json", "run/evaluation.json", "pyproject.toml", "a/b/profile.csv"):
        assert re.search(first, name)
    for name in ("myassignment.json", "assignment.json.bak", "README.md"):
        assert not re.search(first, name)


WORKFLOW = (ROOT / "examples" / "quantization-gate.yml").read_text()


def test_the_workflow_installs_from_the_repository_at_a_tag() -> None:
    """Through one variable: on package indexes the name is somebody else's."""
    (source,) = re.findall(r"^  MPSEARCH: (\S+)$", WORKFLOW, re.MULTILINE)
    assert source == f"git+https://github.com/OWNER/mpsearch@v{mpsearch.__version__}"
    (install,) = re.findall(r"^        run: (.*\binstall\b.*)$", WORKFLOW, re.MULTILINE)
    assert install == 'python -m pip install "mpsearch @ $MPSEARCH"'
    page = (ROOT / "docs" / "gate.md").read_text()
    assert set(re.findall(r"OWNER/mpsearch@([\w.]+)", page)) == {f"v{mpsearch.__version__}"}
    for text in (WORKFLOW, page, ACTION):  # a path, or a requirement with its address
        for line in re.findall(r"pip install (.*mpsearch.*)$", text, re.MULTILINE):
            assert "mpsearch @ " in line
    document = pytest.importorskip("yaml").safe_load(WORKFLOW)
    (job,) = document["jobs"].values()
    assert [step["name"] for step in job["steps"] if "run" in step] == [
        "install", "measure on samples that nothing has seen", "judge", "report",
    ]  # fmt: skip
    for step in job["steps"]:
        words = step.get("run", "").split()
        if words[:1] == ["mpsearch"]:
            assert words[1] in COMMANDS


def test_both_files_are_yaml() -> None:
    yaml: Any = pytest.importorskip("yaml")
    action = yaml.safe_load(ACTION)
    assert action["runs"]["using"] == "composite"
    assert list(action["inputs"]) == INPUTS
    assert [step["run"] for step in action["runs"]["steps"]] == [
        f"{text.strip()}\n" for text in RUNS
    ]
    assert all(step["shell"] == "bash" for step in action["runs"]["steps"])
    assert [hook["language"] for hook in yaml.safe_load(HOOKS)] == ["python", "system"]
