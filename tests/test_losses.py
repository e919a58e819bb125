"""Every loss against its definition: values, Hessians in outputs and weights, divergences."""

import json
import math
from dataclasses import replace
from pathlib import Path

import dense_hessian
import networks
import numpy as np
import pytest
import torch
from loss_cases import BCE, CASES, CLOSED, MSE, Line
from scipy.special import expit, rel_entr
from torch import nn

from mpsearch.cli import run
from mpsearch.data import Data, bind
from mpsearch.errors import InputError
from mpsearch.evaluation.evaluation import load_evaluations
from mpsearch.graph.arrays import Arrays
from mpsearch.graph.network import Network
from mpsearch.graph.network_file import save
from mpsearch.losses.heads import logits, without_heads
from mpsearch.losses.loss import ABSOLUTE, CROSS_ENTROPY, DIVERGENCE, Loss, PlainLoss
from mpsearch.losses.sum_loss import SumLoss, separate
from mpsearch.profiling.profile import ProfileSettings, profile
from mpsearch.running.seeds import generator
from mpsearch.sensitivity.hutchinson import estimate, residual_traces
from mpsearch.sensitivity.traces import sampled_traces, trace_sums
from mpsearch.tables.choice import Choice

N = 4
MAE = PlainLoss("mae", True, ABSOLUTE)


def _made(name: str, smooth: bool = False) -> tuple[Network, torch.Tensor, torch.Tensor]:
    """(network in float64, inputs, labels) of a case."""
    case = CASES[name]
    random = torch.Generator().manual_seed(1)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = Line(case.shape, smooth).eval()
    x = torch.randn(N, 4, generator=random, dtype=torch.float64)
    network, (x,) = networks.in_float64(model, (x.float(),))
    return network, x, case.labels(random, N)


