"""Python objects by name: `package.module:name`."""

import importlib
import os
import sys

from mpsearch.errors import InputError


def put_working_directory_on_path() -> None:
    """What a user names, or a trusted pickle needs, may lie where the command is run."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())


def import_object(spec: str) -> object:
    """The object that `package.module:name` names; the working directory is on the path."""
    module, colon, name = spec.partition(":")
    if not colon or not module or not name:
        raise InputError(f"got {spec!r}; expected the form package.module:name")
    put_working_directory_on_path()
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InputError(f"cannot import {spec!r}: {error}") from error
