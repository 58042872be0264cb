"""A trainer's process, driven by JSON lines, and a run of several in turns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from tests.benchmarks.peers.planted import fvu
from tests.benchmarks.peers.process import NOTHING, Process
from tests.benchmarks.peers.tools import Tool

WARMUP_STEPS, WATCHED_STEPS = 5, 3
GIVE_BACK = {
    "MALLOC_MMAP_THRESHOLD_": "65536"
}  # glibc: blocks from 64 KiB on are mapped, and unmapped when freed
EXPORT_TOLERANCE = 1e-3  # of the largest value: rows where two pre-activations tie in float32 may differ


@dataclass(frozen=True)
class Task:
    """What every tool is asked to do."""

    data: str
    d_sae: int
    k: int
    batch: int
    steps: int
    threads: int
    seed: int = 0
    warmup_frac: float = 0.05
    decay_frac: float = 0.3


class Session(Process):
    """One trainer's process."""

    def __init__(
        self,
        tool: Tool,
        task: Task,
        scratch: Path,
        *,
        lr: float | None = None,
        extra: Mapping[str, str] = NOTHING,
    ) -> None:
        self.tool = tool
        words = {**vars(task), **tool.options, "lr": tool.lr if lr is None else lr}
        log = scratch / f"{tool.script}.log"
        super().__init__(
            tool.name, tool.environment, tool.script, words, log, threads=task.threads, extra=extra
        )


def quality(session: Session, held_out: Tensor, k: int, scratch: Path) -> float:
    """FVU of what a tool exports; refused where the export is not the function that the tool computes."""
    path = scratch / "weights.safetensors"
    difference = session.ask("export", path=str(path))["difference"]
    if not difference < EXPORT_TOLERANCE:
        raise RuntimeError(
            f"the exported weights of {session.tool.name} differ from its own by {difference:.1e}"
        )
    return fvu(load_file(path), held_out, k)


def peak_memory(tool: Tool, task: Task, scratch: Path) -> int | None:
    """Largest memory of a step above parameters, gradients and optimiser state, in a process of its own."""
    with Session(tool, task, scratch, extra=GIVE_BACK) as session:
        session.ask("train", steps=WARMUP_STEPS)
        session.ask("watch")
        session.ask("train", steps=WATCHED_STEPS)
        return session.ask("memory")["peak_bytes"]


def run_in_turns(
    sessions: Sequence[Session], task: Task, round_steps: int, clock: str
) -> list[list[list[float]]]:
    """Milliseconds of each step, by tool and round: a round of each in turn, so that other load meets all of them.

    The first steps of a process are not in it. `clock` is "wall", or "cpu" for the time of the process alone,
    which means the same as wall time only with one thread.
    """
    for session in sessions:
        session.ask("train", steps=WARMUP_STEPS)
    taken: list[list[list[float]]] = [[] for _ in sessions]
    for start in range(WARMUP_STEPS, task.steps, round_steps):
        for session, rounds in zip(sessions, taken, strict=True):
            rounds.append(session.ask("train", steps=min(round_steps, task.steps - start))[clock])
    return taken
