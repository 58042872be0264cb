"""A training step never holds the (row, d_sae) matrix, not even half of it."""

from __future__ import annotations

import sys

import pytest

from tests.benchmarks.bench_kernels import step_peak_bytes

SIZE = ROWS, _, D_SAE, _ = 4096, 64, 4096, 32


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of resident memory from /proc")
def test_a_step_takes_less_than_half_of_the_dense_matrix():
    budget = ROWS * D_SAE * 4 // 2
    assert 0 < step_peak_bytes(SIZE) < 0.7 * budget
    assert step_peak_bytes(SIZE, dense=True) > 4 * budget, "the measurement sees what a dense step takes"
