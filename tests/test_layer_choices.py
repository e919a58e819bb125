"""Pins, excludes and allows as people write them, against rules that are written down here."""

import random
from fnmatch import fnmatchcase
from typing import Any

import pytest

from mpsearch.errors import InputError
from mpsearch.tables.choice import Choice
from mpsearch.tables.layer_choices import excludes_of, pins_of
from mpsearch.tables.table import Layer, LayerTable, Row

KINDS = {
    "stem": "conv2d",
    "blocks.0.dw": "depthwise_conv2d",
    "blocks.0.pw": "conv2d",
    "blocks.1.dw": "depthwise_conv2d",
    "blocks.*.dw": "conv1d",  # a name that is like a pattern
    "kind:linear": "conv2d",  # and one like a kind
    "fc1": "linear",
    "fc2": "linear",
}
CHOICES = [Choice(2, 8), Choice(4, 4), Choice(4, 8), Choice(8, 8)]
W4, W8 = Choice(4, 8), Choice(8, 8)


def table() -> LayerTable:
    layers = [Layer(name, kind) for name, kind in KINDS.items()]
    return LayerTable.from_rows(
        layers, [Row(layer.name, choice, 1.0) for layer in layers for choice in CHOICES]
    )


def test_names_patterns_and_kinds_pin_what_they_stand_for() -> None:
    """By a loop over the layers that asks for each which of the pins is nearest to it."""
    rng = random.Random(3)
    of = table()
    texts = [*KINDS, "blocks.?.dw", "blocks*", "*", "fc*", "kind:conv", "kind:depthwise",
             "kind:*1d", "kind:lin"]  # fmt: skip
    agreed = 0
    for _ in range(300):
        pins = {text: rng.choice([W4, W8]) for text in rng.sample(texts, rng.randrange(1, 4))}
        wanted, conflict = {}, False
        for name, kind in KINDS.items():
            fitting = {
                choice for text, choice in pins.items()
                if text not in KINDS and (
                    fnmatchcase(kind, text[5:] + "*") if text.startswith("kind:")
                    else fnmatchcase(name, text)
                )
            }  # fmt: skip
            conflict |= len(fitting) > 1
            if name in pins or fitting:
                wanted[name] = pins[name] if name in pins else fitting.pop()
        forms: list[Any] = [
            pins,
            {text: str(choice) for text, choice in pins.items()},
            [f"{text}={choice}" for text, choice in pins.items()],
        ]
        for form in forms:
            if conflict:
                with pytest.raises(InputError, match="twice: "):
                    pins_of(of, form)
            else:
                assert pins_of(of, form) == wanted
        agreed += not conflict
    assert 100 < agreed < 300


def test_excludes_and_allows_in_every_form() -> None:
    of = table()
    every = set(CHOICES)
    forms: list[Any] = [
        ["fc*=w4a8", "fc*=w2a8", "w4a4"],
        {"fc*": "w4a8,w2a8", "": ["w4a4"]},
        {"fc*": [W4, "w2a8"], "": Choice(4, 4)},
        {"fc1": {W4, Choice(2, 8)}, "kind:linear": "w4a4", "fc2": ["w4a8", "w2a8"]},
    ]
    both = {"fc1": {W4, Choice(2, 8)}, "fc2": {W4, Choice(2, 8)}}
    for form in forms[:3]:
        assert excludes_of(of, form) == both | {"": {Choice(4, 4)}}
    assert excludes_of(of, forms[3]) == both | {"kind:linear": {Choice(4, 4)}}
    assert excludes_of(of, "w4a4") == excludes_of(of, Choice(4, 4)) == {"": {Choice(4, 4)}}
    allowed = excludes_of(of, (), ["fc*=w4a8,w8a8", "kind:lin=w8a8", "fc2=w4a4"])
    assert allowed == {"fc1": every - {W8}, "fc2": every - {Choice(4, 4)}}
    allowed = excludes_of(of, {"fc1": "w8a8"}, {"fc*": [W4, W8], "fc2": "w4a4"})
    assert allowed == {"fc1": every - {W4}, "fc2": every - {Choice(4, 4)}}


WRONG: list[tuple[Any, str]] = [
    ("fc1", 'expected one choice by layer such as {"conv1": "w8a8"}'),
    (["=w8a8"], "got pin '=w8a8'; expected"),
    (["fc1="], "got pin 'fc1='; expected"),
    ({"fc1": 8}, "got the choice 8 in pin; expected 'w8a8' or Choice(8, 8)"),
    ({"fc1": ["w8a8", "w4a4"]}, "got pin fc1=w8a8,w4a4; expected one choice"),
    ({8: "w8a8"}, "got pin for 8, which is no layer's name"),
    (8, "got pin 8; expected"),
    ({"fc1": "w8"}, "got the choice 'w8'; expected the form w4a8"),
    ({"stm": "w8a8"}, "no layer 'stm'; did you mean 'stem'?"),
    ({"blcks.*.dw": "w8a8"}, "no layer like 'blcks.*.dw'; did you mean 'blocks.*.dw'?"),
    ({"zzz*": "w8a8"}, "no layer like 'zzz*'"),
    ({"kind:depthwize": "w8a8"}, "kind 'depthwize'; did you mean 'depthwise_conv2d'?; kinds: "),
    ({"kind:": "w8a8"}, "has no layer of kind ''"),
    ({"depthwise": "w8a8"}, "no layer 'depthwise'; did you mean 'kind:depthwise'?"),
]  # fmt: skip


@pytest.mark.parametrize(("pins", "message"), WRONG)
def test_wrong_forms_name_the_right_one(pins: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        pins_of(table(), pins)
    assert message in str(caught.value)
