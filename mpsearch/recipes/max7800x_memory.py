"""The kernel memory of a MAX78000 or MAX78002: words that a layer takes of each processor.

Each of 64 processors has a memory of words of 9 bytes. A layer reads its input channels on as many
processors, 64 at a time, and on each of them has a kernel for every output channel, 64 at a time,
8 / bits of them side by side in the bits of a byte. Layers begin at multiples of 4 words, the same
on all of their processors, where there is room first: never behind the sum of the layers before
(ai8x-synthesis: `izer/kernels.py`, expansion in `izer/backend/max7800x.py`).
"""

PROCESSORS, SHARED, WORD = 64, 4, 9
NEURONS = 1024
"""Most of a linear layer, in and out; its inputs are flattened from so many channels."""
PIXELS = 16
"""Most pixels of what a linear layer flattens, where its shape is that of a matrix."""


def passes(channels: int) -> tuple[int, int]:
    """(how many passes, processors of each): 100 -> (2, 52)."""
    count = -(-channels // PROCESSORS)
    each = -(-channels // count)
    return (1, each) if count == 1 else (count, _aligned(each))


def words_of(outputs: int, inputs: int, kernel: int, bits: int) -> int:
    """Aligned words on each processor: what is reserved, or is written where that is more."""
    beside, reads = 8 // bits, passes(inputs)[0]
    writes, each = passes(outputs)
    count = writes * each * reads
    reserved = count * kernel * bits + count % beside * kernel * (beside - 1)
    written = writes * -(-each // beside) * reads * kernel
    return _aligned(max(-(-reserved // (8 * WORD)), -(-written // WORD)))


def flat_words(outputs: int, channels: int, pixels: int, bits: int) -> int:
    """The same for a linear layer that flattens pixels: its kernel on a processor has so many."""
    beside, each = 8 // bits, passes(channels)[0] * pixels
    writes, processors = passes(outputs)
    count = outputs * each
    reserved = count * bits + count % beside * (beside - 1)
    padding = writes * processors - outputs if beside == 1 else 0
    written = -(-count // beside) + padding
    found = _aligned(max(-(-reserved // (8 * WORD)), -(-written // WORD)))
    return found if pixels > 1 else max(found, words_of(outputs, channels, 1, bits))


def _aligned(words: int) -> int:
    return -(-words // SHARED) * SHARED


def flattened(inputs: int, pixels: int) -> list[tuple[int, int]]:
    """The (channels, pixels) that the inputs of a linear layer can be; of a matrix all up to
    PIXELS, as a matrix does not tell."""
    if pixels > 1:
        return [(inputs, pixels)] if inputs <= NEURONS and pixels <= 256 else []
    ways = [(inputs // n, n) for n in range(1, PIXELS + 1) if inputs % n == 0]
    return [way for way in ways if way[0] <= NEURONS]
