"""What layers have to have, and may not have, as people write it: pins, excludes and allows.

    fc2                a layer, by its name
    blocks.*.dw        all layers whose names the pattern fits: `*` any text, `?` one character
    kind:depthwise     all layers whose kind begins so: `depthwise_conv2d`

What is a layer's name is no pattern. A pin or an allow by the name of a layer outweighs those by
patterns and kinds; two of these that pin a layer to different choices are an error.
"""

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase

from mpsearch.errors import InputError, did_you_mean
from mpsearch.tables.choice import EXPECTED_NAME, Choice
from mpsearch.tables.table import LayerTable

KIND = "kind:"
_GLOB = frozenset("*?[")

One = Choice | str
Pins = Mapping[str, One] | Iterable[str]
"""`{"fc2": "w8a8"}`, `["fc2=w8a8"]` or `"fc2=w8a8"`; a choice is its name or a Choice."""
Choices = Mapping[str, One | Iterable[One]] | Iterable[One] | One
"""`{"fc*": ["w4a4"]}`, `["fc*=w4a4", "w2a2"]`: a choice without a layer is of all layers."""


def layers_of(table: LayerTable, text: str) -> tuple[str, ...]:
    """The layers that a name, a pattern or `kind:…` stands for; InputError where there is none."""
    names = table.layer_names
    if text in names:
        return (text,)
    if text.startswith(KIND):
        wanted = text.removeprefix(KIND)
        found = tuple(one.name for one in table.layers if fnmatchcase(one.kind, f"{wanted}*"))
        if wanted and found:
            return found
        kinds = sorted({one.kind for one in table.layers if one.kind})
        close, known = did_you_mean(wanted, kinds), ", ".join(kinds) or "not known"
        raise InputError(f"{table.source} has no layer of kind {wanted!r}{close}; kinds: {known}")
    if _GLOB & set(text):
        found = tuple(name for name in names if fnmatchcase(name, text))
        if found:
            return found
        raise InputError(f"{table.source} has no layer like {text!r}{did_you_mean(text, names)}")
    kinds = sorted({one.kind for one in table.layers if one.kind.startswith(text)} if text else ())
    close = f"; did you mean '{KIND}{text}'?" if kinds else did_you_mean(text, names)
    raise InputError(f"{table.source} has no layer {text!r}{close}")


def pins_of(table: LayerTable, pins: Pins, option: str = "pin") -> dict[str, Choice]:
    """Layer -> the choice that it is given. option: what messages call it, `--pin`.

    Raises InputError for what has another form, for what fits no layer, and for two choices.

    >>> pins_of(table, {"kind:conv": "w8a8", "conv1": "w4a4"})["conv1"]
    Choice(4, 4)
    """
    named: dict[str, Choice] = {}
    fitted: dict[str, tuple[str, Choice]] = {}
    for text, choices in _entries(pins, option):
        if not text or len(choices) != 1:
            raise InputError(f"got {option} {_shown(text, choices)}; expected {_FORMS[option]}")
        choice = choices[0]
        for layer in layers_of(table, text):
            if layer == text and named.setdefault(layer, choice) != choice:
                both = f"{named[layer]} and {choice}"
                raise InputError(f"got {option} for layer {layer!r} twice: {both}; keep one")
            if layer != text and fitted.setdefault(layer, (text, choice))[1] != choice:
                earlier, other = fitted[layer]
                raise InputError(
                    f"got {option} for layer {layer!r} twice: {earlier}={other} and "
                    f"{text}={choice}; leave one out, or give it by its own name too"
                )
    return {layer: choice for layer, (_, choice) in fitted.items()} | named


def excludes_of(
    table: LayerTable, exclude: Choices = (), allow: Choices = (), prefix: str = ""
) -> dict[str, set[Choice]]:
    """Layer, or "" for every layer -> the choices that it may not have.

    `allow`, such as `{"conv1": ["w4a8", "w8a8"]}`, excludes whatever else the table has for the
    layer. prefix: of the options in messages, `--`. Raises InputError as `pins_of`.
    """
    found: dict[str, set[Choice]] = {}
    for text, choices in _entries(exclude, f"{prefix}exclude"):
        for layer in layers_of(table, text) if text else ("",):
            found.setdefault(layer, set()).update(choices)
    option = f"{prefix}allow"
    named: dict[str, set[Choice]] = {}
    fitted: dict[str, set[Choice]] = {}
    for text, choices in _entries(allow, option):
        if not text:
            raise InputError(f"got {option} {_shown(text, choices)}; expected {_FORMS[option]}")
        for layer in layers_of(table, text):
            for choice in choices:
                table.row_of(layer, choice)  # raises for a choice that it lacks
            kept = named if text == layer else fitted
            kept[layer] = kept.get(layer, set(choices)) & set(choices)
    for layer, wanted in (fitted | named).items():
        found.setdefault(layer, set()).update(set(table.choices) - wanted)
    return found


_PAIR = "LAYER=CHOICE such as conv1=w8a8"
_FORMS = {
    "--pin": _PAIR,
    "--what-if": _PAIR,
    "--exclude": "[LAYER=]CHOICE such as w2a2 or conv1=w4a4",
    "--allow": "LAYER=CHOICE,CHOICE such as conv1=w4a8,w8a8",
    "pin": 'one choice by layer such as {"conv1": "w8a8"}',
    "exclude": 'choices, or choices by layer such as {"conv1": ["w4a4"]}',
    "allow": 'choices by layer such as {"conv1": ["w4a8", "w8a8"]}',
}


def _entries(given: Pins | Choices, option: str) -> Iterator[tuple[str, tuple[Choice, ...]]]:
    """(layer, pattern, kind, or "" where none is named; its choices)."""
    wrong = f"expected {_FORMS[option]}"
    if isinstance(given, Mapping):
        for text, value in given.items():
            if not isinstance(text, str):
                raise InputError(f"got {option} for {text!r}, which is no layer's name; {wrong}")
            yield text, _choices(value, option)
        return
    if not isinstance(given, Iterable):
        given = [given]
    for one in [given] if isinstance(given, str) else given:
        if isinstance(one, Choice):
            yield "", (one,)
            continue
        if not isinstance(one, str):
            raise InputError(f"got {option} {one!r}; {wrong}")
        text, equals, names = one.rpartition("=")
        if not names or (equals and not text) or (not equals and "exclude" not in option):
            raise InputError(f"got {option} {one!r}; {wrong}")
        yield text, _choices(names, option)


def _choices(value: object, option: str) -> tuple[Choice, ...]:
    """`"w8a8"`, `"w4a8,w8a8"`, a Choice, or several of these."""
    if isinstance(value, Choice):
        return (value,)
    if isinstance(value, str):
        return tuple(_called(name) for name in value.split(","))
    if isinstance(value, Iterable) and all(isinstance(one, str | Choice) for one in value):
        return tuple(choice for one in value for choice in _choices(one, option))
    raise InputError(f"got the choice {value!r} in {option}; expected 'w8a8' or Choice(8, 8)")


def _called(text: str) -> Choice:
    try:
        return Choice.called(text)
    except ValueError:
        raise InputError(f"got the choice {text!r}; expected the form {EXPECTED_NAME}") from None


def _shown(text: str, choices: Iterable[Choice]) -> str:
    return f"{text}={','.join(map(str, choices))}" if text else ",".join(map(str, choices))
