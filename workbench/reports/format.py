"""Numbers as the report writes them: three significant digits, units, intervals in brackets."""

from __future__ import annotations

import math
from typing import Any

from workbench.intervals import Estimate


def has_interval(estimate: Estimate) -> bool:
    """Whether both ends of the interval are finite."""
    return math.isfinite(estimate.low) and math.isfinite(estimate.high)


def number_text(value: Any) -> str:
    """A number with three significant digits and thousands separated; a dash where there is none."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    number = float(value)
    if number == round(number) and abs(number) < 1e12:
        return f"{round(number):,}"
    if abs(number) >= 1000:
        return f"{number:,.0f}"
    return (
        f"{number:.3g}"
        if abs(number) < 0.01
        else f"{number:.3f}".rstrip("0").rstrip(".")
        if abs(number) < 1
        else f"{number:.4g}"
    )


def value_text(value: float, unit: str) -> str:
    """A value with its unit; a fraction becomes a percentage, r stays bare."""
    if not math.isfinite(value):
        return "–"
    if unit == "fraction":
        return f"{100 * value:.1f}%"
    return correlation_text(value) if unit == "r" else f"{number_text(value)} {unit}".strip()


def correlation_text(value: float) -> str:
    """Two digits; four where two would round to 1."""
    return f"{value:.4f}" if 0.995 <= abs(value) < 1 else f"{round(value, 2) + 0.0:.2f}"


def interval_text(estimate: Estimate, unit: str) -> str:
    """`[low, high]` in the unit of the value; empty where there is no interval."""
    if not has_interval(estimate):
        return ""
    if unit == "fraction":
        return f"[{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"
    text = correlation_text if unit == "r" else number_text
    return f"[{text(estimate.low)}, {text(estimate.high)}]"


def estimate_text(estimate: Estimate, unit: str) -> str:
    """A value with its interval: `84.1% [80.2, 88.0]`."""
    return f"{value_text(estimate.value, unit)} {interval_text(estimate, unit)}".strip()


def cell_text(value: Any) -> str:
    """A table cell: numbers short, lists joined, everything else as it is."""
    plain = value.item() if hasattr(value, "item") else value
    if isinstance(plain, (list, tuple)):
        return ", ".join(cell_text(v) for v in plain)
    return number_text(plain) if isinstance(plain, (int, float)) else "" if plain is None else str(plain)
