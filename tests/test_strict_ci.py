"""The plugin that does not let CI skip browser tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CASES = """
import pytest

@pytest.mark.browser
def test_page():
    pytest.skip("Chromium is not installed")

@pytest.mark.gpu
def test_kernel():
    pytest.skip("no GPU")
"""


@pytest.mark.parametrize(
    ("ci", "workers", "outcome"),
    [("true", "0", "1 failed, 1 skipped"), ("", "0", "2 skipped"), ("true", "2", "1 failed, 1 skipped")],
)
def test_a_skipped_browser_test_fails_in_ci_only(ci: str, workers: str, outcome: str, tmp_path: Path) -> None:
    (tmp_path / "test_cases.py").write_text(CASES)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers =\n  browser: x\n  gpu: x\n")
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-rf",
        "-n",
        workers,
        "-p",
        "tests.strict_ci",
        str(tmp_path),
    ]
    environment = os.environ | {"CI": ci, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": ""}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert outcome in done.stdout
    assert ("does not allow it: Skipped: Chromium is not installed" in done.stdout) == (ci == "true")
