"""Files that were exported for one batch size get a free one.

Exporters fold the batch into the targets of Reshape and Expand: [1, 64] for a file of one sample.
The graph runs once on the file's own batch size and once on three samples; where the arriving
tensor has grown along one dimension, the entry of the target that holds this dimension grows too.
A file in which that is a wrong reading is found by comparing three samples with each one alone.
"""

import math
from collections.abc import Mapping, Sequence

import torch

from mpsearch.errors import InputError
from mpsearch.graph.sample_layout import samples_mix
from mpsearch.importers.onnx.calls import Size
from mpsearch.importers.onnx.steps import Plan, Step

Shape = tuple[int, ...]


class BatchRewriter:
    """Targets with the batch in them, by the name of the step's output.

    `learn` is told the shapes of a run on the file's own batch size; from then on a constant target
    whose tensor has grown is rewritten, and `targets` collects what was done.
    """

    def __init__(self, plan: Plan, batch: int, fixed: bool) -> None:
        self._plan, self._batch, self._fixed = plan, batch, fixed
        self._shapes: Mapping[str, Shape] | None = None
        self._ahead: dict[str, int] = {}
        self.targets: dict[str, tuple[tuple[int, bool], ...]] = {}

    def learn(self, shapes: Mapping[str, Shape]) -> None:
        """The shapes of all tensors at the file's own batch size."""
        self._shapes = shapes

    def __call__(self, step: Step, x: torch.Tensor, batch: Size) -> tuple[Size, ...] | None:
        """The target for `x`, or None to take it as the file has it."""
        if self._shapes is None:
            return None
        name = step.outputs[0]
        if step.operator != "Reshape":
            self._ahead[name] = self._ahead.get(step.inputs[0], 1)
            return None
        if name not in self.targets and not torch.compiler.is_exporting():
            found = self._target(step, tuple(int(size) for size in x.shape))
            if found is not None:
                self.targets[name] = found
        entries = self.targets.get(name)
        if entries is None:
            return None
        return tuple(size * batch if grows else size for size, grows in entries)

    def _target(self, step: Step, now: Shape) -> tuple[tuple[int, bool], ...] | None:
        assert self._shapes is not None
        before = self._shapes.get(step.inputs[0])
        target = self._plan.constants.get(step.inputs[1])
        if target is None or before is None or before == now or len(before) != len(now):
            return None
        written = [int(size) for size in target.reshape(-1)]
        if not self._fixed and (-1 in written or math.prod(written) == math.prod(now)):
            return None  # the file leaves the batch free itself
        target_before = self._shapes[step.outputs[0]]
        ahead = self._ahead.get(step.inputs[0], 1)
        place = place_of_batch(before, now, target_before, self._batch, ahead)
        if place is None:
            return None
        first = math.prod(before[: _grown(before, now)[0]]) * ahead
        self._ahead[step.outputs[0]] = first // math.prod(target_before[:place])
        return tuple(
            (size // self._batch, True) if index == place else (size, False)
            for index, size in enumerate(target_before)
        )


def _grown(before: Shape, now: Shape) -> list[int]:
    return [axis for axis, (old, new) in enumerate(zip(before, now, strict=True)) if old != new]


def place_of_batch(
    before: Shape, now: Shape, target: Shape, batch: int, ahead: int = 1
) -> int | None:
    """Which entry of a Reshape's target has the batch as a factor; None when that cannot be told.

    `before` and `now` are the arriving shapes at the file's batch size and another one: for
    (1, 8, 4) and (3, 8, 4) the target (1, 32) has it in entry 0. `ahead` counts the positions that
    come before the batch in the dimension that grew: (T·N, C) has T ahead of N. Of two
    possible entries the last is not taken: features stay together.
    """
    grew = _grown(before, now)
    if len(grew) != 1:
        return None
    start = math.prod(before[: grew[0]])
    first, end = start * ahead, start * before[grew[0]]
    starts = [math.prod(target[:index]) for index in range(len(target) + 1)]
    inside = [i for i in range(len(target)) if starts[i] >= first and starts[i + 1] <= end]
    alone = [i for i in inside if target[i] == batch]
    if alone:
        return alone[0]
    # merged with a neighbour: heads behind the batch, or positions in front of it
    holding = [i for i in range(len(target)) if starts[i] <= first < starts[i + 1]]
    if not holding:
        return None
    place = holding[0]
    if starts[place] == first and 0 < place == len(target) - 1:
        place -= 1
    return place if target[place] % batch == 0 else None


def check_rows(run: "torch.nn.Module", examples: Sequence[torch.Tensor]) -> None:
    """Several samples together must give what each gives alone. Raises InputError otherwise."""
    with torch.no_grad():
        if samples_mix(run, examples):
            raise InputError(
                "it was exported for one batch size, and its samples mix when there are more.",
                "Export it again with a free batch dimension (dynamic_axes or dynamic_shapes of "
                "torch.onnx.export)",
            )
