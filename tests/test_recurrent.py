"""Recurrent networks become linear layers that compute what torch's operators compute."""

import itertools
import json
import zipfile
from operator import getitem
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import fx, nn
from torch.nn.utils.rnn import pack_padded_sequence

from mpsearch.data import Data
from mpsearch.errors import InputError
from mpsearch.graph.layers import packet
from mpsearch.graph.network import Network
from mpsearch.graph.network_file import HEADER, load, save
from mpsearch.graph.partial_forward import PartialForward
from mpsearch.graph.recurrent_states import check_states
from mpsearch.graph.tensors import set_tensor
from mpsearch.integer.inference import integer_network
from mpsearch.quantization.calibration import calibrate
from mpsearch.quantization.quantized import quantize
from mpsearch.quantization.quantized_file import load_quantized, save_quantized
from mpsearch.tables.choice import Choice

KINDS: dict[str, Any] = {
    "lstm": nn.LSTM,
    "gru": nn.GRU,
    "rnn_tanh": nn.RNN,
    "rnn_relu": lambda *sizes, **options: nn.RNN(*sizes, nonlinearity="relu", **options),
}
GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}
T, FEATURES, H = 4, 3, 5
aten = torch.ops.aten


def _seeded(make: Any, *args: Any, **options: Any) -> Any:
    torch.manual_seed(0)
    return make(*args, **options).eval()


def _one_operator(kind: str, rnn: Any, train: bool = False) -> fx.GraphModule:
    """The graph of torch's operator alone, over x [N, T, features] and its initial states
    [N, layers, H], as torch.export would write it; returns all results in one row per sample."""
    aten, root, graph = torch.ops.aten, nn.Module(), fx.Graph()
    x = graph.placeholder("x")
    states = [graph.placeholder(name) for name in ("hc" if kind == "lstm" else "h")]
    swapped = [graph.call_function(aten.transpose.int, (s, 0, 1)) for s in states]
    params = []
    for name in itertools.chain(*rnn._all_weights):
        set_tensor(root, f"rnn.{name}", getattr(rnn, name))
        params.append(graph.get_attr(f"rnn.{name}"))
    if not rnn.batch_first:
        x = graph.call_function(aten.permute.default, (x, [1, 0, 2]))
    options = (rnn.bias, rnn.num_layers, rnn.dropout, train, rnn.bidirectional, rnn.batch_first)
    hx = swapped if kind == "lstm" else swapped[0]
    node = graph.call_function(getattr(aten, kind).input, (x, hx, params, *options), name=kind)
    rows = []
    for index in range(1 + len(states)):
        result = graph.call_function(getitem, (node, index))
        if index or not rnn.batch_first:
            result = graph.call_function(aten.transpose.int, (result, 0, 1))
        rows.append(graph.call_function(aten.flatten.using_ints, (result, 1)))
    graph.output(graph.call_function(aten.cat.default, (rows, 1)))
    return fx.GraphModule(root, graph)


@pytest.mark.parametrize(
    ("kind", "many", "first", "bias"),
    list(itertools.product(KINDS, (False, True), (False, True), (False, True))),
)
def test_every_variant_computes_what_torch_computes(
    kind: str, many: bool, first: bool, bias: bool
) -> None:
    layers, directions = (2, 2) if many else (1, 1)
    options = {"num_layers": layers, "bidirectional": many, "batch_first": first, "bias": bias}
    rnn = _seeded(KINDS[kind], FEATURES, H, **options)
    states = [torch.randn(3, layers * directions, H) for _ in range(2 if kind == "lstm" else 1)]
    x = torch.randn(3, T, FEATURES)
    given = [state.transpose(0, 1) for state in states]
    network = Network.from_graph(_one_operator(kind, rnn), (x, *states))
    with torch.no_grad():
        sequence, last = rnn(
            x if first else x.transpose(0, 1), tuple(given) if kind == "lstm" else given[0]
        )
        sequence = sequence if first else sequence.transpose(0, 1)
        last = [state.transpose(0, 1) for state in (last if kind == "lstm" else [last])]
        expected = torch.cat([result.flatten(1) for result in (sequence, *last)], 1)
        torch.testing.assert_close(network(x, *states), expected, rtol=1e-5, atol=1e-6)
    assert PartialForward(network.graph, (x, *states)).batch_first
    macs, features = 0, FEATURES
    for _ in range(layers):
        macs += directions * T * GATES[kind] * H * (features + H)
        features = directions * H
    assert sum(layer.macs for layer in network.layers) == macs
    assert {(layer.name, layer.bias_name) for layer in network.layers} == {
        (f"rnn.{name}", f"rnn.{name.replace('weight', 'bias')}" if bias else "")
        for name, _ in rnn.named_parameters()
        if "weight" in name
    }


