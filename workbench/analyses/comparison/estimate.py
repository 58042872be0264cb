"""How long a comparison will take, from a few steps of every learner on this machine, before anything is trained.

    seconds = sum over members of (start + steps * step) + measurement

One planted setting stands for all, one hook point for all of the models; the measurement is timed once for each.
Learners that take no steps, or fail, are not in it, and the sentence says so.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from workbench.analyses.comparison.data import SiteData, beside_of
from workbench.analyses.comparison.measure import measure
from workbench.analyses.comparison.plan import Member
from workbench.analyses.comparison.speed import Speed, training_speed
from workbench.dictionaries import random_dictionary
from workbench.dictionaries.learners.topk import TopKDictionary
from workbench.progress import Progress, seconds_text

SPEED_BATCHES = 2


@dataclass(frozen=True)
class Estimate:
    """What is left to do.

    Attributes:
        train_cpu_s: CPU seconds of all trainings that take steps.
        measure_cpu_s: CPU seconds of all measurements.
        n_members: Dictionaries.
        unknown: Learners of unknown duration.
        longest_cpu_s: Of the sites in one folder, which one process works on.
        n_workers: Processes that share the sites.
    """

    train_cpu_s: float
    measure_cpu_s: float
    n_members: int
    unknown: tuple[str, ...]
    longest_cpu_s: float
    n_workers: int

    @property
    def seconds(self) -> float:
        """Of the clock, on a machine that does nothing else."""
        return max((self.train_cpu_s + self.measure_cpu_s) / self.n_workers, self.longest_cpu_s)

    @property
    def sentence(self) -> str:
        """For a person who waits."""
        without = f", without the time of {', '.join(self.unknown)}" if self.unknown else ""
        return (
            f"{self.n_members} dictionaries, about {seconds_text(self.seconds)} on {self.n_workers} cores "
            f"({seconds_text(self.train_cpu_s)} of training and {seconds_text(self.measure_cpu_s)} of measuring on "
            f"one core){without}; Ctrl-C stops, the same command goes on"
        )


def member_speed(member: Member, data: SiteData) -> Speed:
    """The speed of a member's training at its site; NaN for one that fails."""
    options = member.train_options
    x, beside = beside_of(data, member.needs, SPEED_BATCHES * options.batch_size)
    try:
        return training_speed(options, x, beside)
    except Exception:  # what is wrong with it stands in the results, after its training
        return Speed(float("nan"), float("nan"))


def measuring_s(data: SiteData) -> float:
    """CPU seconds of the measurement of one dictionary and its random control."""
    d, zeros = data.rows.shape[1], torch.zeros(data.d_sae)
    blank = TopKDictionary(
        W_enc=torch.zeros(d, data.d_sae), W_dec=torch.zeros(data.d_sae, d), b_enc=zeros, b_dec=torch.zeros(d),
        k=data.k, hook_name=data.site.hook,
    )  # fmt: skip
    began = time.process_time()
    pair = {str(seed): random_dictionary(like=blank, seed=seed) for seed in (0, 1)}
    measure(pair, data)
    return time.process_time() - began


def estimate(members: Sequence[Member], data: Mapping[str, SiteData], *, n_workers: int = 1) -> Estimate:
    """The estimate for the members that are left.

    Args:
        members: What is left.
        data: For each kind of site ("planted", "model", "random") the data of one that stands for all.
        n_workers: Processes that share the sites.
    """
    steps: dict[tuple[str, str], Speed] = {}
    measuring = {kind: measuring_s(one) for kind, one in data.items()}
    kinds = {(member.learner.name, member.site.kind): member for member in members}
    with Progress(len(kinds), "timing learners", "learners") as progress:
        for (learner, kind), member in kinds.items():
            steps[learner, kind] = member_speed(member, data[kind])
            progress.advance()
    train = [_seconds(steps[member.learner.name, member.site.kind], member) for member in members]
    unknown = dict.fromkeys(one.learner.name for one, s in zip(members, train, strict=True) if s != s)
    folders: dict[str, float] = {}
    for member, seconds in zip(members, train, strict=True):
        own = measuring[member.site.kind] + (seconds if seconds == seconds else 0.0)
        folders[member.site.folder] = folders.get(member.site.folder, 0.0) + own
    return Estimate(
        train_cpu_s=sum(s for s in train if s == s),
        measure_cpu_s=sum(measuring[member.site.kind] for member in members),
        n_members=len(members),
        unknown=tuple(unknown),
        longest_cpu_s=max(folders.values(), default=0.0),
        n_workers=n_workers,
    )


def _seconds(speed: Speed, member: Member) -> float:
    return speed.start_s + speed.step_s * member.train_options.n_steps
