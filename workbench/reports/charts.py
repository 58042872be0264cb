"""The report's charts as Vega-Lite specifications, each with a sentence and a table that say the same.

Altair writes the specifications; the report carries the Vega bundle once and draws them in the browser.
Colours are never the only mark: kinds differ by shape, sets by their own line. The two themes are applied
in the browser (`charts.js`), so a specification names roles, not colours, wherever it can. The `mimetype`
renderer is not used anywhere: its MIME type is refused by nbformat.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from workbench.reports.format import number_text
from workbench.reports.tables import Table, anchor, frame_table

MOST_POINTS = 400
TABLE_ROWS = 25


@dataclass(frozen=True)
class Chart:
    """A chart and its text alternative.

    Attributes:
        name: Identifier in the page.
        title: Heading of the figure.
        spec: Vega-Lite specification.
        description: What the chart shows, numbers included, in one or two sentences.
        table: The data (thinned to 25 rows), for readers who do not see the picture.
        wide: Whether it takes the whole width of the page.
    """

    name: str
    title: str
    spec: dict[str, Any]
    description: str
    table: Table
    wide: bool = False

    @property
    def id(self) -> str:
        """The name as an HTML identifier."""
        return anchor(self.name)


def thin(table: Any, rows: int) -> pd.DataFrame:
    """At most `rows` rows, evenly spaced, the first and the last among them."""
    if len(table) <= rows:
        return table
    return table.iloc[np.unique(np.linspace(0, len(table) - 1, rows).round().astype(int))]


def make_chart(
    name: str, title: str, chart: Any, *, height: int, text: str, table: pd.DataFrame, wide: bool = False
) -> Chart:
    """A chart as wide as its container, with its text and at most 25 rows of its data."""
    spec = chart.properties(width="container", height=height).to_dict(validate=True)
    shown = thin(table, TABLE_ROWS)
    rows = f"{len(shown)} of {len(table)} rows" if len(shown) < len(table) else f"{len(table)} rows"
    return Chart(name, title, spec, text, frame_table(f"{title}, {rows}", shown), wide)


CURVES = (
    ("fvu", "Unexplained variance", "unexplained share of the variance", "log"),
    ("l0", "Active latents per token", "latents per token", "linear"),
    ("dead_frac", "Dead latents", "share of latents", "linear"),
)


def training_charts(metrics: pd.DataFrame) -> list[Chart]:
    """Training curves over tokens: unexplained variance, dead latents, and active latents where they vary."""
    charts = []
    for column, title, axis, scale in CURVES:
        curve: Any = metrics[["tokens", column]].dropna() if column in metrics.columns else pd.DataFrame()
        constant = column == "l0" and len(curve) and np.ptp(curve["l0"]) < 1e-3 * curve["l0"].max()
        if len(curve) and not constant:  # a TopK dictionary has as many active latents as it is told to
            charts.append(_curve_chart(thin(curve, MOST_POINTS), column, title, axis, scale))
    return charts


def _curve_chart(curve: Any, column: str, title: str, axis: str, scale: str) -> Chart:
    logarithmic = scale == "log" and bool((curve[column] > 0).all())
    least = alt.Scale(domainMin=0, domainMax=max(float(curve[column].max()) * 1.05, 0.01))
    y = alt.Y(f"{column}:Q", title=axis, scale=alt.Scale(type="log") if logarithmic else least)
    x = alt.X("tokens:Q", title="training tokens", axis=alt.Axis(format="~s", tickCount=5))
    tips = [alt.Tooltip("tokens:Q", format=","), alt.Tooltip(f"{column}:Q", format=".4g")]
    first, last = curve[column].iloc[0], curve[column].iloc[-1]
    text = f"{title} over {number_text(curve['tokens'].iloc[-1])} training tokens: from {first:.3g} to {last:.3g}."
    chart = alt.Chart(curve).mark_line().encode(x=x, y=y, tooltip=tips)
    return make_chart(f"training-{column}", title, chart, height=200, text=text, table=curve)


def density_chart(table: pd.DataFrame) -> Chart:
    """Histogram of log10 density of the features that fired; the dead are counted in the text."""
    density = table["density_frac"].to_numpy(dtype=np.float64)
    alive = density[density > 0]
    counts, edges = np.histogram(np.log10(alive), bins=40) if len(alive) else (np.zeros(0, int), np.zeros(1))
    bars = pd.DataFrame({"low": 10 ** edges[:-1], "high": 10 ** edges[1:], "features": counts})
    scale, axis = alt.Scale(type="log"), alt.Axis(format=".1~e", tickCount=6)
    x = alt.X("low:Q", title="share of tokens on which the feature fires (log scale)", scale=scale, axis=axis)
    y = alt.Y("features:Q", title="features", axis=alt.Axis(tickMinStep=1))
    tips = [alt.Tooltip("low:Q", format=".2e"), alt.Tooltip("high:Q", format=".2e"), "features:Q"]
    chart = alt.Chart(bars).mark_rect().encode(x=x, x2="high:Q", y=y, y2=alt.datum(0), tooltip=tips)
    middle = f"half of them on fewer than {np.median(alive):.2%} of tokens; " if len(alive) else ""
    text = f"{len(alive):,} of {len(table):,} features fired, {middle}{len(table) - len(alive):,} are dead."
    return make_chart("density", "How often features fire", chart, height=220, text=text, table=bars)