class Classifier(nn.Module):
    """A recurrent network as they are written: initial states of zeros, the last step's output."""

    def __init__(self, kind: str, how: str, **options: Any) -> None:
        super().__init__()
        self.rnn = KINDS[kind](FEATURES, H, **options)
        size = options.get("proj_size") or H
        self.head = nn.Linear(size * (2 if options.get("bidirectional") else 1), 3)
        self.how = how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.how == "time first":
            return self.head(self.rnn(x.permute(1, 0, 2))[0][-1])
        sequence, states = self.rnn(x)
        if self.how == "last step":
            return self.head(sequence[:, -1, :])
        if self.how == "last state":
            return self.head((states[0] if isinstance(states, tuple) else states)[-1])
        if self.how == "both directions":
            return self.head(torch.cat([states[-2], states[-1]], dim=1))
        if self.how == "squeezed":
            return self.head(states.squeeze(0))
        return self.head(sequence.mean(1))


@pytest.mark.parametrize(
    ("kind", "how", "options"),
    [
        ("lstm", "last step", {"batch_first": True, "num_layers": 2, "dropout": 0.5}),
        ("lstm", "last state", {"batch_first": True, "proj_size": 2, "num_layers": 2}),
        ("lstm", "time first", {"proj_size": 2}),
        ("gru", "both directions", {"batch_first": True, "bidirectional": True}),
        ("gru", "time first", {"bidirectional": True}),
        ("rnn_tanh", "squeezed", {"batch_first": True}),
        ("rnn_relu", "mean", {"batch_first": True}),
    ],
)
def test_networks_as_they_are_written_keep_one_row_per_sample(
    kind: str, how: str, options: dict[str, Any]
) -> None:
    model = _seeded(Classifier, kind, how, **options)
    x = torch.randn(3, T, FEATURES)
    network = Network.from_module(model, (x,))
    with torch.no_grad():
        torch.testing.assert_close(network(x), model(x), rtol=1e-5, atol=1e-6)
    assert PartialForward(network.graph, (x,)).batch_first
    stacks = [node for node in network.graph.graph.nodes if packet(node) == "stack"]
    assert len(stacks) == options.get("num_layers", 1) - (how != "mean")


def test_a_projection_is_a_layer_that_each_step_uses() -> None:
    model = _seeded(Classifier, "lstm", "last step", batch_first=True, proj_size=2)
    layers = {x.name: x for x in Network.from_module(model, (torch.randn(2, T, FEATURES),)).layers}
    assert layers["rnn.weight_hh_l0"].macs == T * 4 * H * 2
    assert layers["rnn.weight_hr_l0"].macs == T * 2 * H
    assert len(layers["rnn.weight_hr_l0"].nodes) == T
    assert len(layers["rnn.weight_ih_l0"].nodes) == 1


