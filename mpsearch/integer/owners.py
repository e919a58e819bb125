"""Which layer each integer step belongs to, so that costs of steps add up by layer."""

from collections.abc import Sequence

from mpsearch.integer.graph import Convolution, Linear, Step


def owners(steps: Sequence[Step]) -> tuple[str, ...]:
    """The qualified name of the layer that pays for each step, in the order of the steps.

    A layer's own step is its own; what follows (pooling, addition, rescaling) belongs to the layer
    that was computed last among those it reads; what comes before any layer to the first layer that
    reads it. Empty names: there are no layers.
    """
    owner_of: dict[str, tuple[int, str]] = {}
    found: list[str] = []
    for number, step in enumerate(steps):
        read = [owner_of[source] for source in step.sources if source in owner_of]
        if isinstance(step, Convolution | Linear):
            owner = (number, step.weights.layer)
        else:
            owner = max(read, default=(-1, ""))
        if owner[1]:
            owner_of[step.output.name] = owner
        found.append(owner[1])
    return _with_first_readers(steps, found)


def _with_first_readers(steps: Sequence[Step], found: list[str]) -> tuple[str, ...]:
    """Steps before any layer take the owner of the first step that reads them."""
    for number in reversed(range(len(found))):
        if found[number]:
            continue
        name = steps[number].output.name
        readers = (i for i, step in enumerate(steps) if name in step.sources and found[i])
        found[number] = found[next(readers, number)]
    return tuple(found)
