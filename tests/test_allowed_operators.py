"""Every operator that a file may name is a function of its arguments, by torch's own word."""

from pathlib import Path
from typing import Any

import pytest
import torch
from archives import edit_header
from torch import nn

from mpsearch.errors import InputError
from mpsearch.graph.allowed import ALLOWED, find_operator
from mpsearch.graph.network_file import load, save

# Random in training, which their arguments switch off; results of a size that the data decides.
DRAWING = {
    "alpha_dropout", "dropout", "feature_alpha_dropout", "feature_dropout", "gru", "lstm",
    "rnn_relu", "rnn_tanh", "rrelu", "scaled_dot_product_attention",
}  # fmt: skip
BY_DATA = {"index", "one_hot", "repeat_interleave"}
TAGS = torch.Tag


def test_each_is_pure_and_its_results_have_known_sizes() -> None:
    for name in sorted(ALLOWED):
        packet = getattr(torch.ops.aten, name)
        found = [find_operator(f"aten.{name}.{overload}") for overload in packet.overloads()]
        operators = [operator for operator in found if operator is not None]
        assert operators, name
        for operator in operators:
            assert not operator._schema.is_mutable, operator
            assert (TAGS.nondeterministic_seeded in operator.tags) <= (name in DRAWING), operator
            by_data = {TAGS.data_dependent_output, TAGS.dynamic_output_shape} & set(operator.tags)
            assert not by_data or name in BY_DATA, operator
            assert operator._schema.returns, operator


@pytest.mark.parametrize(
    "name",
    ["as_strided", "bernoulli", "empty", "from_file", "nonzero", "rand_like", "set", "_fft_c2r",
     "_unsafe_index", "item", "masked_select", "empty_strided", "resize", "normal_functional"],
)  # fmt: skip
def test_these_are_not_functions_of_their_arguments_alone(name: str) -> None:
    for overload in getattr(torch.ops.aten, name).overloads():
        assert find_operator(f"aten.{name}.{overload}") is None


@pytest.mark.parametrize(
    ("target", "args"),
    [
        ("aten.dropout.default", [0.5, True]),
        ("aten.alpha_dropout.default", [0.5, True]),
        ("aten.rrelu.default", [0.1, 0.3, True]),
        ("aten.scaled_dot_product_attention.default", [{"node": "x"}, {"node": "x"}, None, 0.5]),
    ],
)
def test_none_draws_random_numbers(target: str, args: list[Any], tmp_path: Path) -> None:
    class Twice(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(x) * 2

    def change(header: Any) -> None:
        node = next(node for node in header["graph"] if "relu" in str(node["target"]))
        node.update(target=target, args=[{"node": "x"}, *args])

    path = tmp_path / "model.pt"
    save(Twice(), path, (torch.zeros(1, 4, 4),))
    edit_header(path, change)
    with pytest.raises(InputError, match="it draws random numbers; expected evaluation mode"):
        load(path)
