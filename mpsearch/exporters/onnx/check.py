"""Does onnxruntime compute what the fake-quantized network means, and under which options?"""

import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mpsearch.data import Data
from mpsearch.errors import first_line
from mpsearch.exporters.agreement_of_outputs import (
    LEAST_SAME_CLASS,
    LEAST_WITHIN_STEP,
    MOST_STEPS,
    Agreement,
    Array,
    Reference,
    judge,
)
from mpsearch.exporters.onnx.between_quantizers import wrong_parts
from mpsearch.exporters.onnx.session_settings import (
    TRIED,
    SessionSetting,
    open_session,
    preferred,
)
from mpsearch.exporters.onnx.storage import stored_bits
from mpsearch.exporters.reference_outputs import BATCH, reference_of
from mpsearch.quantization.quantized import QuantizedNetwork
from mpsearch.running.optional import onnxruntime_package

SAMPLES = 256


@dataclass(frozen=True)
class Finding:
    """One setting against the fake-quantized network, output by output.

    `error` is the first line of onnxruntime's where it does not run the model.
    """

    setting: SessionSetting
    outputs: tuple[Agreement, ...] = ()
    error: str | None = None

    @property
    def agrees(self) -> bool:
        """The model runs, and every output is what the network gives."""
        return self.error is None and all(output.ok for output in self.outputs)

    @property
    def largest(self) -> float:
        """The largest difference of any value, in steps of its own output."""
        return max(output.assigned.largest_steps for output in self.outputs)

    def lines(self) -> list[str]:
        """For people: the verdict, and a line per output."""
        if self.error is not None:
            return [f"{self.setting.name}: does not run: {self.error}"]
        verdict = "agrees" if self.agrees else "DIFFERS"
        return [
            f"{self.setting.name}: {verdict}",
            *(f"  {output.line()}" for output in self.outputs),
        ]

    def figures(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "setting": self.setting.name,
            "agrees": self.agrees,
            "error": self.error,
            "outputs": [output.figures() for output in self.outputs],
        }


@dataclass(frozen=True)
class Check:
    """What every setting gives on `samples` samples.

    `wrong` says what is wrong in the model itself, where that had to be asked.
    """

    onnxruntime: str
    samples: int
    findings: tuple[Finding, ...]
    recommended: SessionSetting | None
    wrong: tuple[str, ...] = ()

    def describe(self) -> dict[str, Any]:
        """The check as JSON."""
        return {
            "onnxruntime": self.onnxruntime,
            "samples": self.samples,
            "least_within_step": LEAST_WITHIN_STEP,
            "least_same_class": LEAST_SAME_CLASS,
            "most_steps": MOST_STEPS,
            "findings": [finding.figures() for finding in self.findings],
            "wrong": list(self.wrong),
        }


def check(model: bytes, network: QuantizedNetwork, data: Data) -> Check:
    """Run a serialized model on at most 256 samples under every setting of TRIED.

    `recommended` is the first of `preferred` that agrees; None where none does. Only then it is
    measured what the network differs from itself, and all is judged again by that, for a model that
    is right between its quantizers. Raises MissingExtraError without onnxruntime.
    """
    version = str(onnxruntime_package().__version__)
    data = data.take(min(SAMPLES, len(data)), 0)
    reference = reference_of(network, data)
    got = [(setting, _tried(setting, model, network, data)) for setting in TRIED]
    fixed = replace(reference, ways=tuple)
    findings = tuple(finding(setting, outputs, fixed) for setting, outputs in got)
    recommended = _recommended(findings, network)
    wrong: tuple[str, ...] = ()
    if recommended is None and any(found.error is None for found in findings):
        findings = tuple(finding(setting, outputs, reference) for setting, outputs in got)
        recommended = _recommended(findings, network)
        if recommended is not None:
            wrong = wrong_parts(model, network, data)
            recommended = None if wrong else recommended
    return Check(version, len(data), findings, recommended, wrong)


def _recommended(findings: tuple[Finding, ...], network: QuantizedNetwork) -> SessionSetting | None:
    good = {found.setting.name for found in findings if found.agrees}
    order = preferred(_only_8_bits(network))
    return next((setting for setting in order if setting.name in good), None)


def outputs_under(
    setting: SessionSetting, model: bytes, network: QuantizedNetwork, data: Data
) -> Array:
    """The outputs under one setting: one as it is, several flattened side by side."""
    session = open_session(model, setting)
    names = network.source.input_names
    batches = [
        session.run(None, {k: x.numpy() for k, x in zip(names, inputs, strict=True)})
        for inputs, _ in data.batches(BATCH)
    ]
    if len(network.source.outputs) == 1:
        return np.concatenate([batch[0] for batch in batches])
    rows = [np.concatenate([x.reshape(len(x), -1) for x in batch], axis=1) for batch in batches]
    return np.concatenate(rows)


def finding(setting: SessionSetting, got: Array | str, reference: Reference) -> Finding:
    """What a setting gave, or why it gave nothing, against the network."""
    if isinstance(got, str):
        return Finding(setting, error=got)
    try:
        return Finding(setting, judge(reference, got))
    except ValueError as error:  # a model of other outputs
        return Finding(setting, error=str(error))


def _tried(
    setting: SessionSetting, model: bytes, network: QuantizedNetwork, data: Data
) -> Array | str:
    try:
        return outputs_under(setting, model, network, data)
    except Exception as error:  # onnxruntime's own exceptions have no common base class
        return _short(error)


def _only_8_bits(network: QuantizedNetwork) -> bool:
    bits = {b for c in network.assignment.values() for b in (c.w_bits, c.a_bits)}
    return all(b <= 8 and stored_bits(b) == 8 for b in bits)


def _short(error: Exception) -> str:
    """onnxruntime's message without its codes, in one line that fits a terminal."""
    text = first_line(error).rpartition("[ONNXRuntimeError] : ")[2]
    return re.sub(r"^\d+ : \w+ : ?", "", text)[:160] or "it gives no reason"
