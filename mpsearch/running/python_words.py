"""What messages call an option of the command line, as Python calls it.

    --bits '3.5'                bits='3.5'
    --size 5.84KB               size="5.84KB"
    --pin fc=w8a8               pin={"fc": "w8a8"}
    --no-check                  check=False
    --batch-dim NAME=DIM        mpsearch.save(…, batch_dim={"NAME": DIM}), where save is not called

Rooms below the API write options. Commands to type, in backticks, stay as they are.
"""

import json
import re
from collections.abc import Container

# Option -> the argument, of which the first that the function has is meant.
_RENAMED = {
    "architecture": ("model",), "assignment": ("assignment", "subject"), "bops-limit": ("bops",),
    "bias-correction": ("correct_bias",), "calibration": ("calibration", "data"),
    "device-file": ("device",), "input-shape": ("input_shapes",), "integers": ("integer",),
    "limit": ("limits",), "max": ("max_metrics",), "max-model-memory": ("max_memory",),
    "measure": ("most",), "memory": ("max_memory", "memory_limit"), "metric": ("metric", "metrics"),
    "min": ("min_metrics",), "point": ("at",), "profile": ("table",), "wide": ("wide", "wide_bits"),
}  # fmt: skip
_FLAGS = {
    "correct_bias", "equalize", "group_residual", "integer", "interactions", "learn_scales",
    "per_tensor", "remeasure", "trust", "unverified",
}  # fmt: skip
_MAPPINGS = {
    "allow", "at_least", "batch_dim", "exclude", "fix", "limits", "loss", "max_fall", "max_metrics",
    "max_rise", "min_metrics", "pin",
}  # fmt: skip
# Arguments of one function, which others cannot take: where they are given.
_ELSEWHERE = {
    "batch_dim": "save", "fix": "save", "input_shapes": "ModelSource", "max_memory": "ModelSource",
    "model": "ModelSource", "trust": "ModelSource",
}  # fmt: skip
_WORDY = "board|format|loss|metric|minimize|package|ranges|rounding|solver|target"
_NO_WORD = "and|as|at|for|has|is|of|on|once|or|that|to|where|with|without"
_VALUE = r"""'[^']*'|"[^"]*"|[^\s,;()`'"]*[\d=…][^\s;()`'"]*(?<![.,:])|[A-Z][A-Z_]+\b"""
_WORD = rf"(?!(?:{_NO_WORD})\b)[a-z][\w-]*"
_OPTION = re.compile(
    rf"(?<![\w-])--(?:(?P<wordy>{_WORDY})(?:[ =](?P<word>{_VALUE}|{_WORD}))?"
    rf"|(?P<option>[a-z][a-z0-9-]*)(?:[ =](?P<value>{_VALUE}))?)(?![\w-])"
)
_COMMAND = re.compile(r"mpsearch ([a-z]+) …((?: --[a-z-]+ \S+)+)")
_BARE = re.compile(r"[A-Z][A-Z_]*|-?\d+(\.\d+)?(e[-+]?\d+)?|…")  # placeholders and numbers


def in_python(text: str, known: Container[str] | None = None) -> str:
    """A message with arguments in place of options. known: those that the function has."""
    text = _COMMAND.sub(lambda found: f"mpsearch.{found[1]}(…,{found[2]})", text)
    pieces = re.split(r"(`[^`]*`)", text)
    pieces[::2] = [
        _OPTION.sub(
            lambda found: argument(
                found["wordy"] or found["option"], found["word"] or found["value"], known
            ),
            piece,
        )
        for piece in pieces[::2]
    ]
    return "".join(pieces)


def argument(option: str, value: str | None = None, known: Container[str] | None = None) -> str:
    """`("pin", "fc=w8a8")` -> `pin={"fc": "w8a8"}`; `bits=` without a value, `trust=True`."""
    plain = option.removeprefix("no-")
    names = _RENAMED.get(plain, (plain.replace("-", "_"),))
    name = next((one for one in names if known is None or one in known), names[0])
    if option != plain:
        said = f"{name}=False"
    elif value is None:
        said = f"{name}=True" if name in _FLAGS else f"{name}="
    else:
        said = f"{name}={_literal(name, value)}"
    if known is not None and name not in known and name in _ELSEWHERE:
        return f"mpsearch.{_ELSEWHERE[name]}(…, {said})"
    return said


def _literal(name: str, value: str) -> str:
    key, equals, rest = value.partition("=")
    if name in _MAPPINGS and equals and key:
        return f"{{{text_literal(key)}: {_text(rest)}}}"
    return _text(value)


def _text(value: str) -> str:
    if _BARE.fullmatch(value) or value[:1] in "'\"":
        return value
    return text_literal(value)


def text_literal(value: str) -> str:
    """`"w8a8"`, as Python reads it, whatever a file calls something."""
    return json.dumps(value, ensure_ascii=not value.isprintable())
