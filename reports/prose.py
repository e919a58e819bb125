"""The sentences of a report: what was asked, what was answered, what to beware of."""

from math import isfinite

from mpsearch.reports.facts import Facts, LimitFacts, MetricFacts
from mpsearch.tables.budget import COUNT, PEAK, column_of
from mpsearch.tables.units import format_amount

NAMES = {"size_bytes": "size", "bops": "BOPS", "ram_bytes": "RAM", "flash_bytes": "flash"}

STATUS = {
    "optimal": "The assignment is proven optimal: no other one within the limits has a lower",
    "feasible": "The assignment is within the limits but not proven optimal",
    "given": "The assignment was given, not searched for",
}


def has_formats(facts: Facts) -> bool:
    """Whether some choices are formats of other tools, by name."""
    return any(choice.label for layer in facts.layers for choice in layer.choices)


def question_text(facts: Facts) -> str:
    """`Which bit width should each of 7 layers have, at a size of at most 145.0 KB (…)?`"""
    layers = f"each of {len(facts.layers)} layers" if facts.layers else "each layer"
    what = "format" if has_formats(facts) else "bit width"
    if not facts.limits:
        return f"Which {what} should {layers} have? No limit is recorded."
    limits = " and ".join(_limit(asked) for asked in facts.limits)
    return f"Which {what} should {layers} have, with {limits}?"


def _amount(column: str, value: float) -> str:
    """`75.9\u00a0G`: number and unit stay on one line."""
    return format_amount(column, value).strip().replace(" ", "\u00a0")


def limit_name(key: str) -> str:
    """`max:activation_bytes` -> `the largest layer's activation_bytes`."""
    if key.startswith(PEAK):
        return f"the largest layer's {column_of(key)}"
    if key.startswith(COUNT):
        return f"the number of layers at {key.removeprefix(COUNT)}"
    return NAMES.get(key, key)


def _limit(asked: LimitFacts) -> str:
    text = f"{limit_name(asked.column)} at most {_amount(asked.column, asked.limit)}"
    if asked.share_of_w8 is None:
        return text
    return f"{text} ({100 * asked.share_of_w8:.0f} % of uniform w8a8)"


def answer_text(facts: Facts) -> str:
    """What was chosen, how sure that is, what it takes and what it loses."""
    answer = facts.answer
    if answer is None:
        return "There is no assignment in this run yet."
    counts = [f"{count} at {name}" for name, count in answer.layers_by_choice.items()]
    words = [f"Chosen, in layers: {', '.join(counts)}."]
    status = STATUS.get(answer.status, f"Its status is {answer.status!r}")
    minimand = answer.minimize.replace("omega", "Ω")
    if answer.status == "optimal":
        status += f" {minimand}"
    if answer.status == "feasible" and answer.gap is not None:
        status += f"; its {minimand} is at most {100 * answer.gap:.2f} % above the best possible"
    words.append(f"{status}.")
    omega = answer.point.omega
    spent = [f"Ω {omega:.4g}"] if isfinite(omega) else []  # a given assignment may not state it
    spent += [
        f"{NAMES[column]} {_amount(column, answer.point.totals[column])}"
        for column in NAMES
        if column in answer.point.totals
    ]
    if spent:
        words.append(f"Its totals: {', '.join(spent)}.")
    row = next((r for r in facts.accuracies if r.name in ("assignment", "quantized")), None)
    if row is not None:
        low, high = row.interval
        text = (
            f"Measured accuracy: {100 * row.accuracy:.2f} % (95 % interval {100 * low:.2f} to "
            f"{100 * high:.2f} %)"
        )
        if row.lost is not None:
            text += f", {abs(row.lost):.2f} points {'less' if row.lost >= 0 else 'more'} than FP32"
        words.append(f"{text}.")
    near = next((r for r in facts.near if r.name in ("assignment", "quantized")), None)
    if near is not None:
        amounts = [near_amount(one) for one in (near.agreement, near.sqnr, near.kl) if one]
        words.append(f"Without labels, against FP32: {'; '.join(amounts)}.")
    return " ".join(words)


