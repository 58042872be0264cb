"""Reports: one offline HTML file per run, drawn from its folder.

    from workbench.reports import claims_table, find_run, write_report

    run = find_run("runs/demo")
    claims_table(run)
    write_report(run)

In reading order: `read.py` (the run folder), `evidence.py` and `claims.py` (numbers, controls, verdicts),
`charts.py` and `circuit_charts.py`, `headline.py`, `features.py`, `sections.py` (what each section shows),
`html.py` and `page/` (the file), `report.py` (the stage).
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "claims_table": "workbench.reports.report",
    "find_run": "workbench.reports.find",
    "write_report": "workbench.reports.report",
}
__all__ = list(_HOMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