def _output_hessians(name: str, z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """[N, K, K] by autograd of the definition, one sample after the other."""
    case = CASES[name]
    k = z[0].numel()
    found = [
        torch.autograd.functional.hessian(lambda one, n=n: case.mean(one, y[n : n + 1]), z[n][None])
        for n in range(len(z))
    ]
    return torch.stack([one.reshape(k, k) for one in found])


@pytest.mark.parametrize("name", CASES)
def test_value_and_curvature_are_those_of_the_definition(name: str) -> None:
    case = CASES[name]
    network, x, y = _made(name)
    z = network(x)
    assert float(case.loss.per_sample(z, y).mean()) == pytest.approx(float(case.mean(z, y)))
    hessians = _output_hessians(name, z, y)
    u = torch.randn(z.shape, generator=generator("u"), dtype=torch.float64)
    expected = torch.einsum("nk,nkl,nl->n", u.reshape(N, -1), hessians, u.reshape(N, -1))
    torch.testing.assert_close(case.loss.curvature(z, u, y), expected)
    more = case.loss.increase(z, z + u, y).mean()
    assert float(more) == pytest.approx(float(case.mean(z + u, y) - case.mean(z, y)))


@pytest.mark.parametrize("name", CLOSED)
def test_factor_direction_and_drawn_gradients_square_to_the_hessian(name: str) -> None:
    """The factor exactly, the other two within five standard errors of 4,000 draws."""
    case = CASES[name]
    network, x, y = _made(name)
    z = network(x)
    hessians = _output_hessians(name, z, y)
    factor = case.loss.factor(z)
    assert factor.shape[2] == case.loss.columns(case.shape)
    torch.testing.assert_close(factor @ factor.transpose(1, 2), hessians)
    many = z[:1].repeat_interleave(4000, 0)
    directions = case.loss.direction(many, generator("d")).reshape(4000, -1)
    _assert_second_moment(directions, hessians[0])


@pytest.mark.parametrize("name", CLOSED)
def test_gradients_on_drawn_targets_have_the_hessian_as_second_moment(name: str) -> None:
    """Fisher information equals the Gauss-Newton matrix, for mse through the noise's variance."""
    network, x, y = _made(name)
    z = network(x)
    hessian = _output_hessians(name, z, y)[0]
    loss = _to_fp32(name)
    many = z[:1].detach().repeat_interleave(6000, 0).requires_grad_(True)
    total = loss.gradient_loss(many, None, generator("drawn")).sum()
    (gradients,) = torch.autograd.grad(total, many)
    _assert_second_moment(gradients.reshape(6000, -1), hessian)


def _to_fp32(name: str) -> Loss:
    loss = CASES[name].loss
    if isinstance(loss, SumLoss):
        shares = [replace(s, loss=replace(s.loss, uses_labels=False)) for s in loss.shares]
        return SumLoss(tuple(shares))
    assert isinstance(loss, PlainLoss)
    return replace(loss, uses_labels=False)


def _assert_second_moment(vectors: torch.Tensor, expected: torch.Tensor) -> None:
    products = vectors[:, :, None] * vectors[:, None, :]
    error = products.std(0) / math.sqrt(len(vectors))
    assert bool(((products.mean(0) - expected).abs() <= 5 * error + 1e-12).all())
    assert float(expected.diagonal().sum()) > 0


@pytest.mark.parametrize("name", CLOSED)
def test_exact_traces_of_a_piecewise_linear_network_are_the_dense_hessians(name: str) -> None:
    case = CASES[name]
    network, x, y = _made(name)
    sums = trace_sums(network, (x,), case.loss)
    for layer in network.layers:
        dense = dense_hessian.block_of(
            network.graph, layer.weight_name, (x,), lambda z: case.mean(z, y)
        )
        assert sums[layer.name] / N == pytest.approx(float(dense.trace()), rel=1e-8)


@pytest.mark.parametrize("name", CASES)
def test_traces_of_a_smooth_network_agree_within_their_own_error(name: str) -> None:
    """Gauss-Newton and rest together; of a loss of one's own the whole is estimated."""
    case = CASES[name]
    network, x, y = _made(name, smooth=True)
    keys = [f"7 {probe}" for probe in range(400)]
    rest = residual_traces(network, case.loss, ((x,), y), network.layers, keys)
    exact = trace_sums(network, (x,), case.loss) if case.loss.has_exact_hessian else {}
    for layer in network.layers:
        dense = dense_hessian.block_of(
            network.graph, layer.weight_name, (x,), lambda z: case.mean(z, y)
        )
        truth = float(dense.trace()) * N
        value, stderr = estimate([[rest[layer.name]]])
        assert abs(exact.get(layer.name, 0.0) + value - truth) <= 4 * stderr + 1e-9 * abs(truth)
        assert layer.name != "first" or stderr > 0


def test_sampled_traces_are_unbiased_for_many_outputs() -> None:
    network, x, _ = _made("mse")
    keys = [f"a {probe}" for probe in range(300)]
    exact = trace_sums(network, (x,), MSE)
    for name, moments in sampled_traces(network, (x,), network.layers, keys, MSE).items():
        value, stderr = estimate([[moments]])
        assert abs(value - exact[name]) <= 4 * stderr + 1e-9 * exact[name]
        assert stderr < 0.2 * exact[name]


def test_divergences_are_those_of_the_predictions() -> None:
    random = torch.Generator().manual_seed(2)
    before, after = torch.randn(2, 6, 3, generator=random).double()
    p, q = expit(before.numpy()), expit(after.numpy())
    expected = (rel_entr(p, q) + rel_entr(1 - p, 1 - q)).mean(1)
    np.testing.assert_allclose(BCE.divergence(before, after).numpy(), expected, rtol=1e-9)
    squares = ((before - after) ** 2).mean(1)
    torch.testing.assert_close(MSE.divergence(before, after), squares)
    for loss in (BCE, MSE, CROSS_ENTROPY):
        assert float(loss.divergence(before, before).abs().max()) < 1e-12


# --- which loss -----------------------------------------------------------------------------------


class Same(nn.Module):
    """Something to bind data to: a linear layer and, maybe, a head."""

    def __init__(self, shape: tuple[int, ...], head: nn.Module | None = None) -> None:
        super().__init__()
        self.shape = shape
        self.layer = nn.Linear(6, torch.Size(shape).numel())
        self.head = head or nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.head(self.layer(x).reshape(-1, *self.shape))
        return outputs


_NETWORKS: dict[tuple[tuple[int, ...], str], Network] = {}


def _network(shape: tuple[int, ...], head: nn.Module | None = None) -> Network:
    key = (shape, repr(head))
    if key not in _NETWORKS:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            _NETWORKS[key] = Network.from_module(Same(shape, head).eval(), (torch.zeros(2, 6),))
    return _NETWORKS[key]


def _arrays(y: torch.Tensor | None) -> Arrays:
    x = {"x0": torch.randn(4, 6, generator=torch.Generator().manual_seed(3))}
    return Arrays("source", x if y is None else {**x, "y": y})


@pytest.mark.parametrize(
    ("shape", "labels", "losses", "name", "kept"),
    [
        ((3,), None, (), "kl-to-fp32", None),
        ((1,), None, (), "mse-to-fp32", None),
        ((2, 3), None, (), "mse-to-fp32", None),
        ((3,), torch.tensor([0, 1, 2, 0]), (), "cross-entropy", (4,)),
        ((3, 2), torch.zeros(4, 2).long(), (), "cross-entropy", (4, 2)),
        ((3,), torch.randn(4, 3), (), "mse", (4, 3)),
        ((3,), torch.zeros(4, 3).long(), (), "bce", (4, 3)),
        ((1,), torch.tensor([0, 1, 1, 0]), (), "bce", (4, 1)),
        ((1,), torch.randn(4), (), "mse", (4, 1)),
        ((1,), torch.tensor([3, 1, 1, 0]), (), "mse", (4, 1)),
        ((2, 3), None, ("reconstruction",), "reconstruction", (4, 2, 3)),
        ((1,), torch.tensor([0.0, 1, 1, 0]), ("bce",), "bce", (4, 1)),
        ((3,), torch.tensor([0, 1, 2, 0]), ("kl",), "kl-to-fp32", (4,)),
        ((3,), torch.randn(4, 3), ("mae",), "mae", (4, 3)),
        ((3,), torch.randn(4, 7), ("test_losses:own",), "test_losses:own", (4, 7)),
    ],
)
def test_outputs_and_labels_decide_where_no_loss_is_named(
    shape: tuple[int, ...],
    labels: torch.Tensor | None,
    losses: tuple[str, ...],
    name: str,
    kept: tuple[int, ...] | None,
) -> None:
    data = bind(_arrays(labels), _network(shape), losses)
    assert data.loss is not None
    assert data.loss.name == name
    assert (None if data.labels is None else tuple(data.labels.shape)) == kept
    assert data.loss.uses_labels == (not name.endswith("-to-fp32"))


_CLASSES = torch.tensor([2, 0, 1, 0])
_ONE_HOT = torch.eye(3)[_CLASSES]


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.int64, torch.uint8, torch.bool]
)
@pytest.mark.parametrize("losses", [(), ("cross-entropy",)])
def test_one_hot_labels_are_the_class_numbers_that_they_stand_for(
    dtype: torch.dtype, losses: tuple[str, ...]
) -> None:
    data = bind(_arrays(_ONE_HOT.to(dtype)), _network((3,)), losses)
    assert data.loss is not None
    assert data.loss.name == "cross-entropy"
    assert torch.equal(data.labels, _CLASSES)  # type: ignore[arg-type]
    said = "source: array y has a single 1 in each row: taken as classes"
    assert [note[: len(said)] for note in data.notes] == ([said] if not losses else [])
    as_numbers = bind(_arrays(_ONE_HOT.to(dtype)), _network((3,)), ("mse",))
    assert as_numbers.loss is not None
    assert as_numbers.loss.name == "mse"
    assert torch.equal(as_numbers.labels.float(), _ONE_HOT)  # type: ignore[union-attr]
    assert as_numbers.notes == ()


