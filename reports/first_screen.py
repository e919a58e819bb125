"""What a report says first: its title, three numbers and the answer in one sentence."""

from mpsearch.reports.accuracy_facts import CHOSEN
from mpsearch.reports.facts import AccuracyFacts, Facts, LimitFacts, Number
from mpsearch.reports.prose import NEAR_UNITS, limit_name, near_figures
from mpsearch.reports.style import Headline, Headlines
from mpsearch.running.streams import shown
from mpsearch.tables.choice import counted
from mpsearch.tables.units import format_amount, format_size

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
LONGEST_NAME = 60


def title_of(facts: Facts) -> str:
    """`tinym2net-battlefield in 153 KB · 29 Nov 2026`: the network, its budget, the day."""
    text = _name(facts)
    column, amount = _budget(facts)
    if amount is not None:
        limit = format_amount(column, amount).strip().replace(".0 ", " ")
        text += f" in {limit}" if column == "size_bytes" else f" with {limit} {limit_name(column)}"
    if not facts.date:
        return text
    year, month, day = facts.date.split("-")
    return f"{text} · {int(day)} {MONTHS[int(month) - 1]} {year}"


def _name(facts: Facts) -> str:
    name = shown(facts.name or "network")
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"


def _limit(facts: Facts) -> LimitFacts | None:
    """The limit of size, else the first one."""
    sizes = [asked for asked in facts.limits if asked.column == "size_bytes"]
    return next(iter([*sizes, *facts.limits]), None)


def _budget(facts: Facts) -> tuple[str, Number | None]:
    asked = _limit(facts)
    if asked is not None:
        return asked.column, asked.limit
    totals = facts.answer.point.totals if facts.answer else {}
    return "size_bytes", totals.get("size_bytes")


def _amount(column: str, value: Number) -> str:
    return format_amount(column, value).strip().replace(" ", "\u00a0")


def headlines_of(facts: Facts) -> Headlines | None:
    """What it takes of its limit, how accurate it is, how much smaller; None without an answer."""
    if facts.answer is None:
        return None
    items = [_taken(facts), _score(facts), _smaller(facts)]
    return Headlines([item for item in items if item is not None])


def _taken(facts: Facts) -> Headline | None:
    asked = _limit(facts)
    if asked is None:
        column, total = _budget(facts)
        return None if total is None else Headline(_amount(column, total), "size; no limit asked")
    limit = _amount(asked.column, asked.limit)
    name = limit_name(asked.column)
    if asked.total is None or asked.slack is None:
        return Headline(limit, f"limit of {name}")
    side = "below" if asked.slack >= 0 else "OVER"
    slack = _amount(asked.column, abs(asked.slack))
    used = _of(_amount(asked.column, asked.total), limit)
    others = [
        f"; {limit_name(one.column)} "
        + _of(_amount(one.column, one.total), _amount(one.column, one.limit))
        for one in facts.limits
        if one is not asked and one.total is not None
    ]
    return Headline(used, f"{name}, {slack} {side} the limit{''.join(others)}")


def _of(used: str, limit: str) -> str:
    """`44.7 of 45.0 KB`: the unit once where both have the same."""
    number, _, unit = used.partition("\u00a0")
    same = unit == limit.partition("\u00a0")[2]
    return f"{number if same else used} of {limit}"


def _row(facts: Facts) -> AccuracyFacts | None:
    return next((row for row in facts.accuracies if row.name in CHOSEN), None)


def _score(facts: Facts) -> Headline:
    row = _row(facts)
    if row is not None:
        low, high = (100 * end for end in row.interval)
        label = f"accuracy, 95 % interval {low:.2f} to {high:.2f} %"
        if row.lost is not None:
            label += f"; {_lost(row)}"
        return Headline(f"{100 * row.accuracy:.2f}\u00a0%", label)
    near = next((row for row in facts.near if row.name in CHOSEN), None)
    if near is not None and (one := near.agreement or near.sqnr):
        name, unit = NEAR_UNITS[one.metric]
        value, low_end, high_end = near_figures(one)
        label = f"{name} with FP32, 95 % interval {low_end} to {high_end} {unit}; no labels"
        return Headline(f"{value}\u00a0{unit}", label)
    metric = next((one for one in facts.metrics if one.network in CHOSEN), None)
    if metric is not None:
        low, high = metric.interval
        label = f"{metric.metric}, 95 % interval {low:.4g} to {high:.4g}"
        return Headline(f"{metric.value:.4g}", label)
    how = "; the command that measures it is below" if facts.measure else ""
    return Headline("not measured", f"accuracy{how}")


