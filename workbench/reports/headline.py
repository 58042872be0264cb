"""The first screen of a report: the question, three sentences, the verdict, three figures with controls.

Everything is computed from the run's claims. The sentences name every traced task (or the first few, and
how many more), so the answer cannot be the best case of many; the figures are those of the first task that
the run names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from workbench.reports.charts import Chart
from workbench.reports.circuit_charts import RANDOM, TRACED, faithfulness_chart, faithfulness_rows
from workbench.reports.claims import Claim, Verdict, findings, negatives
from workbench.reports.evidence import row_unit
from workbench.reports.format import correlation_text, estimate_text, interval_text, value_text
from workbench.reports.read import RunData, TaskData

NAMED_TASKS = 4


@dataclass(frozen=True)
class Tile:
    """One figure of the first screen, with its interval and its control."""

    value: str
    interval: str
    what: str
    control: str


@dataclass(frozen=True)
class Headline:
    """What the first screen shows."""

    question: str
    subtitle: str
    answer: str
    verdict: str
    verdict_detail: str
    tiles: tuple[Tile, ...]
    chart: Chart | None


def run_subject(run: RunData) -> tuple[str, str]:
    """The model and the hook of a run, as far as its files name them."""
    metadata = run.dictionary.get("metadata", {})
    model = run.setting("model") or metadata.get("model_name") or "the model"
    hook = metadata.get("hook_name") or run.dictionary.get("hook_name") or run.setting("hook") or ""
    name = "the embedded model" if model == "embedded" else str(model)
    return "no model" if row_unit(run.evaluation) == "rows" else name, str(hook)


def default_question(run: RunData) -> str:
    """What a report asks whose run does not say."""
    model, hook = run_subject(run)
    if row_unit(run.evaluation) == "rows":
        return f"Which features is the array {hook} made of?"
    return f"Which parts of {model} do its tasks run on, and which features?"


def _claim(claims: list[Claim], section: str, start: str = "", unit: str = "") -> Claim | None:
    """The first claim of a section whose statement starts so and that has the unit."""
    fitting = (
        c for c in claims if c.section == section and c.statement.startswith(start) and unit in ("", c.unit)
    )
    return next(fitting, None)


def first_task(run: RunData) -> TaskData | None:
    """The first task in the order of run.yaml, else of the alphabet."""
    wanted = run.setting("task") or []
    order = {str(name): i for i, name in enumerate([wanted] if isinstance(wanted, str) else wanted)}
    return min(run.tasks, key=lambda task: (order.get(task.name, len(order)), task.name), default=None)


def traced_claims(claims: list[Claim]) -> list[Claim]:
    """The claims that a traced set alone keeps its task, the first kind of each task."""
    chosen: dict[str, Claim] = {}
    for claim in claims:
        if claim.section == "ablation" and claim.higher:
            chosen.setdefault(claim.statement.partition(":")[0], claim)
    return list(chosen.values())


def dictionary_sentence(claims: list[Claim]) -> str:
    """How much the dictionary keeps, and what a random one keeps."""
    claim = _claim(claims, "dictionary", "Spliced") or _claim(claims, "dictionary")
    if claim is None:
        return "This run evaluated no dictionary."
    if claim.statement.startswith("Spliced"):
        kept = estimate_text(claim.measured, "fraction")
        found = (
            f"Spliced into the model, the dictionary recovers {kept} of the loss that zeroing its hook costs"
        )
    else:
        found = (
            f"The dictionary leaves {estimate_text(claim.measured, 'fraction')} of the variance unexplained"
        )
    if claim.control is None:
        return f"{found}; it has no control, so this is no finding."
    return (
        f"{found}; for a random dictionary of equal size it is {value_text(claim.control.value, 'fraction')}."
    )


def circuit_sentence(claims: list[Claim]) -> str:
    """On how many tasks the traced circuit beats every random set, and by how much."""
    traced = traced_claims(claims)
    if not traced:
        return "No circuit was ablated."
    held = sum(claim.verdict is Verdict.HOLDS for claim in traced)
    parts = []
    for claim in traced[:NAMED_TASKS]:
        chance = f" against {value_text(claim.control.value, 'fraction')}" if claim.control else ""
        parts.append(
            f"{claim.statement.partition(':')[0]} {value_text(claim.measured.value, 'fraction')}{chance}"
        )
    more = f" and {len(traced) - NAMED_TASKS} more below" if len(traced) > NAMED_TASKS else ""
    return (
        f"The traced circuit, alone, keeps more of the task than random sets of equal size on {held} of {len(traced)} "
        f"tasks ({', '.join(parts)} on average{more})."
    )


def prediction_sentence(claims: list[Claim]) -> str:
    """How well first-order effects predict interventions, over the tasks."""
    found = [claim for claim in claims if claim.section == "circuits" and claim.unit == "r"]
    if not found:
        return "No effect was verified by an intervention."
    low, high = min(c.measured.value for c in found), max(c.measured.value for c in found)
    low_text, high_text = correlation_text(low), correlation_text(high)
    span = f"r = {low_text}" if len(found) == 1 else f"r from {low_text} to {high_text}"
    held = sum(claim.verdict is Verdict.HOLDS for claim in found)
    beyond = f"beyond shuffled predictions on {held} of {len(found)} tasks"
    return f"First-order effects predict interventions with {span}, {beyond}."


def _tile(claim: Claim | None, what: str) -> Tile | None:
    if claim is None or claim.control is None or claim.verdict in (Verdict.NO_CONTROL, Verdict.NO_INTERVAL):
        return None
    value, interval = value_text(claim.measured.value, claim.unit), interval_text(claim.measured, claim.unit)
    control = f"{estimate_text(claim.control, claim.unit)}, {claim.control_name}"
    return Tile(value, interval, f"{what}; {claim.verdict.value}", control)


def tiles(claims: list[Claim], task: TaskData | None) -> tuple[Tile, ...]:
    """Up to three figures: dictionary, circuit, prediction; the last two of one task."""
    name = task.name if task else ""
    traced = next((c for c in traced_claims(claims) if c.statement.startswith(f"{name}:")), None)
    made = (
        _tile(_claim(claims, "dictionary", "Spliced"), "of the loss is recovered by the dictionary"),
        _tile(traced, f"of the logit difference of {name} is kept by its traced circuit alone"),
        _tile(
            _claim(claims, "circuits", f"{name}:", "r"),
            f"correlation of predicted and measured effects, {name}",
        ),
    )
    return tuple(tile for tile in made if tile is not None)


def headline_chart(run: RunData) -> Chart | None:
    """Traced circuits against random sets, of components where they were ablated, else of the first kind."""
    kinds = sorted(
        {str(kind) for task in run.tasks if not task.ablation.empty for kind in task.ablation["kind"]}
    )
    if not kinds:
        return None
    kind = "components" if "components" in kinds else kinds[0]
    rows = [faithfulness_rows(task, kind) for task in run.tasks if not task.ablation.empty]
    shown: Any = pd.concat(rows, ignore_index=True)
    shown = shown[shown["label"].isin([TRACED, RANDOM])].reset_index(drop=True)
    title = f"What the traced circuit ({kind}) keeps of each task, on its own"
    return None if shown.empty else faithfulness_chart(shown, name="headline", title=title, wide=True)


def headline(run: RunData, claims: list[Claim]) -> Headline:
    """The first screen of the report of a run."""
    model, hook = run_subject(run)
    asked = str(run.setting("question") or default_question(run))
    held, failed = len(findings(claims)), len(negatives(claims))
    answer = " ".join((dictionary_sentence(claims), circuit_sentence(claims), prediction_sentence(claims)))
    verdict = (
        f"{held} of {held + failed} controlled claims hold" if held + failed else "Nothing is claimed yet"
    )
    detail = f"{failed} did not beat the control; both kinds are in the table of claims." if failed else ""
    subtitle = " · ".join(part for part in (model, hook) if part)
    return Headline(
        asked, subtitle, answer, verdict, detail, tiles(claims, first_task(run)), headline_chart(run)
    )
