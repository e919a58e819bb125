"""Which aten operators have an integer form, and what their arguments mean for one sample."""

from collections.abc import Sequence

import torch
from torch import fx

from mpsearch.errors import InputError
from mpsearch.graph.layers import argument, packet
from mpsearch.graph.refusals import Refusals, refused
from mpsearch.integer.graph import Pair, Shape

LAYERS = frozenset({
    "conv1d", "conv2d", "conv_transpose1d", "conv_transpose2d", "convolution", "linear",
    "embedding",
})  # fmt: skip
CLAMPS = frozenset({"relu", "relu6", "hardtanh", "clamp", "clamp_min", "clamp_max"})
IDENTITIES = frozenset({
    "contiguous", "clone", "alias", "detach", "lift_fresh_copy", "to", "_to_copy",
})  # fmt: skip
RESHAPES = frozenset(
    """
    flatten view reshape _unsafe_view squeeze unsqueeze unflatten view_as reshape_as
    """.split()
)
SPLITS = frozenset({
    "chunk", "split", "split_with_sizes", "unbind", "hsplit", "vsplit", "dsplit", "tensor_split",
})  # fmt: skip
# What moves elements and changes none; which, is found by running it: see `gathering`.
REARRANGEMENTS = (
    IDENTITIES
    | RESHAPES
    | SPLITS
    | frozenset(
        """
    _upsample_nearest_exact1d _upsample_nearest_exact2d channel_shuffle expand expand_as flip gather
    index index_select movedim moveaxis narrow permute pixel_shuffle pixel_unshuffle
    reflection_pad1d reflection_pad2d repeat repeat_interleave replication_pad1d replication_pad2d
    roll select slice swapaxes swapdims t tile transpose unfold upsample_nearest1d
    upsample_nearest2d
    """.split()
    )
)
PADS = frozenset({"pad", "constant_pad_nd"})
MAXIMA = frozenset({
    "max_pool1d", "max_pool2d", "max_pool2d_with_indices", "adaptive_max_pool1d",
    "adaptive_max_pool2d", "amax", "max",
})  # fmt: skip
# Operators with several results, of which each user reads one: its place in MAXIMA is 0.
SEVERAL = SPLITS | {
    "max_pool2d_with_indices", "adaptive_max_pool1d", "adaptive_max_pool2d", "max"
}  # fmt: skip
JOINING = frozenset({"cat", "stack"})
# What commutes with a quantizer, which is monotone and works element by element.
MOVES = CLAMPS | REARRANGEMENTS | PADS | MAXIMA | JOINING | {"getitem"}
AVERAGES = frozenset({
    "mean", "avg_pool1d", "avg_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d",
})  # fmt: skip
RESIZES = frozenset({"upsample_linear1d", "upsample_bilinear2d"})  # between straight lines
SOFTMAXES = frozenset({"softmax", "_softmax"})
LOG_SOFTMAXES = frozenset({"log_softmax", "_log_softmax"})
# Functions of one number, by table: what torch computes in float64 for knots. One more is a word.
FUNCTIONS = frozenset(
    """
    abs acos acosh asin asinh atan atanh celu cos cosh elu erf exp expm1 gelu hardsigmoid hardswish
    leaky_relu log log10 log1p log2 log_sigmoid mish pow reciprocal rsqrt selu sigmoid silu sin
    sinh softplus softshrink sqrt square tan tanh threshold
    """.split()
)
LINEAR = frozenset({"add", "sub", "rsub", "mul", "div", "neg"})
# What a function of one number may also be made of, spelled out: x·tanh(softplus(x)), a maximum.
CHOICES = frozenset({"maximum", "minimum", "where", "gt", "ge", "lt", "le", "eq", "ne"})
_SPELLINGS = REARRANGEMENTS | {"_log_softmax", "_softmax", "getitem", "max_pool2d_with_indices"}
POINTWISE = FUNCTIONS | LINEAR | CHOICES | CLAMPS | IDENTITIES
NORMS = frozenset({"layer_norm", "rms_norm", "group_norm", "instance_norm"})
PRODUCTS = frozenset({"matmul", "bmm"})
# What computes at scales of its own: reads 16-bit tensors, writes such a one or a layer's codes.
_ALONE = {"batch_norm", "prelu", "zeros_like"}
OWN_SCALES = FUNCTIONS | LINEAR | LOG_SOFTMAXES | NORMS | PRODUCTS | _ALONE
SUPPORTED = LAYERS | MOVES | AVERAGES | RESIZES | SOFTMAXES | POINTWISE | OWN_SCALES | {"argmax"}


_NO_FORM = "has no integer form"


def unsupported(node: fx.Node, why: str = _NO_FORM) -> InputError:
    """The error for a node that cannot be computed in integers, naming operator and node."""
    known = ", ".join(sorted(SUPPORTED - FUNCTIONS - CHOICES - _SPELLINGS))
    listed = f"integer inference knows {known}, functions of one number, and what moves elements"
    return refused(node, why, listed if why is _NO_FORM else "")


