"""The comparison with other tools, without the other tools: its data, its measure of fidelity and its processes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.benchmarks.peers.interop import refused
from tests.benchmarks.peers.planted import WIDTH, fvu, planted_rows
from tests.benchmarks.peers.session import Session, Task, peak_memory, quality, run_in_turns
from tests.benchmarks.peers.table import Measured, table
from tests.benchmarks.peers.tools import OURS, TOOLS, Tool

DENSE = next(tool for tool in TOOLS if tool.name == "dense torch")


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> Task:
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(256, 32, generator=generator), dim=1)
    rows = planted_rows(3072, directions, generator) + 0.5
    path = tmp_path_factory.mktemp("peers") / "planted.safetensors"
    save_file({"train": rows[:2048].contiguous(), "held_out": rows[2048:].contiguous()}, path)
    return Task(str(path), d_sae=256, k=16, batch=128, steps=24, threads=1)


def random_weights(d_in: int, d_sae: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    shapes = {"W_enc": (d_in, d_sae), "b_enc": (d_sae,), "W_dec": (d_sae, d_in), "b_dec": (d_in,)}
    return {name: torch.randn(shape, generator=generator) / 8 for name, shape in shapes.items()}


def test_fvu_is_the_share_of_variance_that_the_dense_formula_leaves():
    weights, x = random_weights(16, 64), torch.randn(50, 16, generator=torch.Generator().manual_seed(2))
    pre = x @ weights["W_enc"] + weights["b_enc"]
    z = torch.where(pre >= pre.sort(dim=1, descending=True).values[:, 4:5], pre, 0).relu()
    left = (z @ weights["W_dec"] + weights["b_dec"] - x).square().sum()
    assert fvu(weights, x, 5) == pytest.approx(float(left / (x - x.mean(0)).square().sum()), rel=1e-5)


def test_fvu_of_the_mean_is_one():
    x = torch.randn(50, 16)
    weights = {**random_weights(16, 64), "W_dec": torch.zeros(64, 16), "b_dec": x.mean(0)}
    assert fvu(weights, x, 5) == pytest.approx(1.0, rel=1e-5)


def test_planted_rows_are_the_same_for_the_same_seed_and_rare_directions_are_rare():
    directions = torch.eye(WIDTH)
    rows = [planted_rows(500, directions, torch.Generator().manual_seed(3)) for _ in range(2)]
    torch.testing.assert_close(rows[0], rows[1], rtol=0, atol=0)
    used = (rows[0] > 0.45).float().mean(0)
    assert used[:10].mean() > 4 * used[-100:].mean() > 0


@pytest.mark.parametrize("tool", [OURS, DENSE], ids=lambda tool: tool.name)
def test_a_tool_learns_and_exports_the_function_that_it_computes(tool: Tool, task: Task, tmp_path: Path):
    with Session(tool, task, tmp_path, lr=1e-2) as session:
        assert len(session.ask("train", steps=task.steps)["wall"]) == task.steps
        value = quality(session, load_file(task.data)["held_out"], task.k, tmp_path)
    assert value < 0.9  # untrained above 3


def test_an_export_that_is_another_function_is_refused(task: Task, tmp_path: Path):
    class Lying:
        tool = DENSE

        def ask(self, do: str, path: str) -> dict[str, float]:
            save_file(random_weights(32, 256), path)
            return {"difference": 0.01}

    with pytest.raises(RuntimeError, match="exported weights of dense torch differ from its own by"):
        quality(Lying(), torch.randn(8, 32), task.k, tmp_path)  # pyright: ignore[reportArgumentType]


def test_a_process_that_dies_says_why(task: Task, tmp_path: Path):
    with pytest.raises(RuntimeError, match=r"dense torch stopped:[\s\S]*No such file"):
        Session(DENSE, Task(str(tmp_path / "absent"), 256, 16, 128, 24, 1), tmp_path)


def test_rounds_alternate_between_tools_and_leave_the_first_steps_out(task: Task):
    asked: list[tuple[str, int]] = []

    class Recorder:
        def __init__(self, name: str) -> None:
            self.name = name

        def ask(self, do: str, steps: int) -> dict[str, list[float]]:
            asked.append((self.name, steps))
            return {"wall": [2.0] * steps, "cpu": [1.0] * steps}

    taken = run_in_turns([Recorder("a"), Recorder("b")], task, 8, "cpu")  # pyright: ignore[reportArgumentType]
    assert [name for name, _ in asked] == ["a", "b"] * 4
    assert taken == [[[1.0] * 8, [1.0] * 8, [1.0] * 3]] * 2
    assert sum(steps for name, steps in asked if name == "a") == task.steps


def test_memory_counts_the_matrices_of_a_dense_step(task: Task, tmp_path: Path):
    wide = Task(task.data, d_sae=8192, k=16, batch=512, steps=24, threads=1)
    peak = peak_memory(DENSE, wide, tmp_path)
    if peak is None:
        pytest.skip("no /proc: memory is not measured here")
    assert 1.9 < peak / (wide.batch * wide.d_sae * 4) < 3.5  # pre-activations, codes, and a gradient


def test_the_table_names_tools_that_ours_does_not_equal(task: Task):
    rows = [Measured([[10.0, 10.0]], 0.300, 2**20), Measured([[40.0, 60.0]], 0.295, None)]
    text = table([OURS, DENSE], rows, task)
    assert "5.00x" in text
    assert "each or better: no: worse than dense torch" in text
    assert "or better: yes" in table([OURS, DENSE], [rows[0], Measured([[40.0, 60.0]], 0.298, None)], task)


def test_files_that_a_tool_refuses_or_reads_otherwise_are_named():
    same = {
        "folder": "a",
        "encode": 1e-6,
        "decode": None,
        "forward": 0.0,
        "largest_code": 4.0,
        "largest_reconstruction": 4.0,
    }
    records = {
        "saelens": [same, {**same, "folder": "b", "forward": 1e-4}],
        "sparsify": [{"folder": "c", "error": "KeyError: 'd_in'"}],
    }
    assert refused(records) == ["saelens/b", "sparsify/c"]
