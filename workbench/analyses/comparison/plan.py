"""What a comparison trains: learners times sites times seeds, and what is left out, each with its reason."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from typing import Any

from workbench.analyses.comparison.learners import Learner, chosen_learners
from workbench.analyses.comparison.sites import Site, chosen_sites
from workbench.analyses.comparison.sizes import Size
from workbench.artifacts import canonical_json, sha256_json
from workbench.dictionaries import ARCHITECTURES
from workbench.errors import UserError
from workbench.testbeds.planted import planted_setting
from workbench.training.options import TrainOptions, train_options
from workbench.training.sweep import DEFAULTS

FORMAT = 1  # raised when the same member gives other figures than before


@cache
def shape_of(setting: str, planted: str) -> tuple[int, int]:
    """Latents and latents per row of a planted setting: its features, and how many of them are in a row."""
    features = planted_setting(setting, size=planted)
    return len(features.directions), max(1, round(features.mean_l0))


@dataclass(frozen=True)
class Member:
    """One dictionary of the comparison.

    Attributes:
        learner: What is trained.
        site: On which activations.
        size: How much.
        k: Latents per row.
        seed: Of the training.
    """

    learner: Learner
    site: Site
    size: Size
    k: int
    seed: int

    @property
    def name(self) -> str:
        """Of its folder, in the dictionaries of the site's run."""
        return f"{self.site.name.rpartition('.')[2]}-{self.learner.name}-k{self.k}-s{self.seed}"

    @property
    def d_sae(self) -> int:
        """Number of latents."""
        planted = self.site.kind == "planted"
        return shape_of(self.site.setting, self.size.planted)[0] if planted else self.size.model_d_sae

    @property
    def stream(self) -> dict[str, Any]:
        """What a sweep shares."""
        planted = self.site.kind == "planted"
        batch = self.size.planted_batch if planted else self.size.model_batch
        steps = self.size.planted_steps if planted else self.size.model_steps
        return {"batch_size": batch, "n_tokens": batch * steps, "seed": self.seed}

    @property
    def options(self) -> dict[str, Any]:
        """Its options in a sweep."""
        lr = self.size.planted_lr if self.site.kind == "planted" else None
        chosen = {"architecture": self.learner.architecture, "d_sae": self.d_sae, "k": self.k, "lr": lr}
        return {**chosen, "settings": dict(self.learner.settings), **self.learner.options}

    @cached_property
    def train_options(self) -> TrainOptions:
        """All options of its training.

        Raises:
            UserError: one is out of its range.
        """
        return train_options(**{**DEFAULTS, **self.options}, layout="autoencoder", **self.stream)

    @property
    def needs(self) -> tuple[str, ...]:
        """What its learner must know of each row."""
        return self.train_options.made_architecture.needs

    @property
    def identity(self) -> str:
        """Equal for members whose figures are the same."""
        measured = {
            "n_blocks": self.size.n_blocks,
            "n_rows": self.size.n_measured_rows,
            "texts": self.size.n_texts,
        }
        about = {
            "format": FORMAT,
            "learner": asdict(self.learner),
            "site": asdict(self.site),
            "measured": measured,
        }
        trained = self.train_options.identity(
            f"{self.size.name}-{self.size.planted_rows}-{self.size.model_rows}"
        )
        return sha256_json(json.loads(canonical_json({**about, "trained": trained})))[:20]


@dataclass(frozen=True)
class Skipped:
    """A learner that is not trained at some sites.

    Attributes:
        learner: Its name.
        row: Its row.
        sites: At which sites; all of the comparison's where there is one reason for all.
        reason: Why, one sentence.
    """

    learner: str
    row: int | None
    sites: tuple[str, ...]
    reason: str


@dataclass(frozen=True)
class Plan:
    """What is trained, in order, and what is not."""

    size: Size
    members: tuple[Member, ...]
    skipped: tuple[Skipped, ...]

    @property
    def sites(self) -> list[Site]:
        """The sites in order."""
        return list(dict.fromkeys(member.site for member in self.members))

    def at(self, site: Site) -> list[Member]:
        """The members of a site."""
        return [member for member in self.members if member.site == site]


def make_plan(
    size: Size,
    *,
    learners: Sequence[str] | None = None,
    sites: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
) -> Plan:
    """The plan of a comparison.

    Args:
        size: How much is trained.
        learners: Names of learners; all by default.
        sites: Names of sites; by default all that the size does not leave out.
        seeds: Training seeds; those of the size by default. Controls with permuted columns are trained with the
            first seed alone.

    Raises:
        UserError: a name is not known, a seed is there twice or negative, or nothing is left to train.
    """
    chosen = _seeds(size.seeds if seeds is None else seeds)
    members: list[Member] = []
    left_out: dict[tuple[str, int | None, str], list[str]] = {}
    for site in chosen_sites(sites, left_out=size.left_out):
        for learner in chosen_learners(learners):
            made = list(_members(learner, site, size, chosen))
            reason = skip_reason(made[0])
            if reason:
                left_out.setdefault((learner.name, learner.row, reason), []).append(site.name)
            else:
                members += made
    skipped = tuple(Skipped(name, row, tuple(at), why) for (name, row, why), at in left_out.items())
    if not members:
        raise UserError(f"nothing is left to compare ({skipped[0].reason}): name other learners or sites")
    return Plan(size, tuple(members), skipped)


def _members(learner: Learner, site: Site, size: Size, seeds: Sequence[int]) -> Iterator[Member]:
    main = shape_of(site.setting, size.planted)[1] if site.kind == "planted" else size.model_k
    for k in (main, *(size.frontier_k if site.frontier else ())):
        for seed in seeds[:1] if site.shuffled else seeds:
            yield Member(learner, site, size, k, seed)


def _seeds(seeds: Sequence[int]) -> tuple[int, ...]:
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise UserError(
            f"seeds {list(seeds)} are not at least one number from 0 on, each once: give for instance 0 1 2"
        )
    return tuple(seeds)


def skip_reason(member: Member) -> str:
    """Why a learner is not trained at a site; empty where it is."""
    learner, gives = member.learner, member.site.gives
    if learner.absent:
        return learner.absent
    if member.site.kind not in learner.kinds:
        return "one dictionary of it takes minutes to train or measure there: see the check of its row"
    if learner.architecture not in ARCHITECTURES:
        return f"architecture {learner.architecture!r} is not registered: no file in dictionaries/learners defines it"
    try:
        if member.train_options.made_architecture.nonnegative and not member.site.nonnegative:
            return "it takes no negative numbers, which this site's rows have: see the setting on neurons"
        lacking = [need for need in member.needs if need not in gives]
    except UserError as error:
        return str(error)
    return f"it needs the {' and '.join(lacking)} of each row, which this site has not" if lacking else ""
