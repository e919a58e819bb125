"""Points of the front as a table: for readers without the script or without the picture."""

from collections import Counter

from mpsearch.reports.facts import FrontFacts
from mpsearch.reports.front_facts import ALPHABET
from mpsearch.reports.parts import Table
from mpsearch.reports.prose import NAMES
from mpsearch.tables.units import format_amount

MOST = 60


def point_text(found: FrontFacts, point: int) -> str:
    """`Ω 0.0012, size 219.0 KB, accuracy 83.22 % (78.45 to 87.10 %)`."""
    total = found.totals[point]
    name = NAMES.get(found.resource, found.resource)
    text = f"Ω {found.omega[point]:.4g}, {name} {format_amount(found.resource, total).strip()}"
    accuracy = _accuracy(found, point)
    if accuracy is None:
        return text
    share, low, high = (100 * value for value in accuracy)
    return f"{text}, accuracy {share:.2f} % ({low:.2f} to {high:.2f} %)"


def _accuracy(found: FrontFacts, point: int) -> tuple[float, float, float] | None:
    """A front's points all differ in their totals, so the total finds the measurement."""
    if found.measured is None or found.totals[point] not in found.measured.totals:
        return None
    place = found.measured.totals.index(found.totals[point])
    return found.measured.accuracy[place], found.measured.low[place], found.measured.high[place]


def front_points_table(found: FrontFacts) -> Table | None:
    """At most 60 of the points whose assignment is kept: totals, accuracy, layers by choice."""
    shown = found.assignments
    if shown is None:
        return None
    step = max(1, -(-len(shown.points) // MOST))
    places = sorted({*range(0, len(shown.points), step), len(shown.points) - 1})
    used = [place for place, letter in enumerate(ALPHABET) if any(letter in c for c in shown.codes)]
    measured = found.measured is not None
    rows = []
    for place in places:
        point = shown.points[place]
        counts = Counter(shown.codes[place])
        accuracy = _accuracy(found, point)
        words = "" if accuracy is None else f"{100 * accuracy[0]:.2f}"
        rows.append(
            [format_amount(found.resource, found.totals[point]), f"{found.omega[point]:.4g}"]
            + ([words] if measured else [])
            + [str(counts.get(ALPHABET[choice], 0)) for choice in used]
        )
    name = NAMES.get(found.resource, found.resource)
    header = [name, "total Ω", *(["accuracy, %"] if measured else [])]
    header += [shown.choices[choice] for choice in used]
    part = "" if len(rows) == len(found.omega) else f" of {len(found.omega):,}"
    return Table(f"{len(rows)} points{part}, with the layers at each choice", header, rows)
