"""Two dictionaries side by side: which features both have, which were split, which only one of them has.

The dictionaries are those of the run (the main one, members of a sweep, other layers') and of other runs. The
comparison (`decoder_matching.py`) is asked for ("match") for a pair and a threshold: counts with the counts that
random directions reach, histograms of the best cosines, densities, and lists of pairs as binary columns. A pair
is shown as two small cards ("pair"). The frontier of all evaluated dictionaries is a trait.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import traitlets

from workbench.errors import UserError, nearest
from workbench.panels.answers import Answer, answers
from workbench.panels.base import Panel
from workbench.panels.compare_subjects import Subject, find_subjects, frontier_points, small_card
from workbench.panels.decoder_matching import (
    FLOOR,
    Cosines,
    Matching,
    cosines,
    lists,
    match,
    random_rows,
    share,
)
from workbench.panels.session import RunSession

THRESHOLD, STEP = 0.7, 0.05
SHIPPED_PAIRS, CARDS = 100, 8
KEPT = 3
CONTROLS = {"random directions": False, "random like B": True}
EDGES = np.linspace(0, 1, 51)
LOG_DENSITY = np.arange(-6, 0.26, 0.25)


class CompareDicts(Panel):
    """Matched, split and lone features of two dictionaries, with chance beside them.

    Args:
        subjects: The dictionaries by name.
        a: The first to show; by default the first.
        b: The second; by default the next.
        threshold: Least cosine of a pair.

    Traits:
        dictionaries: {name, hook, architecture, d_sae, k, evaluated} of each.
        points: Of the frontier (`frontier_points`).
        a, b, threshold: What is compared.
        floor: Least threshold.
        cards: Pairs that a page holds cards of, as [a, b].
    """

    panel: ClassVar[str] = "compare_dicts"

    dictionaries = traitlets.List().tag(sync=True)
    points = traitlets.List().tag(sync=True)
    a = traitlets.Unicode().tag(sync=True)
    b = traitlets.Unicode().tag(sync=True)
    threshold = traitlets.Float(THRESHOLD).tag(sync=True)
    floor = traitlets.Float(FLOOR).tag(sync=True)
    most = traitlets.Int(0).tag(sync=True)
    cards = traitlets.List().tag(sync=True)

    def __init__(
        self, subjects: Mapping[str, Subject], *, a: str | None = None, b: str | None = None,
        threshold: float = THRESHOLD, **traits: Any,
    ) -> None:  # fmt: skip
        self._subjects = dict(subjects)
        self._found: dict[tuple[str, str], dict[str, Cosines]] = {}
        self._lock = threading.Lock()
        names = list(self._subjects)
        first = self._subject(a or names[0]).name
        second = self._subject(b or next((name for name in names if name != first), first)).name
        super().__init__(
            dictionaries=[subject.about() for subject in self._subjects.values()],
            points=frontier_points(self._subjects.values()), a=first, b=second, threshold=threshold, **traits,
        )  # fmt: skip

    @classmethod
    def open_run(
        cls, session: RunSession, *, others: Iterable[RunSession | Path | str] = (), **options: Any
    ) -> CompareDicts:
        """The dictionaries of a run, and of others.

        Raises:
            UserError: there is no dictionary.
        """
        sessions = [session, *(RunSession.of(other) for other in others)]
        subjects = {name: found for one in sessions for name, found in find_subjects(one).items()}
        if not subjects:
            session.need("dictionary/cfg.json", stage="train")
        return cls(subjects, **options)

    def _subject(self, name: str) -> Subject:
        if name not in self._subjects:
            raise UserError(f"dictionary {name!r} is not here; {nearest(name, self._subjects)}")
        return self._subjects[name]

    def _cosines(self, a: str, b: str) -> dict[str, Cosines]:
        """The cosines of a pair and of its controls; those of the last pairs are kept."""
        with self._lock:
            if (a, b) in self._found:
                return self._found[a, b]
        first, second = self._subject(a).decoder, self._subject(b).decoder
        made = {"": cosines(first, second, label="comparing")}
        for name, shaped in CONTROLS.items():
            made[name] = cosines(first, random_rows(second, shaped=shaped), label=f"control: {name}")
        with self._lock:
            self._found = dict([*self._found.items(), ((a, b), made)][-KEPT:])
        return made

    @answers("match", long=True)
    def match(self, *, a: str, b: str, threshold: float, most: int = 0) -> Answer:
        """Counts, controls, densities, and the lists of pairs as int32, int32, float32.

        Args:
            a: The first dictionary.
            b: The second.
            threshold: Least cosine of a pair.
            most: Pairs of each list that are given; 0 for all.
        """
        found = self._cosines(a, b)
        made = match(found[""], threshold=threshold)
        listed = lists(found[""], made)
        sizes = {name: len(part["cosine"]) for name, part in listed.items()}
        cut = {name: {key: x[: most or None] for key, x in part.items()} for name, part in listed.items()}
        value = {
            "method": made.method, "n_a": len(made.partner_a), "n_b": len(made.partner_b), "counts": made.counts(),
            "shares": {side: share(made.counts()["matched"], n)
                       for side, n in (("a", len(made.partner_a)), ("b", len(made.partner_b)))},
            "controls": [_control(name, found[name], threshold) for name in CONTROLS],
            "densities": self._densities(a, b, made),
            "lists": {name: {"n": sizes[name], "given": len(part["cosine"])} for name, part in cut.items()},
        }  # fmt: skip
        blocks = [part[key].tobytes() for part in cut.values() for key in ("a", "b", "cosine")]
        return Answer(value, (b"".join(blocks),))

    @answers("histograms", long=True)
    def histograms(self, *, a: str, b: str) -> dict[str, Any]:
        """Shares of features by best cosine: of each dictionary with the other, and of the first with controls."""
        found = self._cosines(a, b)
        sides = {"a": found[""].best_a, "b": found[""].best_b}
        sides |= {name: found[name].best_a for name in CONTROLS}
        shares = {name: np.histogram(best.clip(0, 1), EDGES)[0] / len(best) for name, best in sides.items()}
        return {"edges": EDGES.tolist(), **{name: x.round(6).tolist() for name, x in shares.items()}}

    def _densities(self, a: str, b: str, made: Matching) -> dict[str, Any]:
        """How often features fire, matched and not: counts over log10 of the density, where there is a store."""
        found: dict[str, Any] = {"edges": LOG_DENSITY.tolist()}
        for side, name, partner in (("a", a, made.partner_a), ("b", b, made.partner_b)):
            store = self._subject(name).store
            if store is None or store.n_features != len(partner):
                continue
            density = store.table["density_frac"].to_numpy()
            found[side] = {
                "matched": _density_counts(density[partner >= 0]), "unmatched": _density_counts(density[partner < 0]),
            }  # fmt: skip
        return found

    @answers("pair")
    def pair(self, *, a: str, b: str, first: int, second: int) -> list[dict[str, Any]]:
        """Two features as small cards: {name, feature, hook, density_frac, max, tokens, example, note} each."""
        return [small_card(self._subject(a), first), small_card(self._subject(b), second)]

    def freeze(
        self,
        questions: Iterable[Any] = (),
        *,
        thresholds: Iterable[float] = (),
        most_pairs: int = SHIPPED_PAIRS,
        most_cards: int = CARDS,
    ) -> dict[str, Any]:
        """The comparison of the present pair for a page without Python.

        Args:
            questions: Further ones.
            thresholds: Thresholds that the page's slider has; by default all in steps of 0.05.
            most_pairs: Pairs of each list; the page says how many there are.
            most_cards: Of the first matched, split and lone pairs, how many come with their cards.
        """
        steps = np.round(np.arange(FLOOR, 1, STEP), 2).tolist()
        wanted = dict.fromkeys([self.threshold, *(list(thresholds) or steps)])
        asked = [("match", {"a": self.a, "b": self.b, "threshold": t, "most": most_pairs}) for t in wanted]
        chosen = self._first_pairs(most_cards)
        asked += [("histograms", {"a": self.a, "b": self.b})]
        asked += [("pair", {"a": self.a, "b": self.b, "first": i, "second": j}) for i, j in chosen]
        return {**super().freeze([*questions, *asked]), "most": most_pairs, "cards": chosen}

    def absent_from_reports(self) -> str:
        """Why a report does without it: a dictionary compared with itself says nothing."""
        if self.a != self.b:
            return ""
        return f"there is one dictionary, {self.a!r}: train a second one, for instance with a sweep, and build again"

    def _first_pairs(self, n: int) -> list[list[int]]:
        """The first `n` pairs of each list."""
        found = self._cosines(self.a, self.b)[""]
        listed = lists(found, match(found, threshold=self.threshold)).values()
        return [[int(part["a"][i]), int(part["b"][i])] for part in listed for i in range(len(part["a"][:n]))]


def _control(name: str, found: Cosines, threshold: float) -> dict[str, Any]:
    """What the same matching makes of random directions."""
    counts = match(found, threshold=threshold).counts()
    return {"name": name, "matched": counts["matched"], "alone_a": counts["alone_a"],
            "share": share(counts["matched"], len(found.best_a))}  # fmt: skip


def _density_counts(density: np.ndarray) -> list[int]:
    """Counts over `LOG_DENSITY`; features that never fired are in no bin."""
    fired = np.log10(density[density > 0]).clip(LOG_DENSITY[0], LOG_DENSITY[-1])
    return np.histogram(fired, LOG_DENSITY)[0].tolist()
