"""Layout `coswara`: folders of dates, in them one per participant, in it one file per recording.

Sharma et al., "Coswara: A Database of Breathing, Cough, and Voice Sounds for COVID-19 Diagnosis",
Interspeech 2020, and the repository iiscleap/Coswara-Data with its archives unpacked:
`20200413/PARTICIPANT/cough-heavy.wav`, `metadata.json` beside it and `combined_data.csv` (columns
id and covid_status) above all.
"""

from collections import Counter
from pathlib import Path

from mpsearch.errors import InputError
from mpsearch.files.csv_file import read_rows
from mpsearch.files.json_file import read_json
from mpsearch.files.json_form import check_form, text
from mpsearch.models.clips import Clip, Listing, Skipped, relative
from mpsearch.models.dataset_config import InputConfig

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
