"""One word, one meaning: options of one name mean one thing in every command, old words say so."""

import re
from collections import defaultdict
from collections.abc import Iterator

import click
import pytest

from mpsearch import __version__
from mpsearch.cli import cli
from mpsearch.commands.grouping import FURTHER, Grouped
from mpsearch.commands.renamed import UNTIL, Renamed

# What an option means wherever it stands, where its help differs from command to command. Whoever
# adds a command that has one of these words reads its meaning first, and adds the command.
MEANINGS = {
    "--assignment": ("a file of `solve`", "evaluate, device table, report, gate"),
    "--augment": ("change training samples at random", "finetune, train"),
    "--board": ("what the firmware runs on", "export, device run, device table"),
    "--calibration": ("samples for the ranges", "solve, evaluate, export, gate"),
    "--choices": ("the choices that are tried", "profile, run"),
    "--data": (
        "the samples that the command is about: it measures, calibrates or trains on them",
        "profile, solve, apply, finetune, evaluate, check, device table, gate, train, reproduce, "
        "convert, demo, run",
    ),
    "--device": (
        "where to compute: cpu, cuda",
        "profile, apply, finetune, evaluate, solve, run",
    ),
    "--device-file": ("a file of `device run`", "report, gate"),
    "--epochs": ("passes over the training samples", "finetune, train, demo, reproduce"),
    "--evaluation": ("a file of `evaluate`", "report, gate"),
    "--exclude": ("choices that are forbidden", "solve, front, explain, run, allocate"),
    "--flash": ("what the firmware may take of the flash", "solve, export, device run, run"),
    "--for": ("the tool that a recipe is for", "solve, front, allocate, recipe"),
    "--format": (
        "the form of a file: of the exported network; of the page, which is `report`'s export",
        "profile, solve, export, report, run",
    ),
    "--fp32": ("the float model's file", "solve, evaluate, export, gate, reproduce"),
    "--front": ("a file of `front`", "evaluate, report"),
    "--lr": ("how far one step of training goes", "finetune, train"),
    "--max-bops": ("the most BOPS of the network", "solve, front, gate, run, allocate"),
    "--max-drop": ("the most points lost against FP32", "solve, gate"),
    "--max-size": ("the most bytes of the network's weights", "solve, front, gate, run, allocate"),
    "--memory": ("what mpsearch itself may take of this machine's", "profile, front"),
    "--metric": (
        "a name of `mpsearch metrics`, which lists both kinds: how sensitivity is measured "
        "(profile), what an evaluation reports (evaluate)",
        "profile, evaluate",
    ),
    "--min-accuracy": ("the least accuracy of the network", "solve, gate"),
    "--min-agreement": ("the least share of FP32's answers", "solve, gate"),
    "--no-bias-correction": ("leave mean shifts in", "profile, solve, apply, evaluate"),
    "--output": (
        "the file or folder that is written",
        "profile, apply, finetune, solve, front, evaluate, export, device run, device table, "
        "report, data build, train, reproduce, convert, run, allocate, recipe, table",
    ),
    "--pin": ("choices that are given", "solve, front, explain, run, allocate"),
    "--plot": ("the picture of a front that is written", "front, evaluate"),
    "--points": ("how many points of the front", "front, evaluate, run"),
    "--profile": ("a table of `profile`", "explain, device table, report, gate, recipe"),
    "--ram": ("what the firmware may take of the RAM", "solve, export, device run, run"),
    "--refine": ("how many assignments are measured, to take the best", "solve, run"),
    "--repeat": ("inferences that are timed in a row", "device run, device table"),
    "--rounding": ("how weights are rounded", "profile, solve, apply, evaluate"),
    "--runs": ("how often all of it is done anew", "device run, reproduce"),
    "--seed": (
        "what draws at random",
        "profile, finetune, train, convert, demo, apply, evaluate, models export",
    ),
    "--strict": ("what is in doubt is refused", "gate, data build"),
    "--target": ("the processor", "solve, export, device table, run, gate"),
    "--time-limit": ("seconds for each search", "solve, explain, allocate"),
    "--wide": ("bits of sums and of what several layers read", "apply, evaluate, export"),
}  # fmt: skip


def commands() -> Iterator[tuple[str, click.Command]]:
    """All of them, as they are called: "device run"."""
    todo: list[tuple[str, click.Command]] = [("", cli)]
    while todo:
        path, command = todo.pop()
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                child = command.get_command(context, name)
                assert child is not None
                todo.append((f"{path} {name}".strip(), child))
        else:
            yield path, command


def renamed() -> Iterator[tuple[str, click.Command, Renamed, str]]:
    for path, command in commands():
        for option in command.params:
            if isinstance(option, Renamed):
                for spelling in option.old:
                    yield path, command, option, spelling


def called(path: str, command: click.Command, words: list[str]) -> dict[str, object]:
    """What the command would get, with something for each of its arguments."""
    for parameter in command.params:
        if parameter.required:
            value = parameter.type.choices[0] if isinstance(parameter.type, click.Choice) else "x"
            named = isinstance(parameter, click.Option)
            words = [*words, *([parameter.opts[-1]] if named else []), str(value)]
    return command.make_context(path, words).params


