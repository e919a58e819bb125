"""Layout `compare`: the ComParE 2021 COVID-19 cough (CCS) and speech (CSS) sub-challenges.

Schuller et al., "The INTERSPEECH 2021 Computational Paralinguistics Challenge: COVID-19 Cough,
COVID-19 Speech, Escalation & Primates", Interspeech 2021: `lab/{train,devel,test}.csv` with the
columns filename and label, and the files in `wav/`. The tables name no participants; the
organisers' splits are by participant, so they are kept.
"""

from pathlib import Path

from mpsearch.errors import InputError
from mpsearch.files.csv_file import read_rows
from mpsearch.models.clips import Clip, Listing, relative, split_named
from mpsearch.models.dataset_config import InputConfig

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