def check(node: fx.Node, layer_nodes: frozenset[str]) -> None:
    """Raise InputError unless the node is an operator that has an integer form."""
    name = packet(node)
    if name == "getitem":
        parent, place = node.args
        assert isinstance(parent, fx.Node)
        if packet(parent) not in SEVERAL or (packet(parent) not in SPLITS and place != 0):
            raise unsupported(parent)
        name = packet(parent)
    if name not in SUPPORTED:
        raise unsupported(node)
    if not sources(node) and not is_repeated(node):
        raise unsupported(node, "reads constants alone")
    if name in ("to", "_to_copy"):
        kinds = [n.meta["dtype"] for n in (node, *sources(node))]
        if not kinds[0].is_floating_point or kinds[1] in (torch.int64, torch.int32):
            raise unsupported(node, "makes whole numbers, or reads them")
    if name in LAYERS and node.name not in layer_nodes:
        raise unsupported(node, "has a weight that is computed, not stored")
    if name in LAYERS - {"linear", "embedding"}:
        stride = argument(node, "stride")
        assert isinstance(stride, list | tuple)
        if len(stride) > 2:
            raise unsupported(node)


def operation(node: fx.Node) -> fx.Node:
    """The node that computes: of one of several results that of all, else the node itself."""
    if packet(node) == "getitem":
        parent = node.args[0]
        assert isinstance(parent, fx.Node)
        return parent
    return node


def per_sample(graph: fx.Graph, refusals: Refusals | None = None) -> list[fx.Node]:
    """The nodes that give a tensor computed from the inputs' values, in order: no constants, no
    sizes, none of several results before one is taken. Refused are constants that are computed, but
    for a weight and the indices of what only moves elements."""
    refusals = refusals or Refusals()
    found: dict[fx.Node, bool] = {}
    for node in graph.nodes:
        if node.op == "placeholder":
            found[node] = any(packet(user) != "sym_size" for user in node.users)
        elif is_repeated(node):
            found[node] = True
        elif (
            node.op == "call_function"
            and packet(node) != "sym_size"
            and any(source in found for source in node.all_input_nodes)
        ):
            found[node] = "shape" in node.meta
            if packet(node) in SUPPORTED - LAYERS - REARRANGEMENTS:
                for source in node.all_input_nodes:
                    if packet(node) == "cat" and stored_part(source) is not None:
                        continue
                    if source.op == "call_function" and source not in found:
                        with refusals.of(source):
                            raise unsupported(source, "reads constants alone")
    return [node for node, is_tensor in found.items() if is_tensor]


def sources(node: fx.Node) -> tuple[fx.Node, ...]:
    """The tensors that the node computes from, weights aside. Raises InputError for a constant
    where the operator has no form for one."""
    node = operation(node)
    name = packet(node)
    if name in POINTWISE or name in OWN_SCALES - LOG_SOFTMAXES - PRODUCTS:
        return tuple(source for source in node.all_input_nodes if source.op != "get_attr")
    given: Sequence[object]
    if name in JOINING:
        (listed,) = node.args[:1]
        assert isinstance(listed, list | tuple)
        given = [part for part in listed if name == "stack" or stored_part(part) is None]
    elif name == "embedding":
        given = node.args[1:2]
    else:
        given = node.args[: 2 if name in PRODUCTS else 1]
    found = []
    if is_repeated(node):
        return ()
    for source in given:
        if not isinstance(source, fx.Node) or source.op == "get_attr":
            raise unsupported(node, "takes a constant operand, which has no quantizer")
        found.append(source)
    return tuple(found)


def stored_part(part: object) -> fx.Node | None:
    """The stored tensor that is put beside others, itself or repeated for every sample."""
    if isinstance(part, fx.Node) and packet(part) == "expand":
        part = part.args[0]
    return part if isinstance(part, fx.Node) and part.op == "get_attr" else None


def is_repeated(node: fx.Node) -> bool:
    """True for a stored tensor [1, …] of numbers, expanded to a batch of any size."""
    stored = stored_part(node)
    return (
        packet(node) == "expand"
        and stored is not None
        and any(packet(size) == "sym_size" for size in node.all_input_nodes)
        and node.meta["dtype"].is_floating_point
        and stored.meta["shape"][0] == 1
        and len(stored.meta["shape"]) == len(node.meta["shape"])
    )


def adds_at_one_scale(node: fx.Node) -> bool:
    """True for the sum of two tensors of one shape, which share a scale: it takes no factor."""
    if packet(node) != "add" or argument(node, "alpha") != 1:
        return False
    shapes = [sample_shape(source) for source in sources(node)]
    return len(shapes) == 2 and shapes[0] == shapes[1]


