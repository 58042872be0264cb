"""Two gloo processes against one: every weight and counter after some steps, in both modes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from workbench.dictionaries import Trainee, load_dictionary, make_architecture
from workbench.dictionaries.layouts import Single
from workbench.errors import UserError
from workbench.training import train
from workbench.training.checkpoint import checkpoint_folders
from workbench.training.distributed import Place, share
from workbench.training.source import Batch

WORKER = Path(__file__).with_name("distributed_worker.py")
RELATIVE = 2e-5  # of a tensor's largest entry, float32, after some steps


def torchrun(*words: str | Path) -> str:
    """What two processes print."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(WORKER.parents[2])}
    done = subprocess.run(
        [*command, *map(str, words)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def run_worker(out: Path, *words: str) -> dict[str, dict[str, float]]:
    """What the two processes found."""
    torchrun(WORKER, out, *words)
    return json.loads(out.read_text())


def test_two_processes_equal_one(tmp_path: Path) -> None:
    found = run_worker(tmp_path / "out.json")
    assert {name.split()[1] for name in found} == {"data", "latents"}
    for case, differences in found.items():
        assert differences.pop("dead") > 0 or "topk" not in case, "the auxiliary loss was never at work"
        assert max(differences.values()) < RELATIVE, (case, differences)


def test_the_comparison_sees_a_selection_that_is_not_exchanged(tmp_path: Path) -> None:
    found = run_worker(tmp_path / "out.json", "own selection")
    assert found["topk latents"]["W_dec"] > 1e-3
    assert found["topk data"]["W_dec"] < RELATIVE


OPTIONS = {"d_sae": 48, "k": 4, "batch_size": 200, "lr": 1e-2, "dead_after_tokens": 300}
STAGE = """
import sys
from pathlib import Path
from workbench.training import train
from workbench.training.step import Trainer

if sys.argv[4:] == ["stop"]:
    update = Trainer._update
    Trainer._update = lambda self, *rest: sys.exit(0) if self.step == 13 else update(self, *rest)
train(Path(sys.argv[1]), d_sae=48, k=4, n_tokens=int(sys.argv[3]), batch_size=200, lr=1e-2,
      dead_after_tokens=300, parallel=sys.argv[2], checkpoint_every_steps=10)
"""


@pytest.mark.parametrize("mode", ["data", "latents"])
def test_torchrun_trains_what_one_process_trains(plant, tmp_path: Path, mode: str) -> None:
    """Through the stage: the same dictionary, and one log."""
    alone, run = plant(n_rows=4_000, name="alone").run, plant(n_rows=4_000).run
    script = tmp_path / "stage.py"
    script.write_text(STAGE)
    printed = torchrun(script, str(run), mode, "4000")
    assert printed.count("training: 4,000 tokens in") <= 1, "every process prints"
    found, expected = load_dictionary(run / "dictionary"), train(alone, n_tokens=4_000, **OPTIONS)
    for name, tensor in expected.tensors.items():
        assert torch.allclose(found.tensors[name], tensor, rtol=1e-3, atol=1e-4), name
    assert pq.read_table(run / "dictionary" / "metrics.parquet")["step"].to_pylist() == [5, 10, 15, 20]
    assert found.metadata["identity"] == expected.metadata["identity"]


def test_one_process_goes_on_from_the_checkpoint_of_two(plant, tmp_path: Path) -> None:
    """Which holds whole tensors although each process had half of the latents."""
    alone, run = plant(n_rows=4_000, name="alone").run, plant(n_rows=4_000).run
    script = tmp_path / "stage.py"
    script.write_text(STAGE)
    torchrun(script, str(run), "latents", "4000", "stop")
    kept = checkpoint_folders(run / "dictionary" / "checkpoints")
    assert [path.name for path in kept] == ["step-00000010"]
    expected, found = train(alone, n_tokens=4_000, **OPTIONS), train(run, n_tokens=4_000, **OPTIONS)
    for name, tensor in expected.tensors.items():
        assert torch.allclose(found.tensors[name], tensor, rtol=1e-3, atol=1e-4), name


@pytest.fixture
def trainee() -> Trainee:
    """A fresh TopK trainee."""
    architecture = make_architecture("topk", {"d_sae": 12, "k": 5}, {})
    rows = torch.randn(50, 4)
    generator = torch.Generator().manual_seed(0)
    return Trainee.initialise(architecture, Single(d_in=4, d_out=4), rows, generator=generator)


@pytest.mark.parametrize(
    ("size", "message"),
    [(5, "d_sae 12 is not a multiple of the 5 processes"), (4, "leaves 3 latents per process")],
)
def test_sizes_that_do_not_divide_are_refused(trainee: Trainee, size: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        share(trainee, Place("latents", 0, size))


def test_rows_that_do_not_divide_are_refused() -> None:
    with pytest.raises(UserError, match="batch_size 7 is not a multiple of the 2 processes"):
        Place("data", 0, 2).rows(Batch(torch.randn(7, 3)))
