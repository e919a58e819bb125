"""Evaluations as text, as a notebook shows them, and as a DataFrame."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mpsearch.running.notebook import html_table
from mpsearch.statistics import paired_drop
from mpsearch.tables.units import format_count, format_size

if TYPE_CHECKING:
    import pandas as pd

    from mpsearch.evaluation.evaluation import Evaluation


def text_of(row: "Evaluation") -> str:
    """`Evaluation(FP32: accuracy 88.10 % [85.95, 89.96], loss 0.3210, 145.0 KB; 1,000 samples)`."""
    said = [f"accuracy {_share(row.accuracy, row.accuracy_interval)}"] if row.classifies else []
    said += [f"{name} {_value(row, name)}" for name in row.metrics]
    size = [] if row.size_bytes is None else [format_size(row.size_bytes)]
    words = ", ".join([*said, f"loss {row.loss:.4g}", *size])
    return f"Evaluation({row.name}: {words}; {row.n:,} samples)"


def table_of(rows: "Sequence[Evaluation]", caption: Sequence[str]) -> str:
    """HTML with the columns of `mpsearch evaluate`; points lost against the row FP32."""
    reference = next((row for row in rows if row.name == "FP32"), None)
    texts = [_cells(row, reference) for row in rows]
    longest_first = sorted(texts, key=len, reverse=True)
    columns = list(dict.fromkeys(column for cells in longest_first for column in cells))
    return html_table(caption, columns, [[cells.get(c, "") for c in columns] for cells in texts])


def _cells(row: "Evaluation", reference: "Evaluation | None") -> dict[str, str]:
    cells = {"network": row.name}
    if row.classifies:
        cells["accuracy [95 %]"] = _share(row.accuracy, row.accuracy_interval)
        if reference is not None and reference is not row and reference.correct:
            drop, ends = paired_drop(reference.correct, row.correct)
            low, high = (f"{100 * end:+.2f}" for end in ends)
            cells["points lost [95 %]"] = f"{100 * drop:+.2f} [{low}, {high}]"
    cells["loss"] = f"{row.loss:.4f}"
    cells |= {name: _value(row, name) for name in row.metrics}
    if row.size_bytes is not None:
        cells["size"] = format_size(row.size_bytes)
    if row.bops is not None:
        cells["BOPS"] = format_count(row.bops)
    return cells


def _share(value: float, ends: tuple[float, float]) -> str:
    low, high = (f"{100 * end:.2f}" for end in ends)
    return f"{100 * value:.2f} % [{low}, {high}]"


def _value(row: "Evaluation", name: str) -> str:
    low, high = row.metrics[name].interval
    return f"{row.metrics[name].value:.4g} [{low:.4g}, {high:.4g}]"


def frame_of(rows: "Sequence[Evaluation]") -> "pd.DataFrame":
    """One row for each network, with numbers."""
    import pandas as pd

    return pd.DataFrame([
        {
            "network": row.name, "n": row.n, "accuracy": row.accuracy,
            "accuracy_low": row.accuracy_interval[0], "accuracy_high": row.accuracy_interval[1],
            "loss": row.loss, **{name: one.value for name, one in row.metrics.items()},
            "size_bytes": row.size_bytes, "bops": row.bops,
        }
        for row in rows
    ])  # fmt: skip
