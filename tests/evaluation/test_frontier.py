"""The table of a sweep, and its Markdown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from workbench.errors import UserError
from workbench.evaluation import evaluate_sweep
from workbench.evaluation.frontier import FIGURES, frontier, markdown, sweep_folders
from workbench.training.sweep import grid, sweep


def write(
    folder: Path, *, architecture: str, l0: float, fvu: float, sets: tuple[str, ...] = ("trained", "random")
) -> Path:
    folder.mkdir(parents=True)
    identity = {"architecture": architecture, "layout": "autoencoder"}
    config = {"architecture": "jumprelu", "d_sae": 64, "metadata": {"workbench": {"identity": identity}}}
    (folder / "cfg.json").write_text(json.dumps(config))
    figures = dict.fromkeys(FIGURES, 0.5) | {"l0": l0}
    found = {name: {**figures, "fvu": fvu if name == "trained" else 1.0} for name in sets}
    (folder / "evaluation.json").write_text(json.dumps({**found, "inputs": {}}))
    return folder


def test_one_row_for_each_set_in_order(tmp_path: Path) -> None:
    write(tmp_path / "dictionaries" / "b", architecture="topk", l0=32, fvu=0.1)
    write(tmp_path / "dictionaries" / "a", architecture="topk", l0=8, fvu=0.3)
    write(
        tmp_path / "dictionaries" / "c",
        architecture="batch_topk",
        l0=16,
        fvu=0.2,
        sets=("trained", "random_model"),
    )
    table = frontier(sweep_folders(tmp_path))
    assert table[["architecture", "set", "l0", "fvu"]].to_numpy().tolist() == [
        ["batch_topk", "random_model", 16, 1.0],
        ["batch_topk", "trained", 16, 0.2],
        ["topk", "random", 8, 1.0],
        ["topk", "random", 32, 1.0],
        ["topk", "trained", 8, 0.3],
        ["topk", "trained", 32, 0.1],
    ]


def test_a_run_with_one_dictionary_is_a_sweep_of_one(tmp_path: Path) -> None:
    assert sweep_folders(tmp_path) == []
    folder = write(tmp_path / "dictionary", architecture="topk", l0=8, fvu=0.3)
    assert sweep_folders(tmp_path) == [folder]


def test_what_was_not_evaluated_or_is_old_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", architecture="topk", l0=8, fvu=0.3)
    (folder / "evaluation.json").write_text(json.dumps({"trained": {"fvu": 0.1, "l0": 3}}))
    with pytest.raises(UserError, match="is of an older format: evaluate it again"):
        frontier([folder])
    (folder / "evaluation.json").unlink()
    with pytest.raises(UserError, match=r"has no evaluation\.json: train and evaluate it first"):
        frontier([folder])


def test_markdown_has_a_dash_where_there_is_no_number(tmp_path: Path) -> None:
    folder = write(tmp_path / "a", architecture="topk", l0=8, fvu=0.3, sets=("trained",))
    table = frontier([folder]).assign(nmse=None)
    assert markdown(table, {"name": "", "fvu": ".1%", "nmse": ".3f"}) == (
        "| name | fvu | nmse |\n| --- | --- | --- |\n| a | 30.0% | – |"
    )


def test_a_sweep_is_measured_on_the_same_text_and_more_latents_explain_more(run: Path, model) -> None:
    with pytest.raises(UserError, match=r"has no dictionary in dictionaries/: train a sweep first"):
        evaluate_sweep(run, model=model)
    options = {"d_sae": 48, "batch_size": 100, "n_tokens": 4000, "lr": 5e-3}
    sweep(run, grid(architecture=["topk", "relu"], k=[2, 8]), **options)
    table = evaluate_sweep(run, model=model, n_blocks=20)
    assert table[["architecture", "set"]].value_counts().to_dict() == {
        (a, s): 2 for a in ("topk", "relu") for s in ("trained", "random")
    }
    topk = table[(table.architecture == "topk") & (table.set == "trained")]
    assert topk.l0.round().tolist() == [2, 8]
    assert topk.fvu.is_monotonic_decreasing
    assert table.n_tokens.nunique() == 1
    assert table.equals(frontier(sweep_folders(run)))
