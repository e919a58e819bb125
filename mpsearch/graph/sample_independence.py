"""What a network says of a sample must not depend on the other samples of its batch.

Devices run one sample at a time. A network that averages over the batch has another accuracy at
every batch size, so none of its numbers would mean anything. The test is a comparison: three
samples together and each of them alone. Float sums differ a little between the two, and a rounding
or an arg-max inside the network may turn that into a whole step; so where float32 finds a
difference, float64 decides.
"""

import copy
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import fx

from mpsearch.errors import InputError, first_line
from mpsearch.graph import memory_budget
from mpsearch.graph.float_width import set_float_width
from mpsearch.graph.tensors import device_of

Outputs = torch.Tensor | Mapping[str, torch.Tensor]
_ROWS = 3
# Of the largest output: far above the noise of sums over thousands of products (1e-6 and 1e-15)
_TOLERANCES = {torch.float32: 1e-4, torch.float64: 1e-9}


def check_samples_apart(graph: fx.GraphModule, samples: Sequence[torch.Tensor]) -> None:
    """Raise InputError when an output of `graph` depends on the companions of its sample.

    `samples`: inputs [N, …] of which three are taken; where all are alike (an example of zeros, a
    single sample), random ones of the same shapes and types stand in for them.
    """
    own, device = _drawn(samples), device_of(graph)
    rows = [x.to(device) for x in (random_samples(samples) if own is None else own)]
    with torch.no_grad():
        try:
            mixed = samples_mix(graph, rows)
        except (RuntimeError, IndexError):  # random numbers need not be rows of a table
            rows = [x[:1].expand(_ROWS, *x.shape[1:]).to(device).contiguous() for x in samples]
            mixed = _on_copies(graph, rows)
        if not mixed:
            return
        if not _same(graph(*rows), graph(*rows), 0):
            raise InputError(
                "the network gives other outputs each time that it runs on the same samples; "
                "expected none of dropout or noise that is left on"
            )
        if not _mixes_in_double(graph, rows):
            return
    raise InputError(
        "the network mixes the samples of a batch: what it says of one changes with the others, so "
        "every result would depend on the batch size.",
        "Likely: mean(0) or softmax(0), a reshape over the batch, or batch norm without running "
        "statistics (or in training mode)",
    )


def samples_mix(
    run: Callable[..., Outputs], rows: Sequence[torch.Tensor], width: torch.dtype = torch.float32
) -> bool:
    """True when `rows` together give other outputs than each of them alone."""
    with memory_budget.watched():  # each alone needs less
        together = _parts(run(*rows))
    count = len(rows[0])
    for index in range(count):
        alone = _parts(run(*(x[index : index + 1] for x in rows)))
        for whole, one in zip(together, alone, strict=True):
            if whole.shape[:1] != (count,) or whole.shape[1:] != one.shape[1:]:
                return True
            if not _same(whole[index : index + 1], one, _TOLERANCES[width]):
                return True
    return False


def _on_copies(graph: fx.GraphModule, rows: Sequence[torch.Tensor]) -> bool:
    try:
        return samples_mix(graph, rows)
    except (RuntimeError, IndexError) as error:
        raise InputError(
            f"the network runs on one sample and not on {_ROWS}; expected a free batch dimension: "
            f"{first_line(error)}"
        ) from error


def _mixes_in_double(graph: fx.GraphModule, rows: Sequence[torch.Tensor]) -> bool:
    double = copy.deepcopy(graph)
    try:
        set_float_width(double, torch.float64)
        wide = [x.double() if x.is_floating_point() else x for x in rows]
        return samples_mix(double, wide, torch.float64)
    except (RuntimeError, InputError):  # an operator that has float32 only
        return True


def _same(first: Outputs, second: Outputs, tolerance: float) -> bool:
    for one, other in zip(_parts(first), _parts(second), strict=True):
        a, b = one.double(), other.double()
        largest = a.nan_to_num(0, 0, 0).abs().amax().item() if a.numel() else 0.0
        if not torch.allclose(a, b, rtol=0, atol=tolerance * largest, equal_nan=True):
            return False
    return True


def _parts(outputs: Outputs) -> list[torch.Tensor]:
    return [outputs] if isinstance(outputs, torch.Tensor) else list(outputs.values())


def _drawn(samples: Sequence[torch.Tensor]) -> list[torch.Tensor] | None:
    """First, middle and last sample; None where these are alike."""
    count = len(samples[0])
    if count < _ROWS:
        return None
    rows = [x[[0, count // 2, count - 1]] for x in samples]
    return rows if any(bool((x[1:] != x[:1]).any()) for x in rows) else None


def random_samples(samples: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Three samples that differ, the same at every call: normal numbers, or zeros and ones."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for x in samples:
        shape = (_ROWS, *x.shape[1:])
        if x.is_floating_point():
            rows.append(torch.randn(shape, generator=generator))
        else:
            rows.append(torch.randint(0, 2, shape, generator=generator).to(x.dtype))
    return rows
