"""mpsearch: exact search for mixed-precision quantization.

The names below are the public Python API. They are imported on first use, so that `import mpsearch`
and `mpsearch --help` load neither torch nor a solver.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from mpsearch.assignment import Assignment as Assignment
    from mpsearch.choice import Choice as Choice
    from mpsearch.table import LayerTable as LayerTable

_HOME = {
    "Assignment": "mpsearch.assignment",
    "Choice": "mpsearch.choice",
    "LayerTable": "mpsearch.table",
}

__all__ = ["Assignment", "Choice", "LayerTable", "__version__"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'mpsearch' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
