"""mpsearch: exact search for mixed-precision quantization.

The names below are the public Python API; everything else, module paths too, may change at any
time. They are imported on first use, so that `import mpsearch` and `mpsearch --help` load neither
torch nor a solver.
"""

__version__ = "0.2.0"

TYPE_CHECKING = False  # as type checkers know it; importing typing takes longer than all else here

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from mpsearch.commands.console import progress as progress
    from mpsearch.comparing.diffing import Comparison as Comparison
    from mpsearch.comparing.diffing import diff as diff
    from mpsearch.data import Data as Data
    from mpsearch.data import bind as bind
    from mpsearch.data import read_arrays as read_arrays
    from mpsearch.errors import InputError as InputError
    from mpsearch.errors import MissingExtraError as MissingExtraError
    from mpsearch.errors import MpsearchError as MpsearchError
    from mpsearch.evaluation.evaluation import Evaluation as Evaluation
    from mpsearch.evaluation.evaluation import Evaluations as Evaluations
    from mpsearch.evaluation.subjects import Subject as Subject
    from mpsearch.evaluation.subjects import load_subject as load_subject
    from mpsearch.explaining.explaining import Explanation as Explanation
    from mpsearch.exporters.checking import TargetCheck as TargetCheck
    from mpsearch.exporters.formats import Exported as Exported
    from mpsearch.finetuning.module import from_module as from_module
    from mpsearch.finetuning.training import Epoch as Epoch
    from mpsearch.finetuning.training import FineTuned as FineTuned
    from mpsearch.finetuning.training import FineTuning as FineTuning
    from mpsearch.foreign_tables.reading import read_table as read_table
    from mpsearch.gating.report import GateReport as GateReport
    from mpsearch.gating.words import Verdict as Verdict
    from mpsearch.graph.arrays import Arrays as Arrays
    from mpsearch.graph.inputs import Call as Call
    from mpsearch.graph.layers import Layer as Layer
    from mpsearch.graph.network import Network as Network
    from mpsearch.graph.network_file import NetworkFile as NetworkFile
    from mpsearch.graph.network_file import load as load
    from mpsearch.graph.outputs import Output as Output
    from mpsearch.graph.outputs import split_outputs as split_outputs
    from mpsearch.graph.refusals import Refusal as Refusal
    from mpsearch.importers.loading import ModelSource as ModelSource
    from mpsearch.importers.loading import convert as convert
    from mpsearch.integer.inference import IntegerNetwork as IntegerNetwork
    from mpsearch.integer.inference import integer_network as integer_network
    from mpsearch.interactions.interactions import Interactions as Interactions
    from mpsearch.interactions.interactions import Prediction as Prediction
    from mpsearch.interactions.interactions import load_interactions as load_interactions
    from mpsearch.interactions.k_best import Ranking as Ranking
    from mpsearch.interactions.k_best import rerank as rerank
    from mpsearch.knapsack.instance import Instance as Instance
    from mpsearch.knapsack.problem import Answer as Answer
    from mpsearch.knapsack.problem import Problem as Problem
    from mpsearch.knapsack.problem import Solver as Solver
    from mpsearch.losses.loss import Loss as Loss
    from mpsearch.models.datasets import load_dataset as load_dataset
    from mpsearch.models.registry import build as build
    from mpsearch.models.samples import Dataset as Dataset
    from mpsearch.models.samples import Split as Split
    from mpsearch.models.training import Training as Training
    from mpsearch.models.training import train as train
    from mpsearch.pareto.front import Front as Front
    from mpsearch.post_training.repairing import PostTraining as PostTraining
    from mpsearch.profiling.profile import ProfileSettings as ProfileSettings
    from mpsearch.python.allocating import Allocated as Allocated
    from mpsearch.python.allocating import allocate as allocate
    from mpsearch.python.judging import gate as gate
    from mpsearch.python.judging import report as report
    from mpsearch.python.measuring import evaluate as evaluate
    from mpsearch.python.measuring import refine as refine
    from mpsearch.python.networks import check as check
    from mpsearch.python.networks import hessian_traces as hessian_traces
    from mpsearch.python.networks import profile as profile
    from mpsearch.python.networks import save as save
    from mpsearch.python.quantizing import apply as apply
    from mpsearch.python.quantizing import calibrate as calibrate
    from mpsearch.python.quantizing import export as export
    from mpsearch.python.quantizing import finetune as finetune
    from mpsearch.python.quantizing import quantize as quantize
    from mpsearch.python.quantizing import to_module as to_module
    from mpsearch.python.recipes import recipe as recipe
    from mpsearch.python.searching import explain as explain
    from mpsearch.python.searching import front as front
    from mpsearch.python.searching import predict as predict
    from mpsearch.python.searching import ranges as ranges
    from mpsearch.python.searching import solve as solve
    from mpsearch.python.searching import what_if as what_if
    from mpsearch.quantization.calibration import Histogram as Histogram
    from mpsearch.quantization.quantized import QuantizedNetwork as QuantizedNetwork
    from mpsearch.quantization.quantized_file import load_quantized as load_quantized
    from mpsearch.quantization.quantized_file import save_quantized as save_quantized
    from mpsearch.recipes.writing import RecipeFile as RecipeFile
    from mpsearch.refining.candidates import Asked as Asked
    from mpsearch.refining.loop import Refined as Refined
    from mpsearch.reports.writing import Reported as Reported
    from mpsearch.running.journal import Journal as Journal
    from mpsearch.sensitivity.forward_metric import ForwardMetric as ForwardMetric
    from mpsearch.sensitivity.forward_metric import OutputMetric as OutputMetric
    from mpsearch.sensitivity.study import Profiler as Profiler
    from mpsearch.sensitivity.study import Score as Score
    from mpsearch.sensitivity.study import Study as Study
    from mpsearch.sensitivity.traces import Trace as Trace
    from mpsearch.statistics import drop_interval as drop_interval
    from mpsearch.statistics import mcnemar_p as mcnemar_p
    from mpsearch.statistics import samples_for_drop as samples_for_drop
    from mpsearch.tables.assignment import Assignment as Assignment
    from mpsearch.tables.budget import Budget as Budget
    from mpsearch.tables.budget import Minimand as Minimand
    from mpsearch.tables.choice import Choice as Choice
    from mpsearch.tables.solution import Solution as Solution
    from mpsearch.tables.table import LayerTable as LayerTable
    from mpsearch.tables.table import Row as Row
    from mpsearch.tables.table import TableLayer as TableLayer
    from mpsearch.testing import assert_budget as assert_budget
    from mpsearch.testing.conformance import Conformance as Conformance
    from mpsearch.testing.conformance import check_solver as check_solver
    from mpsearch.testing.conformance import examine_solver as examine_solver

