"""Which nodes of a float ONNX file a table's layers are: for recipes that name nodes or tensors.

A layer may be called as `mpsearch profile` calls it in this file, after its weight, `conv1.weight`
or `conv1`, or after its node, `/conv1/Conv`; what comes first here is meant where a file has both.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from mpsearch.errors import InputError, did_you_mean
from mpsearch.recipes.names import check_distinct

OPERATORS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True)
class OnnxLayer:
    """One place where a layer's weight is used."""

    node: str
    """The node's name."""
    source: str
    """The tensor that it reads: the activations."""
    weight: str
    """The weight's name."""
    axis: int
    """The dimension of the weight that has the output channels."""
    relu: str
    """The name of the Relu that alone reads what it gives; empty for none."""
    groups: int
    """Of a convolution; 1 otherwise."""


def onnx_layers(path: str | None, names: Iterable[str], tool: str) -> dict[str, list[OnnxLayer]]:
    """Layer -> its nodes in the ONNX file.

    Raises InputError for no file, one of another kind, a layer that the file does not have, two
    layers that are one node, and a node without a name of its own, which no recipe can name.
    """
    if path is None:  # before anything slow is loaded
        raise InputError(f"{tool} knows layers as nodes of an ONNX file; name it with --model")
    from mpsearch.importers.kinds import ONNX, detect
    from mpsearch.importers.onnx.reading import read_model

    kind = detect(path)
    if kind != ONNX:
        raise InputError(f"{path} is of the kind {kind!r}; expected the ONNX file for {tool}")
    known: dict[str, dict[int, list[OnnxLayer]]] = {}
    model = read_model(path)
    weights = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    readers: dict[str, list[Any]] = {output.name: [output] for output in model.graph.output}
    for node in model.graph.node:
        for read in node.input:
            readers.setdefault(read, []).append(node)
    for node in model.graph.node:
        if node.op_type in OPERATORS and len(node.input) > 1 and node.input[1] in weights:
            behind = readers.get(node.output[0], [])
            relu = behind[0].name if [getattr(n, "op_type", "") for n in behind] == ["Relu"] else ""
            groups = next((given.i for given in node.attribute if given.name == "group"), 1)
            axis = _axis(node, weights)
            found = OnnxLayer(node.name, node.input[0], node.input[1], axis, relu, groups)
            for rank, name in enumerate(_names(node)):
                known.setdefault(name, {}).setdefault(rank, []).append(found)
    called = Counter(node.name for node in model.graph.node)
    layers = {}
    for name in names:
        if name not in known:
            raise InputError(
                f"{path} has no layer {name!r}{did_you_mean(name, known)}; expected the name of a "
                f"node with a stored weight ({', '.join(OPERATORS)}) or of its weight"
            )
        layers[name] = known[name][min(known[name])]
        if any(not layer.node or called[layer.node] > 1 for layer in layers[name]):
            raise InputError(
                f"{path}: the node of layer {name!r} has no name of its own; {tool} needs one"
            )
    check_distinct(((name, use.node) for name, uses in layers.items() for use in uses), tool)
    return layers


def _axis(node: Any, ranks: dict[str, int]) -> int:
    turned = any(given.name == "transB" and given.i for given in node.attribute)
    if node.op_type == "Conv" or turned:
        return 0
    return ranks[node.input[1]] - 1 if node.op_type == "MatMul" else 1


def _names(node: Any) -> tuple[str, ...]:
    from mpsearch.importers.onnx.calls import layer_of_node, layer_of_tensor, legal_path

    metadata = {entry.key: entry.value for entry in node.metadata_props}
    weight, scope = node.input[1], layer_of_node(node.name, metadata)
    own = layer_of_tensor(weight) or scope or node.name or node.output[0]
    return legal_path(own), weight, weight.removesuffix(".weight"), node.name