_SOFT = torch.tensor([[0.25, 0.25, 0.5]] * 4)


@pytest.mark.parametrize(
    ("shape", "head", "labels", "loss", "note"),
    [
        ((3, 2), None, torch.eye(3)[torch.tensor([[0, 2]] * 4)].transpose(1, 2), "cross-entropy",
         "a single 1"),
        ((3,), nn.Softmax(dim=1), _ONE_HOT, "cross-entropy", "a single 1"),
        ((3,), nn.Sigmoid(), _ONE_HOT, "bce", None),  # which says that answers are meant
        ((3,), None, torch.tensor([[1.0, 1, 0]] * 4), "mse", "nothing but 0 and 1"),
        ((3,), None, torch.tensor([[1, 1, 0]] * 4), "bce", None),
        ((1,), None, torch.tensor([[1.0], [0], [0], [1]]), "mse", "nothing but 0 and 1"),
        ((1,), None, torch.ones(4, 1), "mse", "nothing but 0 and 1"),
        ((3,), None, _SOFT, "mse", "sum to 1"),
        ((3,), None, _SOFT + 0.1, "mse", None),
        ((3,), None, _CLASSES.float(), "cross-entropy", None),
        ((3,), None, _CLASSES[:, None], "cross-entropy", None),
    ],
)  # fmt: skip
def test_labels_that_may_mean_several_things_are_said(
    shape: tuple[int, ...], head: nn.Module | None, labels: torch.Tensor, loss: str,
    note: str | None,
) -> None:  # fmt: skip
    data = bind(_arrays(labels), _network(shape, head))
    assert data.loss is not None
    assert data.loss.name == loss
    assert len(data.notes) == (note is not None)
    assert note is None or note in data.notes[0]
    assert data.take(2, 0).notes == data.notes
    if loss == "cross-entropy":
        assert data.labels is not None
        assert tuple(data.labels.shape) == (4, *shape[1:])
        assert data.labels.dtype == torch.int64