# Public name -> the module that defines it, under the same name; the imports above say the same to
# type checkers.
_HOME = {
    # verbs, as the commands are called
    "allocate": "mpsearch.python.allocating",
    "apply": "mpsearch.python.quantizing",
    "calibrate": "mpsearch.python.quantizing",
    "check": "mpsearch.python.networks",
    "evaluate": "mpsearch.python.measuring",
    "explain": "mpsearch.python.searching",
    "export": "mpsearch.python.quantizing",
    "finetune": "mpsearch.python.quantizing",
    "front": "mpsearch.python.searching",
    "gate": "mpsearch.python.judging",
    "hessian_traces": "mpsearch.python.networks",
    "profile": "mpsearch.python.networks",
    "quantize": "mpsearch.python.quantizing",
    "ranges": "mpsearch.python.searching",
    "read_table": "mpsearch.foreign_tables.reading",
    "recipe": "mpsearch.python.recipes",
    "refine": "mpsearch.python.measuring",
    "report": "mpsearch.python.judging",
    "save": "mpsearch.python.networks",
    "solve": "mpsearch.python.searching",
    "what_if": "mpsearch.python.searching",
    "convert": "mpsearch.importers.loading",
    "diff": "mpsearch.comparing.diffing",
    "load": "mpsearch.graph.network_file",
    "predict": "mpsearch.python.searching",
    "train": "mpsearch.models.training",
    # networks and data
    "bind": "mpsearch.data",
    "build": "mpsearch.models.registry",
    "load_dataset": "mpsearch.models.datasets",
    "read_arrays": "mpsearch.data",
    "split_outputs": "mpsearch.graph.outputs",
    "Arrays": "mpsearch.graph.arrays",
    "Call": "mpsearch.graph.inputs",
    "Data": "mpsearch.data",
    "Dataset": "mpsearch.models.samples",
    "Layer": "mpsearch.graph.layers",
    "Loss": "mpsearch.losses.loss",
    "ModelSource": "mpsearch.importers.loading",
    "Network": "mpsearch.graph.network",
    "NetworkFile": "mpsearch.graph.network_file",
    "Output": "mpsearch.graph.outputs",
    "Split": "mpsearch.models.samples",
    "Training": "mpsearch.models.training",
    # tables and assignments
    "load_interactions": "mpsearch.interactions.interactions",
    "progress": "mpsearch.commands.console",
    "rerank": "mpsearch.interactions.k_best",
    "Allocated": "mpsearch.python.allocating",
    "Asked": "mpsearch.refining.candidates",
    "Assignment": "mpsearch.tables.assignment",
    "Budget": "mpsearch.tables.budget",
    "Choice": "mpsearch.tables.choice",
    "Explanation": "mpsearch.explaining.explaining",
    "Front": "mpsearch.pareto.front",
    "Instance": "mpsearch.knapsack.instance",
    "Interactions": "mpsearch.interactions.interactions",
    "LayerTable": "mpsearch.tables.table",
    "Minimand": "mpsearch.tables.budget",
    "Prediction": "mpsearch.interactions.interactions",
    "ProfileSettings": "mpsearch.profiling.profile",
    "Ranking": "mpsearch.interactions.k_best",
    "RecipeFile": "mpsearch.recipes.writing",
    "Refined": "mpsearch.refining.loop",
    "Row": "mpsearch.tables.table",
    "Solution": "mpsearch.tables.solution",
    "TableLayer": "mpsearch.tables.table",
    "Trace": "mpsearch.sensitivity.traces",
    # quantized and measured networks
    "drop_interval": "mpsearch.statistics",
    "from_module": "mpsearch.finetuning.module",
    "integer_network": "mpsearch.integer.inference",
    "load_quantized": "mpsearch.quantization.quantized_file",
    "load_subject": "mpsearch.evaluation.subjects",
    "mcnemar_p": "mpsearch.statistics",
    "samples_for_drop": "mpsearch.statistics",
    "save_quantized": "mpsearch.quantization.quantized_file",
    "to_module": "mpsearch.python.quantizing",
    "Comparison": "mpsearch.comparing.diffing",
    "Epoch": "mpsearch.finetuning.training",
    "Evaluation": "mpsearch.evaluation.evaluation",
    "Evaluations": "mpsearch.evaluation.evaluation",
    "Exported": "mpsearch.exporters.formats",
    "FineTuned": "mpsearch.finetuning.training",
    "FineTuning": "mpsearch.finetuning.training",
    "GateReport": "mpsearch.gating.report",
    "Histogram": "mpsearch.quantization.calibration",
    "IntegerNetwork": "mpsearch.integer.inference",
    "PostTraining": "mpsearch.post_training.repairing",
    "QuantizedNetwork": "mpsearch.quantization.quantized",
    "Reported": "mpsearch.reports.writing",
    "Refusal": "mpsearch.graph.refusals",
    "Subject": "mpsearch.evaluation.subjects",
    "TargetCheck": "mpsearch.exporters.checking",
    "Verdict": "mpsearch.gating.words",
    # plug-ins and tests
    "assert_budget": "mpsearch.testing",
    "check_solver": "mpsearch.testing.conformance",
    "examine_solver": "mpsearch.testing.conformance",
    "Answer": "mpsearch.knapsack.problem",
    "Conformance": "mpsearch.testing.conformance",
    "ForwardMetric": "mpsearch.sensitivity.forward_metric",
    "Journal": "mpsearch.running.journal",
    "OutputMetric": "mpsearch.sensitivity.forward_metric",
    "Problem": "mpsearch.knapsack.problem",
    "Profiler": "mpsearch.sensitivity.study",
    "Score": "mpsearch.sensitivity.study",
    "Solver": "mpsearch.knapsack.problem",
    "Study": "mpsearch.sensitivity.study",
    # errors
    "InputError": "mpsearch.errors",
    "MissingExtraError": "mpsearch.errors",
    "MpsearchError": "mpsearch.errors",
}
# Methods of nouns: the verb that each is, and whether the noun is its "first" argument, or its
# "second", after the model, which may be left out. They are bound here since the rooms of these
# nouns import nothing from above; type checkers read them in the class.
_APPLIED = {"apply": "apply second", "finetune": "finetune second",
            "to_module": "applied_module second"}  # fmt: skip
