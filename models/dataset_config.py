"""data.toml: which files are which input of a dataset, how they are cut, paired and split."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpsearch.errors import InputError, did_you_mean
from mpsearch.files.whole import like_file, read_toml
from mpsearch.models.features import BATTLEFIELD_AUDIO, COVID_COUGH, COVID_SPEECH, MfccSettings

FEATURES = {
    "battlefield": BATTLEFIELD_AUDIO,
    "covid-cough": COVID_COUGH,
    "covid-speech": COVID_SPEECH,
}
SOUND_KINDS = ("audio", "video-sound")
KINDS = (*SOUND_KINDS, "image", "video-frame")
VIDEO_STEP = 1.0  # seconds: a video gives one frame and one window of sound a second
# layout -> its own keys and whether each must be there
LAYOUT_KEYS: Mapping[str, Mapping[str, bool]] = {
    "folders": {"group": False},
    "table": {
        "table": True, "file": True, "label": True,
        "start": False, "group": False, "split": False, "key": False,
    },
    "compare": {},
    "coswara": {"recording": True, "table": False},
}  # fmt: skip


@dataclass(frozen=True)
class InputConfig:
    """One input of the network: `[inputs.NAME]`. `layout_options` are the layout's own keys."""

    name: str
    kind: str
    layout: str
    folder: Path
    base: Path  # the config file's folder: paths are shown from here
    layout_options: Mapping[str, str]
    statuses: Mapping[str, str]  # coswara: covid_status -> class; empty for its default
    normalise: bool
    mfcc: MfccSettings | None  # None for pictures
    step: float  # seconds between the beginnings of windows
    size: int  # pixels
    channels: int  # 3 are RGB, 1 is grey


@dataclass(frozen=True)
class DatasetConfig:
    """A whole data.toml, checked."""

    name: str
    source: str
    generated: bool
    classes: tuple[str, ...]  # empty: all that are found, sorted
    inputs: tuple[InputConfig, ...]
    pair_by: str  # key, class
    split_by: str  # random, given
    val: float
    test: float
    seed: int


def read_config(path: str | os.PathLike[str]) -> DatasetConfig:
    """Read and check a data.toml. Raises InputError naming the section and the key."""
    file = Path(path)
    try:
        document = read_toml(file)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}{like_file(path)}") from None
    top = _Section(str(path), document)
    split = _Section(f"{path}, [split]", top.take("split", dict, {}))
    pairs = _Section(f"{path}, [pairs]", top.take("pairs", dict, {}))
    inputs = top.take("inputs", dict)
    config = DatasetConfig(
        name=top.take("name", str, file.stem),
        source=top.take("source", str, f"own files, {file.name}"),
        generated=top.take("generated", bool, False),
        classes=tuple(map(str, top.take("classes", list, []))),
        inputs=tuple(
            _input(_Section(f"{path}, [inputs.{name}]", table), name, file.parent)
            for name, table in inputs.items()
        ),
        pair_by=pairs.choice("by", ("key", "class"), "key"),
        split_by=split.choice("by", ("random", "given"), "random"),
        val=split.number("val", 0.15),
        test=split.number("test", 0.15),
        seed=split.take("seed", int, 0),
    )
    for section in (top, split, pairs):
        section.finish()
    if not config.inputs:
        raise InputError(f"{path}: [inputs] is empty; expected one [inputs.NAME] per input")
    if config.val + config.test >= 1 or config.seed < 0:
        raise InputError(
            f"{path}, [split]: got val {config.val:g}, test {config.test:g}, seed {config.seed}; "
            "expected val + test below 1, so that something is left to train on, and a seed >= 0"
        )
    if len(set(config.classes)) != len(config.classes):
        raise InputError(f"{path}: a class is listed twice in classes")
    return config


