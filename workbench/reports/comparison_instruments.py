"""The instruments of a comparison on its page: one chart or table per method that was measured once."""

from __future__ import annotations

from typing import Any

import pandas as pd

from workbench.analyses.comparison.instruments import Instruments
from workbench.analyses.comparison.leftover import Leftover
from workbench.reports.charts import Chart, make_chart
from workbench.reports.dark_matter_chart import norm_chart as error_norm_chart
from workbench.reports.dark_matter_chart import split_chart, split_table
from workbench.reports.norm_chart import norm_chart
from workbench.reports.rank_chart import rank_chart
from workbench.reports.scaling_charts import scaling_chart
from workbench.reports.tables import Table, make_table

VARIATIONAL = {
    "fvu": "unexplained variance", "recovered_frac": "features recovered", "alive_frac": "latents alive",
    "independence": "independence", "selectivity": "selectivity",
}  # fmt: skip


def instrument_charts(found: Instruments) -> list[Chart]:
    """The charts of what was measured."""
    return [
        *([scaling_chart(found.law)] if found.law is not None else []),
        *([rank_chart(found.ranks)] if found.ranks else []),
        *([norm_chart(found.norms)] if found.norms else []),
        *(leftover_charts(found.leftover) if found.leftover is not None else []),
    ]


def leftover_charts(found: Leftover) -> list[Chart]:
    """The parts of the error over sizes, and the norms of the same tokens' errors under two of them."""
    return [_split_chart(found), _pair_chart(found)]


def _split_chart(found: Leftover) -> Chart:
    named = {f"{n:,} latents": split for n, split in found.splits.items()}
    parts = [
        f"{name} {split.fvu:.3f}, R² of the error {split.r2_error:.2f} (rows dealt anew {split.shuffled_r2:.2f}), "
        f"of its norm {split.r2_norm:.2f}"
        for name, split in named.items()
    ]
    text = (
        "Unexplained variance on held-out rows, and what a linear map of the activation says of the error: "
        f"{'; '.join(parts)}."
    )
    drawn = split_chart(named).properties(title="")
    title = "Error over sizes, by what a linear map could mend"
    return make_chart("error-split", title, drawn, height=180, text=text, table=split_table(named), wide=True)


def _pair_chart(found: Leftover) -> Chart:
    n_small, n_large = min(found.splits), max(found.splits)
    norms = found.norms[n_large]
    text = (
        f"Length of the error of the same token under {n_small:,} and {n_large:,} latents; the dashed line is no "
        f"change. The smaller says {norms.r2:.2f} of the variance of the larger's logarithm; the length of the "
        f"activation alone {norms.length_r2:.2f}, tokens dealt anew {norms.shuffled_r2:.2f}."
    )
    small, large = (found.pairs[name].to_numpy() for name in ("small", "large"))
    drawn = error_norm_chart(small, large).properties(title="")
    title = "The same tokens stay hard"
    return make_chart(
        "error-norms", title, drawn, height=300, text=text, table=found.pairs.head(100), wide=True
    )


def variational_summary(table: pd.DataFrame) -> Table:
    """Means over seeds with the least and the greatest: TopK, a random dictionary, each KL coefficient."""
    rows: list[list[Any]] = []
    groups: Any = table.groupby(["name", "kl"], sort=False, dropna=False)
    for (name, kl), group in groups:
        named = str(name) if kl != kl else f"{name}, KL coefficient {kl:g}"
        rows.append([named, *(_spread(group[column]) for column in VARIATIONAL)])
    caption = "A variational TopK beside TopK on planted rows, mean over seeds [least, greatest]"
    return make_table(caption, ["dictionary", *VARIATIONAL.values()], rows)


def _spread(values: Any) -> str:
    if not values.notna().all():
        return "–"
    return f"{values.mean():.3f} [{values.min():.3f}, {values.max():.3f}]"
