"""One stage of a planned run, executed through its notebook: `python -m workbench.runs.execute train --run RUN`.

With `--part 2` it is one of several processes that share the stage's work; that one calls the stage's
function without a notebook, and the stage itself, executed afterwards, joins what they made.

Called by the Snakefile. Papermill is held to the plan: unknown parameters were refused before, what the
kernel prints appears at once, a failure keeps the executed notebook with the error in it, and a bad input
leaves its one sentence in `.stages/<stage>.failed.json` for `workbench run` to show.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import shutil
import sys
import time
from contextlib import chdir
from pathlib import Path
from typing import Any

from workbench.artifacts import read_json, sha256_json, write_json
from workbench.runs.failures import INTERRUPTED, Failure, explain, explain_papermill
from workbench.runs.lines import StageLines
from workbench.runs.plan import Plan, load_plan
from workbench.runs.record import (
    NOTEBOOKS,
    begun_path,
    failure_path,
    inputs_hash,
    part_stamp_path,
    write_stamp,
)
from workbench.runs.stages import STAGES, Stage


def execute_stage(run: Path, name: str) -> Failure | None:
    """Execute a planned stage; on success stamp it, on failure write down why.

    Args:
        run: Run folder with a saved plan.
        name: The stage.

    Returns:
        None on success.
    """
    stage, plan = STAGES[name], load_plan(run)
    failure_path(run, name).unlink(missing_ok=True)
    started = time.time()
    try:
        clear_otherwise_made(run, stage, plan)
        _run_notebook(run, stage, plan)
        _stamp(run, stage, plan, started)
    except (Exception, KeyboardInterrupt) as error:
        failure = explain_papermill(error) or explain(error)
        if failure.status != INTERRUPTED:
            _leave_reason(run, stage, failure)
        return failure
    return None


def _leave_reason(run: Path, stage: Stage, failure: Failure) -> None:
    try:
        write_json(failure_path(run, stage.name), {"status": failure.status, "sentence": failure.sentence})
    except OSError as error:
        sys.stderr.write(f"{failure.sentence} (and the reason could not be written down: {error})\n")


def _stamp(run: Path, stage: Stage, plan: Plan, started: float) -> None:
    planned = plan.stages[stage.name]
    notebook = f"{NOTEBOOKS}/{stage.notebook}"
    write_stamp(
        run,
        stage,
        planned.parameters,
        started=started,
        key=planned.key,
        notebook=notebook,
        command=plan.command,
    )


def execute_part(run: Path, name: str, part: int) -> Failure | None:
    """Do one process's share of a planned stage; stamp it on success, write down why on failure.

    Args:
        run: Run folder with a saved plan.
        name: The stage.
        part: Number of the share, from 0.

    Returns:
        None on success.
    """
    stage, plan = STAGES[name], load_plan(run)
    try:
        clear_otherwise_made(run, stage, plan)
        with chdir(plan.base):
            stage.make(run.resolve(), plan.stages[name].parameters | {"part": part})
        write_json(part_stamp_path(run, name, part), {"key": plan.stages[name].key})
    except (Exception, KeyboardInterrupt) as error:
        failure = explain(error)
        if failure.status != INTERRUPTED:
            _leave_reason(run, stage, failure)
        return failure
    return None


def clear_otherwise_made(run: Path, stage: Stage, plan: Plan) -> None:
    """Take away what a stage would go on from, if it was begun with other parameters, code or inputs.

    A stage that goes on after an interruption would otherwise keep, or refuse, yesterday's result. An option
    that grew (more tokens) takes nothing away. Several processes may call this at the same time.
    """
    planned = plan.stages[stage.name]
    token = sha256_json([planned.begun_key, inputs_hash(run, stage)])
    sizes = {name: planned.parameters[name] for name in stage.grows}
    with begun_path(run, stage.name).with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stage.resumes and not _goes_on(begun_path(run, stage.name), token, sizes):
            for owned in stage.owned(run, planned.parameters):
                remove(owned)
        write_json(begun_path(run, stage.name), {"token": token, "sizes": sizes})


def _goes_on(begun: Path, token: str, sizes: dict[str, int]) -> bool:
    """Whether what was begun is what is wanted now, or less of it."""
    found = read_json(begun) if begun.is_file() else None
    if not isinstance(found, dict) or found["token"] != token:
        return False
    return all(found["sizes"].get(name, 0) <= size for name, size in sizes.items())


def remove(path: Path) -> None:
    """Take away a file, a folder, or a link (not what it points to)."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def _run_notebook(run: Path, stage: Stage, plan: Plan) -> None:
    import nbformat
    import papermill

    source = nbformat.read(stage.notebook_path(), as_version=4)
    target = run / NOTEBOOKS / stage.notebook
    target.parent.mkdir(parents=True, exist_ok=True)
    parameters = plan.stages[stage.name].parameters | {"run": _relative(run, plan.base)}
    label = f"{stage.number()}/{len(STAGES)} {stage.name}"
    with StageLines(label, sys.stdout, n_cells=len(source.cells) + 1) as lines:
        lines.say(heading(source.cells[0].source))
        papermill.execute_notebook(
            stage.notebook_path(),
            target,
            parameters,
            kernel_name="python3",
            progress_bar=False,
            cwd=plan.base,
            stdout_file=lines,
            stderr_file=lines,
            on_cell_start=_announce(lines),
        )
        lines.say(f"done in {lines.elapsed()}")


def _announce(lines: StageLines) -> Any:
    """A notebook client's hook that remembers the last heading before each code cell."""
    seen = {"what": "starting"}

    def start(*, cell: Any, cell_index: int) -> None:
        if cell.cell_type == "markdown":
            seen["what"] = heading(cell.source)
        lines.cell(number=cell_index + 1, what=seen["what"])

    return start


def heading(markdown: str) -> str:
    """The first line of a markdown cell, without its marks, for a terminal."""
    lines = [line.strip("#* ") for line in markdown.splitlines() if line.strip("#* ")]
    return re.sub(r"[`*]", "", lines[0])[:100] if lines else ""


def _relative(run: Path, base: Path) -> str:
    """The run folder as the notebook sees it; relative where it lies below `base`, so that records travel."""
    run, base = run.resolve(), base.resolve()
    return os.path.relpath(run, base) if run.is_relative_to(base) else str(run)


def main(arguments: list[str] | None = None) -> int:
    """Execute one stage; the exit status is 0, 2 (bad input), 130 (interrupted) or 1."""
    parser = argparse.ArgumentParser(prog="python -m workbench.runs.execute", description=main.__doc__)
    parser.add_argument("stage", choices=list(STAGES))
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--part", type=int, help="this process's share of the stage, from 0")
    given = parser.parse_args(arguments)
    if given.part is None:
        failure = execute_stage(given.run, given.stage)
    else:
        failure = execute_part(given.run, given.stage, given.part)
    return 0 if failure is None else failure.status


if __name__ == "__main__":
    sys.exit(main())
