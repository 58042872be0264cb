"""Sites shared out to processes: the figures of one process, an interrupt that loses nothing, folders kept apart."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import pytest

from workbench.analyses.comparison import compare
from workbench.analyses.comparison.figures import FIGURES
from workbench.analyses.comparison.plan import make_plan
from workbench.analyses.comparison.results import Results
from workbench.analyses.comparison.sizes import SIZES
from workbench.analyses.comparison.workers import can_be_sent, folders_of
from workbench.dictionaries.learners.topk import TopK
from workbench.dictionaries.registry import ARCHITECTURES, register
from workbench.errors import UserError

TIMED = [name for name in FIGURES if name.endswith("_per_cpu_s")]


def test_what_shares_a_folder_stays_together_and_the_longest_come_first() -> None:
    members = make_plan(SIZES["full"], learners=["topk"]).members
    folders = folders_of(members)
    assert [own[0].site.folder for own in folders[:2]] == ["model", "random"]
    assert {member.site.name for member in folders[0]} == {"model.resid", "model.mlp"}
    assert sum(map(len, folders)) == len(members)
    assert len({own[0].site.folder for own in folders}) == len(folders)


def test_fewer_than_one_process_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="workers 0 is not at least 1"):
        compare(tmp_path / "run", workers=0)
    assert not (tmp_path / "run").exists()


def test_a_learner_that_was_registered_by_hand_stays_in_this_process() -> None:
    @dataclass(frozen=True, kw_only=True)
    class ByHand(TopK):
        """TopK under another name."""

        name: ClassVar[str] = "by_hand"

    register(ByHand)
    try:
        members = make_plan(SIZES["smoke"], learners=["topk", "by_hand"], sites=["planted.zipf"]).members
        assert not can_be_sent(members)
        assert can_be_sent([member for member in members if member.learner.name == "topk"])
    finally:
        del ARCHITECTURES["by_hand"]


def test_processes_give_the_figures_of_one_and_an_interrupt_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = replace(SIZES["smoke"], name="tiny", planted_rows=2048, planted_steps=30, n_measured_rows=512)
    monkeypatch.setitem(SIZES, "tiny", small)  # type: ignore[arg-type]
    options: dict[str, Any] = {
        "size": "tiny", "learners": ["topk", "relu"], "sites": ["planted.zipf", "planted.neurons"],
        "check_seeds": [], "say": len,
    }  # fmt: skip
    wanted = compare(tmp_path / "one", **options, workers=1)

    real, added = Results.add, []

    def interrupted(self: Results, *rows: Any) -> None:
        real(self, *rows)
        added.append(rows)
        if len(added) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(Results, "add", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compare(tmp_path / "two", **options, workers=2)
    assert 0 < len(Results(tmp_path / "two").table) < len(wanted)
    found = compare(tmp_path / "two", **options, workers=2)
    places = ["site", "learner", "seed", "set"]
    sides = [table.drop(columns=TIMED).sort_values(places, ignore_index=True) for table in (found, wanted)]
    pd.testing.assert_frame_equal(*sides)
    assert found["stability_cosine"].notna().all()
