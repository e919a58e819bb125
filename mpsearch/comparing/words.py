"""A comparison in words: cells of tables, sentences, and a comment for a pull request."""

from collections.abc import Sequence

from mpsearch.comparing.diffing import AccuracyChange, Comparison, TotalChange
from mpsearch.comparing.layers import (
    BOPS,
    SIZE,
    LayerChange,
    NetworkLayer,
    largest,
    percent,
    signed,
)
from mpsearch.running.streams import markdown_text, shown
from mpsearch.tables.units import format_amount

LISTED = 20  # layers that a table has unless all are asked for
LONGEST_NAME = 120  # of a layer in a comment: a comment has 65,536 characters
LAYER_COLUMNS = ("layer", "weights", "bits", "size", "BOPS")
TOTAL_COLUMNS = ("", "before", "after", "change")


def conclusion(comparison: Comparison) -> str:
    """`2 layers changed, 1 added, 30 as before; size +0.3 KB (+6 %)`."""
    if comparison.same:
        return f"no difference in {comparison.unchanged} layers"
    counts = [(_what(change)) for change in comparison.layers]
    words = [f"{counts.count(word)} {word}" for word in ("changed", "added", "removed")
             if word in counts]  # fmt: skip
    parts = [f"layers: {', '.join([*words, f'{comparison.unchanged} as before'])}"]
    for total in comparison.totals:
        if total.column == SIZE and total.before != total.after and not total.at:
            parts.append(f"size {change_of(total)}")
    if comparison.accuracy is not None:
        parts.append(accuracy_sentence(comparison.accuracy))
    return "; ".join(parts)


def accuracy_sentence(found: AccuracyChange) -> str:
    """`accuracy 90 % -> 88 %, 2 points lost [0.80, 3.36]`."""
    low, high = (100 * end for end in found.drop_interval)
    return (
        f"accuracy {100 * found.before:.4g} % -> {100 * found.after:.4g} %, "
        f"{100 * found.drop:.3g} points lost [{low:.2f}, {high:.2f}] on {found.samples:,} samples "
        f"({found.lost:,} became wrong, {found.won:,} right)"
    )


def layer_table(
    comparison: Comparison, most: int | None = LISTED
) -> tuple[list[str], list[list[str]], int]:
    """Columns, and cells of the layers that changed, those of most bytes where not all are shown;
    and how many are left out. Columns that say nothing are not there."""
    changes: Sequence[LayerChange] = comparison.layers
    if most is not None and len(changes) > most:
        changes = largest(changes)[:most]
    cells = [_cells(change) for change in changes]
    kept = [place for place in range(len(LAYER_COLUMNS)) if any(row[place] for row in cells)]
    rows = [[row[place] for place in kept] for row in cells]
    left = len(comparison.layers) - len(changes)
    return [LAYER_COLUMNS[place] for place in kept], rows, left


def total_rows(comparison: Comparison) -> list[list[str]]:
    """Cells of the totals and the accuracy."""
    rows = [
        [
            _title(total),
            _amount(total.column, total.before),
            _amount(total.column, total.after),
            change_of(total),
        ]
        for total in comparison.totals
    ]
    found = comparison.accuracy
    if found is not None:
        low, high = (-100 * end for end in reversed(found.drop_interval))
        gain = 100 * (found.won - found.lost) / found.samples
        change = f"{gain:+.2f} [{low:+.2f}, {high:+.2f}] points"
        rows.append(
            ["accuracy", f"{100 * found.before:.2f} %", f"{100 * found.after:.2f} %", change]
        )
    return rows


def change_of(total: TotalChange) -> str:
    """`+0.3 KB (+6 %)`; `=` where both take the same."""
    if total.before == total.after:
        return "="
    if total.column == "omega":
        text = f"{total.after - total.before:+.3g}"
    else:
        text = signed(total.column, total.after - total.before, total.before, "")
    return text if total.share is None else f"{text} ({percent(total.share)})"


def markdown(comparison: Comparison) -> str:
    """A comment for a pull request, in GitHub's Markdown: names from files are only text."""

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(markdown_text(shown(cell, LONGEST_NAME)) for cell in cells)} |"

    before, after = (
        markdown_text(shown(name, LONGEST_NAME)) for name in (comparison.before, comparison.after)
    )
    lines = [f"### mpsearch diff: {before} → {after}", "", markdown_text(conclusion(comparison))]
    totals = total_rows(comparison)
    if totals:
        lines += ["", line(TOTAL_COLUMNS), "|---|---:|---:|---:|", *map(line, totals)]
    columns, rows, left = layer_table(comparison)
    if rows:
        lines += ["", line(columns), f"|---|{'---:|' * (len(columns) - 1)}", *map(line, rows)]
    lines += ["", f"and {left:,} more layers"] if left else []
    lines += ["", *(f"- {markdown_text(note)}" for note in comparison.notes)]
    return "\n".join(lines).rstrip() + "\n"


def _what(change: LayerChange) -> str:
    if change.before is None:
        return "added"
    return "removed" if change.after is None else "changed"


def _cells(change: LayerChange) -> list[str]:
    weights = _arrow(*(f"{x.weights:,}" if x and x.weights else "" for x in _sides(change)))
    if None in (change.before, change.after):
        weights = f"{_what(change)}: {weights}" if weights else _what(change)
    bops = change.grown(BOPS)
    return [
        change.name,
        weights,
        _arrow(*(str(x.choice) if x and x.choice else "" for x in _sides(change))),
        change.cost_words(SIZE),
        signed(BOPS, bops, 0, "") if bops else "",
    ]


def _sides(change: LayerChange) -> tuple[NetworkLayer | None, NetworkLayer | None]:
    return change.before, change.after


def _arrow(before: str, after: str) -> str:
    return before if before == after or not after else f"{before} -> {after}" if before else after


def _title(total: TotalChange) -> str:
    title = {SIZE: "size", BOPS: "BOPS", "omega": "Ω"}.get(total.column, total.column)
    return f"{title} at {total.at}" if total.at else title


def _amount(column: str, value: float) -> str:
    return f"{value:.4g}" if column == "omega" else format_amount(column, value).strip()
