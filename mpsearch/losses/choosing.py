"""Which loss: by name, by the user's own function, or by what output and labels look like.

--loss mse                 the network's only output
--loss class=cross-entropy --loss box=0.5*mse     one per output, their sum
--loss my_package:my_loss  a function (outputs [N, …], targets [N, …]) -> [N]
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from mpsearch.errors import InputError, did_you_mean
from mpsearch.graph.network import Network
from mpsearch.graph.outputs import Output, lay_out
from mpsearch.losses.forms import Bernoulli, Form, Softmax
from mpsearch.losses.heads import fits, head_of
from mpsearch.losses.labels import (
    Function,
    Own,
    any_labels,
    class_numbers,
    is_one_hot,
    note_of,
    numbers,
    zero_or_one,
    zeros_and_ones,
)
from mpsearch.losses.loss import ABSOLUTE, BERNOULLI, SOFTMAX, SQUARED, Loss, PlainLoss
from mpsearch.losses.sum_loss import Share, SumLoss
from mpsearch.running.plugins import import_object
from mpsearch.tables.units import whole_number

RECONSTRUCTION, NONE = "reconstruction", "none"
# name -> (form, whether its target are labels)
NAMED: Mapping[str, tuple[Form, bool]] = {
    "cross-entropy": (SOFTMAX, True),
    "bce": (BERNOULLI, True),
    "mse": (SQUARED, True),
    "mae": (ABSOLUTE, True),
    RECONSTRUCTION: (SQUARED, True),
    "kl": (SOFTMAX, False),
    "kl-to-fp32": (SOFTMAX, False),
    "bce-to-fp32": (BERNOULLI, False),
    "mse-to-fp32": (SQUARED, False),
}
_FULL = {"kl": "kl-to-fp32"}


@dataclass(frozen=True)
class _Wish:
    """`box=0.5*mse`: output, weight and name of a loss; output '' where none is named."""

    output: str
    weight: float
    name: str


def choose(
    source: str,
    arrays: Mapping[str, torch.Tensor],
    inputs: Sequence[torch.Tensor],
    network: Network,
    losses: Sequence[str] = (),
    required: bool = True,
    notes: list[str] | None = None,
) -> tuple[torch.Tensor | None, Loss]:
    """(labels as one tensor or None, the loss) for the label arrays `y`, `y0`, `y_NAME`.

    Labels of a network with one output are int64 [N] (or [N, …]) for cross-entropy and floats of
    the output's shape otherwise. With several outputs they are flattened side by side, float64
    [N, M] (class numbers are exact there), and the loss knows which columns are whose.
    `required`: labels that a loss needs and that are missing are an error; otherwise, as for a
    calibration sample, there are none then, nor labels that do not fit. `notes` gets a sentence
    for labels that may mean several things and whose loss nobody named.
    Raises InputError for an unknown loss or output and for labels that do not fit.
    """
    if not required and not losses:
        try:
            return choose(source, arrays, inputs, network, notes=notes)
        except InputError:  # labels for another loss, which nobody asks for here
            return choose(source, {}, inputs, network)
    wishes = _parse(losses, network.outputs)
    given = _by_output(source, arrays, network.outputs, wishes)
    notes = [] if notes is None else notes
    whole = next((wish for wish in wishes if not wish.output), None)
    if len(network.outputs) == 1:
        (output,) = network.outputs
        wish = wishes[0] if wishes else None
        one = _One(source, len(inputs[0]), network, inputs, required, notes)
        found, labels = one.resolve(output, wish.name if wish else None, given.get(output.name))
        if found is None:
            raise InputError(f"got --loss {NONE} for the only output; expected a loss")
        if wish is not None and wish.weight != 1:
            raise InputError(
                f"got a weight for the only output in --loss {losses[0]}; leave it out"
            )
        return labels, found
    one = _One(source, len(inputs[0]), network, inputs, required, notes)
    if whole is not None:
        return one.own_of_all(whole.name, given)
    return one.sum_of({wish.output: wish for wish in wishes}, given)


def _parse(losses: Sequence[str], outputs: Sequence[Output]) -> list[_Wish]:
    wishes = [_wish(text) for text in losses]
    names = [output.name for output in outputs]
    for wish, text in zip(wishes, losses, strict=True):
        if wish.output and wish.output not in names:
            raise InputError(f"got --loss {text}; the network's outputs are {', '.join(names)}")
        if not wish.output and len(outputs) > 1 and ":" not in wish.name:
            raise InputError(
                f"got --loss {text} for a network with {len(outputs)} outputs; name the output, "
                f"once for each: --loss {names[0]}={wish.name}"
            )
    if len({wish.output for wish in wishes}) < len(wishes) or (
        len(wishes) > 1 and not all(wish.output for wish in wishes)
    ):
        raise InputError(
            f"got {' '.join(f'--loss {text}' for text in losses)}; expected one loss for each "
            "output, as OUTPUT=LOSS"
        )
    return wishes


def _wish(text: str) -> _Wish:
    output, _, rest = text.rpartition("=")
    match = re.fullmatch(r"(?:([0-9.eE+-]+)\*)?(\S+)", rest.strip())
    try:
        weight = float(match[1]) if match is not None and match[1] else 1.0
    except ValueError:
        match = None
    if match is None or not 0 < weight < math.inf:
        raise InputError(f"got --loss {text!r}; expected LOSS, OUTPUT=LOSS or OUTPUT=0.5*LOSS")
    name = match[2]
    if name not in NAMED and name != NONE and ":" not in name:
        raise InputError(
            f"got the loss {name!r}{did_you_mean(name, NAMED)}; "
            f"expected {', '.join(NAMED)}, {NONE} or package.module:function"
        )
    return _Wish(output.strip(), weight, name)


def _by_output(
    source: str, arrays: Mapping[str, torch.Tensor], outputs: Sequence[Output],
    wishes: Sequence[_Wish],
) -> dict[str, tuple[str, torch.Tensor]]:  # fmt: skip
    """Output's name -> (array's name, array)."""
    names = [output.name for output in outputs]
    found: dict[str, tuple[str, torch.Tensor]] = {}
    for name, array in arrays.items():
        target = _output_of(name, names, wishes)
        if target is None:
            known = ", ".join(["y"] if len(names) == 1 else [f"y_{one}" for one in names])
            raise InputError(f"{source}: unknown array of labels {name!r}; expected {known}")
        if target in found:
            raise InputError(f"{source}: {found[target][0]} and {name} are labels of one output")
        found[target] = (name, array)
    return found


def _output_of(name: str, outputs: Sequence[str], wishes: Sequence[_Wish]) -> str | None:
    if name == "y":
        if len(outputs) == 1:
            return outputs[0]
        labelled = [w.output for w in wishes if w.output and NAMED.get(w.name, (None, True))[1]]
        return labelled[0] if len(labelled) == 1 else None
    if name.startswith("y_") and name[2:] in outputs:
        return name[2:]
    place = whole_number(name[1:])
    if place is not None and place < len(outputs):
        return outputs[place]
    return None


@dataclass(frozen=True)
class _One:
    """Resolves the loss and the labels of one output after the other."""

    source: str
    samples: int
    network: Network
    inputs: Sequence[torch.Tensor]
    required: bool
    notes: list[str]

    def resolve(
        self, output: Output, name: str | None, given: tuple[str, torch.Tensor] | None
    ) -> tuple[PlainLoss | None, torch.Tensor | None]:
        """(loss of an output or None for `none`, its labels or None)."""
        if name == NONE:
            return None, None
        head = head_of(self.network, output)
        if name is None:
            name = default_name(output, head, None if given is None else given[1])
            if given is not None and (note := note_of(*given, output.shape, name)):
                self.notes.append(f"{self.source}: {note}")
        if name in NAMED:
            form, uses_labels = NAMED[name]
        else:
            form, uses_labels = Own(name=name, function=_function(name)), True
        loss = PlainLoss(_FULL.get(name, name), uses_labels, form, fits(form, head))
        if name == RECONSTRUCTION and given is None:
            return loss, self._input_like(output)
        if given is None:
            if uses_labels and self.required:
                raise InputError(
                    f"the loss {name} needs labels (array {self._array(output)}), and "
                    f"{self.source} has none; expected labelled data or a loss without labels, "
                    "such as kl or mse-to-fp32"
                )
            return loss, None
        return loss, self._labels(form, output, *given)

    def _labels(self, form: Form, output: Output, name: str, raw: torch.Tensor) -> torch.Tensor:
        if isinstance(form, Own):
            return any_labels(self.source, name, raw, self.samples)
        check = (
            class_numbers if isinstance(form, Softmax)
            else zeros_and_ones if isinstance(form, Bernoulli)
            else numbers
        )  # fmt: skip
        return check(self.source, name, raw, self.samples, output.shape)

    def _array(self, output: Output) -> str:
        return "y" if len(self.network.outputs) == 1 else f"y_{output.name}"

    def _input_like(self, output: Output) -> torch.Tensor:
        size = math.prod(output.shape)
        same = [x for x in self.inputs if x.is_floating_point() and x[0].numel() == size]
        if len(same) != 1:
            raise InputError(
                f"the loss {RECONSTRUCTION} compares the output {output.shape} with the input that "
                f"has as many elements, and there are {len(same)}; expected one, or --loss mse and "
                f"the array {self._array(output)}"
            )
        return same[0].reshape(self.samples, *output.shape)

    def sum_of(
        self, wishes: Mapping[str, _Wish], given: Mapping[str, tuple[str, torch.Tensor]]
    ) -> tuple[torch.Tensor | None, Loss]:
        """One share per output."""
        shares: list[Share] = []
        columns: list[torch.Tensor] = []
        start = 0
        for output in self.network.outputs:
            wish = wishes.get(output.name)
            loss, labels = self.resolve(output, wish.name if wish else None, given.get(output.name))
            if loss is None:
                continue
            share = Share(output, wish.weight if wish else 1.0, loss)
            if labels is not None:
                shape = tuple(labels.shape[1:])
                stop = start + math.prod(shape)
                share = replace(share, labels=Output(output.name, shape, start, stop))
                columns.append(labels.reshape(self.samples, -1).double())
                start = stop
            shares.append(share)
        if not shares:
            raise InputError(f"every output has --loss {NONE}; expected a loss for at least one")
        if not self.required and any(s.loss.uses_labels and s.labels is None for s in shares):
            return None, SumLoss(tuple(shares))
        return (torch.cat(columns, dim=1) if columns else None), SumLoss(tuple(shares))

    def own_of_all(
        self, name: str, given: Mapping[str, tuple[str, torch.Tensor]]
    ) -> tuple[torch.Tensor | None, Loss]:
        """A function of the user's over dictionaries of all outputs and all labels."""
        if not given and self.required:
            raise InputError(
                f"the loss {name} needs labels, and {self.source} has none; expected arrays "
                f"y_{self.network.outputs[0].name} and so on"
            )
        labels = {k: any_labels(self.source, *v, self.samples) for k, v in given.items()}
        layout = lay_out([*labels], [tuple(one.shape[1:]) for one in labels.values()])
        whole = frozenset(k for k, one in labels.items() if not one.is_floating_point())
        form = Own(name=name, function=_function(name), outputs=self.network.outputs,
                   labels=layout, whole=whole)  # fmt: skip
        columns = [one.reshape(self.samples, -1).double() for one in labels.values()]
        return (torch.cat(columns, dim=1) if columns else None), PlainLoss(name, True, form)


def default_name(output: Output, head: str, labels: torch.Tensor | None) -> str:
    """The loss that output and labels decide where none is named; docs/losses.md has the table."""
    shape = output.shape
    classes = len(shape) == 1 and shape[0] >= 2
    if labels is None:
        return "kl-to-fp32" if classes and head != "sigmoid" else "mse-to-fp32"
    of_output = tuple(labels.shape[1:]) == shape or (
        math.prod(shape) == 1 and labels[0].numel() == 1
    )
    if of_output:
        if head != "sigmoid" and is_one_hot(labels, shape):
            return "cross-entropy"
        answers = zero_or_one(labels)
        return "bce" if answers and (head == "sigmoid" or not labels.is_floating_point()) else "mse"
    if classes or (len(shape) > 1 and tuple(labels.shape[1:]) == shape[1:]):
        return "cross-entropy"
    return "mse"  # which says what shape it wants


def _function(spec: str) -> Function:
    found = import_object(spec)
    if not callable(found):
        raise InputError(f"{spec} is {type(found).__name__}; expected a function of two arguments")
    return found