def test_what_was_made_of_labels_is_printed_and_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    arrays = _arrays(_ONE_HOT).tensors
    with torch.random.fork_rng():
        save(Same((3,)).eval(), "model.pt", (arrays["x0"],), arrays)
    said = "the sample in model.pt: array y has a single 1 in each row: taken as classes"
    assert run("profile model.pt --bits 8 -o p.csv".split()) == 0
    assert f"note: {said}" in capsys.readouterr().err
    assert json.loads(Path("p.json").read_text())["label_notes"][0].startswith(said)
    assert run("evaluate model.pt --uniform w8a8".split()) == 0
    assert said in (printed := capsys.readouterr().out)
    assert "accuracy" in printed
    assert load_evaluations("evaluation.json").notes[0].startswith(said)
    assert run("evaluate model.pt --uniform w8a8 --loss mse --json".split()) == 0
    assert json.loads(capsys.readouterr().out)["notes"] == []


def test_floats_of_0_and_1_are_answers_where_a_sigmoid_ends_the_network() -> None:
    labels = torch.tensor([[0.0, 1, 1]] * 4)
    names = []
    for head in (nn.Identity(), nn.Sigmoid()):
        loss = bind(_arrays(labels), _network((3,), head)).loss
        names.append("" if loss is None else loss.name)
    assert names == ["mse", "bce"]


