"""`compare`: every learner at every site with every seed, trained and measured once, then the methods' own checks.

    run/sites/<site>/activations/         what is trained on
    run/sites/<site>/dictionaries/        the dictionaries
    run/text/                             what the model read
    run/comparison.parquet, probes.parquet    the figures (`results.py`)
    run/checks.parquet                    the claims of the methods' checks (`rows.py`)
    run/comparison.json                   size, options, what was left out and why

Every core works on a site of its own (`workers.py`). Ctrl-C, and the same call later, go on: sweeps from their
checkpoint, measurements after the last written group.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd

from workbench.analyses.comparison.data import Models, prepare
from workbench.analyses.comparison.estimate import Estimate, estimate
from workbench.analyses.comparison.group import Found
from workbench.analyses.comparison.instruments import SITE, lacks_instruments, measure_instruments
from workbench.analyses.comparison.plan import Member, Plan, make_plan
from workbench.analyses.comparison.reading import RECORD
from workbench.analyses.comparison.results import Results
from workbench.analyses.comparison.rows import run_checks
from workbench.analyses.comparison.sites import SITES
from workbench.analyses.comparison.sizes import find_size
from workbench.analyses.comparison.steady import add_stability, lacks_stability
from workbench.analyses.comparison.workers import can_be_sent, folders_of, groups_elsewhere, groups_here
from workbench.artifacts import read_json, write_json
from workbench.errors import UserError
from workbench.progress import Progress


def compare(
    run: Path,
    *,
    size: str = "smoke",
    learners: Sequence[str] | None = None,
    sites: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    check_seeds: Sequence[int] | None = None,
    workers: int | None = None,
    say: Callable[[str], object] = print,
) -> pd.DataFrame:
    """Train and measure what is missing, and return the table of results.

    Args:
        run: Run folder; made if missing. One folder holds one size.
        size: "smoke" (a few minutes) or "full" (under two hours on two cores).
        learners: Names of learners; all by default.
        sites: Names of sites; by default all that the size does not leave out.
        seeds: Training seeds; by default those of the size.
        check_seeds: Seeds of the methods' own checks; by default those of the size, none for no checks.
        workers: Processes that share the sites, and then the checks; by default one per core. A learner that was
            registered by hand keeps the sites in this process: others do not know it.
        say: Called with the estimate before the start.

    Returns:
        The results, columns `results.COLUMNS`; members of earlier calls are in it too.

    Raises:
        UserError: a name is not known, workers are fewer than 1, or the folder holds a comparison of another size.
        KeyboardInterrupt: Ctrl-C; the same call goes on.

    Status: exact for these seeds and rows; the checks of the methods have their own status.
    """
    chosen = find_size(size)
    plan = make_plan(chosen, learners=learners, sites=sites, seeds=seeds)
    if workers is not None and workers < 1:
        raise UserError(f"workers {workers} is not at least 1: leave it out for one per core")
    checked = chosen.check_seeds if check_seeds is None else tuple(check_seeds)
    _claim_folder(run, plan, checked)
    results, models = Results(run), Models(chosen)
    todo = [member for member in plan.members if not results.has(member)]
    n_workers = _workers(todo, workers)
    if todo and chosen.timed:
        say(_estimated(run, todo, models, n_workers).sentence)
    _measure(run, plan, todo, results, models, n_workers)
    _steady(run, plan, results, models)
    if any(site.name == SITE for site in plan.sites) and lacks_instruments(run):
        measure_instruments(run, prepare(run, SITES[SITE], chosen, models), chosen)
    run_checks(run, checked, workers=workers)
    return results.table


def _claim_folder(run: Path, plan: Plan, check_seeds: tuple[int, ...]) -> None:
    """Write what is compared.

    Raises:
        UserError: the folder holds a comparison of another size.
    """
    path = run / RECORD
    if path.exists():
        found = read_json(path)["size"]
        if found != plan.size.name:
            raise UserError(
                f"run {str(run)!r} holds a comparison of size {found!r}, not {plan.size.name!r}: use another"
            )
    run.mkdir(parents=True, exist_ok=True)
    skipped = [vars(one) for one in plan.skipped]
    seeds = sorted({member.seed for member in plan.members})
    write_json(path, {"size": plan.size.name, "seeds": seeds, "check_seeds": check_seeds, "skipped": skipped})


def _workers(todo: Sequence[Member], asked: int | None) -> int:
    """Processes: as many as asked for, or as there are cores; no more than folders."""
    if not todo or not can_be_sent(todo):
        return 1
    return max(1, min(asked or os.cpu_count() or 1, len(folders_of(todo))))


def _estimated(run: Path, todo: Sequence[Member], models: Models, n_workers: int) -> Estimate:
    first = {member.site.kind: member.site for member in reversed(todo)}
    data = {kind: prepare(run, site, models.size, models) for kind, site in first.items()}
    return estimate(todo, data, n_workers=n_workers)


def _measure(
    run: Path, plan: Plan, todo: Sequence[Member], results: Results, models: Models, n_workers: int
) -> None:
    """Train and measure what is left, and write it group by group."""
    with Progress(len(plan.members), "comparing", "dictionaries") as progress:
        progress.skip(len(plan.members) - len(todo))

        def take(found: Found) -> None:
            results.add(found.rows, found.probes)
            progress.advance(found.n_members, found.note)

        if n_workers > 1:
            groups_elsewhere(
                run, todo, workers=n_workers, take=take, tell=lambda text: progress.advance(0, text)
            )
            return
        for found in groups_here(run, todo, models):
            take(found)


def _steady(run: Path, plan: Plan, results: Results, models: Models) -> None:
    """Fill in the stability of the sites that have none yet."""
    for site in plan.sites:
        members = plan.at(site)
        if lacks_stability(results, members):
            add_stability(results, prepare(run, site, models.size, models), members)
