"""What is to be made, and what of it is already there.

A plan gives each stage its checked parameters and a key: the SHA-256 of everything its result depends on
besides the artefacts that it reads (parameters, code, notebook, files that a parameter names). Snakemake
keeps the key of each finished stage and makes a stage again when it differs, or when a stage before it was
made again.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workbench.artifacts import read_json, sha256_json, write_json
from workbench.errors import UserError
from workbench.runs.fingerprints import code_hash, named_paths, notebook_hash
from workbench.runs.parameters import Sections, complete, read_parameters, stage_parameters
from workbench.runs.record import STAMPS, intact, stamp_path, stamps
from workbench.runs.stages import STAGES, Stage, after

RUN_YAML = "run.yaml"


@dataclass(frozen=True)
class Planned:
    """One stage of a plan.

    Attributes:
        key: Hash of what it depends on.
        begun_key: The same without the options that may grow and the number of processes.
        parameters: What it is called with.
    """

    key: str
    begun_key: str
    parameters: dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """A checked run: `base` is where relative paths in its parameters start, `command` makes it again."""

    base: Path
    command: str
    stages: dict[str, Planned]


def make_plan(sections: Sections, *, base: Path, command: str) -> Plan:
    """Check the parameters of all stages and give each stage its key. Nothing is written.

    Raises:
        UserError: a bad parameter.
    """
    given = stage_parameters(sections)
    stages = {}
    for name, stage in STAGES.items():
        parameters = complete(stage, given[name])
        depends = {
            "parameters": {k: str(v) if isinstance(v, Path) else v for k, v in parameters.items()},
            "code": code_hash(stage.calls),
            "notebook": notebook_hash(stage.notebook_path()),
            "files": named_paths(parameters.values(), base),
        }
        stages[name] = Planned(
            sha256_json(depends), sha256_json(_lasting(stage, depends)), depends["parameters"]
        )
    return Plan(base, command, stages)


def _lasting(stage: Stage, depends: dict[str, Any]) -> dict[str, Any]:
    """What a stage depends on, without what may change while it goes on."""
    passing = {*stage.grows, stage.divides}
    return depends | {"parameters": {k: v for k, v in depends["parameters"].items() if k not in passing}}


def plan_path(run: Path) -> Path:
    """Where the plan of a run is kept for the processes that execute it."""
    return run / STAMPS / "plan.json"


def save_plan(run: Path, plan: Plan) -> None:
    """Write the plan, and take away the stamps of stages whose files are gone or were not made by a plan.

    The stamps of what follows go too: Snakemake does not miss an intermediate file whose results are there.
    """
    stages = {
        name: {"key": s.key, "begun_key": s.begun_key, "parameters": s.parameters}
        for name, s in plan.stages.items()
    }
    write_json(plan_path(run), {"base": str(plan.base), "command": plan.command, "stages": stages})
    for name, stamp in stamps(run).items():
        if stamp["key"] is None or not intact(run, stamp):
            for lost in [name, *after(name)]:
                stamp_path(run, lost).unlink(missing_ok=True)


def load_plan(run: Path) -> Plan:
    """The plan that `save_plan` wrote."""
    content = read_json(plan_path(run))
    stages = {name: Planned(**entry) for name, entry in content["stages"].items()}
    return Plan(Path(content["base"]), content["command"], stages)


def current_plan(run: Path, config: Mapping[str, Any]) -> Plan:
    """The plan for the Snakefile: the one just made by `workbench run`, else made here from `run.yaml`.

    Args:
        run: The run folder.
        config: Snakemake's; `planned=1` says that the plan is fresh, `base=FOLDER` where relative paths start
            (by default where they started the last time).

    Raises:
        UserError: no `run.yaml`, or a bad parameter in it.
    """
    if config.get("planned"):
        return load_plan(run)
    if not (run / RUN_YAML).is_file():
        raise UserError(
            f"run folder {str(run)!r} has no {RUN_YAML}: make it with `workbench run --params FILE --run`"
        )
    last = load_plan(run) if plan_path(run).is_file() else None
    base = Path(config.get("base", last.base if last else os.curdir)).resolve()
    command = last.command if last else f"workbench run --params {RUN_YAML}"
    plan = make_plan(read_parameters(run / RUN_YAML), base=base, command=command)
    save_plan(run, plan)
    return plan
