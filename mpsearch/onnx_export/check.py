"""Does onnxruntime compute what the fake-quantized network means, and under which options?"""

import re
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mpsearch.data import Data
from mpsearch.errors import first_line
from mpsearch.integer.network import outputs
from mpsearch.onnx_export.session_settings import (
    TRIED,
    SessionSetting,
    open_session,
    preferred,
)
from mpsearch.onnx_export.storage import stored_bits
from mpsearch.onnx_packages import onnxruntime_package
from mpsearch.quantized import QuantizedNetwork
from mpsearch.quantizer import affine

SAMPLES = 256
BATCH = 64
# A value on the border between two codes may go either way in another order of float additions,
# and shifts the outputs of its sample; a wrong graph shifts all samples.
LEAST_WITHIN_STEP, LEAST_SAME_CLASS, MOST_STEPS = 0.75, 0.95, 64


@dataclass(frozen=True)
class Finding:
    """One setting against the fake-quantized network on `n` samples.

    `largest` difference in steps of an 8-bit quantizer over the outputs' range, `within` counts
    samples whose outputs all lie within one step, `same_class` those with the same largest output.
    `error` is the first line of onnxruntime's where it does not run the model.
    """

    setting: SessionSetting
    n: int
    largest: float = 0.0
    within: int = 0
    same_class: int = 0
    error: str | None = None

    @property
    def agrees(self) -> bool:
        """75 % of the samples within one step, all within 64, and 95 % with the same class."""
        return (
            self.error is None
            and self.largest <= MOST_STEPS
            and self.within >= LEAST_WITHIN_STEP * self.n
            and self.same_class >= LEAST_SAME_CLASS * self.n
        )

    def words(self) -> str:
        """For people, in one line."""
        if self.error is not None:
            return f"does not run: {self.error}"
        verdict = "agrees" if self.agrees else "DIFFERS"
        return (
            f"{verdict}: largest difference {self.largest:.3g} steps, {self.within} of {self.n} "
            f"within one, {self.same_class} with the same class"
        )


@dataclass(frozen=True)
class Check:
    """What every setting gives; `step` is the unit of the differences."""

    onnxruntime: str
    step: float
    findings: tuple[Finding, ...]
    recommended: SessionSetting | None

    def describe(self) -> dict[str, Any]:
        """The check as JSON."""
        return {
            "onnxruntime": self.onnxruntime,
            "step": self.step,
            "least_within_step": LEAST_WITHIN_STEP,
            "least_same_class": LEAST_SAME_CLASS,
            "most_steps": MOST_STEPS,
            "findings": [
                {**asdict(finding), "setting": finding.setting.name, "agrees": finding.agrees}
                for finding in self.findings
            ],
        }


def check(model: bytes, network: QuantizedNetwork, data: Data) -> Check:
    """Run a serialized model on at most 256 samples under every setting of TRIED.

    `recommended` is the first of `preferred` that agrees; None where none does. Raises
    MissingExtraError without onnxruntime.
    """
    runtime = onnxruntime_package()
    data = data.take(min(SAMPLES, len(data)), 0)
    expected = outputs(network, data, BATCH).numpy()
    low, high = float(expected.min()), float(expected.max())
    classes = not np.issubdtype(expected.dtype, np.floating)
    step = 1.0 if classes else affine(8, min(low, 0.0), max(high, 0.0)).scale
    findings = tuple(
        try_setting(model, setting, network.source.input_names, data, expected, step)
        for setting in TRIED
    )
    good = {finding.setting.name for finding in findings if finding.agrees}
    order = preferred(_only_8_bits(network))
    recommended = next((setting for setting in order if setting.name in good), None)
    return Check(str(runtime.__version__), step, findings, recommended)


def try_setting(
    model: bytes,
    setting: SessionSetting,
    names: tuple[str, ...],
    data: Data,
    expected: np.ndarray,
    step: float,
) -> Finding:
    """Compare the outputs [N, …] under one setting with `expected`."""
    n = len(data)
    try:
        session = open_session(model, setting)
        got = np.concatenate([
            session.run(None, {k: x.numpy() for k, x in zip(names, inputs, strict=True)})[0]
            for inputs, _ in data.batches(BATCH)
        ])  # fmt: skip
    except Exception as error:  # onnxruntime's own exceptions have no common base class
        return Finding(setting, n, error=_short(error))
    got, meant = got.reshape(n, -1), expected.reshape(n, -1)
    steps = np.abs(got.astype(np.float64) - meant) / step
    steps = np.where(np.isnan(steps), np.inf, steps)
    whole = not np.issubdtype(expected.dtype, np.floating)  # class numbers: equal or not
    within = steps.max(axis=1) <= (0 if whole else 1)
    same = within if whole else got.argmax(axis=1) == meant.argmax(axis=1)
    return Finding(setting, n, float(steps.max()), int(within.sum()), int(same.sum()))


def _only_8_bits(network: QuantizedNetwork) -> bool:
    bits = {b for c in network.assignment.values() for b in (c.w_bits, c.a_bits)}
    return all(b <= 8 and stored_bits(b) == 8 for b in bits)


def _short(error: Exception) -> str:
    """onnxruntime's message without its codes, in one line that fits a terminal."""
    text = first_line(error).rpartition("[ONNXRuntimeError] : ")[2]
    return re.sub(r"^\d+ : \w+ : ?", "", text)[:160] or "it gives no reason"
