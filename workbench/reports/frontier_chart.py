"""The frontier of a comparison: what is missing against how many latents a row spends, a line per learner.

Both axes are logarithmic and what is drawn is what is missing (unexplained variance, or 1 less the share of the loss
that is recovered), so lower and further left is better in every one of them. Names stand in a column at the right, each
tied to its learner's densest dictionary, so that twenty of them can be read. Learners that spend more than twice as
many latents as the densest were asked for are named in the text.
"""

from __future__ import annotations

from typing import Any

import altair as alt
import numpy as np
import pandas as pd
from jaxtyping import Float

from workbench.analyses.comparison.figures import FIGURES
from workbench.analyses.comparison.reading import Compared
from workbench.reports.charts import Chart, make_chart
from workbench.reports.comparison_charts import KINDS, RANDOM, TRAINED, marks
from workbench.reports.format import number_text

HEIGHT, NAME_HEIGHT = 460, 15
OUTSIDE = 2.0
LEAST = 1e-4


def frontier_points(compared: Compared, site: str, figure: str) -> pd.DataFrame:
    """One row per learner, k and kind: L0 and a figure, each with its interval."""
    table: Any = compared.summary
    own = table[(table["site"] == site)].dropna(subset=[figure, "l0"])
    ends = ("", "_low", "_high")
    columns = {
        f"{name}{end}": f"{short}{end}" for name, short in ((figure, "value"), ("l0", "l0")) for end in ends
    }
    found = own[["learner", "k", "set", *columns]].rename(columns=columns)
    return found.assign(kind=found.pop("set").map({"trained": TRAINED, "random": RANDOM}))


def missing(shown: Any, figure: str) -> pd.DataFrame:
    """The points with what is missing in place of the figure: itself where less is better, else 1 less it."""
    if FIGURES[figure].better < 0:
        ends = {name: shown[name] for name in ("value", "value_low", "value_high")}
    else:
        ends = {
            "value": 1 - shown["value"],
            "value_low": 1 - shown["value_high"],
            "value_high": 1 - shown["value_low"],
        }
    return shown.assign(**{name: values.clip(lower=LEAST) for name, values in ends.items()})


def within(shown: Any) -> Any:
    """Which points spend at most twice the densest k."""
    return shown["l0"] <= OUTSIDE * shown["k"].max()


def name_places(drawn: Any) -> pd.DataFrame:
    """Where the learners' names stand: learner, l0 and value of the densest dictionary, and the name's own place."""
    ends: Any = drawn[drawn["kind"] == TRAINED].sort_values("l0").groupby("learner").tail(1)
    ends = ends.sort_values("value", ignore_index=True)
    height = np.log(drawn["value"].max() / drawn["value"].min())
    place = np.exp(spread(np.log(ends["value"].to_numpy()), height * NAME_HEIGHT / HEIGHT))
    return ends[["learner", "l0", "value"]].assign(name_l0=drawn["l0"].max() * 1.15, name_value=place)


def spread(values: Float[np.ndarray, " name"], gap: float) -> Float[np.ndarray, " name"]:
    """Ascending values moved apart to at least `gap`, as a group about their own middle."""
    moved = values.copy()
    for i in range(1, len(moved)):
        moved[i] = max(moved[i], moved[i - 1] + gap)
    return moved - (moved - values).mean()


def frontier_figure(shown: pd.DataFrame, figure: str) -> Any:
    """Fidelity against L0 on logarithmic axes, intervals over seeds in both directions.

    Args:
        shown: As `frontier_points` makes it, at least one row.
        figure: In `figures.FIGURES`.
    """
    drawn: Any = missing(shown[within(shown)], figure)
    drawn = drawn.assign(l0_low=drawn["l0_low"].where(drawn["l0_low"] > 0, drawn["l0"] / 2))
    names = name_places(drawn)
    about = FIGURES[figure]
    title = about.title if about.better < 0 else f"1 - {about.title}"
    domain = [
        float(min(drawn["value"].min(), names["name_value"].min())) * 0.9,
        float(drawn["value"].max()) * 1.1,
    ]
    across = [0.9 * float(drawn["l0"].min()), 2.1 * float(drawn["l0"].max())]
    scale = alt.Scale(type="log", nice=False, domain=across)
    x = alt.X("l0:Q", title="latents per row (L0)", scale=scale)
    y = alt.Y("value:Q", title=title, scale=alt.Scale(type="log", nice=False, domain=domain, clamp=True))
    return _intervals(drawn, x, y) + _lines(drawn, x, y) + _names(names, x, y) + _dots(drawn, x, y)


