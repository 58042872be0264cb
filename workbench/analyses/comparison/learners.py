"""The learners that are compared: one line each, and every other registered architecture by itself.

A line says under which name an architecture appears, in which row of the methods it belongs, and with which
settings. An architecture that is registered and has no line is compared under its own name with its default
settings, so a learner that is added as one file appears here without a change. A line whose architecture is not
registered is left out, and the plan says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from workbench.dictionaries import ARCHITECTURES
from workbench.errors import UserError, nearest

BASELINE = 0
KINDS = ("planted", "model", "random")
# At 1,024 latents non-negative least squares takes 9 ms a row, 15 minutes to measure a dictionary, and the
# contrastive term of 1,024 rows with each other makes a training 20 times as long as TopK's.
PLANTED = ("planted",)
# A factorisation goes through its rows once an iteration: few rows, so that the tokens of a training are 250 of them.
PASSES = {"n_rows": 2048}
NO_CENTRE = {"start": {"bias": "zero"}}  # the biases have to travel from there, by a few thousandths a step


@dataclass(frozen=True, kw_only=True)
class Learner:
    """A learner of the comparison.

    Attributes:
        name: In tables, charts and folders.
        row: Number of its method among those of `rows.py`; 0 for a baseline, None for one that came later.
        architecture: What is trained.
        settings: Options of the architecture alone.
        options: Further options of `train`, such as `start` or `normalise`.
        pursuit: Name of the pursuit that encodes in place of the dictionary's own rule; empty for none.
        absent: Why it has no line of figures whatever is registered; empty where it has.
        kinds: Kinds of sites that it is trained at; fewer where a measurement at others would take hours.
    """

    name: str
    row: int | None
    architecture: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    pursuit: str = ""
    absent: str = ""
    kinds: tuple[str, ...] = KINDS


def _line(name: str, row: int | None, architecture: str | None = None, **more: Any) -> Learner:
    return Learner(name=name, row=row, architecture=architecture or name, **more)


LEARNERS: tuple[Learner, ...] = (
    _line("relu", BASELINE),
    _line("topk", 1),
    _line("multi_topk", 1, "topk", settings={"multi": 4}),
    _line("k_sparse", 1),
    _line("batch_topk", BASELINE),
    _line("matryoshka", BASELINE, settings={"groups": (0.2, 0.2, 0.6)}),
    _line("gated", BASELINE),
    _line("jumprelu", BASELINE),
    _line("p_anneal", BASELINE),
    _line("group_max", BASELINE),
    _line("top_afa", 2),
    _line("mutual_choice", 3),
    _line("feature_choice", 3),
    _line("bias_adaptation", 4, settings={"form": "jumprelu"}, options=NO_CENTRE),
    _line("group_bias_adaptation", 4, settings={"form": "jumprelu"}, options=NO_CENTRE),
    _line("gradient_sae", 5),
    _line("fast", 6, "topk", absent="FAST is a way of capturing conversations: see the check of its row"),
    _line("vsae", 7),
    _line("vsae_free", 7),
    _line("kron", 8, settings={"base": 2, "extension": 2}),
    _line("topk_subspace", 9, "topk", options={"start": {"subspace": 0.9}}),
    _line("semi_nmf", 10, settings={**PASSES, "keep_frac": 0.05}, kinds=PLANTED),
    _line("csr", 12, kinds=PLANTED),
    _line("topk_pursuit", 14, "topk", pursuit="gradient"),
    _line("nmf", 15, settings=PASSES, kinds=PLANTED),
)  # fmt: skip


def known_learners() -> dict[str, Learner]:
    """Every learner by name: the lines, then the registered architectures without one."""
    found = {learner.name: learner for learner in LEARNERS}
    with_line = {learner.architecture for learner in LEARNERS}
    others = [name for name in sorted(ARCHITECTURES) if name not in with_line and name not in found]
    return {**found, **{name: _line(name, None) for name in others}}


def chosen_learners(names: Sequence[str] | None) -> list[Learner]:
    """The learners of these names, in the order of the table; all where none are named.

    Raises:
        UserError: a name is not known.
    """
    known = known_learners()
    for name in names or ():
        if name not in known:
            raise UserError(f"learner {name!r} is not one of the comparison; {nearest(name, known)}")
    return [learner for name, learner in known.items() if names is None or name in names]
