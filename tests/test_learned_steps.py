"""LSQ's fake quantizers: the project's integers forward, the paper's gradients backward."""

import math

import pytest
import torch

from mpsearch.quantization.quantizer import (
    ActivationQuantizer,
    quantize_input,
    quantize_rows,
    weight_at,
    weight_codes_range,
)


def _paper(x: float, upstream: float, s: float, low: int, high: int) -> tuple[float, float]:
    """(gradient at x, gradient at s) of one number: equations 3 and 5 of arXiv 1902.08153."""
    v = x / s
    if v <= low:
        return 0.0, upstream * low
    if v >= high:
        return 0.0, upstream * high
    return upstream, upstream * (round(v) - v)


@pytest.mark.parametrize("bits", [2, 3, 4, 8, 16])
def test_weights_are_the_projects_integers_with_the_papers_gradients(bits: int) -> None:
    generator = torch.Generator().manual_seed(bits)
    rows = torch.randn(3, 40, generator=generator).requires_grad_()
    upstream = torch.randn(3, 40, generator=generator)
    low, high = weight_codes_range(bits)
    scales = (torch.tensor([0.5, 1.0, 2.0]) / high).requires_grad_()
    quantized = quantize_rows(rows, scales, bits)
    quantized.backward(upstream)
    assert torch.equal(quantized, weight_at(rows, scales.detach(), bits).dequantize())
    assert rows.grad is not None
    assert scales.grad is not None
    for channel in range(3):
        pairs = [
            _paper(x, g, scales[channel].item(), low, high)
            for x, g in zip(rows[channel].tolist(), upstream[channel].tolist(), strict=True)
        ]
        assert rows.grad[channel].tolist() == [at_x for at_x, _ in pairs]
        expected = sum(at_s for _, at_s in pairs) / math.sqrt(40 * high)
        assert scales.grad[channel].item() == pytest.approx(expected, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize(("bits", "zero"), [(2, 0), (3, 3), (4, 0), (4, 6), (8, 128), (8, 0)])
def test_inputs_are_the_projects_integers_with_the_papers_gradients(bits: int, zero: int) -> None:
    generator = torch.Generator().manual_seed(bits + zero)
    x = torch.randn(5, 6, 4, 4, generator=generator)
    x[0, 0, 0, 0] = -math.inf  # where a pool is padded
    x.requires_grad_()
    upstream = torch.randn(5, 6, 4, 4, generator=generator)
    low, high = -zero, 2**bits - 1 - zero
    scale = torch.tensor(1.5 / max(high, zero)).requires_grad_()
    quantized = quantize_input(x, scale, zero, bits, x[0].numel())
    quantized.backward(upstream)
    whole = ActivationQuantizer(bits, scale.item(), zero).fake_quantize(x.detach())
    assert torch.equal(quantized, whole)
    with torch.no_grad():  # averages of codes are ties, which the zero point decides
        ties = (torch.arange(low - 2, high + 2) + 0.5) * scale
        same = ActivationQuantizer(bits, scale.item(), zero).fake_quantize(ties)
        assert torch.equal(quantize_input(ties, scale, zero, bits, 1), same)
    pairs = [
        _paper(value, g, scale.item(), low, high)
        for value, g in zip(x.flatten().tolist(), upstream.flatten().tolist(), strict=True)
    ]
    assert x.grad is not None
    assert scale.grad is not None
    assert x.grad.flatten().tolist() == [at_x for at_x, _ in pairs]
    expected = sum(at_s for _, at_s in pairs) / math.sqrt(6 * 4 * 4 * max(high, zero))
    assert scale.grad.item() == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_where_the_function_is_smooth_the_gradient_is_its_derivative() -> None:
    """Clipped numbers are s·Qp or -s·Qn: finite differences need no straight-through estimate."""
    rows = torch.tensor([[3.0, -4.0, 2.0, 9.0]])
    scale = torch.tensor([0.25])
    ends = [quantize_rows(rows, scale + change, 3).sum().item() for change in (0.01, -0.01)]
    learned = scale.clone().requires_grad_()
    quantize_rows(rows, learned, 3).sum().backward()
    assert learned.grad is not None
    factor = 1 / math.sqrt(4 * 3)
    assert learned.grad.item() == pytest.approx(factor * (ends[0] - ends[1]) / 0.02, rel=1e-4)


def test_the_layout_in_memory_changes_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 6, 5, 4, generator=generator)
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        leaf = x.contiguous(memory_format=layout).detach().clone().requires_grad_()
        scale = torch.tensor(0.2, requires_grad=True)
        (quantize_input(leaf, scale, 3, 3, leaf[0].numel()) ** 2).sum().backward()
        assert leaf.grad is not None
        assert scale.grad is not None
        found.append((leaf.grad.contiguous(), scale.grad))
    assert torch.equal(found[0][0], found[1][0])
    torch.testing.assert_close(found[0][1], found[1][1])
