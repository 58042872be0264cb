"""The table of what was measured, and its JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tests.benchmarks.peers.circuits.work import Taken, Work

HEADER = ("work", "tool", "release", "shape", "seconds", "CPU s", "before MB", "peak MB")
PACKAGES = {"circuit-tracer": "circuit-tracer", "EAP-IG": "eap", "TransformerLens": "transformer-lens"}


@dataclass(frozen=True)
class Measured:
    """The runs of one work, none left out."""

    work: Work
    versions: dict[str, str]
    runs: tuple[Taken, ...]

    def least(self) -> Taken:
        """Each figure's least over the runs."""
        return Taken(
            *(min(values) for values in zip(*(asdict(run).values() for run in self.runs), strict=True))
        )

    def record(self) -> dict[str, Any]:
        """As JSON: the work with its sizes, releases, every run and the least figures."""
        return {**asdict(self.work), "versions": self.versions, "runs": list(map(asdict, self.runs)),
                **asdict(self.least())}  # fmt: skip

    def cells(self) -> tuple[str, ...]:
        """Its row."""
        least, work = self.least(), self.work
        times = f"{least.seconds:.2f}", f"{least.cpu_seconds:.2f}"
        sizes = f"{least.before_bytes / 1e6:,.0f}", f"{least.peak_rss_bytes / 1e6:,.0f}"
        return work.name, work.tool, self.versions[PACKAGES[work.tool]], work.shape, *times, *sizes


def table(measured: Sequence[Measured]) -> str:
    """One line per work."""
    lines = [HEADER, *(row.cells() for row in measured)]
    widths = [max(len(cells[i]) for cells in lines) for i in range(len(HEADER))]
    text = [
        "  ".join(
            cell.ljust(width) if i < 4 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        for cells in lines
    ]
    return "\n".join([*text, NOTES])


NOTES = """\
Least of the runs of one process with its inputs loaded. CPU s: processor time of the process, all threads.
before, peak: resident memory of the whole process before the work, and its high-water mark during it."""
