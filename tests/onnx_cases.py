"""One small ONNX graph per operator and per change of its meaning between opsets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
IMAGE, ROWS, LINE = (2, 4, 6, 5), (2, 6), (2, 3, 7)


@dataclass(frozen=True)
class Case:
    """One node: its inputs in order are shapes (data, batch first) or arrays (constants)."""

    operator: str
    inputs: Sequence[tuple[int, ...] | Array | None]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    opset: int = 17
    outputs: int = 1
    integers: bool = False

    @property
    def label(self) -> str:
        """`Conv-17-auto_pad=SAME_UPPER`, for the test's name."""
        shown = [f"{k}={v}" for k, v in self.attributes.items()]
        return "-".join([self.operator, str(self.opset), *shown]).replace(" ", "")[:90]


def _random(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


def _whole(*values: int) -> Array:
    return np.array(values, dtype=np.int64)


def _number(value: float) -> Array:
    return np.array(value, dtype=np.float32)


_UNARY = (
    "Abs Atan Ceil Cos Erf Exp Floor HardSigmoid HardSwish IsNaN LeakyRelu Neg Reciprocal Relu "
    "Round Selu Sigmoid Sign Sin Softplus Softsign Tanh Elu Celu ThresholdedRelu GlobalAveragePool "
    "GlobalMaxPool Flatten Identity Softmax LogSoftmax Not Log Sqrt Shrink"
).split()
_K, _D = [3, 2], {"kernel_shape": [3, 3], "strides": [2, 2]}
_W = _random(8, 4, 3, 2)
_RESIZE = (
    ("half_pixel", "round_prefer_floor"),
    ("pytorch_half_pixel", "floor"),
    ("align_corners", "ceil"),
    ("asymmetric", "floor"),
    ("tf_half_pixel_for_nn", "round_prefer_ceil"),
)

CASES: tuple[Case, ...] = (
    *(Case(name, [IMAGE]) for name in _UNARY if name not in ("Not", "IsNaN")),
    Case("Mish", [ROWS], opset=18),
    Case("Gelu", [ROWS], opset=20),
    Case("Gelu", [ROWS], {"approximate": "tanh"}, 20),
    Case("HardSigmoid", [ROWS], {"alpha": 1 / 6, "beta": 0.5}),
    Case("Elu", [ROWS], {"alpha": 0.3}),
    Case("Selu", [ROWS], {"alpha": 1.1, "gamma": 1.3}),
    Case("PRelu", [IMAGE, _random(4, 1, 1)]),
    Case("PRelu", [IMAGE, _random(5)]),
    Case("PRelu", [IMAGE, _random(4, 6, 5)]),
    Case("Clip", [ROWS, _number(-0.5), _number(0.7)], opset=11),
    Case("Clip", [ROWS, None, _number(0.7)], opset=13),
    Case("Clip", [ROWS, _number(0.0), _number(6.0)]),
    Case("Clip", [ROWS], {"min": -0.2, "max": 0.4}, 9),
    *(Case("Softmax", [LINE], {"axis": 1}, opset) for opset in (11, 13)),
    Case("LogSoftmax", [LINE], opset=11),
    # arithmetic: both tensors, a constant on either side, broadcasting
    *(Case(name, [LINE, LINE]) for name in "Add Sub Mul Div Max Min Sum Mean".split()),
    *(Case(name, [_number(1.5), LINE]) for name in ("Add", "Sub", "Mul", "Div")),
    *(Case(name, [LINE, _random(3, 1)]) for name in ("Add", "Sub", "Mul", "Div")),
    Case("Pow", [LINE, _number(2.0)]),
    Case("Div", [(2, 4), _whole(3, -2, 5, -7)], integers=True),
    Case("Mod", [(2, 4), _whole(3, -2, 5, -7)], integers=True),
    Case("Add", [LINE, _random(1, 1, 1, 1)]),
    # weights
    Case("Conv", [IMAGE, _W, _random(8)], {"pads": [1, 0, 1, 0], "strides": [2, 1]}),
    Case("Conv", [IMAGE, _W], {"pads": [1, 0, 0, 2], "dilations": [1, 2]}, 11),
    *(Case("Conv", [IMAGE, _W], {"auto_pad": mode, "strides": [2, 2]})
      for mode in ("SAME_UPPER", "SAME_LOWER", "VALID")),
    Case("Conv", [IMAGE, _random(8, 1, 3, 3)], {"group": 4}),
    Case("Conv", [LINE, _random(5, 3, 4), _random(5)], {"pads": [2, 1]}),
    Case("Conv", [(1, 2, 4, 4, 3), _random(3, 2, 2, 2, 2)]),
    Case("ConvTranspose", [IMAGE, _random(4, 3, 3, 3), _random(3)],
         {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]}),
    Case("ConvTranspose", [IMAGE, _random(4, 3, 3, 3)], {"strides": [2, 2], "pads": [0, 1, 1, 0]}),
    Case("ConvTranspose", [IMAGE, _random(4, 2, 3, 3)], {"strides": [2, 2], "group": 2}),
    *(Case("ConvTranspose", [IMAGE, _random(4, 3, 3, 3)], {"strides": [2, 2], "auto_pad": mode})
      for mode in ("SAME_UPPER", "SAME_LOWER")),
    Case("ConvTranspose", [IMAGE, _random(4, 3, 3, 3)],
         {"strides": [2, 2], "output_shape": [12, 11]}),
    Case("ConvTranspose", [LINE, _random(3, 2, 4)], {"strides": [3], "dilations": [2]}),
    Case("Gemm", [ROWS, _random(6, 4), _random(4)], opset=11),
    Case("Gemm", [ROWS, _random(4, 6), _random(1)], {"transB": 1, "alpha": 0.5, "beta": 2.0}),
    Case("Gemm", [ROWS, _random(6, 4)]),
    Case("Gemm", [ROWS, (2, 6)], {"transB": 1}),
    Case("MatMul", [LINE, _random(7, 4)]),
    Case("MatMul", [_random(4, 3), LINE]),
    Case("MatMul", [(2, 3, 4), (2, 4, 5)]),
    Case("MatMul", [LINE, _random(3, 7, 4)[:1]]),
    Case("Einsum", [(2, 3, 4), (2, 5, 4)], {"equation": "bij,bkj->bik"}),
    # normalizations
    Case("BatchNormalization", [IMAGE, _random(4), _random(4), _random(4), abs(_random(4))]),
    Case("BatchNormalization", [IMAGE, _random(4), _random(4), _random(4), abs(_random(4))],
         {"epsilon": 0.1}, 11),
    Case("InstanceNormalization", [IMAGE, _random(4), _random(4)]),
    Case("LayerNormalization", [LINE, _random(7), _random(7)], {"epsilon": 0.01}),
    Case("LayerNormalization", [LINE, _random(3, 7)], {"axis": 1}),
    Case("GroupNormalization", [IMAGE, _random(2), _random(2)], {"num_groups": 2}, 18),
    Case("GroupNormalization", [IMAGE, _random(4), _random(4)], {"num_groups": 2}, 21),
    Case("LpNormalization", [LINE], {"axis": 1, "p": 1}),
    Case("LpNormalization", [LINE], {"axis": 2}),
    Case("LRN", [IMAGE], {"size": 3, "alpha": 0.2}),
    # pooling
    Case("MaxPool", [IMAGE], {**_D, "pads": [1, 1, 1, 1]}),
    Case("MaxPool", [IMAGE], {**_D, "pads": [0, 1, 2, 0]}, 11),
    Case("MaxPool", [IMAGE], {**_D, "ceil_mode": 1}),
    Case("MaxPool", [IMAGE], {"kernel_shape": [2, 2], "dilations": [2, 2]}),
    *(Case(name, [IMAGE], {**_D, "auto_pad": mode}) for name in ("MaxPool", "AveragePool")
      for mode in ("SAME_UPPER", "SAME_LOWER")),
    Case("MaxPool", [LINE], {"kernel_shape": [3], "strides": [2]}),
    *(Case("AveragePool", [IMAGE], {**_D, "pads": [1, 1, 1, 1], "count_include_pad": c})
      for c in (0, 1)),
    *(Case("AveragePool", [IMAGE], {**_D, "pads": [0, 1, 1, 0], "count_include_pad": c}, 11)
      for c in (0, 1)),
    *(Case("AveragePool", [IMAGE], {**_D, "ceil_mode": 1, "pads": [1, 0, 0, 0],
                                    "count_include_pad": c}, 19) for c in (0, 1)),
    # reductions: axes as attribute, and as input from 13 (ReduceSum) or 18 (the others)
    *(Case(f"Reduce{name}", [LINE], {"axes": [1, -1], "keepdims": keep}, 11)
      for name, keep in (("Mean", 0), ("Sum", 1), ("Max", 0), ("Min", 1), ("Prod", 0), ("L1", 1),
                         ("L2", 0), ("SumSquare", 1), ("LogSumExp", 0))),
    *(Case(f"Reduce{name}", [LINE, _whole(2)], {"keepdims": keep}, 18)
      for name, keep in (("Mean", 0), ("Sum", 1), ("Max", 1), ("Min", 0), ("L2", 1))),
    Case("ReduceSum", [LINE, _whole(-1)], opset=13),
    Case("ReduceMean", [LINE, _whole()], {"noop_with_empty_axes": 1}, 18),
    *(Case(name, [LINE], {"axis": 2, "keepdims": 0}) for name in ("ArgMax", "ArgMin")),
    Case("TopK", [LINE, _whole(3)], {"axis": -1}, outputs=2),
    Case("CumSum", [LINE, np.array(1)], {"reverse": 1, "exclusive": 1}),
    # arrangement
    Case("Reshape", [IMAGE, _whole(0, -1, 5)]),
    Case("Reshape", [IMAGE, _whole(-1, 120)]),
    Case("Flatten", [IMAGE], {"axis": 2}),
    Case("Transpose", [IMAGE], {"perm": [0, 2, 3, 1]}),
    Case("Squeeze", [(2, 1, 3, 1)], {"axes": [1, -1]}, 11),
    Case("Squeeze", [(2, 1, 3, 1), _whole(3)], opset=13),
    Case("Squeeze", [(2, 1, 3, 1)]),
    Case("Unsqueeze", [ROWS], {"axes": [1, 3]}, 11),
    Case("Unsqueeze", [ROWS, _whole(-1, 1)], opset=13),
    Case("Expand", [(2, 1, 3), _whole(4, 1)]),
    Case("Tile", [LINE, _whole(1, 2, 3)]),
    Case("Concat", [LINE, (2, 2, 7), _random(1, 1, 7).repeat(2, 0)], {"axis": 1}),
    Case("Split", [ROWS], {"axis": 1, "split": [1, 3, 2]}, 11, 3),
    Case("Split", [ROWS, _whole(4, 2)], {"axis": 1}, 13, 2),
    Case("Split", [LINE], {"axis": 2, "num_outputs": 3}, 18, 3),
    Case("Slice", [LINE], {"starts": [1, -3], "ends": [9, -1], "axes": [1, 2]}, 9),
    Case("Slice", [LINE, _whole(-2, 1), _whole(2**63 - 1, 6), _whole(1, 2), _whole(1, 2)]),
    Case("Slice", [LINE, _whole(-2), _whole(-(2**63)), _whole(2), _whole(-2)]),
    Case("Pad", [IMAGE], {"pads": [0, 0, 1, 2, 0, 0, 0, 1], "value": 0.5}, 9),
    *(Case("Pad", [IMAGE, _whole(0, 0, 1, 2, 0, 0, 3, 1)], {"mode": mode})
      for mode in ("constant", "reflect", "edge")),
    Case("Pad", [LINE, _whole(0, 1, 0, 0, 2, 1), _number(-1.0)]),
    Case("Pad", [LINE, _whole(1, 2), _number(0.5), _whole(2)], opset=18),
    *(Case("DepthToSpace", [(2, 8, 2, 3)], {"blocksize": 2, "mode": mode})
      for mode in ("DCR", "CRD")),
    Case("SpaceToDepth", [(2, 2, 4, 6)], {"blocksize": 2}),
    *(Case("Resize", [IMAGE, None, np.array([1, 1, 2, 2], np.float32)],
           {"mode": mode, "coordinate_transformation_mode": how, "nearest_mode": near})
      for mode in ("nearest", "linear") for how, near in _RESIZE
      if (mode, how) != ("linear", "tf_half_pixel_for_nn")),
    Case("Resize", [IMAGE, None, None, _whole(2, 4, 9, 8)], {"mode": "linear"}),
    Case("Resize", [IMAGE, None, None, _whole(2, 4, 4, 3)], {"mode": "nearest"}),
    Case("Resize", [IMAGE, None, np.array([1, 1, 0.6, 1.7], np.float32)], {"mode": "linear"}),
    Case("Resize", [IMAGE, None, None, _whole(2, 4, 12, 10)], {"mode": "cubic"}),
    Case("Resize", [LINE, None, np.array([1, 1, 2], np.float32)], {"mode": "linear"}),
    Case("Upsample", [IMAGE, np.array([1, 1, 2, 3], np.float32)], opset=9),
    Case("Trilu", [(2, 4, 5), np.array(1)], {"upper": 0}),
    Case("Gather", [LINE, np.array(-1)], {"axis": 2}),
    Case("Gather", [LINE, _whole(2, 0, -1)], {"axis": 1}),
    Case("Gather", [_random(9, 4), (2, 5)], integers=True),
    Case("Gather", [_random(9), (2, 5)], integers=True),
    Case("GatherElements", [LINE, np.array([[[0, 1], [2, -1], [3, 3]]] * 2)], {"axis": 2}),
    Case("OneHot", [(2, 3), np.array(4), np.array([-1, 2], np.float32)], integers=True),
    Case("Where", [np.array([[True, False, True]]), (2, 3), _number(-3.0)]),
    Case("Cast", [ROWS], {"to": 7}),
    Case("Dropout", [ROWS], opset=13),
    # recurrent: layout [T, N, …], gate order, directions, initial states
    *(Case("LSTM", [(4, 2, 3), _random(d, 20, 3), _random(d, 20, 5), _random(d, 40)],
           {"hidden_size": 5, "direction": how}, outputs=3)
      for how, d in (("forward", 1), ("reverse", 1), ("bidirectional", 2))),
    Case("LSTM", [(4, 2, 3), _random(1, 20, 3), _random(1, 20, 5), None, None, _random(1, 2, 5),
                  _random(1, 2, 5) * 2], {"hidden_size": 5}, 11, 3),
    Case("GRU", [(4, 2, 3), _random(2, 15, 3), _random(2, 15, 5), _random(2, 30)],
         {"hidden_size": 5, "direction": "bidirectional", "linear_before_reset": 1}, outputs=2),
    Case("RNN", [(4, 2, 3), _random(1, 5, 3), _random(1, 5, 5), _random(1, 10)],
         {"hidden_size": 5, "activations": ["Relu"]}, outputs=2),
    Case("RMSNormalization", [LINE, _random(7)], opset=23),
    Case("Attention", [(2, 2, 3, 4), (2, 2, 5, 4), (2, 2, 5, 4)], opset=23),
    Case("Attention", [(2, 3, 8), (2, 5, 8), (2, 5, 8)], {"q_num_heads": 2, "kv_num_heads": 2}, 23),
    Case("Swish", [ROWS], {"alpha": 0.7}, 24),
    # spectra: the axis as attribute until 19, then as input; complex numbers as pairs
    Case("DFT", [(2, 8, 1)], {"onesided": 1}),
    Case("DFT", [(2, 3, 6, 2), np.array(9)], {"axis": 2}),
    Case("DFT", [(2, 8, 2), np.array(5)], {"inverse": 1}),
    Case("DFT", [(2, 3, 7, 1), None, np.array(-2)], {"onesided": 1}, 20),
    Case("STFT", [(2, 20, 1), np.array(3), abs(_random(8))]),
    Case("STFT", [(2, 20, 1), np.array(4), None, np.array(6)], {"onesided": 0}),
    Case("STFT", [(2, 20, 2), np.array(5), _random(7)], {"onesided": 0}),
    *(Case(f"{name}Window", [np.array(9)], {"periodic": periodic})
      for name in ("Hann", "Hamming", "Blackman") for periodic in (0, 1)),
    Case("MelWeightMatrix", [np.array(8), np.array(32), np.array(8000), _number(0), _number(4000)]),
    Case("MelWeightMatrix", [np.array(5), np.array(64), np.array(16000), _number(300),
                             _number(7600)]),
)  # fmt: skip


