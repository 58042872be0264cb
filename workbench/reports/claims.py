"""Claims: a number with its unit, its interval, its control, and the verdict that follows from the three.

The verdict is computed, never written. A claim counts as a finding only when its whole interval lies beyond
the whole interval of its control, in the direction that it names. Without an interval or without a control
it is a measurement: it is reported as such, with what is lacking.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from workbench.intervals import Estimate
from workbench.reports.format import has_interval


class Verdict(Enum):
    """What the evidence says about a claim."""

    HOLDS = "beats its control"
    FAILS = "does not beat its control"
    NO_CONTROL = "no control: not a finding"
    NO_INTERVAL = "no interval: not a finding"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One sentence with the evidence for it and the control against it.

    Attributes:
        statement: What is claimed, without the number.
        measured: The value and its 95% interval.
        unit: Unit of the value; "fraction" is shown as a percentage.
        control: The same measurement where the claim should fail, or None.
        control_name: What that is, for instance "20 random sets of equal size".
        protocol: How it was measured (ablation kind, positions, reference set).
        interval_over: What the interval resamples, for instance "prompts".
        higher: Whether the claim is that the value is above its control.
        status: "exact", "first-order" or "correlational".
        section: Anchor of the section with the evidence.
    """

    statement: str
    measured: Estimate
    unit: str
    control: Estimate | None = None
    control_name: str = ""
    protocol: str = ""
    interval_over: str = ""
    higher: bool = True
    status: str = "exact"
    section: str = ""

    @property
    def verdict(self) -> Verdict:
        """Computed from the intervals of the measurement and of its control."""
        if self.control is None or math.isnan(self.control.value):
            return Verdict.NO_CONTROL
        if not has_interval(self.measured):
            return Verdict.NO_INTERVAL
        control_low = self.control.low if has_interval(self.control) else self.control.value
        control_high = self.control.high if has_interval(self.control) else self.control.value
        beats = self.measured.low > control_high if self.higher else self.measured.high < control_low
        return Verdict.HOLDS if beats else Verdict.FAILS


def findings(claims: list[Claim]) -> list[Claim]:
    """Claims that beat their control."""
    return [claim for claim in claims if claim.verdict is Verdict.HOLDS]


def negatives(claims: list[Claim]) -> list[Claim]:
    """Claims that had a control and an interval and did not beat it: the negative results."""
    return [claim for claim in claims if claim.verdict is Verdict.FAILS]


def measurements(claims: list[Claim]) -> list[Claim]:
    """Numbers that lack a control or an interval: shown, but not as findings."""
    return [c for c in claims if c.verdict in (Verdict.NO_CONTROL, Verdict.NO_INTERVAL)]
