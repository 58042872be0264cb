"""Charts of circuits and ablations: node effects, predictions against interventions, faithfulness of sets."""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from workbench.reports.charts import Chart, make_chart
from workbench.reports.claims import Claim
from workbench.reports.format import estimate_text
from workbench.reports.read import TaskData
from workbench.reports.tables import anchor

MOST_BARS = 20
EXACT_COLOUR = "#c2410c"
KEPT = "share of the logit difference kept"
TRACED, RANDOM = "traced circuit", "random sets of equal size"
SETS = {
    "traced": TRACED,
    "complement": "everything but the circuit",
    "full": "full model",
    "empty": "nothing kept",
}


def node_label(row: Any) -> str:
    """What a row of the nodes table is called: `head 2.5`, `feature 2/113`."""
    where = f" @ {int(row.pos)}" if row.pos >= 0 else ""
    if row.kind in ("head", "feature"):
        inner = (
            f"{int(row.layer)}.{int(row.head)}"
            if row.kind == "head"
            else f"{int(row.layer)}/{int(row.feature)}"
        )
        return f"{row.kind} {inner}{where}"
    return f"{row.kind}{where}" if row.kind in ("embed", "logit") else f"{row.kind} {int(row.layer)}{where}"


def top_nodes(task: TaskData, *, n: int = MOST_BARS) -> pd.DataFrame:
    """The nodes with the largest effects (exact where patched), largest first, with their names.

    The embedding is left out: its effect is that of the whole prompt.
    """
    nodes: Any = task.nodes[~task.nodes["kind"].isin(["embed", "logit"])]
    effect = nodes["patched_logits"].fillna(nodes["attributed_logits"]).abs()
    nodes = nodes.assign(effect=effect).sort_values("effect", ascending=False, kind="stable").head(n)
    nodes["node"] = [node_label(row) for row in nodes.itertuples()]
    return nodes[["node", "attributed_logits", "patched_logits", "in_circuit"]].reset_index(drop=True)


def effects_chart(task: TaskData) -> Chart:
    """Bars: first-order effect of the largest nodes; a diamond marks the exact effect."""
    shown = top_nodes(task)
    y = alt.Y("node:N", sort=shown["node"].tolist(), title=None, axis=alt.Axis(labelLimit=180))
    title = "effect on the logit difference (logits)"
    tips = ["node:N", *(alt.Tooltip(f"{kind}_logits:Q", format=".3f") for kind in ("attributed", "patched"))]
    bars = alt.Chart(shown).mark_bar(opacity=0.75)
    bars = bars.encode(x=alt.X("attributed_logits:Q", title=title), y=y, tooltip=tips)
    marks = alt.Chart(shown.dropna(subset=["patched_logits"])).mark_point(
        shape="diamond", size=70, filled=True, opacity=1
    )
    marks = marks.encode(x="patched_logits:Q", y=y, tooltip=tips, color=alt.value(EXACT_COLOUR))
    text = (
        f"The {len(shown)} nodes of {task.name} with the largest effects, {shown['node'].iloc[0]} first. Bars: "
        "first-order estimate; diamonds: exact effect, one node patched alone."
    )
    height, name = max(120, 17 * len(shown)), f"effects-{task.name}"
    return make_chart(name, "Largest node effects", bars + marks, height=height, text=text, table=shown)


def prediction_chart(
    task: TaskData, predicted: np.ndarray, measured: np.ndarray, claim: Claim | None
) -> Chart:
    """Scatter of predicted against intervened effects with the line of equality."""
    pairs = pd.DataFrame({"predicted_logits": predicted, "intervened_logits": measured})
    ends = [float(min(predicted.min(), measured.min())), float(max(predicted.max(), measured.max()))]
    line = alt.Chart(pd.DataFrame({"x": ends, "y": ends})).mark_line(strokeDash=[5, 4], opacity=0.6)
    x = alt.X("predicted_logits:Q", title="predicted effect, first order (logits)")
    y = alt.Y("intervened_logits:Q", title="effect of the intervention (logits)")
    points = alt.Chart(pairs).mark_point(filled=True, size=36, opacity=0.65)
    chart = line.encode(x="x:Q", y="y:Q") + points.encode(x=x, y=y, tooltip=list(pairs.columns))
    text = f"{len(pairs)} nodes of {task.name}; the dashed line is equality."
    if claim is not None and claim.control is not None:
        text += f" Correlation r = {estimate_text(claim.measured, 'r')}. "
        text += f"Control, {claim.control_name}: r = {estimate_text(claim.control, 'r')}."
    name, title = f"prediction-{task.name}", "Predicted against intervened"
    return make_chart(name, title, chart, height=300, text=text, table=pairs)


