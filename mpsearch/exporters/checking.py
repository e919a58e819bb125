"""`mpsearch check`: what each export will make of a network, before anything is spent on it.

The exports themselves are tried, without running or writing anything, on the network at 8 bits
everywhere (or, for a quantized file, at its own bits) and on a few samples.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from mpsearch.data import Data, bind
from mpsearch.errors import InputError, MissingExtraError
from mpsearch.exporters.formats import FORMATS, ExportFormat, Trial
from mpsearch.exporters.refusing import all_refusals
from mpsearch.graph.arrays import Arrays
from mpsearch.graph.graph_json import unstorable
from mpsearch.graph.network import Network
from mpsearch.graph.refusals import Refusal
from mpsearch.importers.kinds import QUANTIZED, detect
from mpsearch.importers.loading import ModelSource, load_network
from mpsearch.post_training.stored_tensors import store_tensors
from mpsearch.quantization.calibration import calibrate
from mpsearch.quantization.quantized import (
    QuantizedLayer,
    QuantizedNetwork,
    with_activation,
)
from mpsearch.quantization.quantized_file import load_quantized
from mpsearch.quantization.quantizer import affine, weight_at, weight_codes_range
from mpsearch.running.streams import shown
from mpsearch.tables.choice import Choice

FILE = "file"
_SAMPLES = 8
_ASSUMED = Choice(8, 8)


@dataclass(frozen=True)
class TargetCheck:
    """What one target makes of a network."""

    target: str
    """`file` (the mpsearch file), or a format of `export`: `c`, `litert`, `onnx`."""
    ok: bool | None
    """Whether it takes the network; None where that is not known here."""
    refused: tuple[Refusal, ...] = ()
    """Every node that stops it, in graph order within a reason; what is about no node at all (a
    layer in float, an input of whole numbers) has empty names."""
    in_float: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Operators outside of layers that it computes in float, with their nodes."""
    raised: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Layers that get more bits than they were assigned: `("w3a4", "w4a8")`."""
    note: str = ""
    """Why `ok` is None."""

    def __repr__(self) -> str:
        answer = {True: "yes", False: "no", None: "not known"}[self.ok]
        said = [self.note] if self.note else []
        if self.refused:
            first = self.refused[0]
            which = f"{first.operator} ({first.node!r}) " if first.node else ""
            said.append(f"{len(self.refused)} refused, first {which}{first.why}")
        said += [f"in float: {', '.join(self.in_float)}"] if self.in_float else []
        said += [f"layers that get more bits: {len(self.raised)}"] if self.raised else []
        return f"TargetCheck({'; '.join([f'{self.target}: {answer}', *map(shown, said)])})"

    def to_json(self) -> dict[str, Any]:
        """As `mpsearch check --json` prints it."""
        return asdict(self)


def check(
    network: Network | QuantizedNetwork | str | os.PathLike[str], data: Data | None = None
) -> dict[str, TargetCheck]:
    """What the mpsearch file and every export will make of a network: target -> `TargetCheck`.

    network: a file that is read as `mpsearch profile` reads it, or what was loaded. A float network
    is tried with 8 bits in every layer, a quantized one as it is. data: samples for ranges, of
    which 8 are used (None: the file's own, or random numbers). Raises InputError for a file that
    cannot be loaded.
    """
    if isinstance(network, str | os.PathLike):
        network, sample = read(ModelSource(os.fspath(network)))
        data = sample if data is None else data
    if isinstance(network, QuantizedNetwork):
        return check_quantized(network, data)
    samples = _some(network, data)
    try:
        quantized = at_8_bits(network, samples)
    except InputError as error:  # a layer reads what is not finite
        stopped = (Refusal("", "", " ".join(error.lines)),)
        return {FILE: _file(network)} | {
            name: TargetCheck(name, False, stopped) for name in FORMATS
        }
    return check_quantized(quantized, samples)


def read(
    source: ModelSource, arrays: Arrays | None = None
) -> tuple[Network | QuantizedNetwork, Data | None]:
    """The network in a file, and the samples: those given, or else its own, if it has any."""
    if detect(source.path) == QUANTIZED:
        quantized = load_quantized(source.path, source.max_memory)
        bound = None if arrays is None else bind(arrays, quantized.source, need_labels=False)
        return quantized, bound
    loaded = load_network(source, arrays)
    if arrays is None and loaded.sample:
        arrays = Arrays(f"the sample in {source.path}", loaded.sample)
    bound = None if arrays is None else bind(arrays, loaded.network, need_labels=False)
    return loaded.network, bound


def check_quantized(quantized: QuantizedNetwork, data: Data | None) -> dict[str, TargetCheck]:
    """As `check`, for a network that has its bits."""
    samples = _some(quantized.source, data)
    found = {name: _tried(name, form, quantized, samples) for name, form in FORMATS.items()}
    return {FILE: _file(quantized.source)} | found


def _file(network: Network) -> TargetCheck:
    refused = tuple(
        Refusal(operator, node, "is not on the allow-list of mpsearch files")
        for operator, node in unstorable(network.graph)
    )
    return TargetCheck(FILE, not refused, refused)


def _tried(target: str, form: ExportFormat, quantized: QuantizedNetwork, data: Data) -> TargetCheck:
    passed: list[Trial] = []
    try:
        refused = all_refusals(lambda q, d: passed.append(form.try_out(q, d)), quantized, data)
    except MissingExtraError as error:
        return TargetCheck(target, None, note=" ".join(error.lines))
    if refused:
        return TargetCheck(target, False, tuple(refused))
    (trial,) = passed
    return TargetCheck(target, True, in_float=trial.in_float, raised=trial.raised)


def _some(network: Network, data: Data | None) -> Data:
    """A few samples; random ones where there are none, zeros for whole numbers."""
    if data is not None:
        return data.take(_SAMPLES, 0)
    generator = torch.Generator().manual_seed(0)
    inputs = tuple(
        torch.randn(_SAMPLES, *shape, generator=generator)
        if dtype.is_floating_point
        else torch.zeros(_SAMPLES, *shape, dtype=dtype)
        for shape, dtype in zip(network.input_shapes, network.input_dtypes, strict=True)
    )
    return Data("random numbers", inputs, None)


def at_8_bits(network: Network, data: Data) -> QuantizedNetwork:
    """Every layer at w8a8 with the whole range of its weights and inputs: no search for scales; and
    8 bits for what is stored between layers."""
    histograms = calibrate(network, data)
    high = weight_codes_range(_ASSUMED.w_bits)[1]
    layers: dict[str, QuantizedLayer] = {}
    for layer in network.layers:
        rows, _ = network.weight_rows(layer)
        largest = rows.detach().float().abs().amax(1)
        scales = torch.where(largest > 0, largest / high, torch.ones_like(largest))
        seen = histograms[layer.name]
        activation = affine(_ASSUMED.a_bits, min(seen.low, 0.0), max(seen.high, 0.0))
        weight = weight_at(rows, scales, _ASSUMED.w_bits)
        layers[layer.name] = with_activation(network, layer, _ASSUMED, weight, activation)
    return store_tensors(network, layers, data, "8", lambda _: 0.0)
