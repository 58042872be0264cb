"""The verdict of a claim: computed from intervals, and wrong in no direction."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.intervals import Estimate
from workbench.reports.claims import Claim, Verdict, findings, measurements, negatives
from workbench.reports.evidence import random_sets


def claim(low: float, high: float, control: Estimate | None, *, higher: bool = True) -> Claim:
    """A claim whose value is the middle of its interval."""
    measured = Estimate((low + high) / 2, low, high)
    return Claim(statement="s", measured=measured, unit="fraction", control=control, higher=higher)


@pytest.mark.parametrize(
    ("low", "high", "control", "higher", "verdict"),
    [
        (0.8, 0.9, Estimate(0.2, 0.1, 0.3), True, Verdict.HOLDS),
        (0.8, 0.9, Estimate(0.6, 0.4, 0.85), True, Verdict.FAILS),
        (0.8, 0.9, Estimate(0.2, 0.1, 0.3), False, Verdict.FAILS),
        (0.1, 0.2, Estimate(0.7, 0.6, 0.8), False, Verdict.HOLDS),
        (0.8, 0.9, None, True, Verdict.NO_CONTROL),
        (0.8, 0.9, Estimate(math.nan, math.nan, math.nan), True, Verdict.NO_CONTROL),
        (math.nan, math.nan, Estimate(0.2, 0.1, 0.3), True, Verdict.NO_INTERVAL),
        (0.8, 0.9, Estimate(0.85, math.nan, math.nan), True, Verdict.FAILS),
    ],
)
def test_verdicts(low: float, high: float, control: Estimate | None, higher: bool, verdict: Verdict):
    assert claim(low, high, control, higher=higher).verdict is verdict


numbers = st.floats(-1, 1)


@given(a=numbers, b=numbers, c=numbers, d=numbers, higher=st.booleans())
def test_overlapping_intervals_are_never_a_finding(a: float, b: float, c: float, d: float, higher: bool):
    (low, high), (control_low, control_high) = sorted((a, b)), sorted((c, d))
    control = Estimate((control_low + control_high) / 2, control_low, control_high)
    overlap = low <= control_high and control_low <= high
    found = claim(low, high, control, higher=higher).verdict
    assert not (overlap and found is Verdict.HOLDS)


def test_claims_are_split_without_loss():
    control = Estimate(0.2, 0.1, 0.3)
    made = [claim(0.8, 0.9, control), claim(0.2, 0.4, control), claim(0.8, 0.9, None)]
    assert [findings(made), negatives(made), measurements(made)] == [[made[0]], [made[1]], [made[2]]]


def test_random_sets_are_as_good_as_the_luckiest():
    rows = pd.DataFrame({
        "set": ["traced", "random-0", "random-1"], "faithfulness_frac": [0.9, 0.1, 0.5], "low": [0.8, 0.0, 0.4],
        "high": [1.0, 0.2, 0.6], "completeness_frac": [0.1, 0.9, float("nan")],
        "completeness_frac_low": [0.0, 0.8, float("nan")], "completeness_frac_high": [0.2, 1.0, float("nan")],
    })  # fmt: skip
    assert random_sets(rows, "faithfulness_frac") == (Estimate(0.3, 0.0, 0.6), 2)
    assert random_sets(rows, "completeness_frac") == (Estimate(0.9, 0.8, 1.0), 1)
    assert random_sets(rows.head(1), "faithfulness_frac") == (None, 0)
    assert random_sets(rows.drop(columns="completeness_frac"), "completeness_frac") == (None, 0)
