"""Bits, Ω and size of each layer on the nodes of an exported file, as Model Explorer overlays them.

Its node data are one JSON object a file (`GraphNodeData` in its node_data_builder.py): values by
node, and colours by value. A node is called by its id, which is its name in ONNX files, or by the
name of a tensor that it computes, which LiteRT files have. Netron has no such files.
"""

import os
from collections.abc import Callable, Collection, Mapping

from mpsearch.errors import InputError
from mpsearch.files.whole import write_atomic
from mpsearch.importers.kinds import LITERT, ONNX, detect, read_within_bounds
from mpsearch.importers.litert.reading import read_graph
from mpsearch.importers.onnx.reading import read_model
from mpsearch.reports.facts import Facts, LayerFacts
from mpsearch.running.streams import json_text

VALUES: Mapping[str, Callable[[LayerFacts], float | int | None]] = {
    "bits": lambda layer: (layer.choice.w_bits or None) if layer.choice else None,
    "omega": lambda layer: layer.omega,
    "size": lambda layer: layer.resources.get("size_bytes"),
}
GRADIENT = (
    {"stop": 0, "bgColor": "#ffffff", "textColor": "#000000"},
    {"stop": 1, "bgColor": "#f0a04b", "textColor": "#000000"},
)
SHOWN = 3  # layers that a message names


def write_node_data(facts: Facts, export: str | os.PathLike[str]) -> tuple[list[str], list[str]]:
    """Write EXPORT.bits.json, EXPORT.omega.json and EXPORT.size.json; returns what was written and
    the layers that no node of the export computes.

    Bits are those of the weights, sizes are in bytes; what the run does not know is not written.
    Raises InputError without an assignment, for a file that is neither ONNX nor LiteRT, and for one
    that has none of the layers.
    """
    chosen = {layer.name: layer for layer in facts.layers if layer.choice is not None}
    if not chosen:
        raise InputError(
            "there is no assignment to show on the nodes of an export",
            "make one with `mpsearch solve`",
        )
    path = os.fspath(export)
    found = {node: chosen[layer] for node, layer in nodes_of(path, chosen).items()}
    if not found:
        names = ", ".join(list(chosen)[:SHOWN])
        raise InputError(
            f"{path} has none of the layers of this run ({names}, …)",
            "name the file that `mpsearch export` wrote of this run's network",
        )
    written = []
    for name, value_of in VALUES.items():
        values = {node: value_of(layer) for node, layer in found.items()}
        results = {node: {"value": value} for node, value in values.items() if value is not None}
        if not results:
            continue
        written.append(f"{path}.{name}.json")
        document = {"name": f"mpsearch {name}", "results": results, "gradient": list(GRADIENT)}
        write_atomic(written[-1], json_text(document, indent=1, allow_nan=False) + "\n")
    reached = {layer.name for layer in found.values()}
    return written, [name for name in chosen if name not in reached]


def nodes_of(path: str, layers: Collection[str]) -> dict[str, str]:
    """node -> which of the layers it computes, of a file that `mpsearch export` wrote; each use of
    a layer is a node."""
    kind = detect(path)
    if kind not in (ONNX, LITERT):
        raise InputError(f"{path} is a {kind}; expected an exported .onnx or .tflite file")
    with read_within_bounds(path, kind):
        return _onnx_nodes(path, layers) if kind == ONNX else _litert_nodes(path, layers)


def _litert_nodes(path: str, layers: Collection[str]) -> dict[str, str]:
    """A weight is a constant with its layer's name, a node is called by what it computes."""
    graph = read_graph(path)
    found = {}
    for operator in graph.operators:
        inputs = [graph.tensors[number] for number in operator.inputs if number is not None]
        weights = [one.name for one in inputs if one.data is not None and one.name in layers]
        if weights and operator.outputs:
            found[graph.tensors[operator.outputs[0]].name] = weights[0]
    return found


def _onnx_nodes(path: str, layers: Collection[str]) -> dict[str, str]:
    """Constants are LAYER/weight…/…; the first node that also reads something computed is its."""
    graph = read_model(path).graph
    constants = {tensor.name: tensor.name.partition("/weight")[0] for tensor in graph.initializer}
    found = {}
    for node in graph.node:
        inputs = [name for name in node.input if name]
        read = [constants[name] for name in inputs if constants.get(name) in layers]
        if all(name in constants for name in inputs):
            constants.update(dict.fromkeys(node.output, read[0] if read else ""))
        elif read:
            found[node.name] = read[0]
    return found
