"""A pytest plugin (`-p tests.strict_ci`): with `CI=true` a browser test that is skipped has failed.

On a laptop without Chromium a skip is a fair answer; on the machine that decides whether a change is good it
would hide that the report was never opened.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn the skip into a failure that gives the skip's own reason."""
    report = yield
    if report.skipped and os.environ.get("CI") == "true" and item.get_closest_marker("browser"):
        reason = report.longrepr[-1] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome, report.longrepr = "failed", f"skipped where CI=true does not allow it: {reason}"
    return report
