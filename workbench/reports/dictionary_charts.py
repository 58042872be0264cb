"""Charts of an evaluation: how often latents fire, how alike their directions are, and the frontier of a sweep.

Controls are drawn beside what they control, and told apart by line and shape as well as by colour.
"""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from workbench.reports.charts import Chart, make_chart
from workbench.reports.format import number_text

SETS = {"trained": "trained", "random": "random", "random_model": "trained on random weights"}
FIDELITY = {
    "fvu": ("unexplained share of the variance", "log"),
    "ce_recovered_frac": ("recovered share of the loss", "linear"),
    "kl_recovered_frac": ("recovered share of the predictions (KL)", "linear"),
}


MARKS = ["circle", "diamond", "triangle-up"]


def _steps(evaluation: dict[str, Any], field: str, edges: str) -> pd.DataFrame:
    """A histogram of every set as rows (set, low, high, latents)."""
    tables = []
    for name, label in SETS.items():
        found = (evaluation.get(name) or {}).get(field)
        if found:
            at, counts = found[edges], found["n_latents"]
            tables.append(pd.DataFrame({"set": label, "low": at[:-1], "high": at[1:], "latents": counts}))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def _step_lines(bars: pd.DataFrame, title: str) -> alt.Chart:
    """Histograms as stepped lines, one kind of line for each set."""
    ends: Any = bars.groupby("set", sort=False).tail(1)
    closed = pd.concat([bars, ends.assign(low=ends["high"])], ignore_index=True)
    order = [label for label in SETS.values() if label in set(bars["set"])]
    tips = ["set:N", alt.Tooltip("low:Q", format=".3g"), alt.Tooltip("high:Q", format=".3g"), "latents:Q"]
    return (
        alt.Chart(closed)
        .mark_line(interpolate="step-after")
        .encode(
            x=alt.X("low:Q", title=title),
            y=alt.Y("latents:Q", title="latents", axis=alt.Axis(tickMinStep=1)),
            color=alt.Color("set:N", sort=order, title=None, legend=alt.Legend(orient="top")),
            strokeDash=alt.StrokeDash("set:N", sort=order, title=None, legend=None),
            tooltip=tips,
        )
    )


def usage_figure(evaluation: dict[str, Any]) -> alt.Chart | None:
    """How often latents fire, in each set; None where the evaluation does not say."""
    bars = _steps(evaluation, "density", "log10_edges")
    return None if bars.empty else _step_lines(bars, "log10 of the share of tokens")


def cosine_figure(evaluation: dict[str, Any]) -> alt.Chart | None:
    """How alike each latent's direction is to its nearest other, in each set; None where it was not measured."""
    bars = _steps(evaluation, "decoder_cosine", "edges")
    return None if bars.empty else _step_lines(bars, "largest |cosine| with another latent's direction")


def evaluation_charts(evaluation: dict[str, Any]) -> list[Chart]:
    """The two distributions, as far as they were measured."""
    charts, trained = [], evaluation.get("trained") or {}
    usage, cosine = usage_figure(evaluation), cosine_figure(evaluation)
    if usage is not None:
        density = trained["density"]
        text = (
            f"Of {number_text(sum(density['n_latents']) + density['n_dead'])} trained latents "
            f"{number_text(density['n_dead'])} fired on none of {number_text(density['n_rows'])} tokens and "
            f"{trained['dense_frac']:.1%} on more than a tenth of them."
        )
        table = _steps(evaluation, "density", "log10_edges")
        charts.append(
            make_chart("latent-use", "How often latents fire", usage, height=200, text=text, table=table)
        )
    if cosine is not None:
        shape, control = trained["decoder_cosine"], (evaluation.get("random") or {}).get("decoder_cosine")
        against = f"; among random directions {control['mean']:.2f}" if control else ""
        text = (
            f"A trained latent's nearest other has a |cosine| of {shape['mean']:.2f} on average{against}. "
            f"{shape['near_copy_frac']:.1%} of the trained latents have one above 0.9."
        )
        table, title = _steps(evaluation, "decoder_cosine", "edges"), "How alike directions are"
        charts.append(make_chart("decoder-cosine", title, cosine, height=200, text=text, table=table))
    return charts


def frontier_figure(table: pd.DataFrame, *, fidelity: str = "fvu") -> Any:
    """Fidelity against L0 of a sweep: a line for each architecture, dots with their intervals; controls are diamonds.

    Args:
        table: As `evaluation.frontier.frontier` makes it.
        fidelity: One of `FIDELITY`.
    """
    shown: Any = table.dropna(subset=[fidelity]).copy()
    shown["kind"] = np.where(
        shown["layout"] == "autoencoder",
        shown["architecture"],
        shown["architecture"] + ", " + shown["layout"],
    )
    shown["set"] = shown["set"].map(SETS)
    title, wanted = FIDELITY[fidelity]
    scale: Any = wanted if bool((shown[fidelity] > 0).all()) else "linear"
    x = alt.X("l0:Q", title="active latents per token (L0)", scale=alt.Scale(type="log"))
    y = alt.Y(f"{fidelity}:Q", title=title, scale=alt.Scale(type=scale, zero=False))
    colour = alt.Color("kind:N", title=None, legend=alt.Legend(orient="right"))
    order = [label for label in SETS.values() if label in set(shown["set"])]
    shape = alt.Shape(
        "set:N", title=None, sort=order, scale=alt.Scale(domain=order, range=MARKS[: len(order)])
    )
    tips = [
        "name:N",
        "kind:N",
        "set:N",
        alt.Tooltip("l0:Q", format=".1f"),
        alt.Tooltip(f"{fidelity}:Q", format=".4f"),
    ]
    base = alt.Chart(shown)
    own = base.transform_filter(alt.datum.set == SETS["trained"])
    lines = own.mark_line(opacity=0.6).encode(x=x, y=y, color=colour)
    bars = base.mark_rule(opacity=0.7).encode(
        x=x, y=alt.Y(f"{fidelity}_low:Q", title=title), y2=f"{fidelity}_high:Q", color=colour
    )
    dots = base.mark_point(filled=True, size=60, opacity=0.9)
    return lines + bars + dots.encode(x=x, y=y, color=colour, shape=shape, tooltip=tips)


def frontier_chart(table: pd.DataFrame) -> Chart | None:
    """The frontier of a sweep as a chart of the report; None for fewer than two dictionaries."""
    rows: Any = table
    own = rows[rows["set"] == "trained"]
    if len(own) < 2:
        return None
    best = own.loc[own["fvu"].idxmin()]
    text = (
        f"{len(own)} dictionaries of {own['architecture'].nunique()} architectures, L0 from {own['l0'].min():.3g} to "
        f"{own['l0'].max():.3g}. The lowest unexplained share is {best['fvu']:.1%} ({best['name']}, L0 "
        f"{best['l0']:.3g}). Diamonds are random dictionaries of the same size and L0."
    )
    columns = ["name", "architecture", "set", "l0", "fvu", "ce_recovered_frac", "dead_frac"]
    chart, title = frontier_figure(table), "Sparsity against fidelity"
    return make_chart("frontier", title, chart, height=300, text=text, table=rows[columns], wide=True)