def sample_shape(node: fx.Node) -> Shape:
    """The recorded shape without the batch."""
    shape: Shape = node.meta["shape"]
    return shape[1:]


def sample_axis(node: fx.Node, axis: object, dimensions: int) -> int:
    """A torch dimension as an axis of one sample. Raises InputError for the batch dimension."""
    assert isinstance(axis, int)
    positive = axis % dimensions
    if positive == 0:
        raise unsupported(node, "works along the batch dimension")
    return positive - 1


def integers(value: object) -> tuple[int, ...]:
    """An integer or a list of integers as a tuple."""
    if isinstance(value, int):
        return (value,)
    assert isinstance(value, list | tuple)
    return tuple(int(entry) for entry in value)


def pair(value: object, flat: bool, missing: int) -> Pair:
    """(height, width) of a torch argument: 3 -> (3, 3), one-dimensional 3 -> (missing, 3)."""
    numbers = integers(value)
    if flat:
        return missing, numbers[0]
    return (numbers[0], numbers[-1])


def clamp_range(node: fx.Node) -> tuple[float | None, float | None]:
    """The real bounds of ReLU, ReLU6, hardtanh or clamp."""
    name = packet(node)
    if name == "relu":
        return 0.0, None
    if name == "relu6":
        return 0.0, 6.0
    keys = ("min_val", "max_val") if name == "hardtanh" else ("min", "max")
    known = {parameter.name for parameter in node.target._schema.arguments}  # type: ignore[union-attr]
    low, high = (argument(node, key) if key in known else None for key in keys)
    if isinstance(low, fx.Node) or isinstance(high, fx.Node):
        raise unsupported(node, "has bounds that are computed")
    as_float = [float(end) if isinstance(end, int | float) else None for end in (low, high)]
    return as_float[0], as_float[1]


def convolution_padding(
    node: fx.Node, kernel: Pair, dilation: Pair, flat: bool
) -> tuple[int, int, int, int]:
    """(top, left, bottom, right); "same" puts the odd one at the bottom and the right."""
    given = argument(node, "padding")
    if given == "valid":
        return 0, 0, 0, 0
    if given == "same":
        rows, columns = (d * (k - 1) for d, k in zip(dilation, kernel, strict=True))
        return rows // 2, columns // 2, rows - rows // 2, columns - columns // 2
    top, left = pair(given, flat, 0)
    return top, left, top, left


def axis_pads(node: fx.Node, dimensions: int) -> tuple[Pair, ...]:
    """(before, after) for every axis of one sample; torch lists the last axis first."""
    if packet(node) == "pad" and argument(node, "mode") != "constant":
        raise unsupported(node, f"pads with mode {argument(node, 'mode')!r}")
    given = integers(argument(node, "pad"))
    pads = [(0, 0)] * dimensions
    for place in range(len(given) // 2):
        pads[dimensions - 1 - place] = (given[2 * place], given[2 * place + 1])
    if pads[0] != (0, 0):
        raise unsupported(node, "pads the batch dimension")
    return tuple(pads[1:])


def pad_value(node: fx.Node) -> float:
    """What a constant padding puts around; 0 when the call does not say."""
    value = argument(node, "value")
    return float(value) if isinstance(value, int | float) else 0.0


def pool_windows(node: fx.Node) -> tuple[tuple[Pair, ...], tuple[Pair, ...], list[list[int]]]:
    """(rows, columns, counts) of an average pooling: windows without padding, and divisors."""
    (source,) = sources(node)
    flat = packet(node).endswith("1d")
    heights: tuple[int, ...] = (1, *sample_shape(source)[1:])[-2:]
    outputs: tuple[int, ...] = (1, *sample_shape(node)[1:])[-2:]
    if packet(node).startswith("adaptive"):
        # Window i of o over n elements: floor(i·n/o) to ceil((i + 1)·n/o), as torch has it.
        windows = [
            [(i * n // o, -((i + 1) * n // -o)) for i in range(o)]
            for n, o in zip(heights, outputs, strict=True)
        ]
        padded = windows
    else:
        kernel = pair(argument(node, "kernel_size"), flat, 1)
        given = argument(node, "stride")
        stride = pair(given, flat, 1) if given else kernel
        padding = pair(argument(node, "padding"), flat, 0)
        windows, padded = [], []
        for n, o, k, s, p in zip(heights, outputs, kernel, stride, padding, strict=True):
            starts = [i * s - p for i in range(o)]
            windows.append([(max(0, a), min(n, a + k)) for a in starts])
            padded.append([(a, min(n + p, a + k)) for a in starts])
        if not argument(node, "count_include_pad"):
            padded = windows
    counts = [[(d - c) * (b - a) for a, b in padded[1]] for c, d in padded[0]]
    override = None if flat or "adaptive" in packet(node) else argument(node, "divisor_override")
    if isinstance(override, int):
        counts = [[override for _ in row] for row in counts]
    return tuple(windows[0]), tuple(windows[1]), counts
