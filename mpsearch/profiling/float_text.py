"""What stays in float, in words: from the entry `float_operators` of profile.json."""

from collections.abc import Mapping, Sequence
from typing import Any

from mpsearch.tables.units import format_count, format_size

HEADER = ("in float", "count", "where", "bytes", "of FP32 bytes", "MACs", "of w8a8 BOPS")


def float_rows(document: Mapping[str, Any]) -> list[Sequence[str]]:
    """One row per operator with bytes or MACs, as HEADER says; none where all is in layers."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for entry in document.get("operators", ()):
        groups.setdefault(str(entry["operator"]), []).append(entry)
    rows: list[Sequence[str]] = []
    for operator, entries in groups.items():
        size, macs = (sum(int(entry[key]) for entry in entries) for key in ("bytes", "macs"))
        names = list(dict.fromkeys(str(entry["name"]) for entry in entries))
        where = names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")
        rows.append((
            operator,
            str(len(entries)),
            where,
            format_size(size) if size else "",
            _part(size, document["bytes"], document["share_of_fp32_bytes"]),
            format_count(macs).strip() if macs else "",
            _part(macs, document["macs"], document["share_of_w8a8_bops"]),
        ))  # fmt: skip
    return rows


def float_sentence(document: Mapping[str, Any]) -> str:
    """The operators without bytes or MACs in one line; empty where there are none."""
    others = document.get("others") or {}
    if not others:
        return ""
    named = ", ".join(f"{name} ({count})" for name, count in others.items())
    return f"also computed in float, without weights or MACs: {named}"


def outside_sentence(outside: int) -> str:
    """That `outside` bytes are not in a table's sizes; empty for none."""
    if not outside:
        return ""
    return f"{format_size(outside)} of float tensors outside the layers are not counted in the size"


def _part(amount: int, total: int, share: float) -> str:
    return f"{100 * share * amount / total:.2g} %" if amount and total else ""
