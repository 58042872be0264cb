"""Effective ranks over layers as a chart: attention outputs, MLP outputs and residuals, with random weights beside.

Kinds differ by shape and colour, models by line and filling.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from workbench.evaluation.effective_rank import LayerRank
from workbench.reports.charts import Chart, make_chart

MEASURES = {
    "components_frac": ("components_frac", "components for 99%, share of the width"),
    "entropy_frac": ("entropy_frac", "entropy rank, share of the width"),
}


def rank_table(ranks: Sequence[LayerRank]) -> pd.DataFrame:
    """One row per hook and model."""
    return pd.DataFrame([rank.as_dict() for rank in ranks])


def rank_figure(ranks: Sequence[LayerRank], *, measure: str = "components_frac") -> Any:
    """Effective rank over layers as a share of the width, one line per kind of activation and model."""
    column, title = MEASURES[measure]
    models = list(dict.fromkeys(rank.model for rank in ranks))
    kinds = list(dict.fromkeys(rank.kind for rank in ranks))
    tips = [
        "model:N", "kind:N", "layer:O", alt.Tooltip(f"{column}:Q", format=".3f"), "n_components:Q",
        alt.Tooltip("entropy_rank:Q", format=".1f"), "width:Q", alt.Tooltip("n_rows:Q", format=","),
    ]  # fmt: skip
    legend = alt.Legend(orient="right", title="activation")
    base = alt.Chart(rank_table(ranks)).encode(
        x=alt.X("layer:O", title="layer", axis=alt.Axis(labelAngle=0)),
        y=alt.Y(f"{column}:Q", title=title, scale=alt.Scale(domain=[0, 1])),
        color=alt.Color("kind:N", sort=kinds, legend=legend),
        tooltip=tips,
    )
    dashes = alt.Legend(orient="right", title="weights", symbolType="stroke", symbolSize=400)
    lines = base.mark_line().encode(strokeDash=alt.StrokeDash("model:N", sort=models, legend=dashes))
    points = base.mark_point(filled=True, size=70).encode(
        shape=alt.Shape("kind:N", sort=kinds, legend=legend)
    )
    return lines + points


def rank_chart(ranks: Sequence[LayerRank]) -> Chart:
    """The chart for the report, with its sentence and its table."""
    table = rank_table(ranks)
    groups: Any = table.groupby(["model", "kind"], sort=False)["components_frac"]
    parts = [f"{kind} ({model}) {part.min():.0%} to {part.max():.0%}" for (model, kind), part in groups]
    text = f"Share of directions that hold 99% of the variance, over layers: {'; '.join(parts)}."
    shown: Any = table[["model", "kind", "layer", "width", "n_components", "entropy_rank"]]
    name, title = "effective-rank", "Effective rank over layers"
    return make_chart(name, title, rank_figure(ranks), height=300, text=text, table=shown, wide=True)