def model_of(case: Case) -> Any:
    """The ModelProto: data inputs `x0, x1, …`, constants as initializers."""
    from onnx import helper, numpy_helper, shape_inference

    data, constants, names = [], [], []
    for index, given in enumerate(case.inputs):
        name = "" if given is None else f"i{index}"
        names.append(name)
        if isinstance(given, tuple):
            kind = 7 if case.integers else 1
            data.append(helper.make_tensor_value_info(name, kind, list(given)))
        elif given is not None:
            constants.append(numpy_helper.from_array(np.asarray(given, order="C"), name))
    outputs = [f"o{index}" for index in range(case.outputs)]
    node = helper.make_node(case.operator, names, outputs, "node", **case.attributes)
    values = [helper.make_empty_tensor_value_info(name) for name in outputs]
    graph = helper.make_graph([node], "one operator", data, values, constants)
    opset = helper.make_opsetid("", case.opset)
    version = 8 if case.opset < 21 else 10
    model = helper.make_model(graph, opset_imports=[opset], ir_version=version)
    model = shape_inference.infer_shapes(model)  # the outputs' types
    for value in model.graph.output:
        if not value.type.tensor_type.elem_type:  # onnx has no inference for GroupNormalization
            value.CopyFrom(helper.make_tensor_value_info(value.name, 1, list(IMAGE)))
    return model


def data_of(case: Case) -> dict[str, Array]:
    """Values for the data inputs; whole numbers from 0 to 3 where the operator takes those."""
    generator = np.random.default_rng(0)
    arrays: dict[str, Array] = {}
    for index, given in enumerate(case.inputs):
        if not isinstance(given, tuple):
            continue
        values = generator.standard_normal(given).astype(np.float32)
        positive = case.operator in ("Log", "Sqrt")
        arrays[f"i{index}"] = abs(values) if positive else values
        if case.integers:
            arrays[f"i{index}"] = generator.integers(0, 4, given)
    return arrays
