"""The packages of optional extras, imported when they are used."""

import os
import sys
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from mpsearch.errors import MissingExtraError


def onnx_package(purpose: str = "the ONNX export") -> Any:
    """The module `onnx`. Raises MissingExtraError with the pip command where it is missing."""
    return _package("onnx", purpose)


def onnxruntime_package() -> Any:
    """The module `onnxruntime`. Raises MissingExtraError as `onnx_package`."""
    return _package("onnxruntime", "checking an ONNX model")


def has_onnxruntime() -> bool:
    """True when onnxruntime is installed; nothing is imported."""
    return find_spec("onnxruntime") is not None


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
