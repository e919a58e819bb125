"""Reading a JSON file of ours that anybody may have written: its size, format and version."""

import json
import os
from pathlib import Path
from typing import Any

from mpsearch.errors import InputError


def read_document(
    path: str | os.PathLike[str], noun: str, form: str, version: int, mebibytes: int, missing: str
) -> dict[str, Any]:
    """The document of a file with `"format": form` and this version.

    noun: what the file is called in messages; missing: the message where there is none. Raises
    InputError for a file of more than `mebibytes` MiB and for anything else.
    """
    name = os.fspath(path)
    try:
        if Path(path).stat().st_size > mebibytes << 20:
            raise InputError(
                f"{name} is too large for a {noun}; expected less than {mebibytes} MiB"
            )
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(missing) from None
    except (ValueError, RecursionError, IsADirectoryError) as error:
        raise InputError(f"{name} is not a {noun}: {str(error)[:200]}") from None
    if not isinstance(document, dict) or document.get("format") != form:
        raise InputError(f'{name} is not a {noun}; expected "format": "{form}"')
    found = document.get("version")
    if found != version:
        raise InputError(f"{name} has version {ascii(found)[:50]}; this mpsearch reads {version}")
    return document
