"""The price of each layer: what its next better choice costs, and what the limits are worth."""

from math import isfinite

from mpsearch.errors import InputError
from mpsearch.explaining.decisions import Decision
from mpsearch.explaining.explaining import explain
from mpsearch.reports.facts import LayerPrice, LimitPrice, PriceFacts
from mpsearch.tables.assignment import Assignment
from mpsearch.tables.pins import parse_excludes, parse_pins
from mpsearch.tables.table import LayerTable
from mpsearch.tables.units import COUNT_UNITS, is_size

SECONDS = 2.0  # for each search, of which there are one and two for every limit


def price_facts(table: LayerTable | None, assignment: Assignment | None) -> PriceFacts | None:
    """None without both, or of two tables; `reason` says why an assignment has no prices."""
    if table is None or assignment is None or not table.columns:
        return None
    if assignment.table_digest not in (None, table.digest):  # a warning already
        return None
    column = "size_bytes" if "size_bytes" in table.columns else table.columns[0]
    asked = assignment.search
    try:
        pins = parse_pins(asked.get("pin", ()))
        excluded = parse_excludes(asked.get("exclude", ()), asked.get("allow", ()), table)
        found = explain(table, assignment, pins, excluded, SECONDS)
    except InputError as error:
        return PriceFacts(column, "", (), (), " ".join(str(error).split()))
    most = max(found.totals.get(column, 0), 1)
    unit, unit_name = _unit(column, most)
    layers = [_layer(one, column, unit) for one in found.decisions]
    prices = [price for price in layers if price is not None]
    prices.sort(key=lambda price: -(price.per_unit or float("inf")))
    limits = tuple(
        LimitPrice(m.column, m.limit, m.per_unit, m.unit_name, m.step, m.more, m.less)
        for m in found.marginals
    )
    return PriceFacts(column, unit_name, limits, tuple(prices)) if prices or limits else None


def _layer(decision: Decision, column: str, unit: int) -> LayerPrice | None:
    """None for a layer that already has its least Ω."""
    better = decision.better
    if better is None:
        return None
    extra = better.changes.get(column, 0)
    saved = -better.omega
    per_unit = saved * unit / extra if extra > 0 else None
    if per_unit is not None and not isfinite(per_unit):
        per_unit = None
    return LayerPrice(
        decision.layers, decision.choice, better.choice, saved, extra, per_unit, tuple(better.over)
    )


def _unit(column: str, most: float) -> tuple[int, str]:
    """1 KB for sizes from 1 KB on; for counts the largest of 1, K, … below a thousandth."""
    if is_size(column):
        return (1024, "KB") if most >= 1024 else (1, "B")
    name = max((name for name, size in COUNT_UNITS.items() if 1000 * size <= max(most, 1000)),
               key=COUNT_UNITS.__getitem__)  # fmt: skip
    return COUNT_UNITS[name], name or "1"
