"""Charts of the error of dictionaries: its linear and nonlinear part, what they cost, and norms across sizes.

Source of the measures: `evaluation/dark_matter.py`, `dark_splice.py`, `dark_predict.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import altair as alt
import numpy as np
import pandas as pd
from jaxtyping import Float

from workbench.errors import UserError
from workbench.evaluation.dark_matter import ErrorSplit
from workbench.evaluation.dark_splice import PARTS, DownstreamShare

MOST_MARKS = 4_000
LABELS = {"linear": "linear in the activation", "nonlinear": "not linear in it"}
COSTS = {
    "all": "whole error",
    "nonlinear": "nonlinear part",
    "linear": "linear part",
    "random": "random, as long as the nonlinear part",
}


def split_table(splits: Mapping[str, ErrorSplit]) -> pd.DataFrame:
    """Unexplained variance of each dictionary in its two parts: dictionary, part, its place, fvu, R^2."""
    rows = [
        {
            "dictionary": name, "part": LABELS[part], "place": place, "fvu": getattr(split, f"fvu_{part}"),
            "r2_error": split.r2_error, "r2_norm": split.r2_norm, "shuffled_r2": split.shuffled_r2,
        }
        for name, split in splits.items()
        for place, part in enumerate(LABELS)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def split_chart(splits: Mapping[str, ErrorSplit]) -> alt.Chart:
    """Stacked bars: the unexplained share of the variance of each dictionary, linear and nonlinear part.

    Raises:
        UserError: there is no dictionary.
    """
    if not splits:
        raise UserError("splits is empty: give at least one dictionary's split error")
    return (
        alt.Chart(split_table(splits), title="Unexplained variance, by what a linear map could mend")
        .mark_bar()
        .encode(
            x=alt.X("fvu:Q", title="unexplained share of the variance, held-out rows"),
            y=alt.Y("dictionary:N", title=None, sort=list(splits)),
            color=alt.Color("part:N", title="error", sort=list(LABELS.values())),
            stroke=alt.value("gray"),
            strokeDash=alt.StrokeDash("part:N", sort=list(LABELS.values()), legend=None),
            order=alt.Order("place:Q"),
            tooltip=["dictionary", "part", *_numbers("fvu", "r2_error", "r2_norm", "shuffled_r2")],
        )
    )


def cost_chart(share: DownstreamShare) -> Any:
    """Loss that each part of the error costs, with its interval; the label gives its share of the squared error."""
    table = pd.DataFrame(
        [
            {
                "part": COSTS[part], **share.cost_nats[part].as_dict("cost_nats"),
                "ce_share": share.ce_share[part].value, "square_share": share.square_share[part],
                "label": f"{share.square_share[part]:.0%} of the squared error",
            }
            for part in PARTS
        ]
    )  # fmt: skip
    base = alt.Chart(table, title="Cost of the parts of the error when they are spliced in")
    y = alt.Y("part:N", title=None, sort=[COSTS[part] for part in PARTS])
    title = "loss above the clean model, nats a token"
    x = alt.X("cost_nats:Q", title=title)
    tips = ["part", *_numbers("cost_nats", "ce_share", "square_share")]
    bars = base.mark_bar().encode(x=x, y=y, tooltip=tips)
    rules = base.mark_rule().encode(x=alt.X("cost_nats_low:Q", title=title), x2="cost_nats_high:Q", y=y)
    return bars + rules + base.mark_text(align="left", dx=6, dy=-8).encode(x=x, y=y, text="label:N")


def norm_chart(
    small: Float[np.ndarray, " token"], large: Float[np.ndarray, " other_token"], *, seed: int = 0
) -> Any:
    """Error norms of the same tokens under a smaller and a larger dictionary, with the line of equal norms.

    Args:
        small: |e| of each token under the smaller dictionary.
        large: Under the larger one.
        seed: Decides which tokens are drawn where there are more than 4,000.

    Raises:
        UserError: not one norm a token under both.
    """
    if len(small) != len(large) or not len(small):
        raise UserError(f"small has {len(small)} norms and large {len(large)}: give both for the same tokens")
    drawn = np.random.default_rng(seed).permutation(len(small))[:MOST_MARKS]
    table = pd.DataFrame({"small": small[drawn], "large": large[drawn]})
    table = table[(table["small"] > 0) & (table["large"] > 0)]
    title = f"Error of the same token under two sizes ({len(table):,} of {len(small):,} tokens)"
    ends = [float(table.min().min()), float(table.max().max())]
    log = alt.Scale(type="log", nice=False)
    x = alt.X("small:Q", title="norm of the error, smaller dictionary", scale=log)
    y = alt.Y("large:Q", title="norm of the error, larger dictionary", scale=log)
    points = alt.Chart(table).mark_point(size=8, opacity=0.35).encode(x=x, y=y)
    equal = pd.DataFrame({"small": ends, "large": ends})
    line = alt.Chart(equal).mark_line(strokeDash=[4, 4], color="gray").encode(x=x, y=y)
    return (points + line).properties(title=title)


def _numbers(*names: str) -> list[Any]:
    return [alt.Tooltip(f"{name}:Q", format=".3g") for name in names]
