"""One virtual environment per tool under `.venv-peers/`, made when missing or when its pins have changed.

torch is pinned first and in every one, the same release as the workbench's, so that the comparison is not one of
torch releases and a CPU build that is at hand is taken instead of another download. About 5 GB in all.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.benchmarks.peers.tools import TORCH, Environment

ROOT = Path(__file__).resolve().parents[3]
FOLDER = ROOT / ".venv-peers"
HARNESS = Path(__file__).resolve().parent / "harness"


def python(environment: Environment | None) -> Path:
    """The interpreter of an environment, which is made if it is missing; ours for None."""
    if environment is None:
        return Path(sys.executable)
    folder = FOLDER / environment.name
    made, wanted = folder / ".installed", "\n".join([TORCH, *described(environment), ""])
    if not made.exists() or made.read_text() != wanted:
        install(folder, environment)
        made.write_text(wanted)
    return folder / "bin" / "python"


def described(environment: Environment) -> list[str]:
    """What is written beside an installed environment: it is made again when this changes."""
    return [environment.package, *environment.also, *map(str, environment.replaced)]


def install(folder: Path, environment: Environment) -> None:
    """A fresh environment: torch first, then the package with torch kept as it is."""
    print(f"installing {environment.package} into {folder.relative_to(ROOT)}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "install", TORCH], check=True)
    subprocess.run([*pip, "install", TORCH, environment.package, *environment.also], check=True)
    for name in environment.without:
        subprocess.run([*pip, "uninstall", "--yes", name], check=True)
    for module, old, new in environment.replaced:
        replace(folder, module, old, new)


def replace(folder: Path, module: str, old: str, new: str) -> None:
    """Replace a text in every file of an installed module; refused where it does not occur."""
    files = [
        path for path in folder.glob(f"lib/python*/site-packages/{module}/*.py") if old in path.read_text()
    ]
    if not files:
        raise RuntimeError(f"{module} in {folder.name} has no {old}: its release is another one")
    for path in files:
        path.write_text(path.read_text().replace(old, new))


def variables(threads: int) -> dict[str, str]:
    """Variables of a tool's process: so many threads everywhere, no network, no logging service."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "WANDB"))}
    counts = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), str(threads))
    quiet = {"WANDB_MODE": "disabled", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1", "CUDA_VISIBLE_DEVICES": ""}
    return {**kept, **counts, **quiet}