def _lost(row: AccuracyFacts) -> str:
    """`0.10 points less than FP32 (-0.28 to 0.56)`: the interval in the same direction."""
    assert row.lost is not None
    text = f"{abs(row.lost):.2f} points {'less' if row.lost >= 0 else 'more'} than FP32"
    if row.lost_interval is not None:
        low, high = (
            row.lost_interval if row.lost >= 0 else [-end for end in row.lost_interval[::-1]]
        )
        text += f" ({low:.2f} to {high:.2f})"
    return text


def _times(facts: Facts) -> float | None:
    row = _row(facts)
    if row is not None and row.times_smaller is not None:
        return row.times_smaller
    near = next((row for row in facts.near if row.name in CHOSEN), None)
    if near is not None and near.times_smaller is not None:
        return near.times_smaller
    whole = facts.fp32.totals.get("size_bytes") if facts.fp32 else None
    size = facts.answer.point.totals.get("size_bytes") if facts.answer else None
    return whole / size if whole and size else None


def _smaller(facts: Facts) -> Headline | None:
    times = _times(facts)
    if times is None:
        return None
    whole = facts.fp32.totals.get("size_bytes") if facts.fp32 else None
    of = "" if whole is None else f", which takes {format_size(whole)}"
    return Headline(f"{times:.1f}×", f"smaller than FP32{of}")


def answer_sentence(facts: Facts) -> str:
    """The run's answer: what it takes, keeps and how sure that is, in one sentence."""
    answer = facts.answer
    if answer is None:
        return "There is no assignment in this run yet."
    taken = _taken(facts)
    column = _budget(facts)[0]
    unit = "" if column == "size_bytes" else f" {limit_name(column)}"
    text = _name(facts)
    text += f" takes {taken.value}{unit}" if taken is not None else " has an assignment"
    times = _times(facts)
    if times is not None:
        less = f"{times:.1f} times less" if unit == "" else f"is {times:.1f} times smaller"
        text += f", {less} than FP32"
    row = _row(facts)
    if row is not None:
        text += f", and is right on {100 * row.accuracy:.2f} % of {row.n:,}"
        text += " unseen samples" if facts.held_out else " samples it was calibrated on"
        if row.lost is not None:
            same = abs(row.lost) < 0.005
            points = f"{abs(row.lost):.2f} points {'less' if row.lost >= 0 else 'more'} than"
            text += f", {'as many as' if same else points} FP32"
    else:
        near = next((row for row in facts.near if row.name in CHOSEN), None)
        if near is not None and near.agreement is not None:
            share, one_each = near.agreement.value, near.agreement.method == "wilson"
            text += f", and answers as FP32 on {100 * share:.2f} % of "
            text += "" if one_each else "the numbers that it gives for "
            text += f"{facts.measured_samples:,} samples without labels"
    choices = [layer.choice for layer in facts.layers if layer.choice]
    widths = sorted({choice.w_bits for choice in choices})
    if any(choice.label for choice in choices):
        text += f"; its layers are {counted(choices)}"
    elif widths:
        ends = f"{widths[0]}" if len(widths) == 1 else f"{widths[0]}- to {widths[-1]}"
        layers = f"{len(facts.layers)} layers have" if len(facts.layers) > 1 else "layer has"
        text += f"; its {layers} {ends}-bit weights"
    if answer.status == "optimal":
        text += ", of least Ω, proven" if widths else "; of least Ω, proven"
    elif answer.status == "feasible":
        text += ", not proven to be of least Ω" if widths else "; not proven to be of least Ω"
    return f"{text}."
