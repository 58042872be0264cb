"""Dictionaries exchanged with the tools themselves, each in its own environment.

    python -m tests.benchmarks.peers interop FOLDER    what lies there read by the tools
    python -m tests.benchmarks.peers write FOLDER      the tools' own random dictionaries put there

Layouts are folders: FOLDER/saelens, FOLDER/sparsify, FOLDER/dictionary_learning. Every folder below these that
holds `x.safetensors` is one dictionary in that tool's layout, with rows (`x`) and `expected.safetensors` (`codes`,
dense; `reconstructions`, of the whole forward pass). `interop` prints the largest absolute differences as JSON and
fails where one is larger than 1e-6 of the largest value or a file is refused. `write` makes the same files the
other way round: what the tool saved and what it computes, for a reader to be held against.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.benchmarks.peers.environments import HARNESS, python, variables
from tests.benchmarks.peers.tools import DICTIONARY_LEARNING, SAELENS, SPARSIFY

TOLERANCE = 1e-6
LAYOUTS = {
    "saelens": (SAELENS, "files_saelens.py"),
    "sparsify": (SPARSIFY, "files_sparsify.py"),
    "dictionary_learning": (DICTIONARY_LEARNING, "files_dictionary_learning.py"),
}
Records = dict[str, list[dict[str, Any]]]


def exchange(action: str, folder: Path) -> Records:
    """Records by layout: of every layout that has a folder there (`read`), or of all (`write`)."""
    return {
        layout: _ask(layout, action, folder / layout)
        for layout in LAYOUTS
        if action == "write" or (folder / layout).is_dir()
    }


def _ask(layout: str, action: str, folder: Path) -> list[dict[str, Any]]:
    environment, script = LAYOUTS[layout]
    words = [str(python(environment)), str(HARNESS / script), action, str(folder.resolve())]
    done = subprocess.run(words, env=variables(1), text=True, capture_output=True)
    if done.returncode:
        raise RuntimeError(f"{environment.package} failed on {folder}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout)


def refused(records: Records, tolerance: float = TOLERANCE) -> list[str]:
    """The dictionaries that a tool did not load or on which it computed something else."""
    return [
        f"{layout}/{record['folder']}"
        for layout, part in records.items()
        for record in part
        if "error" in record or any(share > tolerance for share in relative(record))
    ]


def relative(record: dict[str, Any]) -> Iterable[float]:
    """Differences of encode, decode and forward over the largest expected value, at least 1."""
    for name, scale in (("encode", "code"), ("decode", "reconstruction"), ("forward", "reconstruction")):
        if record[name] is not None:
            yield record[name] / max(1.0, record[f"largest_{scale}"])
