"""The eighteen methods on a comparison's page: a line for each, and its claims one by one behind it."""

from __future__ import annotations

from typing import Any

import pandas as pd

from workbench.analyses.comparison.learners import known_learners
from workbench.analyses.comparison.rows import BROKEN, FAILED, HOLDS, MISSING, SHORT
from workbench.reports.format import number_text

MARKS = {
    HOLDS: ("holds", "✓"), SHORT: ("idle", "○"), BROKEN: ("fails", "✗"), FAILED: ("fails", "✗"), MISSING: ("idle", "–"),
}  # fmt: skip
WORST_FIRST = (FAILED, BROKEN, MISSING, SHORT, HOLDS)
WORDS = {
    HOLDS: "all hold", SHORT: "known shortfall", BROKEN: "does not hold", FAILED: "failed", MISSING: "not run",
}  # fmt: skip


def methods(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """A line per method: row, method, learners, claims as cells, how many hold, and the sentences that do not.

    Args:
        rows: As `comparison.rows.table_of_rows` makes them.
    """
    groups: Any = rows.groupby("row", sort=True)
    return [_method(int(row), group.to_dict("records")) for row, group in groups]


def _method(row: int, claims: list[dict[str, Any]]) -> dict[str, Any]:
    verdicts = [claim["verdict"] for claim in claims]
    worst = next(verdict for verdict in WORST_FIRST if verdict in verdicts)
    style, mark = MARKS[worst]
    learners = [name for name, learner in known_learners().items() if learner.row == row]
    return {
        "row": row, "method": claims[0]["method"], "learners": ", ".join(learners) or "–",
        "style": style, "mark": mark, "verdict": WORDS[worst],
        "held": "–" if worst == MISSING else f"{verdicts.count(HOLDS)} of {len(claims)}",
        "short": [_shortfall(claim) for claim in claims if claim["verdict"] not in (HOLDS, MISSING)],
        "claims": [] if worst == MISSING else [_claim(claim) for claim in claims],
    }  # fmt: skip


def _shortfall(claim: dict[str, Any]) -> str:
    """What does not hold, with its figure and what it should have been."""
    if claim["verdict"] == FAILED:
        return f"{claim['claim']}: {claim['note']}"
    says = claim["claim"].rstrip(".")
    return f"{says}: {number_text(claim['figure'])}, limit {claim['limit']}"


def _claim(claim: dict[str, Any]) -> dict[str, Any]:
    """A claim as the cells of its line."""
    style, mark = MARKS[claim["verdict"]]
    several = claim["n_seeds"] > 1
    spread = f" [{number_text(claim['lowest'])}, {number_text(claim['highest'])}]" if several else ""
    known = claim["control"] == claim["control"]
    control = f"{number_text(claim['control'])} {claim['control_is']}" if known else "–"
    return {
        **claim, "style": style, "mark": mark, "control_text": control.strip(),
        "figure_text": f"{number_text(claim['figure'])}{spread} {claim['unit']}".strip(),
    }  # fmt: skip
