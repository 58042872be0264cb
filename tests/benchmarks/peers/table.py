"""What was measured, and the table that is printed of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from tests.benchmarks.peers.session import Task
from tests.benchmarks.peers.tools import Tool

EQUAL = 1.01  # an FVU within 1% counts as equal
HEADER = ("", "tokens/s", "ours / it", "by round", "goal", "FVU", "ours", "memory")


@dataclass(frozen=True)
class Measured:
    """One tool's run.

    Attributes:
        rounds_ms: Milliseconds of each step, by round.
        fvu: On the held-out rows, of the exported weights.
        peak_bytes: Largest memory of a step above parameters, gradients and optimiser state; None if not known.
    """

    rounds_ms: list[list[float]]
    fvu: float
    peak_bytes: int | None

    def tokens_per_s(self, batch: int) -> float:
        """From the median step of all rounds."""
        return 1e3 * batch / median(ms for part in self.rounds_ms for ms in part)

    def times(self, other: Measured) -> list[float]:
        """How many times as long its median step takes as the other's, round by round."""
        pairs = zip(self.rounds_ms, other.rounds_ms, strict=True)
        return [median(mine) / median(theirs) for mine, theirs in pairs]


def line(tool: Tool, row: Measured, ours: Measured, task: Task) -> tuple[str, ...]:
    """The cells of one tool."""
    times, unit = row.times(ours), task.batch * task.d_sae * 4
    return (
        tool.name,
        f"{row.tokens_per_s(task.batch):,.0f}",
        f"{median(times):.2f}x",
        f"{min(times):.2f}..{max(times):.2f}",
        "" if tool.goal is None else f"{tool.goal:g}x",
        f"{row.fvu:.4f}",
        f"{ours.fvu / row.fvu - 1:+.1%}",
        "-" if row.peak_bytes is None else f"{row.peak_bytes / unit:.2f}",
    )


def table(tools: Sequence[Tool], measured: Sequence[Measured], task: Task) -> str:
    """Speed, ours over it by round, fidelity after the same tokens, memory; ours is the first row."""
    ours = measured[0]
    lines = [HEADER, *(line(tool, row, ours, task) for tool, row in zip(tools, measured, strict=True))]
    widths = [max(len(cells[i]) for cells in lines) for i in range(len(HEADER))]
    text = [
        "  ".join(
            [cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))]
        )
        for cells in lines
    ]
    worse = [t.name for t, row in zip(tools, measured, strict=True) if ours.fvu > EQUAL * row.fvu]
    verdict = f"no: worse than {', '.join(worse)}" if worse else "yes"
    return "\n".join([*text, f"FVU of ours within 1% of each or better: {verdict}", NOTES])


NOTES = """\
ours / it: median over the rounds of the tool's median step over ours in the same round. FVU: of held-out rows, by
one function on the exported weights, after the same tokens in the same order; `ours` beside it is the difference.
memory: of a step, above parameters, gradients and optimiser state, in units of batch x latents x 4 bytes."""
