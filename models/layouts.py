"""Layout `folders`: the folder's name is the class; `train/`, `val/`, `test/` above where given.

Layout `table`: a CSV file says which file has which label, and more where it knows more.

Layout `compare`: the ComParE 2021 COVID-19 cough (CCS) and speech (CSS) sub-challenges.

Schuller et al., "The INTERSPEECH 2021 Computational Paralinguistics Challenge: COVID-19 Cough,
COVID-19 Speech, Escalation & Primates", Interspeech 2021: `lab/{train,devel,test}.csv` with the
columns filename and label, and the files in `wav/`. The tables name no participants; the
organisers' splits are by participant, so they are kept.

Layout `coswara`: folders of dates, in them one per participant, in it one file per recording.

Sharma et al., "Coswara: A Database of Breathing, Cough, and Voice Sounds for COVID-19 Diagnosis",
Interspeech 2020, and the repository iiscleap/Coswara-Data with its archives unpacked:
`20200413/PARTICIPANT/cough-heavy.wav`, `metadata.json` beside it and `combined_data.csv` (columns
id and covid_status) above all.
"""

import re
from collections import Counter
from pathlib import Path

from mpsearch.errors import InputError
from mpsearch.files.json_file import check_form, read_json, text
from mpsearch.files.whole import read_rows
from mpsearch.models.dataset_config import InputConfig
from mpsearch.models.samples import Clip, Listing, Skipped, relative, split_named


def class_folders(config: InputConfig, given_splits: bool) -> Listing:
    """Every file below `folder/CLASS/`, or `folder/SPLIT/CLASS/` with given splits, sorted.

    A file's key is its path below the class without suffix, so that `sounds/dog/a1.wav` and
    `pictures/dog/a1.png` go together. Its group is the file itself, or what the parentheses of the
    option `group` match in that path. Hidden files are ignored.
    """
    pattern = config.layout_options.get("group")
    above = 2 if given_splits else 1  # folders above a file that mean something
    clips: list[Clip] = []
    skipped: list[Skipped] = []
    for path in sorted(config.folder.rglob("*")):
        parts = path.relative_to(config.folder).parts
        if path.is_dir() or any(part.startswith(".") for part in parts):
            continue
        name = relative(path, config.base)
        if len(parts) <= above:
            expected = "SPLIT/CLASS/" if given_splits else "CLASS/"
            skipped.append(Skipped(name, f"is not in a folder {expected} of its own"))
            continue
        split = split_named(parts[0]) if given_splits else None
        if given_splits and split is None:
            skipped.append(Skipped(name, f"{parts[0]} is not train, val or test"))
            continue
        key = Path(*parts[above:]).with_suffix("").as_posix()
        group = relative(path.with_suffix(""), config.base)
        if pattern is not None:
            match = re.search(pattern, key)
            if match is None or match[1] is None:
                skipped.append(Skipped(name, f"group {pattern!r} does not match {key!r}"))
                continue
            group = match[1]
        clips.append(Clip(path, parts[above - 1], group, key, split))
    return Listing(tuple(clips), tuple(skipped))


def table_layout(config: InputConfig, given_splits: bool) -> Listing:
    """One clip per row of `folder/TABLE`.

    The options name the columns: `file` (a path below `folder`) and `label`; `start` (seconds: that
    window alone), `group`, `split` and `key` where there are any. The group is the file by default,
    the key the file without suffix, with the start where there is one.
    """
    options = config.layout_options
    path = config.folder / options["table"]
    rows = read_rows(path, [name for option, name in options.items() if option != "table"])
    if given_splits and "split" not in options:
        raise InputError(
            f"[inputs.{config.name}]: given splits need the key split, the column that names them"
        )
    clips: list[Clip] = []
    skipped: list[Skipped] = []
    for number, row in enumerate(rows, start=2):
        where = f"{relative(path, config.base)}:{number}"
        file = row[options["file"]]
        split = split_named(row[options["split"]]) if given_splits else None
        start = seconds(row[options["start"]]) if "start" in options else None
        if not file or not row[options["label"]]:
            skipped.append(Skipped(where, "has no file or no label"))
        elif given_splits and split is None:
            skipped.append(Skipped(where, f"{row[options['split']]!r} is not train, val or test"))
        elif "start" in options and start is None:
            skipped.append(Skipped(where, f"{row[options['start']]!r} is no time in seconds"))
        else:
            stem = Path(file).with_suffix("").as_posix()
            default = relative(config.folder / stem, config.base)
            key = stem if start is None else f"{stem} at {start:g} s"
            clips.append(
                Clip(
                    path=config.folder / file,
                    label=row[options["label"]],
                    group=row[options["group"]] if "group" in options else default,
                    key=row[options["key"]] if "key" in options else key,
                    split=split,
                    start=start,
                )
            )
    return Listing(tuple(clips), tuple(skipped))


