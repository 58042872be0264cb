"""`python -m tests.benchmarks.peers.circuits`: see the package's docstring."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.benchmarks.peers.circuits import __doc__ as about
from tests.benchmarks.peers.circuits.inputs import SHAPES, write_shape
from tests.benchmarks.peers.circuits.table import Measured, ratios, table
from tests.benchmarks.peers.circuits.transcoders import write_transcoders
from tests.benchmarks.peers.circuits.work import TOOLS, WORKS, Measurement, Work
from tests.benchmarks.peers.environments import python


def write_inputs(folder: Path, shapes: Sequence[str] = tuple(SHAPES)) -> None:
    """Write what the tools work on; models and transcoders that are there already are kept."""
    for name in shapes:
        (folder / name).mkdir(parents=True, exist_ok=True)
        write_shape(folder / name, SHAPES[name])
        if name == "gpt2s" and not (folder / name / "transcoders").exists():
            write_transcoders(folder / name / "transcoders", SHAPES[name])


def installed() -> tuple[set[str], bool]:
    """The tools whose environments are there or could be made; and whether all could."""
    tools, whole = set(), True
    for tool, (environment, _) in TOOLS.items():
        try:
            python(environment)
            tools.add(tool)
        except subprocess.CalledProcessError as error:
            print(f"{tool} is left out: its environment could not be made ({error})")
            whole = False
    return tools, whole


def chosen(tools: set[str], words: str | None) -> list[Work]:
    """The works of these tools whose name, tool or shape contains one of the words."""
    parts = words.split(",") if words else [""]
    return [w for w in WORKS if w.tool in tools and any(p in f"{w.name} {w.tool} {w.shape}" for p in parts)]


def measure(work: Work, inputs: Path, results: Path, threads: int) -> Measured:
    """Run a work as often as it says and keep its result."""
    with Measurement(work, inputs, results, threads=threads) as process:
        runs = tuple(process.run() for _ in range(work.repeats))
        process.save()
        return Measured(work, process.versions, runs)


def compare(works: Sequence[Work], inputs: Path, results: Path, given: argparse.Namespace) -> bool:
    """Measure all of them and print the table; whether none failed."""
    write_inputs(inputs, sorted({work.shape for work in works}))
    measured = []
    for work in works:
        try:
            measured.append(measure(work, inputs, results, given.threads))
        except RuntimeError as error:
            print(f"{work.name} of {work.tool} is left out: {error}")
    print(table(measured))
    print(ratios(measured, results))
    if given.json:
        given.json.write_text(json.dumps([row.record() for row in measured], indent=1))
    return len(measured) == len(works)


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", nargs="?", choices=["compare", "install"], default="compare")
    parser.add_argument("--only", help="parts of works' names, tools or shapes, with commas between")
    parser.add_argument("--inputs", type=Path, help="folder where the inputs are kept for the next time")
    parser.add_argument("--results", type=Path, help="folder where the tools' results are kept")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="also write every run there")
    given = parser.parse_args(words)
    tools, whole = installed()
    if given.action == "compare":
        with tempfile.TemporaryDirectory() as name:
            inputs, results = given.inputs or Path(name) / "inputs", given.results or Path(name) / "results"
            results.mkdir(parents=True, exist_ok=True)
            whole &= compare(chosen(tools, given.only), inputs, results, given)
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
