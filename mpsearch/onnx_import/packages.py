"""The optional package `onnx`, imported when it is used."""

from typing import Any

from mpsearch.errors import MissingExtraError


def onnx_package() -> Any:
    """The module `onnx`. Raises MissingExtraError with the pip command where it is missing."""
    try:
        import onnx
        import onnx.inliner
    except ImportError:
        raise MissingExtraError("onnx", "onnx", "reading an ONNX file") from None
    return onnx