def seconds(text: str) -> float | None:
    """A time from 0 on; None for any other text."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if 0 <= value < 1e9 else None


UNKNOWN = "?"  # the label of test recordings as they were given to the participants


def compare_layout(config: InputConfig, given_splits: bool) -> Listing:
    """The recordings of every table that is there; `devel` is the validation split.

    Recordings without a label are left out with a note. Raises InputError for splits that are not
    the given ones, and where `lab/train.csv` is missing.
    """
    if not given_splits:
        raise InputError(
            f"[inputs.{config.name}]: ComParE's tables name no participants, so only its own "
            'splits keep them apart; write [split] by = "given"'
        )
    if not (config.folder / "lab" / "train.csv").is_file():
        raise InputError(
            f"{config.folder} has no lab/train.csv; expected ComParE's folders lab/ and wav/"
        )
    clips: list[Clip] = []
    notes: list[str] = []
    for table in ("train", "devel", "test"):
        path = config.folder / "lab" / f"{table}.csv"
        if not path.is_file():
            notes.append(f"there is no {relative(path, config.base)}")
            continue
        rows = read_rows(path, ["filename", "label"])
        known = [row for row in rows if row["label"] not in ("", UNKNOWN)]
        if len(known) < len(rows):
            notes.append(
                f"{relative(path, config.base)}: {len(rows) - len(known)} of {len(rows)} "
                "recordings have no label and were left out"
            )
        for row in known:
            file = config.folder / "wav" / row["filename"]
            name = relative(file.with_suffix(""), config.base)
            clips.append(Clip(file, row["label"], name, Path(file.name).stem, split_named(table)))
    return Listing(tuple(clips), notes=tuple(notes))


STATUSES = {
    "healthy": "negative",
    "positive_mild": "positive",
    "positive_moderate": "positive",
    "positive_asymp": "positive",
}


def coswara_layout(config: InputConfig, given_splits: bool) -> Listing:
    """One clip per participant who made the option's `recording` and whose status is a class.

    The status comes from `combined_data.csv` (or the option `table`), and from the participant's
    metadata.json where that table is not there or does not list the participant. Group and key are
    the participant. Other statuses are left out with a note.
    """
    if given_splits:
        raise InputError(
            f"[inputs.{config.name}]: Coswara has no splits of its own; "
            'write [split] by = "random", which is by participant'
        )
    recording = config.layout_options["recording"]
    statuses = dict(config.statuses) or STATUSES
    listed = _combined(config)
    clips: list[Clip] = []
    skipped: list[Skipped] = []
    other: Counter[str] = Counter()
    without = 0
    for person in sorted(path for path in config.folder.glob("*/*") if path.is_dir()):
        files = sorted(path for path in person.glob(f"{recording}.*") if path.is_file())
        if not files:
            without += 1
            continue
        try:
            status = listed.get(person.name) or _status(person)
        except InputError as error:
            skipped.append(Skipped(relative(person, config.base), str(error)))
            continue
        if status not in statuses:
            other[status] += 1
            continue
        clips.append(Clip(files[0], statuses[status], person.name, person.name))
    notes = [
        f"{config.name}: {count} participants have the status {status!r}, which is no class"
        for status, count in sorted(other.items())
    ]
    if without:
        notes.append(f"{config.name}: {without} participants have no {recording}")
    return Listing(tuple(clips), tuple(skipped), tuple(notes))


def _combined(config: InputConfig) -> dict[str, str]:
    """Status by participant; empty where there is no table and none is asked for."""
    named = config.layout_options.get("table")
    path = config.folder / (named or "combined_data.csv")
    if named is None and not path.is_file():
        return {}
    return {row["id"]: row["covid_status"] for row in read_rows(path, ["id", "covid_status"])}


def _status(person: Path) -> str:
    path = person / "metadata.json"
    if not path.is_file():
        raise InputError("is in no table and has no metadata.json")
    try:
        document = read_json(path, "metadata.json", 1)
        check_form(document, {"covid_status": text}, "")
        return str(document["covid_status"])
    except (ValueError, InputError):
        raise InputError("metadata.json has no covid_status") from None
