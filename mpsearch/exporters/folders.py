"""Folders of exports: whose files may be written over, and export.json, which lists them.

An export writes a new folder, an empty one, or one in which nothing was changed since an export of
the same kind wrote it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mpsearch.errors import InputError
from mpsearch.files.json_file import by_name, check_form, one_of, read_json, text
from mpsearch.files.whole import digest, write_atomic
from mpsearch.running.streams import shown

DOCUMENT = "export.json"
LARGEST_MIB = 64
BUILD = "build"  # what make writes; never ours to judge


def check_folder(folder: Path, form: str) -> None:
    """Raise InputError unless an export of the kind `form` may be written to `folder` without
    losing anything."""
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; choose another with -o")
    found = {
        str(path.relative_to(folder))
        for path in folder.rglob("*")
        if not path.is_dir() and path.relative_to(folder).parts[0] != BUILD
    }
    if not found:
        return
    other = _kind_of(folder)
    if other is not None and other != form:
        raise InputError(
            f"{folder} holds an export of another kind ({other}); choose a new folder with -o"
        )
    written = _files_of(folder, form)
    for name in sorted(found - {DOCUMENT}):
        if name not in written:
            raise InputError(
                f"{folder} holds {name}, which no export wrote; choose a new folder with -o"
            )
        if digest((folder / name).read_bytes()) != written[name]:
            raise InputError(
                f"{folder}/{name} was changed after the export; choose a new folder with -o"
            )


def _kind_of(folder: Path) -> str | None:
    """What the export that lies there says it is; None where there is none."""
    try:
        document = read_json(folder / DOCUMENT, DOCUMENT, LARGEST_MIB)
        check_form(document, {"format": text, "files": by_name(text)}, "")
    except (OSError, ValueError, InputError):
        return None
    return shown(document["format"])


def _files_of(folder: Path, form: str) -> Mapping[str, str]:
    """The files that an earlier export lists; none where there is no export."""
    try:
        document = read_json(folder / DOCUMENT, DOCUMENT, LARGEST_MIB)
        check_form(document, {"format": one_of(form), "files": by_name(text)}, "")
    except (OSError, ValueError, InputError):
        return {}
    files_by_name: Mapping[str, str] = document["files"]
    return files_by_name


def write_files(
    folder: Path, contents: Mapping[str, bytes], document: Mapping[str, Any]
) -> dict[str, Any]:
    """Write all files, then export.json: `document` with `files`, the digest of each by its name.

    Returns what stands there.
    """
    listed = {name: digest(content) for name, content in sorted(contents.items())}
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / name, content)
    whole = {**document, "files": listed}
    write_atomic(folder / DOCUMENT, json.dumps(whole, indent=1) + "\n")
    return whole