def _intervals(drawn: Any, x: alt.X, y: alt.Y) -> Any:
    base = alt.Chart(drawn[drawn["kind"] == TRAINED]).mark_rule(opacity=0.3, clip=True)
    across = base.encode(x=alt.X("l0_low:Q", title=x["title"]), x2="l0_high:Q", y=y)
    return across + base.encode(x=x, y=alt.Y("value_low:Q", title=y["title"]), y2="value_high:Q")


def _lines(drawn: Any, x: alt.X, y: alt.Y) -> Any:
    own = alt.Chart(drawn[drawn["kind"] == TRAINED])
    return own.mark_line(opacity=0.35, strokeWidth=1).encode(x=x, y=y, detail="learner:N")


def _names(names: Any, x: alt.X, y: alt.Y) -> Any:
    """The names, and the lines that tie them to their points."""
    ends = [
        names[["learner", "l0", "value"]],
        names[["learner", "name_l0", "name_value"]].set_axis(["learner", "l0", "value"], axis=1),
    ]
    ties = alt.Chart(pd.concat(ends)).mark_line(strokeWidth=0.6, strokeDash=[2, 2], opacity=0.6)
    text = alt.Chart(ends[1]).mark_text(align="left", baseline="middle", dx=4, fontSize=11)
    return ties.encode(x=x, y=y, detail="learner:N") + text.encode(x=x, y=y, text="learner:N")


def _dots(drawn: Any, x: alt.X, y: alt.Y) -> Any:
    kinds = [kind for kind in KINDS if kind in set(drawn["kind"])]
    tips = [
        "learner:N", "kind:N", "k:Q",
        *(alt.Tooltip(f"{name}:Q", format=".4g") for name in ("l0", "value", "value_low", "value_high")),
    ]  # fmt: skip
    base = alt.Chart(drawn).mark_point(filled=True, size=50, opacity=0.85)
    return base.encode(x=x, y=y, tooltip=tips, **marks(kinds))


def frontier_chart(compared: Compared, site: str, figure: str) -> Chart | None:
    """The frontier of a site; None where nothing was measured."""
    shown = frontier_points(compared, site, figure)
    if shown.empty:
        return None
    title = f"{site}: {FIGURES[figure].title} against L0"
    trained: Any = shown[shown["kind"] == TRAINED]
    least, most = (number_text(float(end)) for end in (trained["l0"].min(), trained["l0"].max()))
    text = (
        f"{trained['learner'].nunique()} learners, L0 from {least} to {most}. Two learners compare only at one L0: "
        f"lower and further left is better. Diamonds are random dictionaries of the same size and L0."
        f"{_outside(trained)}"
    )
    drawn = frontier_figure(shown, figure)
    name = f"frontier-{site}-{figure}"
    return make_chart(name, title, drawn, height=HEIGHT, text=text, table=shown, wide=True)


def _outside(trained: Any) -> str:
    """The learners that are not drawn because they spend many more latents than they were asked for."""
    far: Any = trained[~within(trained)]
    if far.empty:
        return ""
    parts = [
        f"{name} (L0 {_range(group['l0'])}: {_range(group['value'])})"
        for name, group in far.groupby("learner")
    ]
    return f" Not drawn, for an L0 far from what was asked: {', '.join(parts)}."


def _range(values: Any) -> str:
    ends = list(dict.fromkeys(number_text(float(end)) for end in (values.min(), values.max())))
    return " to ".join(ends)
