"""`workbench doctor`: one screen on what is installed, what would be used, and what is missing.

Looks only; nothing is installed, loaded onto a device or fetched. `missing` is what the demo or a report
cannot do without; `note` is worth knowing.
"""

from __future__ import annotations

import importlib.util
import platform
import re
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from workbench.assets import PACKAGE, asset_folder

OK, NOTE, MISSING = "ok", "note", "missing"
DEMO_FREE_BYTES = 2 * 2**30
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "chrome")


@dataclass(frozen=True)
class Check:
    """One line: what was looked at, how it stands, and what to do about it."""

    name: str
    state: str
    found: str
    remedy: str = ""


def examine() -> list[Check]:
    """All checks, in the order of the screen."""
    checks = (_python, _packages, _device, _kernels, _model, _notebooks, _kernelspec, _chromium, _node, _disk)
    return [check() for check in checks]


def render(checks: list[Check]) -> str:
    """The screen as text."""
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        lines.append(f"{check.state:8}{check.name:{width}}  {check.found}")
        if check.remedy:
            lines.append(f"{'':8}{'':{width}}  -> {check.remedy}")
    return "\n".join(lines)


def _python() -> Check:
    found = f"{platform.python_version()} at {sys.prefix}"
    old = sys.version_info < (3, 11)
    return Check("python", MISSING if old else OK, found, "install Python 3.11 or later" if old else "")


def required_versions() -> dict[str, str]:
    """The tested versions of this checkout's `constraints.txt`; empty where there is none (a wheel)."""
    path = PACKAGE.parent / "constraints.txt"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    pins = (line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    return {name.strip().lower().replace("_", "-"): version.strip() for name, version in pins}


def direct_requirements() -> list[str]:
    """The packages that workbench itself asks for, from its metadata; extras left out."""
    try:
        lines = metadata.requires("workbench") or []
    except metadata.PackageNotFoundError:
        return []
    return [re.split(r"[<>=!~;\[ ]", line)[0].lower() for line in lines if "extra ==" not in line]


def _packages() -> Check:
    tested, names = required_versions(), direct_requirements()
    if not names:
        remedy = "install it: make install, or pip install -c constraints.txt -e ."
        return Check("packages", MISSING, "workbench is not installed, only on the path", remedy)
    have = {name: _version(name) for name in names}
    absent = [name for name, version in have.items() if version is None]
    if absent:
        return Check("packages", MISSING, f"not installed: {', '.join(absent)}", "make install")
    other = [f"{n} {v} (tested: {tested[n]})" for n, v in have.items() if v and _differs(v, tested.get(n))]
    if other:
        return Check(
            "packages", NOTE, "; ".join(other), "pip install -c constraints.txt -e . gives the tested ones"
        )
    what = "at their tested versions" if tested else "installed (no constraints.txt here to compare with)"
    return Check("packages", OK, f"{len(have)} direct requirements {what}, torch {have.get('torch')}")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _differs(have: str, tested: str | None) -> bool:
    return tested is not None and have.split("+")[0] != tested.split("+")[0]


def _device() -> Check:
    import torch

    from workbench.models import default_device

    device = default_device()
    if device == "cpu":
        return Check(
            "device", NOTE, f"cpu, {torch.get_num_threads()} threads; no CUDA device is visible to torch"
        )
    gpu = torch.cuda.get_device_properties(0)
    return Check("device", OK, f"{device}: {gpu.name}, {gpu.total_memory / 2**30:.0f} GiB")


def _kernels() -> Check:
    import torch

    triton = importlib.util.find_spec("triton") is not None
    names = sorted(path.parent.name for path in (PACKAGE / "kernels").glob("*/op.py"))
    if torch.cuda.is_available() and not triton:
        return Check("kernels", NOTE, f"cpu and reference for {', '.join(names)}", "pip install triton")
    way = "triton" if torch.cuda.is_available() else "cpu"
    return Check(
        "kernels", OK if names else MISSING, f"{way} for {', '.join(names)}" if names else "none found"
    )


def _model() -> Check:
    from workbench.artifacts import sha256_file
    from workbench.errors import UserError
    from workbench.models import EMBEDDED, embedded_model_dir, resolve_model

    try:
        resolve_model(EMBEDDED)
    except UserError as error:
        return Check("model", MISSING, str(error), "python -m workbench.testbeds.embedded_model makes it")
    weights = embedded_model_dir() / "model.safetensors"
    size = weights.stat().st_size / 2**20
    return Check(
        "model", OK, f"embedded, {size:.1f} MiB, model.safetensors sha256 {sha256_file(weights)[:16]}"
    )


def _notebooks() -> Check:
    from workbench.runs.stages import STAGES

    absent = [s.notebook for s in STAGES.values() if not s.notebook_path().is_file()]
    where = asset_folder("notebooks")
    if absent:
        return Check("notebooks", MISSING, f"{where} lacks {', '.join(absent)}", "install workbench again")
    return Check("notebooks", OK, f"{len(STAGES)} stages in {where}")


def _kernelspec() -> Check:
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    try:
        spec = KernelSpecManager().get_kernel_spec("python3")
    except NoSuchKernel:
        return Check("jupyter", MISSING, "no kernel named python3", "pip install ipykernel")
    command = spec.argv[0]
    foreign = Path(command).is_absolute() and Path(command).resolve() != Path(sys.executable).resolve()
    if foreign:
        remedy = f"{sys.executable} -m ipykernel install --sys-prefix"
        return Check("jupyter", NOTE, f"kernel python3 starts another interpreter, {command}", remedy)
    return Check("jupyter", OK, "kernel python3 starts this interpreter")


def _chromium() -> Check:
    browser = next((path for name in CHROMIUM if (path := shutil.which(name))), None)
    driver = shutil.which("chromedriver")
    if browser and driver:
        return Check("chromium", OK, f"{browser}, {driver}")
    lacking = "chromedriver" if browser else "chromium"
    remedy = "apt install chromium chromium-driver"
    return Check("chromium", NOTE, f"no {lacking}: browser tests skip", remedy)


def _node() -> Check:
    node = shutil.which("node")
    if node:
        return Check("node", OK, node)
    return Check("node", NOTE, "no node: widget tests skip", "apt install nodejs")


def _disk() -> Check:
    free = shutil.disk_usage(Path.cwd()).free
    text = f"{free / 2**30:.1f} GiB free here; the demo needs about {DEMO_FREE_BYTES / 2**30:.0f}"
    return Check("disk", OK if free > DEMO_FREE_BYTES else MISSING, text)
