"""The whole chain: check, plan, and let Snakemake make what is missing or out of date.

Snakemake runs as a process of its own with the run folder as its directory, so that the run folder carries
its own provenance (`.snakemake/metadata`) and can be moved whole. Its talk goes to `.stages/snakemake.log`;
what a person sees are the stages' own lines.
"""

from __future__ import annotations

import fcntl
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from workbench.artifacts import atomic_file, read_json
from workbench.assets import PACKAGE, asset_folder
from workbench.errors import UserError
from workbench.progress import seconds_text
from workbench.runs.failures import FAILED, INTERRUPTED, Failure, explain
from workbench.runs.parameters import COMMON, OFFLINE, RUN_NAME, offline_value, read_parameters
from workbench.runs.plan import RUN_YAML, Plan, load_plan, make_plan, save_plan
from workbench.runs.record import NOTEBOOKS, STAMPS, failure_path, stamps
from workbench.runs.stages import STAGES

SNAKEFILE = "Snakefile"
LOG = "snakemake.log"


@dataclass(frozen=True)
class Outcome:
    """What `run_chain` did: the stages that were made, in order, and the failure that stopped it, if any."""

    run: Path
    made: tuple[str, ...]
    seconds: float
    failure: Failure | None


def run_folder(params: Path, run: Path | None) -> Path:
    """The folder of a run: as given, or that of its `run.yaml`, or `runs/<common.name>`.

    Raises:
        UserError: none of the three says where.
    """
    if run is not None:
        return run
    if params.name == RUN_YAML and (params.parent / STAMPS).is_dir():
        return params.parent
    name = read_parameters(params).get(COMMON, {}).get(RUN_NAME)
    if not isinstance(name, str) or not name or Path(name).name != name:
        raise UserError(
            f"{RUN_NAME} {name!r} in section {COMMON!r} is not a folder name: give one, or --run FOLDER"
        )
    return Path("runs") / name


def run_chain(
    params: Path, *, run: Path | None = None, cores: int | None = None, command: str | None = None
) -> Outcome:
    """Make a run: every stage that is missing or whose parameters, code, notebook or inputs have changed.

    Args:
        params: The `run.yaml` to follow; its content is kept in the run folder.
        run: Run folder; by default from the file (`run_folder`).
        cores: Cores to use; all by default. Stages run one after another.
        command: What the record says makes it again; by default `workbench run` with these arguments.

    Raises:
        UserError: bad parameters, or another process is making this run. Nothing was written then.
    """
    folder = run_folder(params, run)
    command = command or shlex.join(["workbench", "run", "--params", str(params), "--run", str(folder)])
    with _prepared(params, folder, command):
        before, started = _marks(folder), time.monotonic()
        status = _snakemake(folder, "--cores", str(cores or os.cpu_count() or 1))
        made = tuple(name for name, mark in _marks(folder).items() if before.get(name) != mark)
    return Outcome(folder, made, time.monotonic() - started, _failure(folder, status))


def pending(params: Path, *, run: Path | None = None) -> tuple[str, ...]:
    """The stages that `run_chain` would make now, in chain order; makes none of them.

    Raises:
        UserError: as `run_chain`.
    """
    folder = run_folder(params, run)
    with _prepared(params, folder, ""):
        status = _snakemake(folder, "--cores", "1", "--dry-run")
    if status:
        raise UserError(f"Snakemake could not plan {str(folder)!r}; see {folder / STAMPS / LOG}")
    log = (folder / STAMPS / LOG).read_text(encoding="utf-8")
    named = set(re.findall(r"^(?:local)?rule (\w+):", log, re.M))
    return tuple(name for name in STAGES if name in named)


@contextmanager
def _prepared(params: Path, folder: Path, command: str) -> Iterator[None]:
    """Check everything, then hold the run folder with its parameters and plan in place."""
    plan = make_plan(read_parameters(params), base=Path.cwd(), command=command)
    with _only_one(folder):
        _keep(params, folder / RUN_YAML)
        save_plan(folder, plan)
        for name in STAGES:
            failure_path(folder, name).unlink(missing_ok=True)
        yield


def _marks(run: Path) -> dict[str, str]:
    """Start time and duration of each stamped stage, which differ after it was made again."""
    return {name: f"{stamp['started']} {stamp['seconds']}" for name, stamp in stamps(run).items()}


def _keep(params: Path, target: Path) -> None:
    """Copy the parameters into the run folder as they were written, comments included."""
    if not (target.exists() and target.read_bytes() == params.read_bytes()):
        with atomic_file(target) as temporary:
            shutil.copyfile(params, temporary)


@contextmanager
def _only_one(run: Path) -> Iterator[None]:
    """Hold the run folder; the operating system lets go of it when this process ends, however it ends."""
    (run / STAMPS).mkdir(parents=True, exist_ok=True)
    with (run / STAMPS / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UserError(
                f"run {str(run)!r} is being made by another process: wait for it or stop it"
            ) from error
        yield


def _environment(plan: Plan) -> dict[str, str]:
    """The stages must run this very package, quietly, and offline unless a model of a hub was asked for."""
    models = [stage.parameters.get("model") for stage in plan.stages.values()]
    path = os.pathsep.join(p for p in [str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")] if p)
    quiet = {"PYDEVD_DISABLE_FILE_VALIDATION": "1", "TOKENIZERS_PARALLELISM": "false"}
    return {OFFLINE: offline_value(models)} | os.environ | quiet | {"PYTHONPATH": path}


def _snakemake(run: Path, *options: str) -> int:
    """Run Snakemake to its end; on Ctrl-C pass the signal on to it and its children and wait for them."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(asset_folder("notebooks") / SNAKEFILE)]
    command += ["--directory", str(run), "--nolock", "--rerun-incomplete", "--latency-wait", "0", *options]
    command += ["--config", "planned=1"]
    with (run / STAMPS / LOG).open("w", encoding="utf-8") as log:
        out = log if "--dry-run" in options else None
        process = subprocess.Popen(
            command, stdout=out, stderr=log, env=_environment(load_plan(run)), start_new_session=True
        )
        try:
            return process.wait()
        except KeyboardInterrupt:
            os.killpg(process.pid, signal.SIGINT)
            process.wait()
            return INTERRUPTED


def _failure(run: Path, status: int) -> Failure | None:
    """The reason of the stage that failed, or what Snakemake said last."""
    if status == 0:
        return None
    if status == INTERRUPTED:
        return explain(KeyboardInterrupt())
    for name, stage in STAGES.items():
        path = failure_path(run, name)
        if path.is_file():
            found = read_json(path)
            where = f"; see {run / NOTEBOOKS / stage.notebook}" if found["status"] == FAILED else ""
            return Failure(found["status"], f"stage {name}: {found['sentence']}{where}")
    return Failure(FAILED, f"Snakemake left with status {status}; see {run / STAMPS / LOG}")


def summary(outcome: Outcome) -> str:
    """One line on what was done."""
    if not outcome.made:
        return f"{outcome.run}: nothing to do, every stage is up to date"
    return f"{outcome.run}: made {', '.join(outcome.made)} in {seconds_text(outcome.seconds)}"
