"""The comparison of smoke size: every learner at every site, two of them with a second seed at three."""

from __future__ import annotations

from pathlib import Path

PAIR = ["topk", "batch_topk"]
PAIR_SITES = ["planted.zipf", "planted.hierarchical", "model.resid"]


def make(run: Path) -> None:
    """Made by its command, in one process: the other core is another test's."""
    from workbench.cli import main

    command = ["compare", "--run", str(run), "--size", "smoke", "--workers", "1", "--check-seeds"]
    assert main([*command, "--learners", *PAIR, "--sites", *PAIR_SITES]) == 0
    assert main([*command, "--seeds", "0"]) == 0
