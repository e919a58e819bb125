"""Keras itself, imported only where a Keras model is made; reading a file never imports it."""

import os
import sys
from typing import Any

from mpsearch.errors import MissingExtraError


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