def test_options_of_one_name_have_one_meaning() -> None:
    told: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for path, command in commands():
        for option in command.params:
            if isinstance(option, click.Option):
                for spelling in (*option.opts, *option.secondary_opts):
                    if len(spelling) > 2:
                        told[spelling][f"{option.type.name} {option.help}"].add(path)
    unclear = {}
    for spelling, texts in told.items():
        if len(texts) > 1:
            meaning, known = MEANINGS.get(spelling, ("", ""))
            others = set().union(*texts.values()) - set(known.split(", "))
            if others:
                unclear[spelling] = f"means {meaning!r}; does it in {sorted(others)}?"
    assert not unclear
    gone = {
        spelling: sorted(others)
        for spelling, (_, known) in MEANINGS.items()
        if (others := set(known.split(", ")) - set().union(*told[spelling].values()))
    }
    assert not gone, "no such option there any more"


def test_no_old_spelling_is_a_word_of_its_command() -> None:
    """Two meanings at once would be the worst of all."""
    for path, command, _, spelling in renamed():
        words = [word for option in command.params for word in option.opts]
        assert spelling not in words, f"{path} {spelling}"


def test_old_spellings_work_and_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    found = {(path, option.spelling, spelling) for path, _, option, spelling in renamed()}
    assert found >= {
        ("solve", "--fp32", "--network"), ("reproduce", "--fp32", "--model"),
        ("solve", "--limit-ranges", "--ranges"), ("front", "--memory", "--max-memory"),
        ("explain", "--profile", "--table"), ("gate", "--row", "--network"),
        ("gate", "--device-file", "--device"), ("report", "--device-file", "--device"),
        ("predict", "--interactions-file", "--interactions"),
        ("gate", "--row", "--network"), ("gate", "--device-file", "--device"),
        ("profile", "--architecture", "--model"), ("device table", "--architecture", "--model"),
    }  # fmt: skip
    for path, command, option, spelling in renamed():
        value = [] if option.is_flag else ["7"]
        new = called(path, command, [option.spelling, *value])
        assert capsys.readouterr().err == "", path
        assert called(path, command, [spelling, *value]) == new != called(path, command, []), path
        line = f"note: {spelling} is now {option.spelling}; the old spelling works until {UNTIL}\n"
        assert capsys.readouterr().err == line, path
        twice = [option.spelling, *value, spelling, *value]
        if option.multiple:
            assert called(path, command, twice) == called(path, command, twice[:2] * 2)
        else:
            with pytest.raises(click.UsageError, match=f"{spelling}, its old spelling"):
                called(path, command, twice)
        capsys.readouterr()
    release = [int(number) for number in __version__.split(".")[:2]]
    assert release < [int(number) for number in UNTIL.split(".")], "delete the old spellings"


def test_the_two_limits_of_the_title_keep_both_words(capsys: pytest.CaptureFixture[str]) -> None:
    """Those of every README since 0.1, and those of the gate; neither ever says anything."""
    for name in ("solve", "front"):
        command = dict(commands())[name]
        short = called(name, command, ["--size", "145KB", "--bops-limit", "1.2G"])
        long = called(name, command, ["--max-size", "145KB", "--max-bops", "1.2G"])
        assert short == long != called(name, command, [])
    assert capsys.readouterr().err == ""


def test_help_in_groups_has_every_option_once_within_80_columns(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forty options in one list are not read."""
    monkeypatch.setenv("COLUMNS", "80")
    grouped = {path: one for path, one in commands() if isinstance(one, Grouped)}
    assert set(grouped) >= {"apply", "evaluate", "gate", "solve"}
    for path, command in grouped.items():
        named = [name for names in command.groups.values() for name in names]
        known = {spelling.lstrip("-") for option in command.params for spelling in option.opts}
        assert set(named) <= {*known, "help"}, path
        assert len(named) == len(set(named)), path
        with pytest.raises(SystemExit):
            command.main([*path.split()[1:], "--help"], prog_name=path)
        printed = capsys.readouterr().out
        assert max(map(len, printed.splitlines())) <= 80, path
        assert [printed.count(f"{heading}:\n") for heading in command.groups] == [
            1 for _ in command.groups
        ]
        options = printed[printed.index(f"\n{next(iter(command.groups))}:") :]
        starts = re.findall(r"^  (-.*?)(?:  |$)", options, re.MULTILINE)
        found = [word for start in starts for word in re.findall(r"--[\w-]+", start)]
        assert sorted(found) == sorted({
            spelling for option in command.params if isinstance(option, click.Option)
            for spelling in (*option.opts, *option.secondary_opts) if spelling.startswith("--")
        } | {"--help"}), path  # fmt: skip
    assert FURTHER not in "".join(grouped["gate"].grouped(click.Context(grouped["gate"])))
