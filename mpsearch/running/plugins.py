"""Third-party solvers and profilers, found by entry-point group and imported when chosen.

Python objects by name: `package.module:name`.

The packages of optional extras, imported when they are used.
"""

import importlib
import os
import sys
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from mpsearch.errors import InputError, MissingExtraError, did_you_mean


def installed(group: str) -> dict[str, EntryPoint]:
    """Entry points of `group` by name, sorted; nothing is imported."""
    return {point.name: point for point in sorted(entry_points(group=group), key=lambda p: p.name)}


def load(group: str, name: str, noun: str) -> Any:
    """Import the plug-in `name` of `group`; an unknown name is an InputError listing the known
    ones."""
    points = installed(group)
    if name not in points:
        close = did_you_mean(name, points)
        raise InputError(f"unknown {noun} {name!r}{close}; installed: {', '.join(points)}")
    return points[name].load()


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


def onnx_package(purpose: str = "the ONNX export") -> Any:
    """The module `onnx`. Raises MissingExtraError with the pip command where it is missing."""
    return _package("onnx", purpose)


def onnxruntime_package() -> Any:
    """The module `onnxruntime`. Raises MissingExtraError as `onnx_package`."""
    return _package("onnxruntime", "checking an ONNX model")


def has_onnxruntime() -> bool:
    """True when onnxruntime is installed; nothing is imported."""
    return find_spec("onnxruntime") is not None


def litert(module: str) -> ModuleType:
    """A module of ai-edge-litert. Raises MissingExtraError with the command that installs it."""
    try:
        return import_module(f"ai_edge_litert.{module}")
    except ImportError as error:
        raise MissingExtraError("ai-edge-litert", "litert", "a LiteRT file") from error


def has_tflite_micro() -> bool:
    """True when the interpreter of TensorFlow Lite Micro is installed; nothing is imported."""
    return find_spec("tflite_micro") is not None


def keras_package(purpose: str) -> Any:
    """The module `keras`. Raises MissingExtraError with the pip command where it is missing.

    Keras runs on torch, which is here already, unless the caller imported it with another backend
    or named one in KERAS_BACKEND.
    """
    if "keras" not in sys.modules:
        os.environ.setdefault("KERAS_BACKEND", "torch")
    try:
        import keras
    except ImportError:
        raise MissingExtraError("keras", "keras", purpose) from None
    return keras


def _package(name: str, purpose: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise MissingExtraError(name, "onnx", purpose) from None
