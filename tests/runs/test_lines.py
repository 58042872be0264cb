"""A stage's output reaches the terminal line by line, labelled, and long silences are broken."""

from __future__ import annotations

import io
import time

from workbench.runs.lines import StageLines


def test_lines_appear_when_they_end_and_carry_the_label() -> None:
    out = io.StringIO()
    with StageLines("2/6 train", out, n_cells=3) as lines:
        lines.write("step 1")
        assert out.getvalue() == ""
        lines.write("00\nstep 200\r")
        assert out.getvalue() == "[2/6 train] step 100\n[2/6 train] step 200\n"
        lines.write("no end")
    assert out.getvalue().endswith("[2/6 train] no end\n")


def test_silence_is_broken_by_the_name_of_the_cell() -> None:
    out = io.StringIO()
    with StageLines("1/6 capture", out, n_cells=9, silence_s=0.2) as lines:
        lines.cell(number=4, what="Loading the model")
        deadline = time.monotonic() + 10
        while "Loading" not in out.getvalue() and time.monotonic() < deadline:
            time.sleep(0.05)
    assert "[1/6 capture] Loading the model (cell 4 of 9, for " in out.getvalue()


def test_a_talking_stage_is_left_alone() -> None:
    out = io.StringIO()
    with StageLines("1/6 capture", out, n_cells=9, silence_s=30.0) as lines:
        lines.write("working\n")
        time.sleep(0.7)
    assert out.getvalue() == "[1/6 capture] working\n"
