"""What to do about a condition that stops the network, as commands that can be copied."""

import shlex
from collections.abc import Iterator, Sequence
from fractions import Fraction
from math import floor

from mpsearch.errors import InputError
from mpsearch.gating.conditions import grown
from mpsearch.gating.evidence import Evidence
from mpsearch.gating.words import Policy, Verdict, title_of
from mpsearch.tables.budget import Budget, Minimand
from mpsearch.tables.layer_choices import pins_of
from mpsearch.tables.units import format_amount, format_exactly

SECONDS = 2.0  # for the search of what a command would give; the gate itself takes about one
_OPTION = {"size_bytes": "--max-size", "bops": "--max-bops"}
_BY_LAYER = ("latency_s", "energy_j", "instructions")  # columns of `mpsearch device table`


def next_steps(
    verdicts: Sequence[Verdict], evidence: Evidence, policy: Policy = "measured"
) -> list[str]:
    """A sentence with a command for each condition that stops the network."""
    found = [step for one in verdicts if one.stops(policy) for step in _steps(one, evidence)]
    return list(dict.fromkeys(found))


def _steps(verdict: Verdict, evidence: Evidence) -> Iterator[str]:
    quantity, column = verdict.quantity, grown(verdict.quantity)
    title = title_of(verdict)
    if not verdict.decided and verdict.needed is not None:
        yield (
            f"{title}: `mpsearch evaluate` on at least {verdict.needed:,} samples would decide "
            f"(here {verdict.samples:,})"
        )
    if evidence.baseline is not None and (quantity != column or quantity == "drop_baseline"):
        one, other = shlex.quote(evidence.baseline.source), shlex.quote(evidence.source)
        yield f"{title}: `mpsearch diff {one} {other}` says what changed"
    if column in _OPTION:
        limit = Fraction(verdict.limit)
        if verdict.baseline is not None:
            limit = Fraction(verdict.baseline) * (1 + limit)
        yield _smaller(column, limit, Fraction(_value(verdict)), evidence)
    elif quantity == "accuracy":
        yield (
            f"{title}: `mpsearch solve --min-accuracy {float(100 * verdict.limit):g}%` measures "
            "the smallest assignment that reaches it; `mpsearch finetune` trains this one further"
        )
    elif quantity in ("drop", "drop_baseline"):
        points = f"{float(verdict.limit):g}" if quantity == "drop" else "POINTS"
        yield (
            f"{title}: `mpsearch solve --max-drop {points}` measures the smallest assignment that "
            "loses no more; `mpsearch finetune` trains this one further"
        )
    elif quantity == "agreement" and _one_answer_each(evidence):
        yield (
            f"{title}: `mpsearch solve --min-agreement {float(100 * verdict.limit):g}%` measures "
            "the smallest assignment that reaches it; `mpsearch finetune` trains this one further"
        )
    elif column in _BY_LAYER:
        yield (
            f"{title}: `mpsearch device table` adds the column {column}, and `mpsearch solve "
            f"--limit {column}=LIMIT` keeps within"
        )
    elif column == "ram_bytes":
        limit = Fraction(verdict.limit)
        if verdict.baseline is not None:
            limit = Fraction(verdict.baseline) * (1 + limit)
        yield (
            f"{title}: `mpsearch solve --ram {_amount(column, limit)}` finds the least Ω that fits"
        )
    elif quantity == "peak_memory_bytes":
        yield f"{title}: `mpsearch solve --ram {_amount(column, Fraction(verdict.limit))}`"
    else:
        yield (
            f"{title}: more bits (a larger --max-size of `mpsearch solve`) or training (`mpsearch "
            "finetune`)"
        )


def _one_answer_each(evidence: Evidence) -> bool:
    """Whether every sample agrees or does not, as `solve` wants it: no detector, no embedding."""
    rows = () if evidence.evaluations is None else evidence.evaluations.rows
    measured = [row.metrics["agreement"] for row in rows if "agreement" in row.metrics]
    return all(metric.method == "wilson" for metric in measured)


def _value(verdict: Verdict) -> Fraction | float | int:
    """What the network takes; of a growth, not the share."""
    if verdict.baseline is None:
        return verdict.value
    return Fraction(verdict.baseline) * (1 + Fraction(verdict.value))


def _smaller(column: str, limit: Fraction, value: Fraction, evidence: Evidence) -> str:
    """`size 47.1 KB is 2.1 KB over: …`, with what the search gives, which is run here."""
    title = "size" if column == "size_bytes" else "BOPS"
    over = f"{title} is {format_amount(column, float(value - floor(limit))).strip()} over"
    words = ["mpsearch solve"]
    if evidence.table is not None and evidence.table.source != "profile.csv":
        words.append(shlex.quote(evidence.table.source))
    words.append(f"{_OPTION[column]} {_amount(column, limit)}")
    search = {} if evidence.assignment is None else evidence.assignment.search
    words += [f"--{key} {shlex.quote(text)}" for key, texts in search.items() for text in texts]
    command = f"`{' '.join(words)}`"
    table = evidence.table
    if table is None or column not in table.columns or not set(search) <= {"pin"}:
        return f"{over}: {command} on its profile.csv" if table is None else f"{over}: {command}"
    from mpsearch.search.solving import solve

    try:
        pins = pins_of(table, search.get("pin", ()), "--pin")
        found = solve(
            table, Budget({column: floor(limit)}), pins=pins, time_limit=SECONDS, explain=False
        )
        if found.choices:
            now = "" if evidence.assignment is None else (
                f" (now {table.total(evidence.assignment.layers, 'omega'):.3g})"
            )  # fmt: skip
            given = format_exactly(column, found.totals[column])
            return f"{over}: {command} gives {given} with Ω {found.omega or 0:.3g}{now}"
        if found.status == "infeasible":
            small = Minimand(((column, "1"),))
            least = solve(table, pins=pins, time_limit=SECONDS, minimize=small, explain=False)
            smallest = format_exactly(column, least.totals[column])
            return (
                f"{over}, and {table.source} has no assignment below {smallest}: {command} names "
                "what would help"
            )
    except InputError:  # a pin of another table, say: the command says it
        pass
    return f"{over}: {command}"


def _amount(column: str, limit: Fraction) -> str:
    """As it is typed, rounded down: 46080 bytes -> `45KB`."""
    whole = floor(limit)
    if column == "bops":
        return str(whole)
    short = f"{whole / 1024:.6g}"
    return f"{short}KB" if Fraction(short) * 1024 == whole and whole >= 1024 else f"{whole}B"