def own(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return (outputs.mean(1) - targets.mean(1)) ** 2


def a_mean(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return ((outputs - targets) ** 2).mean()


def broken(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("no such thing")


NOT_A_LOSS = 3


@pytest.mark.parametrize(
    ("shape", "labels", "losses", "message"),
    [
        ((3,), None, ("mse",), r"the loss mse needs labels \(array y\), and source has none"),
        ((3,), None, ("nonsense",), "got the loss 'nonsense'; expected cross-entropy, bce"),
        ((3,), None, ("a b",), "got --loss 'a b'; expected LOSS, OUTPUT=LOSS"),
        ((3,), None, ("-1*mse",), "expected LOSS"),
        ((3,), None, ("box=mse",), "got --loss box=mse; the network's outputs are output"),
        ((3,), None, ("none",), "got --loss none for the only output"),
        ((3,), None, ("kl", "mse"), "expected one loss for each output"),
        ((3,), torch.randn(4, 3), ("output=2*mse",), "got a weight for the only output"),
        ((3,), torch.randn(4, 2), ("mse",), r"array y has shape \(4, 2\); expected \(4, 3\)"),
        ((3,), torch.full((4, 3), math.nan), ("mse",), "array y has NaN or infinity in sample 0"),
        ((3,), torch.full((4, 3), 2.0), ("bce",), "array y has values from 2 to 2"),
        ((3,), torch.tensor([0, 1, 3, 0]), ("cross-entropy",), "labels from 0 to 3"),
        ((3, 2), torch.full((4, 2), 3), (), r"labels from 3 to 3; expected 0 to 2"),
        ((4,), None, ("reconstruction",), "there are 0; expected one, or --loss mse"),
        ((3,), torch.zeros(4), ("test_losses:NOT_A_LOSS",), "is int; expected a function"),
        ((3,), torch.zeros(4), ("test_losses:missing",), "cannot import"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(
    shape: tuple[int, ...], labels: torch.Tensor | None, losses: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message) as raised:
        bind(_arrays(labels), _network(shape), losses)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("loss", "message"),
    [("a_mean", "expected one value per sample"), ("broken", "RuntimeError: no such thing")],
)
def test_a_function_that_is_no_loss_is_named(loss: str, message: str, tmp_path: Path) -> None:
    data = bind(_arrays(torch.randn(4, 3)), _network((3,)), (f"test_losses:{loss}",))
    with pytest.raises(InputError, match=message):
        profile(_network((3,)), data, tmp_path / "p.csv", ProfileSettings(metric="loss"))


@pytest.mark.parametrize("metric", ["hessian", "perturbation", "pyhessian"])
def test_a_loss_without_curvature_is_refused_where_only_that_counts(
    metric: str, tmp_path: Path
) -> None:
    if metric == "pyhessian":
        pytest.importorskip("pyhessian")
    data = bind(_arrays(torch.randn(4, 3)), _network((3,)), ("mae",))
    with pytest.raises(InputError, match="the loss mae has no curvature"):
        profile(_network((3,)), data, tmp_path / "p.csv", ProfileSettings(metric=metric))


def test_a_head_that_the_loss_contains_is_taken_off(tmp_path: Path) -> None:
    """Traces and divergences of a network with its softmax (or sigmoid) are those without."""
    for head, labels, loss in (
        (nn.Softmax(dim=1), torch.tensor([0, 1, 2, 0]), "cross-entropy"),
        (nn.LogSoftmax(dim=-1), torch.tensor([0, 1, 2, 0]), "cross-entropy"),
        (nn.Sigmoid(), torch.tensor([[0, 1, 1]] * 4), "bce"),
    ):
        plain, headed = _network((3,)), _network((3,), head)
        tables = []
        for network in (plain, headed):
            data = bind(_arrays(labels), network)
            assert data.loss is not None
            assert data.loss.name == loss
            for metric in ("hessian", "perturbation", "sqnr"):
                settings = ProfileSettings(metric=metric, choices=(Choice(3, 4),))
                table = profile(network, data, tmp_path / "p.csv", settings)
                provenance = table.provenance
                tables.append(table.omega.tolist())
        assert tables[:3] == tables[3:]
        assert provenance["heads_taken_off"] == [_name(head)]
        assert provenance["model_digest"] == headed.digest
        assert data.loss is not None
        back = logits(data.loss, headed(*data.inputs))
        wanted = plain(*data.inputs)
        if loss == "cross-entropy":  # which a constant added to all logits does not change
            back, wanted = back.softmax(1), wanted.softmax(1)
        torch.testing.assert_close(back, wanted)


def _name(head: nn.Module) -> str:
    return {"Softmax": "softmax", "LogSoftmax": "log_softmax"}.get(type(head).__name__, "sigmoid")


def test_a_head_stays_where_the_loss_looks_at_what_it_returns() -> None:
    network = _network((3,), nn.Sigmoid())
    data = bind(_arrays(torch.rand(4, 3)), network, ("mse",))
    assert data.loss is not None
    assert without_heads(network, data.loss) == (network, data.loss)


def test_a_divergence_of_the_float_network_from_itself_has_no_gradient() -> None:
    """So its Hessian is the Gauss-Newton matrix: nothing is left to estimate."""
    network, x, _ = _made("cross-entropy", smooth=True)
    rest = residual_traces(network, DIVERGENCE, ((x,), None), network.layers, ["0"])
    assert all(abs(moments.total) < 1e-12 for moments in rest.values())


def test_take_keeps_labels_and_loss_together() -> None:
    data = bind(_arrays(torch.arange(12).float().reshape(4, 3)), _network((3,)))
    assert isinstance(data, Data)
    few = data.take(2, seed=1)
    assert few.labels is not None
    assert data.labels is not None
    assert few.loss is data.loss
    for row, label in zip(few.inputs[0], few.labels, strict=True):
        (place,) = [i for i in range(4) if torch.equal(data.inputs[0][i], row)]
        assert torch.equal(data.labels[place], label)


# --- several outputs ------------------------------------------------------------------------------


class Pair(nn.Module):
    """A class of three, flat, and a box [2, 2]."""

    def __init__(self) -> None:
        super().__init__()
        self.kind = nn.Linear(6, 3)
        self.box = nn.Linear(6, 4)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"class": torch.softmax(self.kind(x), 1), "box": self.box(x).reshape(-1, 2, 2)}


@pytest.fixture(scope="module")
def pair() -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Network.from_module(Pair().eval(), (torch.zeros(2, 6),))


CLASS, BOX = torch.tensor([0, 1, 2, 0]), torch.arange(16).reshape(4, 2, 2).float()


def _pair_arrays(**labels: torch.Tensor) -> Arrays:
    return Arrays("source", {"x0": _arrays(None).tensors["x0"], **labels})


@pytest.mark.parametrize(
    ("labels", "losses", "name", "columns"),
    [
        ({}, (), "class=kl-to-fp32 + box=mse-to-fp32", None),
        ({"y_class": CLASS, "y_box": BOX}, (), "class=cross-entropy + box=mse", 5),
        ({"y0": CLASS, "y1": BOX}, ("box=2*mse",), "class=cross-entropy + box=2*mse", 5),
        ({"y": BOX}, ("box=mse",), "class=kl-to-fp32 + box=mse", 4),
        ({"y_box": BOX}, ("class=none",), "box=mse", 4),
        ({"y_class": CLASS, "y_box": BOX}, ("test_losses:of_both",), "test_losses:of_both", 5),
    ],
)
def test_several_outputs_have_a_sum_of_losses(
    pair: Network, labels: dict[str, torch.Tensor], losses: tuple[str, ...], name: str,
    columns: int | None,
) -> None:  # fmt: skip
    data = bind(_pair_arrays(**labels), pair, losses)
    assert data.loss is not None
    assert data.loss.name == name
    assert (None if data.labels is None else data.labels.shape[1]) == columns


def of_both(outputs: dict[str, torch.Tensor], targets: dict[str, torch.Tensor]) -> torch.Tensor:
    """A loss over dictionaries; class numbers arrive as whole numbers, in the labels' shapes."""
    wrong = nn.functional.nll_loss(outputs["class"].log(), targets["class"], reduction="none")
    return wrong + (outputs["box"] - targets["box"]).square().flatten(1).sum(1)


def test_a_loss_of_ones_own_gets_outputs_and_targets_by_name(pair: Network) -> None:
    data = bind(_pair_arrays(y_class=CLASS, y_box=BOX), pair, ("test_losses:of_both",))
    assert data.loss is not None
    assert data.labels is not None
    outputs = pair(*data.inputs)
    p, box = outputs[:, :3], outputs[:, 3:].reshape(-1, 2, 2)
    expected = -p[torch.arange(4), CLASS].log() + ((box - BOX) ** 2).sum((1, 2))
    torch.testing.assert_close(data.loss.per_sample(outputs, data.labels), expected)


def test_the_head_of_one_output_is_taken_off_alone(pair: Network) -> None:
    data = bind(_pair_arrays(y_class=CLASS, y_box=BOX), pair)
    assert data.loss is not None
    bare, loss = without_heads(pair, data.loss)
    x = data.inputs[0]
    outputs = bare(x)
    torch.testing.assert_close(outputs[:, :3].softmax(1), pair(x)[:, :3])
    torch.testing.assert_close(outputs[:, 3:], pair(x)[:, 3:])
    assert [layer.name for layer in bare.layers] == [layer.name for layer in pair.layers]
    torch.testing.assert_close(
        loss.per_sample(outputs, loss.target(outputs, data.labels)),
        nn.functional.cross_entropy(outputs[:, :3], CLASS, reduction="none")
        + (outputs[:, 3:] - BOX.flatten(1)).square().mean(1),
    )


@pytest.mark.parametrize(
    ("labels", "losses", "message"),
    [
        ({}, ("mse",), r"for a network with 2 outputs; name the output, once for each"),
        ({}, ("class=none", "box=none"), "every output has --loss none"),
        ({}, ("box=mse",), r"the loss mse needs labels \(array y_box\)"),
        ({"y": BOX}, (), "unknown array of labels 'y'; expected y_class, y_box"),
        ({"y_mask": BOX}, (), "unknown array of labels 'y_mask'"),
        ({"y1": BOX, "y_box": BOX}, (), "y1 and y_box are labels of one output"),
        ({"y_class": BOX}, (), r"array y_class has shape \(4, 2, 2\); expected \(4,\)"),
        ({}, ("test_losses:of_both",), "the loss test_losses:of_both needs labels"),
    ],
)
def test_what_does_not_fit_several_outputs_is_said(
    pair: Network, labels: dict[str, torch.Tensor], losses: tuple[str, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        bind(_pair_arrays(**labels), pair, losses)


def test_labels_of_several_outputs_can_be_taken_apart_again(pair: Network) -> None:
    """As `convert` writes them into a model file's sample."""
    data = bind(_pair_arrays(y_class=CLASS, y_box=BOX), pair)
    assert data.labels is not None
    back = separate(data.labels, data.loss)
    assert torch.equal(back["y_class"], CLASS)
    assert torch.equal(back["y_box"], BOX)
