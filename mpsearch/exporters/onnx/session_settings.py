"""Session options of onnxruntime that an exported model is tried with, and sessions under them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mpsearch.running.optional import onnxruntime_package


@dataclass(frozen=True)
class SessionSetting:
    """`config`: entries for add_session_config_entry; `level`: a GraphOptimizationLevel."""

    name: str
    config: Mapping[str, str] = field(default_factory=dict)
    level: str = "ORT_ENABLE_ALL"

    def describe(self) -> dict[str, Any]:
        """As it is stored with the model."""
        return {"session_config": dict(self.config), "graph_optimization_level": self.level}


DEFAULT = SessionSetting("default options")
# Integer products of 8 bits on x86 without VNNI saturate in 16 bits unless this asks for others.
PRECISE = SessionSetting("session.x64quantprecision=1", {"session.x64quantprecision": "1"})
# No fusion to integer kernels: weights become float when the model is loaded.
WITHOUT_FUSION = SessionSetting("session.disable_quant_qdq=1", {"session.disable_quant_qdq": "1"})
BASIC = SessionSetting("ORT_ENABLE_BASIC", level="ORT_ENABLE_BASIC")
# Removes QDQ pairs that are needed; never recommended.
CLEANUP = SessionSetting(
    "session.enable_quant_qdq_cleanup=1", {"session.enable_quant_qdq_cleanup": "1"}
)
TRIED = (DEFAULT, PRECISE, WITHOUT_FUSION, BASIC, CLEANUP)


def preferred(only_8_bits: bool) -> tuple[SessionSetting, ...]:
    """What to recommend, the best first.

    onnxruntime has integer kernels for 8 bits; anything else it unpacks again in every run unless
    fusion is off. PRECISE changes nothing where products do not saturate: it is right everywhere.
    """
    if only_8_bits:
        return (PRECISE, DEFAULT, WITHOUT_FUSION, BASIC)
    return (WITHOUT_FUSION, BASIC, PRECISE, DEFAULT)


def open_session(model: bytes, setting: SessionSetting) -> Any:
    """An InferenceSession on one core of the CPU; onnxruntime's own log is silent."""
    runtime = onnxruntime_package()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = getattr(runtime.GraphOptimizationLevel, setting.level)
    for key, value in setting.config.items():
        options.add_session_config_entry(key, value)
    return runtime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
