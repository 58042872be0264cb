"""`workbench compare`: every dictionary learner on the same data, one table, one page."""

from __future__ import annotations

from pathlib import Path

from workbench.cli.parser import Parser, check_flags
from workbench.errors import UserError

HELP = "compare dictionary learners on planted data and the embedded model"
RUN = Path("runs/compare")
FLAGS = (
    "--run",
    "--size",
    "--learners",
    "--sites",
    "--seeds",
    "--check-seeds",
    "--workers",
    "--plan",
    "--help",
)


def compare_command(rest: list[str]) -> int:
    """Train and measure what is missing, write `comparison.html`, print its path; the exit status is 0."""
    parser = Parser(prog="workbench compare", description=HELP, allow_abbrev=False)
    add = parser.add_argument
    add("--run", type=Path, default=RUN, help=f"run folder [default: {RUN}]")
    add(
        "--size",
        default="smoke",
        help="smoke (a few minutes) or full (up to two hours on two cores) [default: smoke]",
    )
    add("--learners", nargs="+", help="names of learners [default: all that are registered]")
    add("--sites", nargs="+", help="names of sites [default: all of the size]")
    add("--seeds", nargs="+", help="training seeds [default: those of the size]")
    add(
        "--check-seeds",
        nargs="*",
        help="seeds of the methods' checks, none for no checks [default: the size's]",
    )
    add("--workers", type=int, help="processes that share the sites [default: one per core]")
    add("--plan", action="store_true", help="only say what would be trained, and what is left out and why")
    check_flags(rest, FLAGS, parser.prog)
    given = parser.parse_args(rest)
    options = {"learners": given.learners, "sites": given.sites, "seeds": _numbers("seeds", given.seeds)}
    if given.plan:
        print(plan_text(given.size, options))
        return 0
    from workbench.analyses.comparison import compare
    from workbench.reports.comparison_page import write_comparison

    checked = _numbers("check-seeds", given.check_seeds)
    compare(given.run, size=given.size, check_seeds=checked, workers=given.workers, **options)
    print(write_comparison(given.run))
    return 0


def plan_text(size: str, options: dict[str, list[int] | list[str] | None]) -> str:
    """What would be trained: a line per site, and a line per learner that is left out."""
    from workbench.analyses.comparison import make_plan
    from workbench.analyses.comparison.sizes import find_size

    plan = make_plan(find_size(size), **options)  # pyright: ignore[reportArgumentType]
    lines = [f"{len(plan.members)} dictionaries at {len(plan.sites)} sites"]
    for site in plan.sites:
        members = plan.at(site)
        lines.append(
            f"  {site.name:30} {len(members):4}  ({len({m.learner.name for m in members})} learners)"
        )
    for one in plan.skipped:
        lines.append(f"left out: {one.learner} at {', '.join(one.sites)}: {one.reason}")
    return "\n".join(lines)


def _numbers(name: str, given: list[str] | None) -> list[int] | None:
    """Whole numbers from 0 on.

    Raises:
        UserError: a word is none.
    """
    for word in given or ():
        if not word.isdecimal():
            raise UserError(
                f"--{name} {word!r} is not a whole number from 0 on: give for instance --{name} 0 1 2"
            )
    return None if given is None else [int(word) for word in given]
