"""The optional packages for ONNX files, imported when they are used."""

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


def _package(name: str, purpose: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise MissingExtraError(name, "onnx", purpose) from None
