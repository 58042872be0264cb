"""The members of one site and one seed: trained together, measured together, handed on as rows of the results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from workbench.analyses.comparison.data import SiteData
from workbench.analyses.comparison.estimate import member_speed
from workbench.analyses.comparison.measure import measure, random_beside
from workbench.analyses.comparison.plan import Member
from workbench.analyses.comparison.results import figure_row, probe_rows, refused_row
from workbench.analyses.comparison.train import sentence_of, train_members
from workbench.dictionaries import Dictionary


class Found(NamedTuple):
    """What a group of members has come to.

    Attributes:
        rows: Of the table of results; a refused member has one too.
        probes: Of the table of probes.
        n_members: How many members these are.
        note: Site and seed.
    """

    rows: list[dict[str, Any]]
    probes: list[dict[str, Any]]
    n_members: int
    note: str


def site_groups(data: SiteData, members: Sequence[Member]) -> Iterator[Found]:
    """Train and measure members of one site, a seed at a time.

    Raises:
        KeyboardInterrupt: Ctrl-C; the same members go on from their checkpoints.
    """
    for seed in dict.fromkeys(member.seed for member in members):
        group = [member for member in members if member.seed == seed]
        made, refused = train_members(group, data)
        rows = [refused_row(member, refused[member.name]) for member in group if member.name in refused]
        measured, probes = _measure([member for member in group if member.name in made], made, data)
        yield Found(rows + measured, probes, len(group), f"{data.site.name}, seed {seed}")


Rows = tuple[list[dict[str, Any]], list[dict[str, Any]]]


def _measure(members: Sequence[Member], made: dict[str, Dictionary], data: SiteData) -> Rows:
    """The rows of dictionaries that are measured together, or one by one where that fails."""
    if not members:
        return [], []
    try:
        return _measured(members, {member.name: made[member.name] for member in members}, data)
    except Exception as error:  # as in `train.py`
        if len(members) == 1:
            return [refused_row(members[0], sentence_of(error))], []
        alone = [_measure([member], made, data) for member in members]
        return [row for rows, _ in alone for row in rows], [row for _, probes in alone for row in probes]


def _measured(members: Sequence[Member], made: dict[str, Dictionary], data: SiteData) -> Rows:
    """The rows of dictionaries and of their random controls, and those of their probes."""
    random, absent = random_beside(made, data, seed=members[0].seed)
    trained, control = measure(made, data), measure(random, data) if random else {}
    rows, probes = [], []
    for member in members:
        name = member.name
        trained[name].figures["train_tokens_per_cpu_s"] = _tokens_per_s(member, data)
        for kind, found in (("trained", trained), ("random", control)):
            if name in found:
                rows.append(figure_row(member, kind, found[name].figures, note=absent.get(name, "")))
                probes += probe_rows(member, kind, found[name].probes)
    return rows, probes


def _tokens_per_s(member: Member, data: SiteData) -> float:
    """Training tokens per CPU second."""
    return member.train_options.batch_size / member_speed(member, data).step_s
