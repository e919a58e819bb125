"""mpsearch: exact search for mixed-precision quantization.

The names below are the public Python API. They are imported on first use, so that `import mpsearch`
and `mpsearch --help` load neither torch nor a solver.
"""

__version__ = "0.2.0"

TYPE_CHECKING = False  # as type checkers know it; importing typing takes longer than all else here

if TYPE_CHECKING:
    from typing import Any

    from mpsearch.assignment import Assignment as Assignment
    from mpsearch.budget import Budget as Budget
    from mpsearch.calibration import calibrate as calibrate
    from mpsearch.choice import Choice as Choice
    from mpsearch.data import Data as Data
    from mpsearch.front import Front as Front
    from mpsearch.network import Network as Network
    from mpsearch.network_file import load as load
    from mpsearch.network_file import save as save
    from mpsearch.quantized import quantize as quantize
    from mpsearch.solution import Solution as Solution
    from mpsearch.table import LayerTable as LayerTable

_HOME = {
    "Assignment": "assignment",
    "Budget": "budget",
    "Choice": "choice",
    "Data": "data",
    "Front": "front",
    "LayerTable": "table",
    "Network": "network",
    "Solution": "solution",
    "calibrate": "calibration",
    "load": "network_file",
    "quantize": "quantized",
    "save": "network_file",
}

__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> "Any":
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(f"mpsearch.{_HOME[name]}"), name)
    raise AttributeError(f"module 'mpsearch' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
