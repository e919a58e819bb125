"""Names of layers out of the names that converters give to tensors.

TensorFlow names a weight after the operator that read it, and joins the names of what was fused:
`model/relu/Relu;model/bn/FusedBatchNormV3;model/conv2d/Conv2D`. The part that ends in the layer's
own operator tells its name; what all layers begin with (`model/`) tells nothing.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from mpsearch.importers.litert.reading import LiteRtGraph, Operator

# How TensorFlow calls the operator, at the end of a name.
_ENDINGS = {
    "CONV_2D": ("Conv2D", "Conv1D", "convolution", "conv"),
    "DEPTHWISE_CONV_2D": ("depthwise", "separable_conv2d", "convolution"),
    "TRANSPOSE_CONV": ("conv2d_transpose", "conv_transpose"),
    "FULLY_CONNECTED": ("MatMul", "Tensordot", "einsum"),
    "BATCH_MATMUL": ("MatMul", "einsum"),
    "GATHER": ("embedding_lookup", "GatherV2"),
    "EMBEDDING_LOOKUP": ("embedding_lookup",),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": ("lstm",),
}
_WORDS = re.compile(
    r"(Conv[12]D|Conv2DBackpropInput|convolution|depthwise|separable_conv2d|conv_transpose|"
    r"MatMul|BatchMatMulV2|Tensordot|einsum|Einsum|BiasAdd|Add|Relu6?|ReadVariableOp|resource|"
    r"kernel|weight|bias|Cast|Reshape|Squeeze|ExpandDims|FakeQuantWithMinMaxVars(PerChannel)?|"
    r"LastValueQuant|embedding_lookup|GatherV2)_?\d*$"
)
_NOTHING = re.compile(
    r"(arith\.constant|tfl\.|Const|Identity|StatefulPartitionedCall|XlaCall|jax2tf)"
)
_WEIGHTS = dict.fromkeys(_ENDINGS, 1) | {"GATHER": 0}


def layer_names(graph: LiteRtGraph) -> Mapping[int, str]:
    """The name of each operator that has a weight, by its number: 3 -> `conv2d_1`."""
    found: dict[int, str] = {}
    for number, operator in enumerate(graph.operators):
        place = _WEIGHTS.get(operator.name)
        if place is None or place >= len(operator.inputs):
            continue
        weight = operator.inputs[place]
        if weight is not None and (
            graph.tensors[weight].data is not None or _passed_on(graph, weight)
        ):
            found[number] = _name(graph, operator, weight) or f"{operator.name.lower()}_{number}"
    ahead = _shared(found.values())
    return {number: name[len(ahead) :] for number, name in found.items()}


def _passed_on(graph: LiteRtGraph, number: int) -> bool:
    """What is made of a constant of half width, or of one that is stored sparsely."""
    return any(number in o.outputs for o in graph.operators if o.name in ("DEQUANTIZE", "DENSIFY"))


def _name(graph: LiteRtGraph, operator: Operator, weight: int) -> str:
    candidates = [graph.tensors[weight].name, graph.tensors[operator.outputs[0]].name]
    for text in candidates:
        parts = [part for part in text.split(";") if part and not _NOTHING.match(part)]
        own = [p for p in parts if any(word in p.split("/") for word in _ENDINGS[operator.name])]
        for part in (*own, *parts):
            name = _stripped(part)
            if name:
                return name
    return ""


def _stripped(part: str) -> str:
    """`model/conv2d/Conv2D` -> `model/conv2d`; a name of one word stays."""
    words = [word for word in part.partition(":")[0].split("/") if word]
    while len(words) > 1 and (_WORDS.match(words[-1]) or words[-1] == words[-2]):
        words.pop()
    return "/".join(words)


def _shared(names: Iterable[str]) -> str:
    """What all names begin with, up to a slash; each keeps its last word."""
    paths: Sequence[list[str]] = [name.split("/")[:-1] for name in names]
    if len(paths) < 2:
        return "/".join([*paths[0], ""]) if paths else ""
    ahead = []
    for words in zip(*paths, strict=False):
        if len(set(words)) > 1:
            break
        ahead.append(words[0])
    return "/".join([*ahead, ""]) if ahead else ""
