"""What an assignment takes of a device's memory: the C export's own planner on a template."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mpsearch.exporters.c.arena import Buffer
from mpsearch.exporters.c.families import Family
from mpsearch.exporters.c.layouts import Arrange, Arranged
from mpsearch.exporters.c.storage import Storage, scratch_of, store
from mpsearch.exporters.c.summing import kind_of, layer_of
from mpsearch.integer.graph import Requantize, Reshape, Step
from mpsearch.integer.template import Template
from mpsearch.tables.choice import Choice

SCRATCH = "scratch of "
PASSING = "as needed:"  # begins the name of a step that only some assignments have
_AS_NEEDED = (Arrange, Requantize, Reshape)
_ORDERS = (" channels last", " row-major")


@dataclass(frozen=True)
class Part:
    """Bytes that are in use in one step: a tensor, tensors that lie over each other, or what a
    kernel works in."""

    nodes: frozenset[str]
    """Of the template; `scratch of LAYER` for a kernel's."""
    names: tuple[str, ...]
    """As export.json calls them."""
    size: int


@dataclass(frozen=True)
class Moment:
    """One step, and all that is in use in it."""

    title: str
    parts: tuple[Part, ...]
    near: frozenset[str]
    """The nodes that the step reads and writes: what may lie over each other in it."""

    @property
    def size(self) -> int:
        """Bytes of all parts."""
        return sum(part.size for part in self.parts)


@dataclass(frozen=True)
class Lives:
    """An assignment's memory: what export.json calls peak_bytes, and every step by a name that it
    has in all assignments."""

    peak_bytes: int
    moments: Mapping[str, Moment]
    kernels: Mapping[str, tuple[str, int]]
    """Layer -> its kernel and the bytes that this works in."""

    @property
    def fullest(self) -> Moment:
        """The step in which most is in use."""
        return max(self.moments.values(), key=lambda moment: moment.size)


@dataclass(frozen=True)
class Planned:
    """A template in the kernels of one family; assignments are planned once."""

    template: Template
    family: Family
    known: dict[tuple[tuple[str, str], ...], Lives]

    @staticmethod
    def of(template: Template, family: Family) -> "Planned":
        """With nothing planned yet."""
        return Planned(template, family, {})

    @property
    def layers(self) -> tuple[str, ...]:
        """All of them, in order."""
        return tuple(dict.fromkeys(node.layer for node in self.template.nodes if node.layer))

    def lives(self, choices: Mapping[str, Choice]) -> Lives:
        """Which tensors an assignment has, when they live and what they take."""
        key = tuple((name, str(choices[name])) for name in self.layers)
        if key not in self.known:
            self.known[key] = self._planned(choices)
        return self.known[key]

    def _planned(self, choices: Mapping[str, Choice]) -> Lives:
        graph, origin = self.template.assembled(choices)
        arranged = self.family.arrange(graph)
        chosen = self.family.kernels(arranged)
        storage = store(graph, arranged, chosen, self.family)
        scratch = {buffer.name: buffer.size for buffer in storage.buffers}
        used: dict[str, tuple[str, int]] = {}
        for step in arranged.steps:
            if (layer := layer_of(step)) is not None:
                name = layer.weights.layer
                most = max(scratch.get(scratch_of(step), 0), used.get(name, ("", 0))[1])
                used[name] = (chosen[name].name, most)
        moments = _moments(arranged, storage, origin)
        return Lives(storage.arena.peak_bytes, moments, used)


def _moments(arranged: Arranged, storage: Storage, origin: Mapping[str, str]) -> dict[str, Moment]:
    scratch = {
        scratch_of(step): layer.weights.layer
        for step in arranged.steps
        if (layer := layer_of(step)) is not None
    }

    def node_of(name: str) -> str:
        if name in scratch:
            return SCRATCH + scratch[name]
        while name not in origin:
            name = next(name.removesuffix(o) for o in _ORDERS if name.endswith(o))
        return origin[name]

    moments: dict[str, Moment] = {}
    for number, step in enumerate(arranged.steps, start=1):
        key = _key(step, node_of(step.output.name))
        if isinstance(step, _AS_NEEDED) or key in moments:
            key = f"{PASSING} {key} {step.output.name}"
        live = [b for b in storage.buffers if b.first <= number <= b.last]
        parts = [
            Part(frozenset(map(node_of, names)), names, size)
            for names, size in together(live, number)
        ]
        near = frozenset(map(node_of, (*step.sources, step.output.name)))
        moments[key] = Moment(f"{kind_of(step)} {step.output.name}", tuple(parts), near)
    return moments


def _key(step: Step, node: str) -> str:
    """A name that the step has in every assignment, where it is there in every one."""
    if (layer := layer_of(step)) is not None:
        return f"layer {layer.weights.layer} {node}"
    return f"{type(step).__name__} {node}"


def together(live: Sequence[Buffer], number: int) -> list[tuple[tuple[str, ...], int]]:
    """(names, bytes) of the buffers of step `number`; one that is written over another then counts
    with it."""
    sizes = {buffer.name: buffer.size for buffer in live}
    covering = {b.over: b for b in live if b.over is not None and b.first == number}
    parts = []
    for name, size in sizes.items():
        names = [name]
        if name in covering:
            names.append(covering[name].name)
            size += covering[name].size - covering[name].shared(size)
        if name not in {buffer.name for buffer in covering.values()}:
            parts.append((tuple(names), size))
    return parts
