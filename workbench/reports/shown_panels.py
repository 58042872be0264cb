"""The panels of a report beyond cards and graphs: what they show, under which sentence, and what is shipped.

Each is the panel of the laboratory, frozen: the same module draws it, and what would need Python says so. A panel
whose part of the run is missing leaves a sentence with the command that makes it. Texts are fixed, so the same run
gives the same report.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from workbench.errors import UserError
from workbench.panels.session import RunSession
from workbench.progress import Progress


@dataclass(frozen=True)
class Shown:
    """One panel of the report.

    Attributes:
        section: The section it stands in.
        panel: Name of its class in `workbench.panels`.
        title: Heading above it.
        claim: The line under the heading: what is to be seen.
        freeze: What is shipped, as keyword arguments of the panel's `freeze`, from the report's features.
        task: Whether it is of one task, the first.
    """

    section: str
    panel: str
    title: str
    claim: str
    freeze: Callable[[list[int]], dict[str, Any]] = lambda _features: {}
    task: bool = False


SHOWN = (
    Shown(
        "features",
        "FeatureTable",
        "The features as a list",
        "Search labels and tokens, sort and filter; a chosen row is shown in the first card.",
        lambda features: {"features": sorted(features)},
    ),
    Shown(
        "features",
        "FeatureMap",
        "The features as a map",
        "Directions that are alike lie close together; distances across the map mean nothing.",
    ),
    Shown(
        "model",
        "TextProbe",
        "Which features fire on a text",
        "Each column is a token, each row a layer with a dictionary; a chosen token lists its strongest features.",
    ),
    Shown(
        "model",
        "LayerLens",
        "What each layer would say next",
        "The logit lens: the final norm and the unembedding applied to every layer's residual stream (correlational).",
    ),
    Shown(
        "model",
        "HeadFinder",
        "What each head attends to",
        "Every head's score beside its chance level, and its pattern on a text.",
    ),
    Shown(
        "circuits",
        "Intervene",
        "Interventions side by side",
        "Each column is one change to the same prompts, beside the unchanged model and a random target of equal size.",
        task=True,
    ),
    Shown(
        "ablation",
        "AblationReport",
        "Every set that was ablated",
        "How much of a task each set keeps, with its interval and the random sets of the same size.",
    ),
    Shown(
        "dictionary",
        "CompareDicts",
        "Two dictionaries compared",
        "Matched, split and unmatched features, beside the same matching with random directions.",
    ),
)


@dataclass(frozen=True)
class Place:
    """A panel in the page, or why it is not there."""

    title: str
    claim: str
    spot: str
    module: str = ""
    state: dict[str, Any] | None = None
    absent: str = ""


def _frozen(shown: Shown, session: RunSession, features: list[int], task: str) -> Place:
    cls = getattr(importlib.import_module("workbench.panels"), shown.panel)
    options = {"task": task} if shown.task and task else {}
    place = Place(shown.title, shown.claim, f"shown-{cls.panel.replace('_', '-')}")
    panel = cls.from_run(session, **options)
    if problem := panel.problem or panel.absent_from_reports():
        return replace(place, absent=_without_paths(problem, session))
    try:
        state = panel.freeze(**shown.freeze(features))
    except (UserError, OSError) as error:
        return replace(place, absent=_without_paths(str(error), session))
    return replace(place, module=cls.panel, state=state)


def _without_paths(text: str, session: RunSession) -> str:
    """A sentence that names the run by its name: a page that is shared says nothing of the machine."""
    for folder in (session.folder.resolve(), session.folder):
        text = text.replace(str(folder), session.name)
    return text


def shown_places(session: RunSession, features: list[int], *, task: str) -> dict[str, list[Place]]:
    """The report's further panels by section, in the order of `SHOWN`."""
    places: dict[str, list[Place]] = {shown.section: [] for shown in SHOWN}
    with Progress(len(SHOWN), "report: panels", "panels") as progress:
        for shown in SHOWN:
            places[shown.section].append(_frozen(shown, session, features, task))
            progress.advance()
    return places


def place_spots(places: dict[str, list[Place]]) -> list[dict[str, Any]]:
    """What the page draws in them."""
    return [
        {"id": place.spot, "module": place.module, "state": place.state}
        for section in places.values()
        for place in section
        if place.state is not None
    ]