def _input(section: "_Section", name: str, base: Path) -> InputConfig:
    kind = section.choice("kind", KINDS)
    layout = section.choice("layout", tuple(LAYOUT_KEYS), "folders")
    options = {}
    for key, needed in LAYOUT_KEYS[layout].items():
        value = section.take(key, str) if needed else section.take(key, str, "")
        if value:
            options[key] = value
    if layout == "folders" and "group" in options:
        _check_pattern(section.where, options["group"])
    statuses = section.take("statuses", dict, {}) if layout == "coswara" else {}
    mfcc = _mfcc(section) if kind in SOUND_KINDS else None
    step = VIDEO_STEP
    if kind == "audio":
        assert mfcc is not None
        step = section.number("step", mfcc.seconds)
        if step <= 0:
            raise InputError(f"{section.where}: got step {step:g}; expected seconds above 0")
    size = section.take("size", int, 32) if mfcc is None else 0
    if mfcc is None and not 1 <= size <= 4096:
        raise InputError(f"{section.where}: got size {size}; expected 1 to 4096 pixels")
    channels = section.take("channels", int, 3) if mfcc is None else 1
    if channels not in (1, 3):
        raise InputError(f"{section.where}: got channels {channels}; expected 1 (grey) or 3 (RGB)")
    config = InputConfig(
        name=name,
        kind=kind,
        layout=layout,
        folder=base / section.take("folder", str),
        base=base,
        layout_options=options,
        statuses={str(key): str(value) for key, value in statuses.items()},
        normalise=section.take("normalise", bool, True),
        mfcc=mfcc,
        step=step,
        size=size,
        channels=channels,
    )
    section.finish()
    if not config.folder.is_dir():
        raise InputError(f"{section.where}: there is no folder {config.folder}")
    return config


def _mfcc(section: "_Section") -> MfccSettings:
    """The named settings, changed where the section says so; all frames by default."""
    named = FEATURES[section.choice("features", tuple(FEATURES), "battlefield")]
    changed = [key for key in ("rate", "seconds", "hop") if key in section.table]
    rate = section.take("rate", int, named.rate)
    seconds = section.number("seconds", named.seconds)
    hop = section.take("hop", int, named.hop)
    coefficients = section.take("coefficients", int, named.coefficients)
    if min(rate, hop, coefficients) < 1 or seconds <= 0 or round(rate * seconds) < 1:
        raise InputError(f"{section.where}: rate, seconds, hop and coefficients must be above 0")
    if coefficients > 128:
        raise InputError(f"{section.where}: got {coefficients} coefficients of 128 mel bands")
    whole = 1 + round(rate * seconds) // hop
    frames = section.take("frames", int, whole if changed else named.frames)
    if not 1 <= frames <= whole:
        raise InputError(f"{section.where}: got frames {frames}; the window has 1 to {whole}")
    return MfccSettings(rate, seconds, hop, coefficients, frames)


def _check_pattern(where: str, pattern: str) -> None:
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise InputError(f"{where}: group is not a regular expression: {error}") from None
    if groups != 1:
        raise InputError(f"{where}: group {pattern!r} needs one pair of parentheses")


_REQUIRED = object()


class _Section:
    """A TOML table whose keys are taken one by one; what is left at the end is unknown."""

    def __init__(self, where: str, table: object) -> None:
        if not isinstance(table, dict):
            raise InputError(f"{where}: got {table!r}; expected a table")
        self.where = where
        self.table: dict[str, Any] = dict(table)
        self._known: list[str] = []

    def take(self, key: str, kind: type, default: Any = _REQUIRED) -> Any:
        self._known.append(key)
        value = self.table.pop(key, default)
        if value is _REQUIRED:
            raise InputError(f"{self.where}: {key} is missing")
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            shown = ascii(value)[:60]
            raise InputError(f"{self.where}: {key} is {shown}; expected {_KINDS[kind]}")
        return value

    def number(self, key: str, default: float) -> float:
        value = self.table.get(key, default)
        if isinstance(value, int) and not isinstance(value, bool):
            self.table[key] = float(value)
        number = float(self.take(key, float, default))
        if not 0 <= number < 1e9:
            raise InputError(f"{self.where}: {key} is {number}; expected a number from 0 on")
        return number

    def choice(self, key: str, known: tuple[str, ...], default: Any = _REQUIRED) -> str:
        value = self.take(key, str, default)
        if value not in known:
            raise InputError(f"{self.where}: {key} is {value!r}; expected {' or '.join(known)}")
        return str(value)

    def finish(self) -> None:
        for key in self.table:
            raise InputError(
                f"{self.where}: unknown key {key!r}{did_you_mean(key, self._known)}; "
                f"known here: {', '.join(self._known)}"
            )


_KINDS = {
    str: "text", int: "a whole number", float: "a number", bool: "true or false",
    list: "a list", dict: "a table",
}  # fmt: skip
