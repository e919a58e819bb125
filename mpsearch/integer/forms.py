"""In which integer form each tensor of a network is kept.

A layer reads the codes of its activation quantizer. A quantizer is monotone and works element by
element, so it may move back through ReLU, max-pooling, concatenation and everything that only moves
elements: the layer before can write its results directly as the codes that the next layer reads.
What is added, averaged, leaves the network, or is read by layers with different quantizers keeps
the wide form: signed, 16 or 32 bits, zero point 0. Tensors in wide form that meet in additions,
averages or moves form a class with one scale, so that adding them takes no multiplication.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import fx

from mpsearch.graph.operators import packet
from mpsearch.integer.operators import LAYERS, MOVES, SOFTMAXES, sources
from mpsearch.quantization.quantizer import ActivationQuantizer

WIDE = None
Form = ActivationQuantizer | None


@dataclass(frozen=True)
class Forms:
    """`wanted`: by node name, the forms that its users read, in order of use; `kept`: the form that
    the node's own operation writes; `classes`: by node name, the class of its wide form."""

    wanted: Mapping[str, tuple[Form, ...]]
    kept: Mapping[str, Form]
    classes: Mapping[str, str]


def choose_forms(
    graph: fx.Graph, order: list[fx.Node], quantizers: Mapping[str, ActivationQuantizer]
) -> Forms:
    """Forms for the nodes of `order`; `quantizers` are those of the layers, by node name."""
    wanted: dict[str, list[Form]] = {node.name: [] for node in order}
    kept: dict[str, Form] = {}
    (output,) = (node for node in graph.nodes if node.op == "output")
    (result,) = output.args
    assert isinstance(result, fx.Node)
    if packet(result) not in {"argmax", *SOFTMAXES}:  # these leave in a form of their own
        wanted[result.name].append(WIDE)
    for node in reversed(order):
        forms = wanted[node.name]
        single = len(forms) == 1 and (packet(node) in LAYERS | MOVES)
        kept[node.name] = forms[0] if single else WIDE
        if node.op == "placeholder":
            continue
        if node.name in quantizers:
            needed: Form = quantizers[node.name]
        else:
            needed = kept[node.name] if packet(node) in MOVES else WIDE
        for source in sources(node):
            if needed not in wanted[source.name]:
                wanted[source.name].append(needed)
    return Forms(
        {name: tuple(reversed(forms)) for name, forms in wanted.items()},
        kept,
        _classes(order, kept),
    )


def _classes(order: list[fx.Node], kept: Mapping[str, Form]) -> dict[str, str]:
    """Union of every wide node with the sources that it shares the scale with."""
    parent = {node.name: node.name for node in order}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    for node in order:
        own_scale = node.op == "placeholder" or packet(node) in {*LAYERS, *SOFTMAXES, "argmax"}
        if not own_scale and kept[node.name] is WIDE:
            for source in sources(node):
                parent[root(source.name)] = root(node.name)
    return {name: root(name) for name in parent}
