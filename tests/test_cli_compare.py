"""`workbench compare`: the plan in words, one sentence for bad input, the page's path at the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.cli.compare import compare_command
from workbench.errors import UserError


def test_the_plan_is_said_without_training(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    options = [
        "--plan",
        "--learners",
        "topk",
        "fast",
        "--sites",
        "planted.zipf",
        "--run",
        str(tmp_path / "none"),
    ]
    assert compare_command(options) == 0
    said = capsys.readouterr().out
    assert "2 dictionaries at 1 sites" in said
    assert "left out: fast at planted.zipf: FAST is a way of capturing conversations" in said
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--size", "ful"], "size 'ful' of a comparison is not known; the nearest: full"),
        (["--seeds", "one"], "--seeds 'one' is not a whole number from 0 on"),
        (["--check-seeds", "-1"], "--check-seeds '-1' is not a whole number|expected|unrecognized"),
        (
            ["--learner", "topk"],
            "option '--learner' is unknown to `workbench compare`; the nearest: --learners",
        ),
        (["--learners", "tokp"], "learner 'tokp' is not one of the comparison"),
    ],
)
def test_bad_input_is_one_sentence(options: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        compare_command([*options, "--run", str(tmp_path)])


def test_a_comparison_ends_with_the_path_of_its_page(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from workbench.analyses.comparison.sizes import SIZES

    small = replace(SIZES["smoke"], planted_rows=2048, planted_steps=20, n_measured_rows=256, timed=True)
    monkeypatch.setitem(SIZES, "smoke", small)  # type: ignore[arg-type]
    options = ["--run", str(tmp_path), "--learners", "topk", "--sites", "planted.zipf", "--check-seeds"]
    assert compare_command(options) == 0
    said = capsys.readouterr().out.strip().splitlines()
    assert "2 dictionaries, about" in said[0]
    assert said[-1] == str(tmp_path / "comparison.html")
    assert (tmp_path / "comparison.html").stat().st_size > 100_000