NEAR_UNITS = {"agreement": ("agreement", "%"), "sqnr": ("SQNR", "dB"), "kl": ("KL", "nats")}


def near_figures(one: MetricFacts) -> tuple[str, str, str]:
    """Value and ends: ("98.40", "97.10", "99.20") in percent, dB or nats."""
    scale, form = (100, ".2f") if one.metric == "agreement" else (1, ".4g")
    value, low, high = (f"{scale * x:{form}}" for x in (one.value, *one.interval))
    return value, low, high


def near_amount(one: MetricFacts) -> str:
    """`agreement 98.40 % (95 % interval 97.10 to 99.20 %)`."""
    name, unit = NEAR_UNITS[one.metric]
    value, low, high = near_figures(one)
    return f"{name} {value} {unit} (95 % interval {low} to {high} {unit})"


OMEGA = (
    "Ω estimates how much rounding the layers to so few bits changes the loss: the solver "
    "minimises its sum, lower is better, and how many answers stay right only measuring tells."
)


def front_caption(facts: Facts, panel: bool = True) -> str:
    """How many points the front has, whether it is exact, and what the marks mean. panel: there are
    accuracies above it."""
    found = facts.front
    assert found is not None
    kind = "exact: no point is missing"
    if not found.exact:
        kind = (
            "not exact: points were left out to keep the search short, so an assignment can lie "
            "below it"
        )
    noun = "assignment" if len(found.omega) == 1 else "assignments"
    words = [f"{len(found.omega):,} non-dominated {noun} ({kind})"]
    for name, limit in found.limits.items():
        words.append(f"{NAMES.get(name, name)} at most {format_amount(name, limit)}")
    text = f"{OMEGA} {'; '.join(words)}. Lower and further left is better."
    text += " Squares: one choice everywhere"
    text += "; diamond: the chosen assignment" if facts.answer else ""
    limited = any(asked.column == found.resource for asked in facts.limits)
    text += "; dashed: the limit." if limited else "."
    if found.measured is not None:
        where = f"{found.measured.samples:,} samples of {found.measured.data}"
        text += (
            f" Above, and as dots: {len(found.measured.accuracy)} points that were measured on "
            f"{where}, bars their 95 % intervals"
            + (", the band that of FP32." if found.measured.fp32 is not None else ".")
            if panel
            else f" Dots: {len(found.measured.accuracy)} points that were measured on {where}."
        )
    if above_front(facts):
        text += (
            " The chosen assignment lies above this front, as it had to keep to more than the "
            "front does (another limit, pinned layers) or was not searched to the end."
        )
    return text


def above_front(facts: Facts) -> bool:
    """Whether some point of the front is no larger than the chosen one and has a lower Ω."""
    if facts.front is None or facts.answer is None:
        return False
    point, found = facts.answer.point, facts.front
    total = point.totals.get(found.resource)
    if total is None:
        return False
    pairs = zip(found.omega, found.totals, strict=True)
    return any(omega < point.omega * (1 - 1e-9) and size <= total for omega, size in pairs)


def notices(facts: Facts) -> tuple[str, ...]:
    """What a reader must know before believing the numbers."""
    texts = []
    if facts.generated:
        texts.append(
            "The data are generated by a program: the accuracies show how the method works and say "
            "nothing about real images or sounds."
        )
    texts += [f"Warning: {text}." for text in facts.warnings]
    if facts.near and not facts.held_out:
        texts.append("Measured against FP32 on the calibration data, which is not unseen data.")
    if facts.accuracies and not facts.held_out:
        texts.append("The accuracies are of the calibration data, which is not unseen data.")
    if facts.missing:
        texts.append(f"Not in this run: {'; '.join(facts.missing)}.")
    return tuple(texts)
