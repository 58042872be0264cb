"""A comparison from end to end: every figure has a value, random loses, a broken learner is caught, Ctrl-C goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import pytest

from tests.analyses.comparison.smoke import PAIR
from workbench.analyses.comparison import compare, read_comparison
from workbench.analyses.comparison.figures import FIGURES
from workbench.analyses.comparison.learners import known_learners
from workbench.analyses.comparison.plan import make_plan
from workbench.analyses.comparison.reading import Compared, lost_to_random, near_l0, over_sites
from workbench.analyses.comparison.sizes import SIZES
from workbench.errors import UserError

pytestmark = pytest.mark.timeout(900)  # the smoke comparison takes 80 s on a quiet core
LOSING = ["planted.zipf", "model.resid"]
RANKED = [name for name, figure in FIGURES.items() if figure.controlled and figure.better]


def test_every_learner_is_measured_at_every_site_that_has_what_it_needs(made: Compared) -> None:
    plan = make_plan(SIZES["smoke"], seeds=[0])
    assert set(made.table["status"]) == {"measured"}
    own = made.table[made.table["set"] == "trained"]
    found = set(zip(own["learner"], own["site"], own["seed"], strict=True))
    assert found >= {(member.learner.name, member.site.name, member.seed) for member in plan.members}
    assert {one["learner"] for one in made.record["skipped"]} == {
        "fast", "gradient_sae", "semi_nmf", "csr", "nmf", "group_max",
    }  # fmt: skip
    assert set(known_learners()) - set(own["learner"]) == {"fast"}
    assert (made.run / "comparison.html").stat().st_size > 1_000_000


def test_every_figure_has_a_value_where_it_belongs(made: Compared) -> None:
    summary = made.summary[(made.summary["set"] == "trained") & made.summary["learner"].isin(PAIR)]
    by_site = {
        site: {name for name in FIGURES if group[name].notna().all()}
        for site, group in summary.groupby("site")
    }
    common = {"fvu", "l0", "dead_frac", "train_tokens_per_cpu_s", "encode_tokens_per_cpu_s"}
    assert by_site["planted.zipf.shuffled"] == common | {"recovered_frac", "mmcs"}
    planted = common | {"recovered_frac", "mmcs", "support_f1", "stability_cosine"}
    assert by_site["planted.zipf"] == planted
    assert by_site["planted.hierarchical"] == planted | {
        "absorption_frac",
        "parent_recall_frac",
        "leak_cosine",
    }
    probes = {"probe1_accuracy_frac", "probe5_accuracy_frac", "probe5_shuffled_frac"}
    losses = {"ce_recovered_frac", "kl_recovered_frac"}
    assert by_site["model.resid"] == common | losses | probes | {"stability_cosine"}


@pytest.mark.parametrize("site", LOSING)
@pytest.mark.parametrize("learner", PAIR)
def test_a_random_dictionary_loses_on_every_figure_with_every_seed(
    made: Compared, site: str, learner: str
) -> None:
    own = made.table[(made.table["site"] == site) & (made.table["learner"] == learner)]
    sides = {kind: own[own["set"] == kind].sort_values("seed") for kind in ("trained", "random")}
    compared = [name for name in RANKED if sides["trained"][name].notna().all()]
    assert len(compared) >= 5
    for name in compared:
        gain = FIGURES[name].better * (sides["trained"][name].to_numpy() - sides["random"][name].to_numpy())
        assert (gain > 0).all(), name


def test_nothing_is_recovered_from_permuted_columns_or_by_random_directions(made: Compared) -> None:
    table = made.table[made.table["site"].str.match("planted.(zipf|hierarchical)")]
    nothing = table[(table["set"] == "random") | table["site"].str.endswith("shuffled")]
    assert nothing["recovered_frac"].max() == 0
    assert table["recovered_frac"].max() > 0.3


def test_permuted_labels_are_at_chance(made: Compared) -> None:
    assert (made.probes["shuffled_frac"].mean() - 0.5) == pytest.approx(0, abs=0.03)
    assert set(made.probes["n_latents"]) == {1, 2, 3, 4, 5}


def test_means_over_sites_are_of_the_same_sites(made: Compared) -> None:
    found = over_sites(made, "recovered_frac", ["planted.zipf", "planted.hierarchical"])
    own = made.table[
        made.table["site"].isin(["planted.zipf", "planted.hierarchical"]) & (made.table["set"] == "trained")
    ]
    wanted = own.groupby("learner")["recovered_frac"].mean()
    both = own.groupby("learner")["site"].nunique() == 2
    assert {name: one.value for name, one in found.items()} == pytest.approx(wanted[both].to_dict())
    values = [one.value for one in found.values()]
    assert values == sorted(values, reverse=True)
    assert "nmf" not in found
    assert over_sites(made, "recovered_frac", ["planted.zipf", "model.resid"]) == {}
    assert set(PAIR) <= set(near_l0(made, "planted.zipf"))


def test_a_second_call_trains_nothing(
    made_run: Path, made: Compared, monkeypatch: pytest.MonkeyPatch
) -> None:
    from workbench.analyses.comparison import group

    monkeypatch.setattr(group, "train_members", lambda *given: pytest.fail("trained again"))
    said: list[str] = []
    again = compare(
        made_run, size="smoke", learners=["topk"], sites=["planted.zipf"], check_seeds=[], say=said.append
    )
    assert said == []
    pd.testing.assert_frame_equal(again, made.table)


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> str:
    """A size of a second."""
    small = replace(SIZES["smoke"], name="tiny", planted_rows=2048, planted_steps=30, n_measured_rows=512)
    monkeypatch.setitem(SIZES, "tiny", small)  # type: ignore[arg-type]
    return "tiny"


@pytest.fixture
def broken() -> Iterator[dict[str, Any]]:
    """Learners with a fault: one trains and then forgets all, one fails at its first step."""
    from workbench.dictionaries import random_dictionary
    from workbench.dictionaries.learners.topk import TopK
    from workbench.dictionaries.registry import ARCHITECTURES, register

    @dataclass(frozen=True, kw_only=True)
    class Blind(TopK):
        """Freezes to random directions."""

        name: ClassVar[str] = "blind"

        def freeze(self, *args: Any, **about: Any) -> Any:
            made = super().freeze(*args, **about)
            return replace(
                made, **{k: getattr(random_dictionary(like=made, seed=3), k) for k in ("W_enc", "W_dec")}
            )

    @dataclass(frozen=True, kw_only=True)
    class Falls(TopK):
        """Fails."""

        name: ClassVar[str] = "falls"

        def encode(self, *args: Any) -> Any:
            raise IndexError("no such latent")

    yield {one.name: register(one) for one in (Blind, Falls)}
    for name in ("blind", "falls"):
        del ARCHITECTURES[name]


def test_broken_learners_are_caught_and_do_not_keep_others_from_being_compared(
    tmp_path: Path, tiny: str, broken: dict[str, Any]
) -> None:
    chosen = ["topk", *broken]
    compare(tmp_path, size=tiny, learners=chosen, sites=["planted.zipf"], check_seeds=[], say=len)
    found = read_comparison(tmp_path)
    refused = found.refused().set_index("learner")
    assert refused.loc["falls", "reason"] == "IndexError: no such latent"
    lost = lost_to_random(found).groupby("learner")["figure"].agg(set)
    assert {"recovered_frac", "mmcs", "support_f1"} <= lost["blind"]
    assert not {"mmcs", "fvu"} & lost.get("topk", set())
    value = found.summary.set_index(["learner", "set"])["mmcs"]
    assert value["blind", "trained"] < 0.5 < value["topk", "trained"]


def test_ctrl_c_goes_on_where_it_stopped(tmp_path: Path, tiny: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from workbench.analyses.comparison import group

    options: dict[str, Any] = {
        "size": tiny, "learners": ["topk"], "sites": ["planted.zipf", "planted.absorbed"], "check_seeds": [],
        "workers": 1, "say": len,
    }  # fmt: skip
    whole = compare(tmp_path / "whole", **options)
    trained: list[str] = []
    real: Callable[..., Any] = group.train_members

    def counted(members, data):
        trained.append(f"{data.site.name}-{members[0].seed}")
        if len(trained) == 3:
            raise KeyboardInterrupt
        return real(members, data)

    monkeypatch.setattr(group, "train_members", counted)
    with pytest.raises(KeyboardInterrupt):
        compare(tmp_path / "cut", **options)
    assert len(read_comparison(tmp_path / "cut").table) == 4
    resumed = compare(tmp_path / "cut", **options)
    assert trained[2:] == ["planted.absorbed-0", "planted.absorbed-0", "planted.absorbed-1"]
    timed = [name for name in FIGURES if name.endswith("_per_cpu_s")]
    pd.testing.assert_frame_equal(resumed.drop(columns=timed), whole.drop(columns=timed))


def test_a_folder_holds_one_size_and_an_empty_one_none(made_run: Path, tmp_path: Path, tiny: str) -> None:
    with pytest.raises(UserError, match="holds a comparison of size 'smoke', not 'tiny': use another"):
        compare(made_run, size=tiny, learners=["topk"], check_seeds=[])
    with pytest.raises(UserError, match="holds no comparison: make one with `workbench compare --run"):
        read_comparison(tmp_path)
    with pytest.raises(UserError, match="size 'ful' of a comparison is not known; the nearest: full"):
        compare(tmp_path, size="ful")
