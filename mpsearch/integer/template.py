"""`Template`: what every assignment of a network is as integers, but for the numbers.

`symbolic` writes it once, with the network and data at hand; beside the layer table it says without
either, and without torch, which steps an assignment has and how many bits every tensor takes: what
the memory of a device is planned from. Which form each tensor is kept in is decided as `lowering`
decides it (`layers.choose_forms`), from the bits of the layers that read it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from mpsearch.errors import InputError
from mpsearch.files.whole import digest
from mpsearch.integer.clamps import fuse_clamps
from mpsearch.integer.graph import (
    IntegerGraph,
    IntegerInput,
    IntegerTensor,
    Requantize,
    Step,
)
from mpsearch.integer.nodes import (
    ARGMAX,
    INPUT,
    JOIN,
    LAYER,
    MOVE,
    OWN,
    PROBABILITIES,
    PROBABILITY_BITS,
    SCALED,
    SOFTMAX,
    SUM,
    WRITES_ANY,
    Codes,
    Form,
    Node,
)
from mpsearch.integer.steps_json import step_from_json
from mpsearch.integer.storing import Storing, storing
from mpsearch.running.streams import json_text
from mpsearch.tables.choice import Choice

VERSION = 1
_MEASURED_BELOW = 8  # bits: post_training.activation_ranges


@dataclass(frozen=True)
class Template:
    """The nodes in order, the last of which leaves the network."""

    nodes: tuple[Node, ...]
    quantizers: Mapping[str, str]
    """Layer -> a name that layers have in common which read the same numbers: from 8 bits on they
    have one quantizer; below, ranges are measured for each."""
    is_stored: bool = True
    """Whether sums are of codes; else they are wide, with 32 bits."""

    @cached_property
    def by_name(self) -> dict[str, Node]:
        return {node.name: node for node in self.nodes}

    @property
    def result(self) -> Node:
        return self.nodes[-1]

    def graph(self, choices: Mapping[str, Choice]) -> IntegerGraph:
        """The integer graph of an assignment: shapes and bits as `lower` gives them, no numbers."""
        return self.assembled(choices)[0]

    def assembled(self, choices: Mapping[str, Choice]) -> tuple[IntegerGraph, Mapping[str, str]]:
        """The same, and the node that each of its tensors is of."""
        assembly = _Assembly(self, choices)
        return assembly.run(), assembly.origin

    @cached_property
    def readers(self) -> Mapping[str, frozenset[str]]:
        """Node -> the layers whose bits decide in which forms it is kept: those that read it,
        directly or behind moves."""
        found: dict[str, set[str]] = {node.name: set() for node in self.nodes}
        for node in reversed(self.nodes):
            through = set(found[node.name]) if node.role in (MOVE, JOIN) else set()
            if node.role == LAYER:
                through = {node.layer}
            for source in node.sources:
                found[source] |= through
        return {name: frozenset(layers) for name, layers in found.items()}

    def to_json(self) -> dict[str, Any]:
        """For profile.json, with a digest of itself."""
        content = {
            "version": VERSION,
            "nodes": [_node_to_json(node) for node in self.nodes],
            "quantizers": dict(self.quantizers),
            "is_stored": self.is_stored,
        }
        return {**content, "digest": digest(json_text(content, sort_keys=True))}

    def moved_from(self, name: str) -> list[str]:
        """The node, and what it only moves the elements of."""
        node = self.by_name[name]
        if node.role not in (MOVE, JOIN):
            return [name]
        return [name, *(each for source in node.sources for each in self.moved_from(source))]


def template_from_json(document: object, path: str) -> Template:
    """Read what `Template.to_json` wrote. Raises InputError for a file of before, for a network
    without integer form, naming what stops it, and for a damaged one."""
    again = f"profile the model again to have it written (mpsearch profile … -o {path})"
    if not isinstance(document, dict):
        raise InputError(f"{path} does not say which tensors live at the same time; {again}")
    if document.get("version") != VERSION:
        raise InputError(
            f"{path} has lifetimes of version {document.get('version')!a}; expected {VERSION}: "
            f"{again}"
        )
    content = {key: value for key, value in document.items() if key != "digest"}
    if document.get("digest") != digest(json_text(content, sort_keys=True)):
        raise InputError(f"{path}: its lifetimes are damaged; {again}")
    if "refused" in content:
        first, *others = content["refused"]
        raise InputError(f"the network has no integer form for C: {first}", *others)
    nodes = tuple(_node_from_json(node) for node in content["nodes"])
    return Template(nodes, content["quantizers"], content["is_stored"])


def refused(error: InputError) -> dict[str, Any]:
    """What stands in the place of a template where the network has no integer form."""
    content = {"version": VERSION, "refused": list(error.lines)}
    return {**content, "digest": digest(json_text(content, sort_keys=True))}


_EMPTY = Node("", "")


def _node_to_json(node: Node) -> dict[str, Any]:
    return {key: value for key, value in vars(node).items() if value != getattr(_EMPTY, key)}


def _node_from_json(document: Mapping[str, Any]) -> Node:
    given: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in document.items()
    }
    return Node(**given)


@dataclass(frozen=True)
class Forms:
    """By node: the forms that are read, in order, the one that is written, and those that its
    sources are read in; the class of its wide form; the classes of 16 bits; and the codes of stored
    tensors."""

    wanted: Mapping[str, tuple[Form, ...]]
    kept: Mapping[str, Form]
    needed: Mapping[str, tuple[Form, ...]]
    classes: Mapping[str, str]
    short: frozenset[str]
    codes: Mapping[str, Codes]


def choose_forms(template: Template, a_bits: Mapping[str, int]) -> Forms:
    """As `layers.choose_forms` on nodes without numbers."""
    own = {name: Codes(a_bits[name], _quantizer(template, name, a_bits)) for name in a_bits}
    kept_codes = storing(template.nodes, a_bits, own) if template.is_stored else Storing({}, {})
    codes, quantizers = kept_codes.codes, {**own, **kept_codes.layers}
    wanted: dict[str, list[Form]] = {node.name: [] for node in template.nodes}
    kept: dict[str, Form] = {}
    needed: dict[str, tuple[Form, ...]] = {}
    if template.result.role not in (SOFTMAX, ARGMAX):
        wanted[template.result.name].append(None)
    for node in reversed(template.nodes):
        forms = wanted[node.name]
        single = forms[0] if len(forms) == 1 and node.role in WRITES_ANY else None
        kept[node.name] = codes.get(node.name, single)
        needed[node.name] = ()
        if node.role == INPUT:
            continue
        needed[node.name] = _needed(node, quantizers, kept, codes)
        for source, form in zip(node.sources, needed[node.name], strict=True):
            if form not in wanted[source]:
                wanted[source].append(form)
    classes, short = _classes(template, kept, needed)
    read = {name: tuple(reversed(forms)) for name, forms in wanted.items()}
    return Forms(read, kept, needed, classes, short, codes)


def _quantizer(template: Template, layer: str, a_bits: Mapping[str, int]) -> str:
    return layer if a_bits[layer] < _MEASURED_BELOW else template.quantizers.get(layer, layer)


def _needed(
    node: Node, quantizers: Mapping[str, Codes], kept: Mapping[str, Form],
    codes: Mapping[str, Codes],
) -> tuple[Form, ...]:  # fmt: skip
    """The form in which a node reads each source."""
    if node.role == SCALED:
        return tuple(codes.get(source) for source in node.sources)
    if node.probabilities:
        return tuple(PROBABILITIES if each else None for each in node.probabilities)
    form: Form = None
    if node.role == LAYER:
        form = quantizers[node.layer]
    elif node.role in (MOVE, JOIN):
        form = kept[node.name]
    return (form,) * len(node.sources)


def _classes(
    template: Template, kept: Mapping[str, Form], needed: Mapping[str, tuple[Form, ...]]
) -> tuple[dict[str, str], frozenset[str]]:
    """Nodes whose wide forms have one scale, by a name; and the names of those with 16 bits."""
    parent = {node.name: node.name for node in template.nodes}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    def touched(node: Node) -> list[str]:
        forms = (kept[node.name], *needed[node.name])
        return [
            name for name, form in zip((node.name, *node.sources), forms, strict=True)
            if form is None
        ]  # fmt: skip

    owns = [node for node in template.nodes if node.role in (OWN, SCALED)]
    for node in template.nodes:
        if node.role in (MOVE, SUM) and kept[node.name] is None:
            for source in node.sources:
                parent[root(source)] = root(node.name)
    joins = [node for node in template.nodes if node.role == JOIN and kept[node.name] is None]
    short = {root(name) for node in owns for name in touched(node)}
    for node in joins:
        for source, apart in zip(node.sources, node.apart, strict=True):
            if not apart or root(source) not in short:
                parent[root(source)] = root(node.name)
    classes = {name: root(name) for name in parent}
    found = {classes[name] for node in owns for name in touched(node)}
    for node in joins:
        if any(classes[source] != classes[node.name] for source in node.sources):
            found.add(classes[node.name])
    return classes, frozenset(found)


@dataclass
class _Assembly:
    """As `lowering.Lowering`, from a template."""

    template: Template
    choices: Mapping[str, Choice]
    steps: list[Step] = field(default_factory=list)
    inputs: list[IntegerInput] = field(default_factory=list)
    tensors: dict[tuple[str, Form], IntegerTensor] = field(default_factory=dict)
    origin: dict[str, str] = field(default_factory=dict)

    def run(self) -> IntegerGraph:
        a_bits = {name: choice.a_bits for name, choice in self.choices.items()}
        self.w_bits = {name: choice.w_bits for name, choice in self.choices.items()}
        self.forms = choose_forms(self.template, a_bits)
        for node in self.template.nodes:
            self.add(node)
        output = self.tensors[self.template.result.name, None]
        return IntegerGraph(tuple(self.inputs), fuse_clamps(self.steps, output), output, 1.0)

    def enter(self, node: Node) -> None:
        codes = self.forms.codes.get(node.name)
        for form in self.forms.wanted[node.name] if codes is None else (codes,):
            self.tensors[node.name, form] = self.tensor(node, form)
            self.inputs.append(IntegerInput(node.index, self.tensors[node.name, form]))
        if codes is not None:
            self.convert(node, self.tensors[node.name, codes])

    def add(self, node: Node) -> None:
        if node.role == INPUT:
            self.enter(node)
            return
        kept, forms = self.forms.kept[node.name], self.forms.needed[node.name]
        read = [self.tensors[key] for key in zip(node.sources, forms, strict=True)]
        if node.role in (SOFTMAX, ARGMAX):
            output = self.last(node, read)
            if node.role == ARGMAX:
                return
        elif node.role == JOIN:
            output = self.tensor(node, kept)
            read = [
                self.at_scale(node, source, tensor, output)
                for source, tensor in zip(node.sources, read, strict=True)
            ]
        elif node.role in (MOVE, SUM) and read:
            output = replace(read[0], name=self.name(node), shape=node.shape)
        else:
            output = self.tensor(node, kept)
        result = self.write(node, read, output)
        if node.role != SOFTMAX:
            self.tensors[node.name, kept] = result
        self.convert(node, result)

    def last(self, node: Node, read: list[IntegerTensor]) -> IntegerTensor:
        """Probabilities or class numbers, in a form of their own."""
        softmax = node.role == SOFTMAX
        output = IntegerTensor(
            self.name(node), node.shape, PROBABILITY_BITS if softmax else 32, not softmax, 1.0, 0
        )
        if not softmax:
            self.write(node, read, output)
        self.tensors[node.name, PROBABILITIES if softmax else None] = output
        if softmax and not self.forms.wanted[node.name]:
            self.tensors[node.name, None] = output
        return output

    def write(self, node: Node, read: list[IntegerTensor], output: IntegerTensor) -> IntegerTensor:
        """The node's own steps; what they give."""
        for document in node.steps:
            places = document["from"]
            suffix, shape = document["to"], tuple(document["shape"])
            to = output if suffix == "" else replace(output, name=output.name + suffix, shape=shape)
            self.origin[to.name] = node.name
            sources = tuple(self.source(place, read, output) for place in places)
            content = {k: v for k, v in document.items() if k not in ("from", "to", "shape")}
            self.steps.append(step_from_json(content, sources, to, self.w_bits))
        return output if node.steps else read[0]

    def source(self, place: int | str, read: list[IntegerTensor], output: IntegerTensor) -> str:
        if isinstance(place, int):
            return read[place].name
        return self.inputs[0].tensor.name if place == "entry" else output.name + place

    def at_scale(
        self, node: Node, source: str, tensor: IntegerTensor, output: IntegerTensor
    ) -> IntegerTensor:
        """The tensor, rescaled where its class is not that of the join."""
        same = self.forms.classes[source] == self.forms.classes[node.name]
        if same or self.forms.kept[node.name] is not None:
            return tensor
        made = replace(output, name=self.name(self.template.by_name[source]), shape=tensor.shape)
        self.requantize(tensor, made)
        return made

    def convert(self, node: Node, result: IntegerTensor) -> None:
        """The forms that are read and not there yet."""
        for form in self.forms.wanted[node.name]:
            if (node.name, form) not in self.tensors:
                output = self.tensor(node, form)
                self.requantize(result, output)
                self.tensors[node.name, form] = output

    def requantize(self, source: IntegerTensor, output: IntegerTensor) -> None:
        document = {"kind": Requantize.__name__, "rescale": {"factors": 1}}
        ends = {"low": output.low, "high": output.high}
        self.steps.append(step_from_json(document | ends, (source.name,), output, {}))

    def tensor(self, node: Node, form: Form) -> IntegerTensor:
        """A new tensor for the node's result in `form`."""
        name = self.name(node)
        if node.whole:
            return IntegerTensor(name, node.shape, 32, True, 1.0, 0)
        if form is not None:
            return IntegerTensor(name, node.shape, form.bits, False, 1.0, 0)
        short = self.template.is_stored or self.forms.classes[node.name] in self.forms.short
        return IntegerTensor(name, node.shape, 16 if short else 32, True, 1.0, 0)

    def name(self, node: Node) -> str:
        """The node's name; `NAME_as2`, … for further forms."""
        name, count = node.name, 1
        while name in self.origin:
            count += 1
            name = f"{node.name}_as{count}"
        self.origin[name] = node.name
        return name