_METHODS = {
    "Assignment": _APPLIED,
    "Front": {"measure": "measure first", "plot": "plot first"},
    "LayerTable": {"front": "front first", "ranges": "ranges first", "solve": "solve first"},
    "QuantizedNetwork": {"export": "export first", "to_module": "to_module first"},
    "Solution": {
        **_APPLIED, "explain": "explain first", "export": "export first",
        "refine": "refine first", "what_if": "what_if first",
    },
}  # fmt: skip
_BESIDE = {
    "applied_module": "mpsearch.python.quantizing",
    "measure": "mpsearch.python.measuring",
    "plot": "mpsearch.python.judging",
}

__all__ = [*_HOME, "__version__"]


if not TYPE_CHECKING:  # so that these report a name that does not exist

    def __getattr__(name: str) -> "Any":
        if name not in _HOME:
            raise AttributeError(f"module 'mpsearch' has no attribute {name!r}")
        return _find(name)


def __dir__() -> list[str]:
    return __all__


def _find(name: str) -> "Any":
    from importlib import import_module

    home = _HOME.get(name) or _BESIDE[name]
    found = getattr(import_module(home), name)
    _bind()
    if isinstance(found, type) or not callable(found):
        return found
    from mpsearch.python.calls import checked

    return checked(found, name)


def _bind() -> None:
    """Give the nouns that were imported by now their methods."""
    import sys

    for noun in [noun for noun in _METHODS if _HOME[noun] in sys.modules]:
        cls = getattr(sys.modules[_HOME[noun]], noun, None)
        for name, verb in {} if cls is None else _METHODS.pop(noun).items():
            setattr(cls, name, _method(name, *verb.split()))


def _method(name: str, verb: str, place: str) -> "Callable[..., Any]":
    def first(self: "Any", *args: "Any", **named: "Any") -> "Any":
        return _find(verb)(self, *args, **named)

    def second(self: "Any", model: "Any" = None, *args: "Any", **named: "Any") -> "Any":
        return _find(verb)(model, self, *args, **named)

    method = {"first": first, "second": second}[place]
    method.__name__ = name
    method.__doc__ = f"`mpsearch.{name}` with this one."
    return method