def set_label(name: str) -> str:
    """What a set of an ablation table is called."""
    return RANDOM if name.startswith("random-") else SETS.get(name, name)


def faithfulness_rows(task: TaskData, kind: str) -> pd.DataFrame:
    """Rows of the faithfulness chart: set, value and interval; one row per random set."""
    rows: Any = task.ablation[task.ablation["kind"] == kind]
    wanted = rows["set"].isin(["traced", "complement"]) | rows["set"].str.startswith("random-")
    rows = rows[wanted].dropna(subset=["faithfulness_frac"])
    shown = rows.assign(label=rows["set"].map(set_label), task=task.name, value=rows["faithfulness_frac"])
    return shown[["task", "kind", "label", "n_nodes", "value", "low", "high"]].reset_index(drop=True)


def faithfulness_chart(rows: pd.DataFrame, *, name: str, title: str, wide: bool = False) -> Chart:
    """Dots with intervals: the share of the logit difference that each set of nodes keeps, on its own.

    `rows` as of `faithfulness_rows`, of one kind and any number of tasks.
    """
    labels = rows["label"].drop_duplicates().tolist()
    shown = rows.assign(
        row=rows["task"] + ": " + rows["label"] if len(set(rows["task"])) > 1 else rows["label"]
    )
    y = alt.Y("row:N", sort=None, title=None, axis=alt.Axis(labelLimit=330))
    x = alt.X("value:Q", title=KEPT, axis=alt.Axis(format="%", tickCount=6))
    colour = alt.Color("label:N", sort=labels, legend=None)
    shape = alt.Shape("label:N", sort=labels, legend=None)
    tips = ["row:N", "n_nodes:Q", *(alt.Tooltip(f"{c}:Q", format=".1%") for c in ("value", "low", "high"))]
    base = alt.Chart(shown)
    bars = base.mark_rule(strokeWidth=2, opacity=0.7).encode(x=alt.X("low:Q"), x2="high:Q", y=y, color=colour)
    dots = base.mark_point(filled=True, size=70, opacity=0.9)
    ends = (
        alt.Chart(pd.DataFrame({"x": [0.0, 1.0]})).mark_rule(strokeDash=[2, 3], opacity=0.5).encode(x="x:Q")
    )
    chart = ends + bars + dots.encode(x=x, y=y, color=colour, shape=shape, tooltip=tips)
    height, text = 46 + 30 * len(set(shown["row"])), faithfulness_text(rows)
    return make_chart(name, title, chart, height=height, text=text, table=rows, wide=wide)


def faithfulness_text(rows: Any) -> str:
    """One sentence per task: what the circuit keeps and what the best random set keeps."""
    parts = []
    for task, group in rows.groupby("task", sort=False):
        traced = group[group["label"] == TRACED]
        chance = group.loc[group["label"] == RANDOM, "value"]
        for size, kind, value in traced[["n_nodes", "kind", "value"]].itertuples(index=False):
            best = f"; the best of {len(chance)} random sets keeps {chance.max():.0%}" if len(chance) else ""
            parts.append(f"{task}: the circuit of {size} {kind} keeps {value:.0%}{best}.")
    return " ".join(parts) or "Share of the logit difference that each set of nodes keeps."


def size_charts(task: TaskData, kind: str) -> list[Chart]:
    """Faithfulness of the largest nodes alone, as their number grows; none without such sets."""
    rows: Any = task.ablation[(task.ablation["kind"] == kind) & task.ablation["set"].str.startswith("top-")]
    rows = rows[["n_nodes", "faithfulness_frac", "low", "high"]].dropna().sort_values("n_nodes")
    if len(rows) < 2:
        return []
    x = alt.X("n_nodes:Q", title=f"largest {kind} kept (log scale)", scale=alt.Scale(type="log", base=2))
    y = alt.Y("faithfulness_frac:Q", title=KEPT, axis=alt.Axis(format="%", tickCount=5))
    tips = ["n_nodes:Q", *(alt.Tooltip(f"{c}:Q", format=".1%") for c in ("faithfulness_frac", "low", "high"))]
    base = alt.Chart(rows)
    band = base.mark_area(opacity=0.2).encode(x=x, y=alt.Y("low:Q"), y2="high:Q")
    chart = band + base.mark_line(point=True).encode(x=x, y=y, tooltip=tips)
    last = rows.iloc[-1]
    kept = f"the largest {int(last['n_nodes'])} {kind} keep {last['faithfulness_frac']:.0%}"
    text = f"{task.name}: {kept}; the band is the 95% interval over prompts."
    name, title = f"size-{task.name}-{anchor(kind)}", f"Share kept by the largest {kind}"
    return [make_chart(name, title, chart, height=180, text=text, table=rows)]
