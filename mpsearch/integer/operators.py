"""Which aten operators have an integer form, and what their arguments mean for one sample."""

from torch import fx

from mpsearch.errors import InputError
from mpsearch.graph.layers import argument, is_transposed, packet
from mpsearch.graph.refusals import refused
from mpsearch.integer.graph import Pair, Shape

LAYERS = frozenset({"conv1d", "conv2d", "convolution", "linear"})
CLAMPS = frozenset({"relu", "relu6", "hardtanh", "clamp", "clamp_min", "clamp_max"})
IDENTITIES = frozenset({"contiguous", "clone", "alias"})
RESHAPES = frozenset(
    {"flatten", "view", "reshape", "_unsafe_view", "squeeze", "unsqueeze", "unflatten"}
)
PADS = frozenset({"pad", "constant_pad_nd"})
MAX_POOLS = frozenset({"max_pool1d", "max_pool2d"})
# What commutes with a quantizer, which is monotone and works element by element.
MOVES = CLAMPS | IDENTITIES | RESHAPES | PADS | MAX_POOLS | {"permute", "transpose", "slice", "cat"}
AVERAGES = frozenset({
    "mean", "avg_pool1d", "avg_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d",
})  # fmt: skip
SOFTMAXES = frozenset({"softmax", "_softmax"})
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
_SPELLINGS = IDENTITIES | {"_softmax", "_unsafe_view"}
POINTWISE = FUNCTIONS | LINEAR | CHOICES | CLAMPS | IDENTITIES
# What computes at scales of its own: reads 16-bit tensors, writes such a one or a layer's codes.
OWN_SCALES = FUNCTIONS | LINEAR | {"batch_norm", "prelu"}
SUPPORTED = LAYERS | MOVES | AVERAGES | SOFTMAXES | POINTWISE | OWN_SCALES | {"argmax"}


_NO_FORM = "has no integer form"


def unsupported(node: fx.Node, why: str = _NO_FORM) -> InputError:
    """The error for a node that cannot be computed in integers, naming operator and node."""
    known = sorted(SUPPORTED - _SPELLINGS) if why is _NO_FORM else []
    return refused(node, why, f"integer inference knows {', '.join(known)}" if known else "")


def check(node: fx.Node, layer_nodes: frozenset[str]) -> None:
    """Raise InputError unless the node is an operator that has an integer form."""
    name = packet(node)
    if name not in SUPPORTED:
        raise unsupported(node)
    if not sources(node):
        raise unsupported(node, "reads constants alone")
    if name in LAYERS and node.name not in layer_nodes:
        raise unsupported(node, "has a weight that is computed, not stored")
    if name in LAYERS and name != "linear":
        stride = argument(node, "stride")
        assert isinstance(stride, list | tuple)
        if is_transposed(node) or len(stride) > 2:
            raise unsupported(node)


def sources(node: fx.Node) -> tuple[fx.Node, ...]:
    """The tensors that the node computes from, weights aside. Raises InputError for a constant
    where the operator has no form for one."""
    name = packet(node)
    if name in POINTWISE or name in OWN_SCALES:
        return tuple(source for source in node.all_input_nodes if source.op != "get_attr")
    if name == "cat":
        (given,) = node.args[:1]
        assert isinstance(given, list | tuple)
    else:
        given = node.args[:1]
    found = []
    for source in given:
        if not isinstance(source, fx.Node) or source.op == "get_attr":
            raise unsupported(node, "takes a constant operand, which has no quantizer")
        found.append(source)
    return tuple(found)


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
