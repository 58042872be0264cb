"""What a run must say about itself so that it can be made again.

A stage that ends leaves a stamp, `.stages/<stage>.json`: when, how long, with which parameters, and the files
it made with their sizes and hashes. The stamp is what Snakemake sees as the stage's output, because
Snakemake deletes the outputs of a job before it starts, and a half-made store is worth going on with.
`record.json` joins the stamps with versions, hardware and the command.
"""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from workbench.artifacts import read_json, sha256_file, sha256_json, write_json
from workbench.runs.stages import STAGES, Stage

STAMPS = ".stages"
RECORD = "record.json"
NOTEBOOKS = "notebooks"
PACKAGES = (
    "workbench torch transformer-lens transformers tokenizers safetensors numpy pandas pyarrow altair anywidget "
    "papermill snakemake nbconvert jupyterlab triton"
).split()


def stamp_path(run: Path, stage: str) -> Path:
    """The stamp of a stage."""
    return run / STAMPS / f"{stage}.json"


def part_stamp_path(run: Path, stage: str, part: int) -> Path:
    """The stamp of one process's share of a stage."""
    return run / STAMPS / f"{stage}.part-{part}.json"


def failure_path(run: Path, stage: str) -> Path:
    """Where a stage that failed leaves its reason."""
    return run / STAMPS / f"{stage}.failed.json"


def begun_path(run: Path, stage: str) -> Path:
    """Where a stage notes what it was begun from, to know later whether it may go on from there."""
    return run / STAMPS / f"{stage}.begun.json"


def stamps(run: Path) -> dict[str, dict[str, Any]]:
    """The stamps that a run has, in chain order."""
    paths = {name: stamp_path(run, name) for name in STAGES}
    return {name: read_json(path) for name, path in paths.items() if path.is_file()}


def artefacts(stage: Stage, run: Path, parameters: Mapping[str, Any]) -> list[Path]:
    """The files that a stage made, sorted; checkpoints and locks are its own business."""
    files = []
    for owned in stage.owned(run, parameters):
        files += [owned] if owned.is_file() else [f for f in owned.rglob("*") if f.is_file()]
    return sorted(
        f for f in files if "checkpoints" not in f.relative_to(run).parts and not f.name.startswith(".")
    )


def write_stamp(
    run: Path,
    stage: Stage,
    parameters: Mapping[str, Any],
    *,
    started: float,
    key: str | None,
    notebook: str | None,
    command: str,
) -> None:
    """Stamp a finished stage and renew `record.json`.

    Args:
        run: The run folder.
        stage: The stage.
        parameters: The complete parameters it was called with.
        started: Time of its start in seconds since the epoch.
        key: What its making depended on, or None where it was called by hand.
        notebook: The executed notebook, below the run folder.
        command: What makes it again.
    """
    files = artefacts(stage, run, parameters)
    stamp = {
        "stage": stage.name,
        "key": key,
        "command": command,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 3),
        "parameters": {name: _plain(value) for name, value in parameters.items()},
        "notebook": notebook,
        "files": {f.relative_to(run).as_posix(): f.stat().st_size for f in files},
        "hashes": {f.relative_to(run).as_posix(): sha256_file(f) for f in files if not _covered(f)},
    }
    if key is None:
        begun_path(run, stage.name).unlink(missing_ok=True)
    write_json(stamp_path(run, stage.name), stamp)
    write_record(run)


def _covered(path: Path) -> bool:
    """Whether a checksum of this file stands in the manifest beside it (the shards of a store)."""
    return path.name.startswith("shard-") and (path.parent / "manifest.json").is_file()


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value


def intact(run: Path, stamp: Mapping[str, Any]) -> bool:
    """Whether every file of a stamp is there with its size."""
    paths = {run / name: size for name, size in stamp["files"].items()}
    return all(path.is_file() and path.stat().st_size == size for path, size in paths.items())


def write_record(run: Path) -> None:
    """Write `record.json` from the stamps and this machine."""
    made = stamps(run)
    keep = ("command", "started", "seconds", "parameters", "notebook")
    commands = {stamp["command"] for stamp in made.values()}
    write_json(
        run / RECORD,
        {
            "command": commands.pop()
            if len(commands) == 1
            else [stamp["command"] for stamp in made.values()],
            "versions": versions(),
            "hardware": hardware(),
            "revision": git_revision(),
            "seeds": {n: s["parameters"]["seed"] for n, s in made.items() if "seed" in s["parameters"]},
            "stages": {name: {k: stamp[k] for k in keep} for name, stamp in made.items()},
            "hashes": {k: v for stamp in made.values() for k, v in stamp["hashes"].items()},
        },
    )


def inputs_hash(run: Path, stage: Stage) -> str:
    """SHA-256 over the artefact hashes of the stages that `stage` reads."""
    made = stamps(run)
    return sha256_json({name: made[name]["hashes"] for name in stage.needs if name in made})


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that shape the numbers."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> dict[str, Any]:
    """Processor, usable cores, memory in bytes, and the GPUs' names."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cores": cores,
        "memory_bytes": _memory_bytes(),
        "gpu": _gpu_names(),
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _gpu_names() -> list[str]:
    """Names as the driver's own tool gives them; no tool, no GPU. Avoids loading torch for a record."""
    try:
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        out = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in out.splitlines() if line.strip()]


def git_revision() -> str | None:
    """The commit of the checkout that runs, with `+changes` where files differ from it; None outside of git."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        commit = _git(root, "rev-parse", "HEAD")
        return commit + ("+changes" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
