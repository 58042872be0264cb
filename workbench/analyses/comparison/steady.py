"""The stability of the dictionaries of a site, filled in when all of its seeds are measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from workbench.analyses.comparison.data import SiteData
from workbench.analyses.comparison.measure import random_of
from workbench.analyses.comparison.plan import Member
from workbench.analyses.comparison.results import Results
from workbench.analyses.comparison.stability import Directions, living_rows, stabilities
from workbench.analyses.comparison.train import as_encoded
from workbench.dictionaries import Dictionary, load_dictionary
from workbench.errors import UserError
from workbench.evaluation.usage import measure_usage

FIGURE = "stability_cosine"


def lacks_stability(results: Results, members: Sequence[Member]) -> bool:
    """Whether members that were trained with several seeds, all of them measured, are without their figure."""
    if len({member.seed for member in members}) < 2:
        return False
    table: Any = results.table
    known = table["identity"].isin([member.identity for member in members])
    own = table[known & (table["set"] == "trained") & (table["status"] == "measured")]
    seeds = own.groupby(["learner", "k"])["seed"].transform("nunique")
    return bool(own[seeds > 1][FIGURE].isna().any())


def add_stability(results: Results, data: SiteData, members: Sequence[Member]) -> None:
    """Fill in the matched cosine of every dictionary of the site with those of the other seeds.

    Args:
        results: Where the rows of the members are.
        data: The site's.
        members: All members of the site.
    """
    families: dict[tuple[str, int], list[Member]] = {}
    for member in members:
        families.setdefault((member.learner.name, member.k), []).append(member)
    for family in families.values():
        if len(family) > 1:
            _fill(results, data, family)
    results.write()


def _fill(results: Results, data: SiteData, family: Sequence[Member]) -> None:
    """The figures of one learner and k."""
    trained: dict[int, Directions] = {}
    random: dict[int, Directions] = {}
    for member in family:
        folder = data.run / "dictionaries" / member.name
        if not (folder / "cfg.json").exists():  # refused
            continue
        dictionary = as_encoded(member, load_dictionary(folder))
        trained[member.seed] = _living(dictionary, data)
        try:
            random[member.seed] = _living(random_of(dictionary, data, seed=member.seed), data)
        except UserError:
            continue
    for kind, found in (("trained", trained), ("random", random)):
        _write(results, family, kind, stabilities(found))


def _living(dictionary: Dictionary, data: SiteData) -> Directions:
    fired = measure_usage(dictionary, data.rows.split(4096)).counts > 0
    return living_rows(dictionary.W_dec, fired)


def _write(results: Results, family: Sequence[Member], kind: str, found: Mapping[int, float]) -> None:
    table = results.table
    for member in family:
        if member.seed in found:
            at = (table["identity"] == member.identity) & (table["set"] == kind)
            table.loc[at, FIGURE] = found[member.seed]
