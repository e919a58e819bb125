"""Do the integers of the C code agree with the fake-quantized network as it was assigned?

The C gives the integers of `mpsearch.integer` bit by bit (`make check`, and tests of every kernel),
so these stand for it here: a wrong range or scale in the integer graph shows before anything is
written.
"""

from mpsearch.data import Data
from mpsearch.exporters.agreement_of_outputs import Agreement, judge
from mpsearch.exporters.reference_outputs import reference_of
from mpsearch.integer.graph import IntegerGraph
from mpsearch.integer.network import IntegerNetwork, outputs
from mpsearch.quantization.quantized import QuantizedNetwork

SAMPLES = 256
# About what the export of ResNet-20 (41 M a sample) takes itself; larger ones get fewer samples.
_MACS, _FEWEST_SAMPLES = 12_000_000_000, 8
_MACS_OF_BATCH = 1_000_000_000  # columns of patches at once: 9 floats for a MAC and few channels


def check(
    graph: IntegerGraph, quantized: QuantizedNetwork, data: Data, wide_bits: int
) -> tuple[Agreement, ...]:
    """Compare output by output on up to 256 samples, or as many as take 12 G MACs, at least 8.

    Sums and outputs of 16 bits add noise of their own and are judged by its size; those of 32 bits
    must give what floats give, up to the order of additions.
    """
    macs = max(1, sum(layer.macs for layer in quantized.source.layers))
    count = min(SAMPLES, max(_FEWEST_SAMPLES, _MACS // macs))
    data = data if len(data) <= count else data.take(count, 0)
    batch = max(1, min(64, _MACS_OF_BATCH // macs))
    got = outputs(IntegerNetwork(graph), data, batch)
    return judge(reference_of(quantized, data), got.numpy(), rounded=wide_bits == 16)
