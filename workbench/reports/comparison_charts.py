"""Charts of a comparison of dictionary learners: every figure beside its controls.

Three kinds of mark, told apart by shape as well as by colour: trained (circle), random directions (diamond), trained
where there is nothing to find (triangle: permuted columns, or a model with random weights). Bars are 95% intervals
over training seeds.
"""

from __future__ import annotations

from typing import Any

import altair as alt
import pandas as pd

from workbench.analyses.comparison.figures import FIGURES
from workbench.analyses.comparison.reading import Compared
from workbench.analyses.comparison.sites import SITES
from workbench.reports.charts import Chart, make_chart
from workbench.reports.format import number_text

TRAINED, RANDOM, CONTROL = "trained", "random directions", "trained on the control"
KINDS = [TRAINED, RANDOM, CONTROL]
SHAPES = ["circle", "diamond", "triangle-up"]
ROW_HEIGHT = 17
LOGARITHMIC = ("fvu",)
CONTROL_OF = {"model.resid": "random.resid", "model.mlp": "random.mlp"}


def control_of(site: str) -> str:
    """The name of a site's control."""
    return CONTROL_OF.get(site, f"{site}.shuffled")


def points(compared: Compared, site: str, figure: str) -> pd.DataFrame:
    """One row per learner and kind of mark: value, value_low, value_high; the best learner first."""
    parts = []
    for kind, where, of in (
        (TRAINED, site, "trained"),
        (RANDOM, site, "random"),
        (CONTROL, control_of(site), "trained"),
    ):
        if where in SITES:
            parts.append(_values(compared.at(where, kind=of), figure).assign(kind=kind))
    found: Any = pd.concat(parts, ignore_index=True).dropna(subset=["value"])
    best: Any = found[found["kind"] == TRAINED].sort_values("value", ascending=FIGURES[figure].better < 0)
    place = {name: number for number, name in enumerate(best["learner"])}
    found = found[found["learner"].isin(list(place))]
    order = found.assign(place=found["learner"].map(place)).sort_values(["place", "kind"], kind="stable")
    return order.drop(columns="place").reset_index(drop=True)


def _values(table: Any, figure: str) -> pd.DataFrame:
    columns = {figure: "value", f"{figure}_low": "value_low", f"{figure}_high": "value_high"}
    return table[["learner", *columns]].rename(columns=columns)


def marks(kinds: list[str]) -> dict[str, Any]:
    """Shape and colour of the kinds that there are, each with its place in the one legend."""
    shapes = [SHAPES[KINDS.index(kind)] for kind in kinds]
    legend = alt.Legend(orient="top", direction="vertical", title=None)
    return {
        "shape": alt.Shape("kind:N", sort=kinds, scale=alt.Scale(domain=kinds, range=shapes), legend=legend),
        "color": alt.Color("kind:N", sort=kinds, scale=alt.Scale(domain=kinds), legend=legend),
    }


def dots_figure(shown: pd.DataFrame, figure: str) -> Any:
    """A figure of every learner at one site, with its controls and intervals over seeds.

    Args:
        shown: As `points` makes it, at least one row.
        figure: In `figures.FIGURES`.
    """
    kinds = [kind for kind in KINDS if kind in set(shown["kind"])]
    order = list(dict.fromkeys(shown["learner"]))
    kind = "log" if figure in LOGARITHMIC and bool((shown["value"] > 0).all()) else "linear"
    scale = _scale(kind, padding=10)
    x = alt.X("value:Q", title=FIGURES[figure].title, scale=scale)
    y = alt.Y("learner:N", sort=order, title=None, axis=alt.Axis(labelLimit=180))
    tips = [
        "learner:N",
        "kind:N",
        *(alt.Tooltip(f"{name}:Q", format=".4g") for name in ("value", "value_low", "value_high")),
    ]
    base = alt.Chart(_drawable(shown, kind))
    bars = base.mark_rule(opacity=0.6).encode(
        x=alt.X("value_low:Q", title=FIGURES[figure].title),
        x2="value_high:Q",
        y=y,
        color=marks(kinds)["color"],
    )
    return bars + base.mark_point(filled=True, size=55, opacity=0.9).encode(
        x=x, y=y, tooltip=tips, **marks(kinds)
    )


def _scale(kind: Any, **more: Any) -> alt.Scale:
    """A scale that does not begin at 0 and does not end at a round number."""
    zero = {} if kind == "log" else {"zero": False}
    options: dict[str, Any] = {"type": kind, "nice": False, **zero, **more}
    return alt.Scale(**options)


def _drawable(shown: pd.DataFrame, scale: str) -> pd.DataFrame:
    """Intervals that a logarithmic axis can show: no lower end at or below 0."""
    if scale != "log":
        return shown
    return shown.assign(value_low=shown["value_low"].where(shown["value_low"] > 0, shown["value"] / 2))


def dots_chart(compared: Compared, site: str, figure: str) -> Chart | None:
    """The chart of a figure at a site; None where nothing was measured."""
    shown = points(compared, site, figure)
    if shown.empty:
        return None
    about, trained = FIGURES[figure], shown[shown["kind"] == TRAINED]
    best: Any = trained.iloc[0]
    chance: Any = shown[shown["kind"] == RANDOM]["value"]
    against = (
        f"; random directions have {number_text(float(chance.mean()))} on average" if len(chance) else ""
    )
    first = number_text(float(best["value"]))
    text = f"{best['learner']} is first with {first} of {len(trained)} learners at {site}{against}."
    height = 40 + ROW_HEIGHT * len(trained)
    return make_chart(
        f"{site}-{figure}",
        f"{site}: {about.title}",
        dots_figure(shown, figure),
        height=height,
        text=text,
        table=shown,
    )
