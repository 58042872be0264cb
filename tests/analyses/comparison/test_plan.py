"""The plan: a line per learner, others by themselves, what is left out with its reason, bad input refused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest

from workbench.analyses.comparison.learners import LEARNERS, Learner, known_learners
from workbench.analyses.comparison.plan import make_plan, skip_reason
from workbench.analyses.comparison.sites import SITES
from workbench.analyses.comparison.sizes import SIZES
from workbench.dictionaries.learners.topk import TopK
from workbench.dictionaries.registry import ARCHITECTURES, register
from workbench.errors import UserError

SMOKE = SIZES["smoke"]


@pytest.fixture
def nineteenth() -> Iterator[str]:
    """A learner that nobody wrote a line for."""

    @dataclass(frozen=True, kw_only=True)
    class Nineteenth(TopK):
        """TopK under another name."""

        name: ClassVar[str] = "nineteenth"

    register(Nineteenth)
    yield "nineteenth"
    del ARCHITECTURES["nineteenth"]


def test_a_learner_without_a_line_is_in_the_plan(nineteenth: str) -> None:
    assert nineteenth in known_learners()
    plan = make_plan(SMOKE, learners=[nineteenth])
    assert {member.learner.architecture for member in plan.members} == {nineteenth}
    assert [member.learner.row for member in plan.members[:1]] == [None]


def test_every_member_of_the_product_is_there_once() -> None:
    plan = make_plan(
        SMOKE, learners=["topk", "relu"], sites=["planted.zipf", "planted.zipf.shuffled", "model.mlp"]
    )
    count = {site.name: len(plan.at(site)) for site in plan.sites}
    assert count == {"planted.zipf": 4, "planted.zipf.shuffled": 2, "model.mlp": 4}
    assert len({member.identity for member in plan.members}) == len(plan.members)
    assert len({(member.site.folder, member.name) for member in plan.members}) == len(plan.members)


def test_the_full_size_has_a_frontier_and_all_controls() -> None:
    plan = make_plan(SIZES["full"], learners=["topk"])
    assert {member.k for member in plan.at(SITES["model.resid"])} == {8, 16, 32}
    assert [site.name for site in plan.sites] == list(SITES)


def test_names_of_lines_are_unique_and_their_rows_are_rows() -> None:
    names = [learner.name for learner in LEARNERS]
    assert len(set(names)) == len(names)
    assert all(learner.row is None or 0 <= learner.row <= 18 for learner in LEARNERS)


def test_what_is_not_registered_is_left_out_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(ARCHITECTURES, "gated")
    plan = make_plan(SMOKE, learners=["topk", "gated"], sites=["planted.zipf"])
    assert [one.learner for one in plan.skipped] == ["gated"]
    assert "architecture 'gated' is not registered" in plan.skipped[0].reason


def test_needs_that_a_site_has_not_and_bad_settings_are_reasons(nineteenth: str) -> None:
    member = make_plan(SMOKE, learners=[nineteenth], sites=["planted.zipf"]).members[0]
    wrong = Learner(name="wrong", row=None, architecture="topk", settings={"multy": 2})
    assert "setting 'multy' is not one of architecture 'topk'" in skip_reason(replace(member, learner=wrong))
    large = replace(
        member,
        learner=Learner(name="large", row=None, architecture="matryoshka", settings={"groups": (1.5,)}),
    )
    assert "groups [1.5]" in skip_reason(large)

    @dataclass(frozen=True, kw_only=True)
    class Needy(TopK):
        """Wants gradients."""

        @property
        def needs(self) -> tuple[str, ...]:
            return ("gradient",)

    ARCHITECTURES[nineteenth] = Needy
    assert skip_reason(member) == "it needs the gradient of each row, which this site has not"
    assert skip_reason(replace(member, site=SITES["model.resid"])) == ""


def test_nmf_is_trained_where_no_number_is_negative_and_left_out_elsewhere_with_the_reason() -> None:
    plan = make_plan(
        SIZES["full"], learners=["nmf"], sites=["planted.zipf", "planted.neurons", "model.resid"]
    )
    assert {member.site.name for member in plan.members} == {"planted.neurons"}
    reasons = {site: one.reason for one in plan.skipped for site in one.sites}
    assert reasons["planted.zipf"].startswith("it takes no negative numbers")
    assert "takes minutes" in reasons["model.resid"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learners": ["topk", "tokp"]}, "learner 'tokp' is not one of the comparison; the nearest: topk"),
        (
            {"sites": ["model.residual"]},
            "site 'model.residual' is not one of the comparison; the nearest: model.resid",
        ),
        ({"seeds": []}, r"seeds \[\] are not at least one number"),
        ({"seeds": [1, 1]}, r"seeds \[1, 1\]"),
        ({"seeds": [-1]}, r"seeds \[-1\]"),
        ({"learners": ["fast"]}, r"nothing is left to compare \(FAST is a way of capturing"),
    ],
)
def test_bad_input_is_refused(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_plan(SMOKE, **options)
