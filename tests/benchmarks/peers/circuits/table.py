"""The table of what was measured, and its JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.benchmarks.peers.circuits.work import OURS, Taken, Work

HEADER = ("work", "tool", "release", "shape", "seconds", "CPU s", "before MB", "peak MB")
PACKAGES = {
    "circuit-tracer": "circuit-tracer",
    "EAP-IG": "eap",
    "TransformerLens": "transformer-lens",
    OURS: "transformer-lens",
}


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


def ratios(measured: Sequence[Measured], results: Path) -> str:
    """Each tool against the workbench on the same work: CPU time, memory, and how far the values differ."""
    ours = {(row.work.name, row.work.shape): row for row in measured if row.work.tool == OURS}
    lines = []
    for row in measured:
        own = ours.get((row.work.name, row.work.shape))
        if own is None or row is own:
            continue
        theirs, mine = row.least(), own.least()
        times = theirs.cpu_seconds / mine.cpu_seconds * prompts(own.work) / prompts(row.work)
        above = [max(t.peak_rss_bytes - t.before_bytes, 1) for t in (theirs, mine)]
        name = f"{row.work.name} {row.work.shape}: {row.work.tool}"
        lines.append(
            f"{name} takes {times:.1f} times the workbench's CPU time a prompt; memory above the loaded model "
            f"{above[0] / above[1]:.1f} times ({above[1] / 1e6:,.0f} MB here), whole peak "
            f"{theirs.peak_rss_bytes / mine.peak_rss_bytes:.2f} times; {agreement(row.work, own.work, results)}"
        )
    return "\n".join(lines)


def prompts(work: Work) -> int:
    """Prompts of one run."""
    return int(work.task.get("rows", 1))


def agreement(theirs: Work, ours: Work, results: Path) -> str:
    """Largest difference of what both found, as a share of the largest value."""
    found, own = (load_file(results / f"{w.name}-{w.tool}-{w.shape}.safetensors") for w in (theirs, ours))
    if "adjacency" in own and "adjacency" in found:
        return same_graph(found, own)
    shared = [n for n in own if n in found and n in ("scores", "values")]
    if not shared:
        return "values not compared"
    a, b = (t[shared[0]].double() for t in (found, own))
    b = b[:, : a.shape[1]] if shared[0] == "values" else b
    return f"{shared[0]} differ by {float((a - b).abs().max() / a.abs().max()):.1e} of the largest"


def same_graph(found: dict[str, Tensor], own: dict[str, Tensor]) -> str:
    """Rows and columns of features and errors, and rows of logits; tokens are defined differently."""
    same = torch.equal(found["active_features"].long(), own["active_features"].long())
    logits = torch.equal(found["logit_tokens"].long(), own["logit_tokens"].long())
    if not same or not logits or found["adjacency"].shape != own["adjacency"].shape:
        return f"NOT the same nodes (features {same}, logits {logits})"
    n_tokens = len(found["tokens"])
    keep = torch.ones(len(found["adjacency"]), dtype=torch.bool)
    keep[len(keep) - len(found["logit_tokens"]) - n_tokens : len(keep) - len(found["logit_tokens"])] = False
    a, b = (t["adjacency"][:, keep].double() for t in (found, own))
    return f"the same nodes, edges differ by {float((a - b).abs().max() / a.abs().max()):.1e} of the largest"
