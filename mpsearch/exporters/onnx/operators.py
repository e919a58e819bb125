"""aten operators without weights as ONNX nodes: which function writes which operator.

All of them compute in float, between QDQ pairs.
"""

import torch
from torch import fx

from mpsearch.exporters.onnx import (
    activations,
    arithmetic,
    arranging,
    functions,
    normalization,
    pooling,
    products,
    reductions,
    resizing,
    scattering,
    selecting,
    spectral,
)
from mpsearch.exporters.onnx.call import Call, Tensor, Writer, Written
from mpsearch.exporters.onnx.graph_builder import unsupported
from mpsearch.exporters.onnx.sizes import Form, Size

WRITERS: dict[str, Writer] = {
    **activations.WRITERS,
    **arithmetic.WRITERS,
    **arranging.WRITERS,
    **functions.WRITERS,
    **normalization.WRITERS,
    **pooling.WRITERS,
    **products.WRITERS,
    **reductions.WRITERS,
    **resizing.WRITERS,
    **scattering.WRITERS,
    **selecting.WRITERS,
    **spectral.WRITERS,
}


def write_operator(call: Call) -> Written:
    """The tensors that the node gives. Raises InputError, naming operator and node, for what has no
    ONNX form."""
    node, forms = call.node, call.found[call.node]
    if not node.all_input_nodes and isinstance(forms, Form):
        return _constant(call, node, forms)
    writer = WRITERS.get(call.operator)
    if writer is None or (_reads_complex(call) and call.operator not in spectral.OF_COMPLEX):
        raise unsupported(node)
    start = len(call.build.nodes)
    made = writer(call)
    if isinstance(made, str):
        name = call.build.rename_last(start, made, node.name)
        if isinstance(forms, Form):
            return Tensor(name, forms)
        made = [name]
    assert isinstance(forms, tuple)
    assert not isinstance(forms, Size)
    return tuple(
        None if name is None or form is None else Tensor(name, form)
        for name, form in zip(made, forms, strict=True)
    )


def _reads_complex(call: Call) -> bool:
    forms = [call.found.get(node) for node in call.node.all_input_nodes]
    return any(isinstance(form, Form) and form.dtype.is_complex for form in forms)


def _constant(call: Call, node: fx.Node, form: Form) -> Tensor:
    """What reads nothing (arange(5), eye, zeros of fixed sizes) is computed now."""
    with torch.no_grad():
        value = node.target(*node.args, **node.kwargs)  # type: ignore[operator]
    return Tensor(call.constant(value.cpu().numpy()), form)
