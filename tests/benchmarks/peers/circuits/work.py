"""What is measured of each tool, and the process that does it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from safetensors.torch import load_file
from torch import Tensor

from tests.benchmarks.peers.process import Process
from tests.benchmarks.peers.tools import Environment

CIRCUIT_TRACER = Environment(
    "circuit-tracer",
    "circuit-tracer @ git+https://github.com/decoderesearch/circuit-tracer"
    "@4bb8c0ea10bde09727e14565ec8469656880da53",
    also=("transformer-lens==3.2.1", "transformers==4.57.3"),
)
# no release of its own on the package index; HookedTransformer, which it is written on, left TransformerLens in 4.0
EAP_IG = Environment(
    "eap-ig",
    "eap @ git+https://github.com/hannamw/EAP-IG@795f5607b25638935aec89aee3c1cb4bd9ed72f1",
    also=("transformer-lens==3.9.0", "transformers==5.23.0"),
    replaced=(("eap", "device='cuda'", "device=model.cfg.device"),),
)
OURS = "workbench"
TOOLS = {
    "circuit-tracer": (CIRCUIT_TRACER, "graph_circuit_tracer.py"),
    "EAP-IG": (EAP_IG, "edges_eap_ig.py"),
    "TransformerLens": (None, "patching_transformer_lens.py"),
    OURS: (None, "circuits_workbench.py"),
}


@dataclass(frozen=True)
class Work:
    """One measurement of one tool.

    Attributes:
        name: Its row of the table.
        tool: Of `TOOLS`.
        shape: Of `inputs.SHAPES`.
        task: What the harness is told beside the files.
        repeats: Runs in one process; the least time counts.
    """

    name: str
    tool: str
    shape: str
    task: Mapping[str, Any]
    repeats: int = 1


SIZES_OF_ONE = {"only": [4]}  # the circuit of 2% of the edges
# circuit-tracer, CPU seconds and peak MB of its graph by batch size, measured on a machine in use: 32 71 and 2,247;
# 64 65 and 2,583; 256 104 and 4,167; 512, its default, 143 and 4,037. It is compared at its fastest.
WORKS = (
    Work("graph", "circuit-tracer", "gpt2s", {"do": "graph", "batch_size": 64}),
    Work("prune", "circuit-tracer", "gpt2s", {"do": "prune"}),
    Work("eap", "EAP-IG", "tiny", {"do": "scores", "method": "EAP", "steps": 1, "rows": 32, "batch": 32}, 3),
    Work("eap", "EAP-IG", "gpt2s", {"do": "scores", "method": "EAP", "steps": 1, "rows": 4, "batch": 4}),
    Work(
        "eap-ig-5", "EAP-IG", "gpt2s",
        {"do": "scores", "method": "EAP-IG-inputs", "steps": 5, "rows": 4, "batch": 4},
    ),
    Work("evaluate", "EAP-IG", "gpt2s", {"do": "evaluate", "rows": 4, "batch": 4, **SIZES_OF_ONE}),
    Work("evaluate-10", "EAP-IG", "gpt2s", {"do": "evaluate", "rows": 4, "batch": 4, "only": list(range(10))}),
    Work("eap", "TransformerLens", "tiny", {"do": "edges", "rows": 32}),
    Work("eap", "TransformerLens", "gpt2s", {"do": "edges", "rows": 4}),
    Work("sweep", "TransformerLens", "tiny", {"do": "sweep", "what": "resid_pre", "rows": 1}, 3),
    Work("sweep", "TransformerLens", "gpt2s", {"do": "sweep", "what": "resid_pre", "rows": 1}),
    Work("sweep-heads", "TransformerLens", "gpt2s", {"do": "sweep", "what": "heads", "rows": 1}),
    Work("evaluate", "TransformerLens", "gpt2s", {"do": "faithfulness", "rows": 1, **SIZES_OF_ONE}),
    Work("graph", OURS, "gpt2s", {"do": "graph"}, 2),
    Work("prune", OURS, "gpt2s", {"do": "prune"}, 3),
    Work("eap", OURS, "tiny", {"do": "scores", "method": "EAP", "steps": 1, "rows": 32}, 5),
    Work("eap", OURS, "gpt2s", {"do": "scores", "method": "EAP", "steps": 1, "rows": 4}, 3),
    Work("eap-ig-5", OURS, "gpt2s", {"do": "scores", "method": "EAP-IG-inputs", "steps": 5, "rows": 4}, 2),
    Work("evaluate", OURS, "gpt2s", {"do": "evaluate", "rows": 4, **SIZES_OF_ONE}, 3),
    Work("evaluate-10", OURS, "gpt2s", {"do": "evaluate", "rows": 4, "only": list(range(10))}, 2),
    Work("evaluate-100", OURS, "gpt2s", {"do": "evaluate", "rows": 100, "only": list(range(10))}),
    Work("forward-100", OURS, "gpt2s", {"do": "forward", "rows": 100}, 3),
    Work("sweep", OURS, "tiny", {"do": "sweep", "what": "resid_pre", "rows": 1}, 5),
    Work("sweep", OURS, "gpt2s", {"do": "sweep", "what": "resid_pre", "rows": 1}, 2),
    Work("sweep-heads", OURS, "gpt2s", {"do": "sweep", "what": "heads", "rows": 1}, 2),
)  # fmt: skip


@dataclass(frozen=True)
class Taken:
    """One run.

    Attributes:
        seconds: Wall time.
        cpu_seconds: Processor time of the process, all threads.
        before_bytes: Resident before it, model and inputs loaded; 0 where there is no /proc.
        peak_rss_bytes: The high-water mark of resident memory during it, everything counted.
    """

    seconds: float
    cpu_seconds: float
    before_bytes: int
    peak_rss_bytes: int


class Measurement:
    """A process that has loaded the inputs of a work and runs it whenever asked, so that runs of several alternate.

    Args:
        work: Of `WORKS`, or one with another task.
        inputs: Folder that `inputs.write_shape` and `transcoders.write_transcoders` filled.
        scratch: Folder for the log and results.
        threads: Of torch and every library.
    """

    def __init__(self, work: Work, inputs: Path, scratch: Path, *, threads: int = 1) -> None:
        self.work, self.scratch = work, scratch
        environment, script = TOOLS[work.tool]
        name = f"{work.name}-{work.tool}-{work.shape}"
        self.result = scratch / f"{name}.safetensors"
        words = {**files(inputs / work.shape, scratch), **work.task, "threads": threads}
        self._process = Process(name, environment, script, words, scratch / f"{name}.log", threads=threads)
        self.versions = self._process.versions

    def run(self) -> Taken:
        """Do the work once."""
        return Taken(**self._process.ask("run"))

    def save(self) -> dict[str, Tensor]:
        """What the last run found, in the form that the harness describes; it stays in `result`."""
        self._process.ask("save", path=str(self.result))
        return load_file(self.result)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.close()


def files(shape: Path, scratch: Path) -> dict[str, str]:
    """Where everything lies that a harness may be told of."""
    names = {name: str(shape / f"{name}.safetensors") for name in ("pairs", "circuits")}
    graph = scratch / "graph-circuit-tracer-gpt2s.safetensors"
    return {
        "model": str(shape / "model"),
        "transcoders": str(shape / "transcoders"),
        "graph": str(graph),
        **names,
    }
