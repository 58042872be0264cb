"""The page of names: cheap to import, complete, and free of names that mean two things."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import workbench

ROOT = Path(__file__).resolve().parents[1]
PROBE = """
import json, sys, time
before = set(sys.modules)
start = time.perf_counter()
import workbench
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "modules": sorted(set(sys.modules) - before)}))
"""


def probe() -> dict[str, object]:
    done = subprocess.run([sys.executable, "-c", PROBE], cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_import_is_quick_and_loads_nothing_heavy() -> None:
    found = [probe() for _ in range(3)]
    assert min(float(str(f["seconds"])) for f in found) < 0.3
    heavy = {"torch", "numpy", "pandas", "altair", "transformers", "transformer_lens", "IPython"}
    modules = found[0]["modules"]
    assert isinstance(modules, list)
    assert not heavy.intersection(modules)


@pytest.mark.parametrize("name", workbench.__all__)
def test_every_name_on_the_page_is_there(name: str) -> None:
    assert getattr(workbench, name) is not None
    assert name in dir(workbench)


@pytest.mark.parametrize("name", workbench.__all__)
def test_no_name_is_also_a_module(name: str) -> None:
    package = ROOT / "workbench"
    assert not (package / f"{name}.py").exists()
    assert not (package / name).is_dir()


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'captrue'"):
        _ = workbench.captrue
