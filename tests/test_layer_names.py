"""Layers may be called whatever torch allows, and no name is code."""

from pathlib import Path

import pytest
import torch
from torch import fx, nn

import mpsearch as mp
from mpsearch.errors import InputError
from mpsearch.graph.graph_json import graph_from_json, graph_to_json, unstorable

KEPT = ("Conv-A", "κλάση 2", "0 (first)", "*=x/,[]", "it's */ %s", "a_b")
CHANGED = {
    'a"b': "a_b_",  # would end a string of torch.fx's code
    "end\\": "end_",
    "two\nlines": "two_lines",
    "class": "class_",  # a keyword: `self.class` is no Python
    "__x": "x",
    "ﬁ": "fi",  # Python reads `self.ﬁ` as `self.fi`
    "x" * 300: "x" * 50,
}


class Named(nn.Module):
    """A layer of each name in a `ModuleDict`, and one whose name GraphModule has itself."""

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.named = nn.ModuleDict({name: nn.Linear(4, 4) for name in names})
        self.graph = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.named.values():
            x = torch.relu(layer(x))
        return torch.as_tensor(self.graph(x))


def _network(*names: str) -> tuple[Named, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return Named(*names).eval(), torch.randn(24, 4), torch.arange(24) % 3


def test_names_that_torch_allows_go_through_every_file(tmp_path: Path) -> None:
    model, x, y = _network(*KEPT)
    names = (*(f"named.{name}" for name in KEPT), "graph_")
    mp.save(model, tmp_path / "m.pt", sample=(x, y))
    network = mp.load(tmp_path / "m.pt").network
    assert tuple(layer.name for layer in network.layers) == names
    assert torch.allclose(network(x), model(x), atol=1e-6)

    profiled = mp.profile(str(tmp_path / "m.pt"), bits=(4, 8), output=tmp_path / "p.csv")
    assert profiled.layer_names == names
    pin = {"named.*=x/,[]": "w4a4", "named.Conv-A": "w4a4"}
    best = mp.solve(tmp_path / "p.csv", pin=pin)
    assert all(str(best.bits[name]) == "w4a4" for name in pin)
    best.save(tmp_path / "a.json")
    quantized = mp.apply(str(tmp_path / "m.pt"), tmp_path / "a.json")
    mp.save(mp.from_module(mp.to_module(quantized)), tmp_path / "q.pt")
    again = mp.load_quantized(tmp_path / "q.pt")
    assert set(again.layers) == set(names)

    again.export(tmp_path / "c", "c")
    code = (tmp_path / "c" / "network.c").read_text(encoding="utf-8")
    assert "Linear named.0 (first) ->" in code
    assert "it's * / %s" in code  # inside of a comment


def test_names_that_no_graph_can_have_are_changed_and_stay_apart(tmp_path: Path) -> None:
    model, x, _ = _network("a_b", *CHANGED)
    assert not unstorable(mp.Network.from_module(model, (x[:1],)).graph)
    mp.save(model, tmp_path / "m.pt", sample=x)
    network = mp.load(tmp_path / "m.pt").network
    expected = ["named.a_b", *(f"named.{name}" for name in CHANGED.values()), "graph_"]
    assert [layer.name for layer in network.layers] == expected
    assert torch.allclose(network(x), model(x), atol=1e-6)


@pytest.mark.parametrize(
    "name",
    [
        'a"), print("run") or getattr(self, "a', "a\\", "a\nb", "a\0", "a\u2028b", "\ud800",
        "__class__", "_a.__dict__", "ﬁ", "class", "a..b", "", "a.", "graph", "x" * 101,
        ".".join(["ab"] * 400), 3, None,
    ],
)  # fmt: skip
def test_a_file_cannot_name_tensors_that_become_code(name: object) -> None:
    """torch.fx puts names into Python code as they are."""
    graph = fx.Graph()
    graph.output(graph.get_attr("plain"))
    root = nn.Module()
    root.register_buffer("plain", torch.zeros(1))
    nodes = graph_to_json(fx.GraphModule(root, graph))
    nodes[0]["target"] = name
    with pytest.raises(InputError, match="not a tensor name"):
        graph_from_json(nodes, {name: torch.zeros(1)})  # type: ignore[dict-item]


def test_check_says_which_name_a_file_cannot_hold() -> None:
    graph = fx.Graph()
    graph.output(graph.get_attr("a b.__c"))
    root = nn.Module()
    root.add_module("a b", nn.Module())
    root.get_submodule("a b").register_buffer("__c", torch.zeros(1))
    ((operator, _),) = unstorable(fx.GraphModule(root, graph))
    assert operator == "get_attr (name 'a b.__c')"
