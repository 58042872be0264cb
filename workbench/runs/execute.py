"""One stage of a planned run, executed through its notebook: `python -m workbench.runs.execute train --run RUN`.

Called by the Snakefile. Papermill is held to the plan: unknown parameters were refused before, what the
kernel prints appears at once, a failure keeps the executed notebook with the error in it, and a bad input
leaves its one sentence in `.stages/<stage>.failed.json` for `workbench run` to show.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from workbench.artifacts import read_json, sha256_json, write_json
from workbench.runs.failures import INTERRUPTED, Failure, explain, explain_papermill
from workbench.runs.lines import StageLines
from workbench.runs.plan import Plan, load_plan
from workbench.runs.record import NOTEBOOKS, begun_path, failure_path, inputs_hash, write_stamp
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


def clear_otherwise_made(run: Path, stage: Stage, plan: Plan) -> None:
    """Take away what a stage would go on from, if it was begun with other parameters, code or inputs.

    A stage that goes on after an interruption would otherwise keep, or refuse, yesterday's result.
    """
    planned = plan.stages[stage.name]
    begun = begun_path(run, stage.name)
    token = sha256_json([planned.key, inputs_hash(run, stage)])
    if stage.resumes and not (begun.is_file() and read_json(begun) == token):
        for owned in stage.owned(run, planned.parameters):
            shutil.rmtree(owned, ignore_errors=True)
    write_json(begun, token)


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
    given = parser.parse_args(arguments)
    failure = execute_stage(given.run, given.stage)
    return 0 if failure is None else failure.status


if __name__ == "__main__":
    sys.exit(main())
