"""`python -m tests.benchmarks.peers`: see the package's docstring."""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from safetensors.torch import load_file

from tests.benchmarks.peers import __doc__ as about
from tests.benchmarks.peers.environments import python
from tests.benchmarks.peers.interop import exchange, refused
from tests.benchmarks.peers.planted import WIDTH, write_planted
from tests.benchmarks.peers.session import Session, Task, peak_memory, quality, run_in_turns
from tests.benchmarks.peers.table import Measured, table
from tests.benchmarks.peers.tools import D_SAE, OURS, TOOLS, Tool

K, BATCH = 32, 2048


def compare(tools: list[Tool], task: Task, scratch: Path, given: argparse.Namespace) -> None:
    """Run the comparison and print the table."""
    peaks = [peak_memory(tool, task, scratch) for tool in tools]
    held_out = load_file(task.data)["held_out"]
    with ExitStack() as stack:
        sessions = [stack.enter_context(Session(tool, task, scratch)) for tool in tools]
        taken = run_in_turns(sessions, task, given.round, given.clock)
        fvus = [quality(session, held_out, task.k, scratch) for session in sessions]
    measured = [Measured(*row) for row in zip(taken, fvus, peaks, strict=True)]
    print(table(tools, measured, task))
    if given.json:
        rows = {tool.name: vars(row) for tool, row in zip(tools, measured, strict=True)}
        given.json.write_text(json.dumps({"task": vars(task), "tools": rows}))


def rates(tools: list[Tool], task: Task, scratch: Path, given: argparse.Namespace) -> None:
    """FVU of each tool after the same tokens, by peak learning rate."""
    held_out = load_file(task.data)["held_out"]
    for tool in tools:
        for lr in tool.rates:
            with Session(tool, task, scratch, lr=lr) as session:
                session.ask("train", steps=task.steps)
                value = quality(session, held_out, task.k, scratch)
            print(f"{tool.name:20} lr {lr:.2e}  FVU {value:.4f}", flush=True)


def installed(words: str | None) -> tuple[list[Tool], bool]:
    """Ours and the tools whose names contain one of the words, with environments; and whether all could be made."""
    parts, tools, whole = words.split(",") if words else [""], [], True
    for tool in TOOLS:
        if tool is OURS or any(part in tool.name for part in parts):
            try:
                python(tool.environment)
                tools.append(tool)
            except subprocess.CalledProcessError as error:
                print(f"{tool.name} is left out: its environment could not be made ({error})")
                whole = False
    return tools, whole


def measure(given: argparse.Namespace) -> int:
    """`compare`, `rates` or `install`."""
    tools, whole = installed(given.tools)
    if given.action != "install":
        with tempfile.TemporaryDirectory() as name:
            scratch = Path(name)
            write_planted(scratch / "planted.safetensors")
            task = Task(str(scratch / "planted.safetensors"), D_SAE, K, BATCH, given.steps, given.threads)
            print(heading(given), flush=True)
            {"compare": compare, "rates": rates}[given.action](tools, task, scratch, given)
    return 0 if whole else 1


def heading(given: argparse.Namespace) -> str:
    """What is compared, on what."""
    machine = f"{platform.processor() or platform.machine()}, {given.threads} threads, {given.clock} time"
    task = f"d {WIDTH}, {D_SAE:,} latents, k {K}, batch {BATCH:,}"
    return f"{machine}: {task}, {given.steps} steps ({given.steps * BATCH:,} tokens)"


def files(action: str, folder: Path) -> int:
    """`interop` or `write`: the records as JSON; 1 where a tool refuses a file or computes something else from it."""
    records = exchange("read" if action == "interop" else "write", folder)
    print(json.dumps(records, indent=2))
    wrong = refused(records) if action == "interop" else []
    if wrong:
        print(f"refused or different: {', '.join(wrong)}", file=sys.stderr)
    return 1 if wrong or not any(records.values()) else 0


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    actions = ["compare", "rates", "install", "interop", "write"]
    parser.add_argument("action", nargs="?", choices=actions, default="compare")
    parser.add_argument("folder", nargs="?", type=Path, help="of interop and write")
    parser.add_argument("--tools", help="parts of names, with commas between; ours always runs")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument(
        "--round", type=int, default=10, help="steps of one tool before the next has its turn"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--clock", choices=["wall", "cpu"], default="wall", help="cpu: for a machine in use, with --threads 1"
    )
    parser.add_argument("--json", type=Path, help="also write every measured step there")
    given = parser.parse_args(words)
    if given.action not in ("interop", "write"):
        return measure(given)
    if given.folder is None:
        parser.error(f"{given.action} needs a folder")
    return files(given.action, given.folder)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