class Cells(nn.Module):
    """A loop of the model's own over cells of every kind."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.gru = nn.LSTMCell(FEATURES, H), nn.GRUCell(H, H, bias=False)
        self.tanh, self.relu = nn.RNNCell(H, H), nn.RNNCell(H, 2, nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        state, h = None, None
        out = x.new_zeros(x.shape[0], 2)
        for t in range(x.shape[1]):
            state = self.lstm(x[:, t], state)
            h = self.gru(state[0], h)
            out = self.relu(self.tanh(h), out)
        return out


def test_cells_in_a_loop_are_layers_too() -> None:
    model, x = _seeded(Cells), torch.randn(3, T, FEATURES)
    network = Network.from_module(model, (x,))
    with torch.no_grad():
        torch.testing.assert_close(network(x), model(x), rtol=1e-5, atol=1e-6)
    macs = {layer.name: layer.macs for layer in network.layers}
    assert macs["gru.weight_ih"] == macs["gru.weight_hh"] == T * 3 * H * H
    assert macs["lstm.weight_ih"] == T * 4 * H * FEATURES
    assert len(macs) == 8


class _Unbatched(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(FEATURES, H)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.rnn(x)[0]


class _Packed(_Unbatched):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        packed = pack_padded_sequence(x.transpose(0, 1), torch.full((x.shape[0],), T))
        return self.rnn(packed)[1][0]


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        (_Unbatched(), (2, FEATURES), "as one sequence; expected a sequence per sample"),
        (_Packed(), (2, T, FEATURES), "packed sequences; expected sequences of one length"),
    ],
)
def test_what_is_no_batch_of_sequences_is_refused(
    model: nn.Module, shape: tuple[int, ...], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Network.from_module(model, (torch.zeros(shape),))
    assert "\n" not in str(caught.value)


def test_dropout_that_is_left_on_is_refused() -> None:
    rnn = nn.GRU(FEATURES, H, num_layers=2, dropout=0.5, batch_first=True)
    inputs = (torch.zeros(2, T, FEATURES), torch.zeros(2, 2, H))
    with pytest.raises(InputError, match="dropout that is left on"):
        Network.from_graph(_one_operator("gru", rnn, train=True), inputs)


def _sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def _fake(x: np.ndarray, scale: float, zero: int, bits: int) -> np.ndarray:
    return (np.clip(np.rint(x / scale) + zero, 0, 2**bits - 1) - zero) * scale


def test_quantized_weights_and_states_are_those_of_a_loop_in_numpy(tmp_path: Path) -> None:
    model = _seeded(Classifier, "lstm", "last step", batch_first=True)
    x = torch.randn(20, T, FEATURES)
    network = Network.from_module(model, (x,))
    choices = {layer.name: Choice(4, 6) for layer in network.layers}
    quantized = quantize(network, choices, calibrate(network, Data("x", (x,), None)))

    def weight(name: str) -> np.ndarray:
        codes = quantized.layers[name].weight
        assert codes is not None
        assert int(codes.codes.min()) >= -8
        assert int(codes.codes.max()) <= 7
        return codes.codes.double().numpy() * codes.scales.double().numpy()[:, None]

    def product(name: str, values: np.ndarray) -> np.ndarray:
        layer = quantized.layers[name]
        given = _fake(values, layer.activation.scale, layer.activation.zero_point, 6)
        bias = layer.bias()
        assert bias is not None
        return given @ weight(name).T + bias.double().numpy()

    h = c = np.zeros((20, H))
    for t in range(T):
        gates = product("rnn.weight_ih_l0", x[:, t].double().numpy())
        gates = gates + product("rnn.weight_hh_l0", h)
        i, f, g, o = np.split(gates, 4, axis=1)
        c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
        h = _sigmoid(o) * np.tanh(c)
    expected = product("head", h)
    with torch.no_grad():
        got = quantized(x).double().numpy()
    step = quantized.layers["head"].activation.scale * float(np.abs(weight("head")).max())
    # a state on the edge between two codes may round to either one: a step of the head's input
    assert np.abs(got - expected).max() < 2 * step
    assert np.mean(np.abs(got - expected) < 1e-5) > 0.95
    save_quantized(quantized, tmp_path / "q.pt")
    with torch.no_grad():
        assert torch.equal(load_quantized(tmp_path / "q.pt")(x), quantized(x))


def test_the_file_keeps_the_recurrent_operator_whole(tmp_path: Path) -> None:
    model, x = (
        _seeded(Classifier, "gru", "last step", batch_first=True),
        torch.randn(2, T, FEATURES),
    )
    save(model, tmp_path / "m.pt", (x,))
    with zipfile.ZipFile(tmp_path / "m.pt") as archive:
        nodes = json.loads(archive.read(HEADER))["graph"]
    assert [n["target"] for n in nodes if "gru" in n["name"] and n["op"] == "call_function"] == [
        "aten.gru.input"
    ]
    assert load(tmp_path / "m.pt").network.digest == Network.from_module(model, (x,)).digest


class Started(nn.Module):
    """A recurrent network whose initial state does not depend on the data, as people make it."""

    def __init__(self, kind: str, start: Any) -> None:
        super().__init__()
        self.rnn = KINDS[kind](FEATURES, H, batch_first=True, bidirectional=True)
        self.learned = nn.Parameter(torch.randn(2, 1, H))
        self.head = nn.Linear(2 * H, 3)
        self.kind, self.start = kind, start

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.start(self, x.shape[0])
        return self.head(self.rnn(x, (h, 0.5 * h) if self.kind == "lstm" else h)[0][:, -1])


STARTS = {
    "slices of zeros": lambda m, n: torch.zeros(4, n, H)[2:4],
    "learned": lambda m, n: m.learned.expand(-1, n, -1).contiguous(),
    "ones": lambda m, n: torch.ones(2, n, H),
}


@pytest.mark.parametrize(("kind", "start"), list(zip(("gru", "lstm", "gru"), STARTS, strict=True)))
def test_states_that_are_the_same_for_every_sample_have_an_integer_form(
    kind: str, start: str
) -> None:
    model, x = _seeded(Started, kind, STARTS[start]), torch.randn(20, T, FEATURES)
    network = Network.from_module(model, (x[:2],))
    with torch.no_grad():
        assert torch.allclose(network(x), model(x), atol=1e-6)
    data = Data("x", (x,), None)
    choices = {layer.name: Choice(8, 8) for layer in network.layers}
    quantized = quantize(network, choices, calibrate(network, data))
    step = float(quantized(x).abs().max()) / 128
    assert float((integer_network(quantized, data)(x) - quantized(x)).abs().max()) < 4 * step


def test_a_file_whose_states_fit_one_sample_only_is_refused(tmp_path: Path) -> None:
    model = _seeded(Started, "gru", STARTS["learned"])
    save(model, tmp_path / "m.pt", (torch.randn(2, T, FEATURES),))
    with zipfile.ZipFile(tmp_path / "m.pt") as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    header = json.loads(files[HEADER])
    (node,) = (n for n in header["graph"] if n.get("target") == "aten.gru.input")
    node["args"][1] = {"node": "learned"}
    with zipfile.ZipFile(tmp_path / "m.pt", "w") as archive:
        for name, content in (files | {HEADER: json.dumps(header)}).items():
            archive.writestr(name, content)
    with pytest.raises(InputError, match=r"states of shapes \[\(2, 1, 5\)\]") as caught:
        load(tmp_path / "m.pt")
    assert "\n" not in str(caught.value)


def test_the_onnx_model_computes_what_the_quantized_network_computes() -> None:
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    from mpsearch.exporters.onnx.model import onnx_model

    for kind, how in (("lstm", "last step"), ("gru", "mean")):
        model = _seeded(Classifier, kind, how, batch_first=True)
        x = torch.randn(20, T, FEATURES)
        network = Network.from_module(model, (x,))
        choices = {layer.name: Choice(4, 8) for layer in network.layers}
        quantized = quantize(network, choices, calibrate(network, Data("x", (x,), None)))
        options = runtime.SessionOptions()
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        options.log_severity_level = 3
        session = runtime.InferenceSession(onnx_model(quantized).SerializeToString(), options)
        (got,) = session.run(None, {"x": x.numpy()})
        with torch.no_grad():
            difference = np.abs(got - quantized(x).numpy())
        # a state on the edge between two of its 256 codes may round to either one
        assert np.mean(difference < 1e-5) > 0.9
        assert difference.max() < 0.02


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_states_that_do_not_fit_are_refused_before_torch_reads_beyond_them(kind: str) -> None:
    """torch runs an LSTM with states of 800 numbers over weights of 8: it reads what lies behind.

    The oracle is torch's own modules: every setting of theirs must pass.
    """
    operator = {"LSTM": aten.lstm.input, "GRU": aten.gru.input, "RNN": aten.rnn_tanh.input}[kind]
    node = fx.Graph().call_function(operator)
    x = torch.zeros(3, 5, 4)
    sizes = (0, 5) if kind == "LSTM" else (0,)
    for layers, both, bias, first, out in itertools.product(
        (1, 2), (False, True), (False, True), (False, True), sizes
    ):
        options: dict[str, Any] = {"proj_size": out} if out else {}
        module = getattr(nn, kind)(
            4, 8, layers, bias=bias, batch_first=first, bidirectional=both, **options
        )
        weights: list[torch.Tensor] = list(module._flat_weights)
        count, samples = layers * (1 + both), 3 if first else 5
        for wrong in (0, 1):
            h = torch.zeros(count, samples, (out or 8) + wrong)
            state = [h, torch.zeros(count, samples, 8)] if kind == "LSTM" else h
            args = (x, state, weights, bias, layers, 0.0, False, both, first)
            if not wrong:
                operator(*args)
                check_states(node, args)
                continue
            with pytest.raises(InputError, match="states and weights that fit"):
                check_states(node, args)
