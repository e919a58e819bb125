"""Random assignments, and what each of them really costs in loss and accuracy."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from mpsearch.data import Data
from mpsearch.evaluation.measuring import evaluate
from mpsearch.files.whole import digest
from mpsearch.graph.network import Network
from mpsearch.quantization.quantized import QuantizedLayer, assemble, quantize_layer
from mpsearch.quantization.quantizer import FLOAT_BITS
from mpsearch.running.journal import Journal
from mpsearch.sensitivity.study import Study
from mpsearch.tables.choice import Choice

BITS = (2, 3, 4, 8)
WEIGHTS, BOTH = "weights", "weights+activations"
REGIMES: Mapping[str, tuple[Choice, ...]] = {
    WEIGHTS: tuple(Choice(bits, FLOAT_BITS) for bits in BITS),
    BOTH: tuple(Choice(bits, bits) for bits in BITS),
}
_BATCH = 100  # twice as fast as 250 on a CPU (measured): the activations stay in its cache

Assignment = Mapping[str, Choice]
Cells = Mapping[tuple[str, Choice], QuantizedLayer]


@dataclass(frozen=True)
class Measured:
    """Accuracy and mean cross-entropy of one quantized network on the unseen samples.

    The same on the profiling samples is the most that any metric could know.
    """

    accuracy: float
    loss: float
    profiling_accuracy: float
    profiling_loss: float


def draw(
    layers: Sequence[str], choices: Sequence[Choice], count: int, seed: int
) -> list[Assignment]:
    """`count` assignments; each layer of one draws its choice from the assignment's own mixture.

    The mixtures are uniform on the simplex (Dirichlet with all ones), so that totals spread
    from nearly all-smallest to nearly all-largest; one probability for all would bunch them.
    Assignment k depends on the seed and k alone.
    """
    drawn: list[Assignment] = []
    for index in range(count):
        random = np.random.default_rng((seed, index))
        picks = random.choice(
            len(choices), size=len(layers), p=random.dirichlet([1] * len(choices))
        )
        drawn.append({name: choices[pick] for name, pick in zip(layers, picks, strict=True)})
    return drawn


def quantize_cells(study: Study, step: Callable[[], None]) -> Cells:
    """Every layer at every choice, quantized once: any assignment is put together from these."""
    cells = {}
    for layer in study.network.layers:
        for choice in study.choices:
            histogram = study.histograms[layer.name]
            cells[layer.name, choice] = quantize_layer(study.network, layer, choice, histogram)
            step()
    return cells


def measure(
    study: Study, unseen: Data, assignments: Sequence[Assignment], cells: Cells, checkpoint: Path,
    step: Callable[[], None],
) -> list[Measured]:  # fmt: skip
    """Evaluate every assignment; what `checkpoint` has already is not measured again.

    The checkpoint belongs to the quantized integers and both data sets: where one of them
    changes, it starts afresh.
    """
    run = digest(study.network.digest, study.data.digest, unseen.digest, *_contents(cells))
    results = []
    with Journal(checkpoint, run) as journal:
        for assignment in assignments:
            key = " ".join(str(choice) for choice in assignment.values())
            values = journal.get(key)
            if values is None:
                values = _evaluate(study.network, unseen, study.data, assignment, cells)
                journal.put(key, values)
            results.append(Measured(*values))
            step()
    return results


def _evaluate(
    network: Network, unseen: Data, profiling: Data, assignment: Assignment, cells: Cells
) -> list[float]:
    quantized = assemble(network, {name: cells[name, pick] for name, pick in assignment.items()})
    rows = [evaluate("", quantized, data, _BATCH) for data in (unseen, profiling)]
    return [value for row in rows for value in (row.accuracy, row.loss)]


def _contents(cells: Cells) -> Iterator[bytes | str]:
    """Everything that the quantized networks are made of."""
    for (name, choice), cell in cells.items():
        yield f"{name} {choice} {cell.activation}"
        parts = [cell.bias_codes]
        if cell.weight is not None:
            parts += [cell.weight.codes, cell.weight.scales]
        for tensor in parts:
            yield b"" if tensor is None else _bytes(tensor)


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().numpy().tobytes()
