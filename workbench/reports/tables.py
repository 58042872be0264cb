"""Tables of the report: text cells only, so that the template has nothing left to decide."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from workbench.reports.evidence import estimate, row_unit, text_name
from workbench.reports.format import cell_text, estimate_text, number_text

DEEPEST = 3


def anchor(name: str) -> str:
    """A name as an HTML identifier."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "x"


@dataclass(frozen=True)
class Table:
    """A table as text.

    Attributes:
        caption: What it holds.
        columns: Headings.
        rows: Cells; the first of a row is its heading.
        numeric: Which columns are right-aligned.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]


def make_table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    """A table of anything; columns that hold only numbers are right-aligned."""
    numeric = tuple(
        bool(rows) and all(isinstance(r[i], (int, float)) and not isinstance(r[i], bool) for r in rows)
        for i in range(len(columns))
    )
    text = tuple(tuple(cell_text(value) for value in row) for row in rows)
    return Table(caption, tuple(columns), text, numeric)


def frame_table(caption: str, frame: pd.DataFrame) -> Table:
    """A pandas table as a report table."""
    rows = [[v.item() if hasattr(v, "item") else v for v in row] for row in frame.itertuples(index=False)]
    return make_table(caption, [str(name) for name in frame.columns], rows)


def flatten(values: Mapping[str, Any], *, prefix: str = "", depth: int = 0) -> list[tuple[str, str]]:
    """Nested mappings as (dotted name, text) pairs, in their order."""
    pairs: list[tuple[str, str]] = []
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value and depth < DEEPEST:
            pairs += flatten(value, prefix=f"{name}.", depth=depth + 1)
        else:
            pairs.append((name, cell_text(value)))
    return pairs


def mapping_table(
    caption: str, values: Mapping[str, Any], *, columns: tuple[str, str] = ("name", "value")
) -> Table:
    """A mapping as a table of two columns, nested names dotted."""
    return make_table(caption, columns, flatten(values))


EVALUATED = (
    ("fvu", "Unexplained share of the variance", "fraction"),
    ("ce_recovered_frac", "Recovered share of the loss", "fraction"),
    ("kl_recovered_frac", "Recovered share of the predictions (KL)", "fraction"),
    ("cosine", "Cosine of reconstruction and activation", ""),
    ("gamma", "Length of the reconstruction (gamma; below 1: too short)", ""),
    ("l0", "Active latents per token", ""),
    ("dead_frac", "Dead latents", "fraction"),
    ("dense_frac", "Latents that fire on more than a tenth of the tokens", "fraction"),
    ("ce_nats", "Loss of the model", "nats"),
    ("ce_spliced_nats", "Loss with the dictionary spliced in", "nats"),
    ("ce_zero_nats", "Loss with the activation set to zero", "nats"),
)

SET_NAMES = {
    "trained": "trained dictionary",
    "random": "random dictionary",
    "random_model": "dictionary of a random-weight model",
}


def evaluation_table(evaluation: dict[str, Any]) -> Table:
    """Trained dictionary against its controls; intervals where the evaluation gives them."""
    kinds = [kind for kind in SET_NAMES if kind in evaluation]
    rows = []
    for name, label, unit in EVALUATED:
        found = [estimate(evaluation[kind], name) for kind in kinds]
        if any(found):
            rows.append([label, *(estimate_text(value, unit) if value else "–" for value in found)])
    n_tokens = evaluation.get("trained", {}).get("n_tokens")
    size = f" on {number_text(n_tokens)} {row_unit(evaluation)}, {text_name(evaluation)}" if n_tokens else ""
    return make_table(f"Evaluation{size}", ["Quantity", *(SET_NAMES[kind] for kind in kinds)], rows)
