"""mpsearch: exact search for mixed-precision quantization.

The names below are the public Python API. They are imported on first use, so that `import mpsearch`
and `mpsearch --help` load neither torch nor a solver.
"""

__version__ = "0.2.0"

TYPE_CHECKING = False  # as type checkers know it; importing typing takes longer than all else here

if TYPE_CHECKING:
    from typing import Any

    from mpsearch.data import Data as Data
    from mpsearch.graph.network import Network as Network
    from mpsearch.graph.network_file import load as load
    from mpsearch.graph.network_file import save as save
    from mpsearch.pareto.front import Front as Front
    from mpsearch.quantization.calibration import calibrate as calibrate
    from mpsearch.quantization.quantized import quantize as quantize
    from mpsearch.tables.assignment import Assignment as Assignment
    from mpsearch.tables.budget import Budget as Budget
    from mpsearch.tables.choice import Choice as Choice
    from mpsearch.tables.solution import Solution as Solution
    from mpsearch.tables.table import LayerTable as LayerTable

_HOME = {
    "Assignment": "tables.assignment",
    "Budget": "tables.budget",
    "Choice": "tables.choice",
    "Data": "data",
    "Front": "pareto.front",
    "LayerTable": "tables.table",
    "Network": "graph.network",
    "Solution": "tables.solution",
    "calibrate": "quantization.calibration",
    "load": "graph.network_file",
    "quantize": "quantization.quantized",
    "save": "graph.network_file",
}

__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> "Any":
    if name in _HOME:
        from importlib import import_module

        return getattr(import_module(f"mpsearch.{_HOME[name]}"), name)
    raise AttributeError(f"module 'mpsearch' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
