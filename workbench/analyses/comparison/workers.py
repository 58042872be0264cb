"""The sites of a comparison shared out to processes: a folder of activations is the work of one of them at a time.

Sites of one model share a folder, and what is trained there shares checkpoints, so a folder is never worked on twice
at once. What a group of members has come to is sent back as soon as it is measured. An interrupt reaches the caller
alone; the processes hear of it at the next step, write their checkpoint and end.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from workbench.analyses.comparison.data import Models, make_texts, prepare
from workbench.analyses.comparison.group import Found, site_groups
from workbench.analyses.comparison.plan import Member
from workbench.dictionaries import ARCHITECTURES
from workbench.errors import UserError
from workbench.progress import Progress, listening

LISTEN_S, TELL_S = 0.2, 5.0
LONGEST_FIRST = ("model", "random")
_HERE: dict[str, Any] = {}


def folders_of(members: Sequence[Member]) -> list[list[Member]]:
    """The members by folder of activations, those that take longest first."""
    found: dict[str, list[Member]] = {}
    for member in members:
        found.setdefault(member.site.folder, []).append(member)
    return sorted(found.values(), key=lambda own: own[0].site.folder not in LONGEST_FIRST)


def can_be_sent(members: Sequence[Member]) -> bool:
    """Whether other processes know the members' architectures: one that was registered by hand is known here alone."""
    modules = [ARCHITECTURES[member.learner.architecture].__module__ for member in members]
    return all(module.startswith("workbench.") for module in modules)


def groups_here(run: Path, members: Sequence[Member], models: Models) -> Iterator[Found]:
    """What members have come to, site by site, in this process."""
    for site, own in groupby(members, key=lambda member: member.site):
        yield from site_groups(prepare(run, site, models.size, models), list(own))


def groups_elsewhere(
    run: Path,
    members: Sequence[Member],
    *,
    workers: int,
    take: Callable[[Found], None],
    tell: Callable[[str], None],
) -> None:
    """Share the members out and take what comes back, in the order in which it is measured.

    Args:
        run: Run folder of the comparison.
        members: Of several folders.
        workers: Processes; the cores are divided among them.
        take: Called with what came back, in this process.
        tell: Called every few seconds with what a process is doing.

    Raises:
        KeyboardInterrupt: Ctrl-C; the processes have written their checkpoints.
    """
    if any(member.site.kind != "planted" for member in members):
        make_texts(run, members[0].size)  # which two folders share
    context = multiprocessing.get_context("spawn")
    posted, stop = context.SimpleQueue(), context.Event()
    hear = {Found: take, str: tell}
    threads = max(1, torch.get_num_threads() // workers)
    with ProcessPoolExecutor(workers, context, _begin, (posted, stop, threads)) as pool:
        waiting: set[Future[None]] = {pool.submit(_work, run, own) for own in folders_of(members)}
        try:
            while waiting:
                done, waiting = wait(waiting, timeout=LISTEN_S, return_when=FIRST_COMPLETED)
                _drain(posted, hear)
                for one in done:
                    _end(one)
        except BaseException:
            stop.set()
            for one in waiting:
                one.cancel()
            _drain_until_done(posted, hear, waiting)
            raise


def _end(work: Future[None]) -> None:
    """Raise what a process has failed with."""
    try:
        work.result()
    except BrokenProcessPool as error:
        raise UserError(
            "a process of the comparison was ended from outside, most often for want of memory: the same command goes "
            "on; --workers 1 needs the least"
        ) from error


def _drain(posted: Any, hear: Mapping[type, Callable[[Any], None]]) -> None:
    while not posted.empty():
        found = posted.get()
        hear[type(found)](found)


def _drain_until_done(
    posted: Any, hear: Mapping[type, Callable[[Any], None]], waiting: set[Future[None]]
) -> None:
    """Take what is still sent: a process that cannot send cannot end."""
    while waiting:
        _, waiting = wait(waiting, timeout=LISTEN_S)
        _drain(posted, hear)


def _begin(posted: Any, stop: Any, threads: int) -> None:
    """Make a process ready."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    _HERE.update(posted=posted, stop=stop, told=time.monotonic())


def _work(run: Path, members: Sequence[Member]) -> None:
    """Train and measure the members of one folder, and send what they come to."""
    _HERE["folder"] = members[0].site.folder
    with listening(_heed):
        for found in groups_here(run, members, Models(members[0].size)):
            _HERE["posted"].put(found)


def _heed(progress: Progress, note: str) -> None:
    """End where the caller was interrupted, and say now and then what is being done: lines are the caller's."""
    if _HERE["stop"].is_set():
        raise KeyboardInterrupt
    now = time.monotonic()
    if now - _HERE["told"] >= TELL_S:
        _HERE["told"] = now
        _HERE["posted"].put(
            f"{_HERE['folder']}: {progress.label}, {progress.done / max(progress.total, 1):.0%}"
        )
