"""A line per method: how many claims hold, what does not and by how much, the worst verdict first."""

from __future__ import annotations

from typing import Any

import pandas as pd

from workbench.analyses.comparison.rows import METHODS, RAW, table_of_rows
from workbench.reports.comparison_methods import methods


def claim(row: int, says: str, **more: Any) -> dict[str, Any]:
    known = {
        "check": f"check{row}", "row": row, "title": "", "seed": 0, "code": "", "claim": says, "figure": 0.25,
        "unit": "", "least": 0.5, "most": None, "control": 0.1, "control_is": "random", "expected": True,
        "holds": True, "note": "", "error": "",
    }  # fmt: skip
    return {**known, **more}


def test_a_method_is_as_good_as_its_worst_claim_and_says_which_that_is() -> None:
    raw = [
        claim(8, "fine"), claim(8, "short", holds=False, expected=False), claim(8, "broken", holds=False),
        claim(9, "fine"), claim(10, "", error="IndexError: no", holds=False),
    ]  # fmt: skip
    found = {one["row"]: one for one in methods(table_of_rows(pd.DataFrame(raw, columns=list(RAW))))}
    assert list(found) == list(METHODS)
    kron = found[8]
    assert (kron["verdict"], kron["held"], kron["learners"]) == ("does not hold", "1 of 3", "kron")
    assert kron["short"] == ["short: 0.25, limit ≥ 0.5", "broken: 0.25, limit ≥ 0.5"]
    assert [one["verdict"] for one in kron["claims"]] == ["holds", "shortfall, as expected", "does not hold"]
    assert (found[9]["verdict"], found[9]["short"]) == ("all hold", [])
    assert found[10]["verdict"] == "failed"
    assert "IndexError: no" in found[10]["short"][0]
    assert (found[11]["verdict"], found[11]["claims"]) == ("not run", [])
