"""What is in use in every step, as a function of the few layers that decide it.

The forms in which a tensor is kept depend on the layers that read it, directly or behind moves
(`Template.readers`), and a kernel's scratch on its layer. So the bytes of a step are a sum of
parts, each a function of few layers; all combinations of these are planned once, many of them in
one assignment.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from math import prod

from mpsearch.fitting.memory import PASSING, SCRATCH, Lives, Planned
from mpsearch.tables.choice import Choice

MOST_COMBINATIONS = 64  # of one part; parts that more layers decide count with their least
_ROUNDS = 4

Combination = tuple[int, ...]  # a class for every layer of a part


@dataclass(frozen=True)
class Function:
    """Bytes of a part by the classes of `layers`; without a table never below `least`."""

    layers: tuple[str, ...]
    table: Mapping[Combination, int]
    least: int

    @property
    def is_known(self) -> bool:
        """Whether every combination has been planned."""
        return bool(self.table)

    def at(self, chosen: Mapping[str, int]) -> int:
        """Its bytes, or the least that is proven."""
        if not self.is_known:
            return self.least
        return self.table[tuple(chosen[layer] for layer in self.layers)]


@dataclass
class Sizes:
    """The functions of every step that is there in all assignments.

    `choices`: what each layer may have. Its *classes* are choices that the memory cannot tell
    apart: one number of bits for activations, one kernel, one scratch.
    """

    planned: Planned
    choices: Mapping[str, Sequence[Choice]]
    seen: list[tuple[dict[str, int], Lives]] = field(default_factory=list)

    @cached_property
    def _kernels(self) -> dict[Choice, Mapping[str, tuple[str, int]]]:
        """With a choice wherever it may be: kernels and scratch by layer."""
        everything = sorted({choice for allowed in self.choices.values() for choice in allowed})
        return {
            choice: self.planned.lives(
                {name: choice if choice in own else own[0] for name, own in self.choices.items()}
            ).kernels
            for choice in everything
        }

    def kernel_of(self, layer: str, choice: Choice) -> str:
        """The name of the kernel that computes a layer."""
        return self._kernels[choice][layer][0]

    @cached_property
    def classes(self) -> dict[str, list[list[Choice]]]:
        """Layer -> its choices by class, in the order of bits."""
        kernels = self._kernels
        found: dict[str, list[list[Choice]]] = {}
        for name, own in self.choices.items():
            alike: dict[tuple[int, str, int], list[Choice]] = {}
            for choice in sorted(own):
                alike.setdefault((choice.a_bits, *kernels[choice][name]), []).append(choice)
            found[name] = [alike[key] for key in sorted(alike)]
        return found

    @cached_property
    def class_of(self) -> dict[str, dict[Choice, int]]:
        """Layer -> choice -> the number of its class."""
        return {
            name: {choice: n for n, alike in enumerate(classes) for choice in alike}
            for name, classes in self.classes.items()
        }

    def chosen(self, choices: Mapping[str, Choice]) -> dict[str, int]:
        """The classes of an assignment."""
        return {name: self.class_of[name][choices[name]] for name in self.classes}

    def lives(self, chosen: Mapping[str, int]) -> Lives:
        """The memory of these classes."""
        return self.planned.lives(
            {name: classes[chosen.get(name, 0)][0] for name, classes in self.classes.items()}
        )

    def deciding(self, node: str) -> frozenset[str]:
        """The layers that decide what a node of the template takes, of those with a choice."""
        template = self.planned.template
        if node.startswith(SCRATCH):
            layers = {node.removeprefix(SCRATCH)}
        else:
            layers = set(template.readers[node])
            for name in template.moved_from(node):  # packed together, or not at all
                layers |= template.readers[name]
                if own := template.by_name[name].layer:
                    layers.add(own)  # what its kernel can write
        return frozenset(name for name in layers if len(self.classes[name]) > 1)

    @cached_property
    def functions(self) -> dict[str, tuple[Function, ...]]:
        """Step -> its parts."""
        self._observe(dict.fromkeys(self.classes, 0))
        self._observe({name: len(classes) - 1 for name, classes in self.classes.items()})
        for _ in range(_ROUNDS):
            wanted = {layers for _, _, layers in self._parts()} | set(self._near().values())
            missing = [pair for layers in wanted for pair in self._missing(layers)]
            if not missing:
                break
            for chosen in _packed(missing):
                self._observe(chosen)
        found: dict[str, list[Function]] = {}
        for key, nodes, layers in self._parts():
            found.setdefault(key, []).append(self._function(key, nodes, tuple(sorted(layers))))
        return {key: tuple(parts) for key, parts in found.items()}

    def bytes_at(self, key: str, chosen: Mapping[str, int]) -> int:
        """What is in use in a step, or the least that is proven."""
        return sum(part.at(chosen) for part in self.functions[key])

    def _observe(self, chosen: Mapping[str, int]) -> None:
        whole = {name: chosen.get(name, 0) for name in self.classes}
        self.seen.append((whole, self.lives(whole)))

    def _parts(self) -> list[tuple[str, frozenset[str], frozenset[str]]]:
        """(step, nodes, the layers that decide them): nodes that ever lie over each other in the
        step are one part, and those of which not all combinations have been seen that could."""
        near = self._near()
        steps = {key for key in self.seen[0][1].moments if not key.startswith(PASSING)}
        for _, lives in self.seen:
            steps &= set(lives.moments)
        found = []
        for key in sorted(steps):
            groups: list[set[str]] = []
            if any(self._missing(near[key])) or self._are_many(near[key]):
                groups = [set[str]().union(*(lives.moments[key].near for _, lives in self.seen))]
            for _, lives in self.seen:
                for part in lives.moments[key].parts:
                    meeting = [group for group in groups if group & part.nodes]
                    groups = [group for group in groups if not group & part.nodes]
                    groups.append(set(part.nodes).union(*meeting))
            for group in groups:
                layers = frozenset[str]().union(*map(self.deciding, group))
                found.append((key, frozenset(group), layers))
        return found

    def _near(self) -> dict[str, frozenset[str]]:
        """Step -> the layers that decide what may lie over each other in it."""
        found: dict[str, frozenset[str]] = {}
        for _, lives in self.seen:
            for key, moment in lives.moments.items():
                layers = frozenset[str]().union(*map(self.deciding, moment.near))
                found[key] = found.get(key, frozenset()) | layers
        return found

    def _are_many(self, layers: frozenset[str]) -> bool:
        return prod(len(self.classes[name]) for name in layers) > MOST_COMBINATIONS

    def _missing(self, layers: frozenset[str]) -> Iterator[dict[str, int]]:
        names = sorted(layers)
        counts = [len(self.classes[name]) for name in names]
        if self._are_many(layers):
            return
        there = {tuple(chosen[name] for name in names) for chosen, _ in self.seen}
        for combination in product(*map(range, counts)):
            if combination not in there:
                yield dict(zip(names, combination, strict=True))

    def _function(self, key: str, nodes: frozenset[str], layers: tuple[str, ...]) -> Function:
        table: dict[Combination, int] = {}
        for chosen, lives in self.seen:
            size = sum(part.size for part in lives.moments[key].parts if part.nodes & nodes)
            at = tuple(chosen[name] for name in layers)
            table[at] = min(size, table.get(at, size))
        combinations = prod(len(self.classes[name]) for name in layers)
        if len(table) == combinations:
            return Function(layers, table, min(table.values()))
        return Function(layers, {}, self._least(nodes, layers) if min(table.values()) else 0)

    def _least(self, nodes: frozenset[str], layers: tuple[str, ...]) -> int:
        """Bytes below which no form of any of these tensors goes."""
        bits = min(8, *(c.a_bits for name in layers for c in self.choices[name]))
        shapes = [
            self.planned.template.by_name[node].shape
            for node in nodes
            if not node.startswith(SCRATCH)
        ]
        return min((prod(shape) * bits // 8 for shape in shapes), default=0)


def _packed(missing: Sequence[Mapping[str, int]]) -> Iterator[dict[str, int]]:
    """Few assignments that have all these combinations, each with as many as go together."""
    left = list(missing)
    while left:
        chosen: dict[str, int] = {}
        later = []
        for combination in left:
            if all(chosen.get(name, n) == n for name, n in combination.items()):
                chosen |= combination
            else:
                later.append(combination)
        left = later
        yield chosen
