"""Charts of an evaluation and of a sweep: every number that was measured is in them, controls included."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.evaluation.test_frontier import write
from workbench.evaluation.frontier import frontier, sweep_folders
from workbench.reports.dictionary_charts import evaluation_charts, frontier_chart, frontier_figure
from workbench.reports.read import read_run
from workbench.reports.report import report_html
from workbench.reports.sections import dictionary_section


def distribution(scale: int) -> dict[str, Any]:
    return {
        "dense_frac": 0.01 * scale,
        "density": {"log10_edges": [-2, -1, 0], "n_latents": [scale, 3], "n_dead": 2, "n_rows": 100},
        "decoder_cosine": {
            "mean": 0.25 * scale, "near_copy_frac": 0.5, "edges": [0, 0.5, 1], "n_latents": [1, scale],
        },
    }  # fmt: skip


def test_histograms_hold_every_set_and_the_text_its_numbers() -> None:
    charts = {c.name: c for c in evaluation_charts({"trained": distribution(3), "random": distribution(1)})}
    use, alike = charts["latent-use"], charts["decoder-cosine"]
    assert (
        "Of 8 trained latents 2 fired on none of 100 tokens and 3.0% on more than a tenth" in use.description
    )
    assert "|cosine| of 0.75 on average; among random directions 0.25" in alike.description
    (rows,) = use.spec["datasets"].values()
    assert [r["latents"] for r in rows if r["set"] == "trained"] == [3, 3, 3]  # the last closes the step
    assert [r["latents"] for r in rows if r["set"] == "random"] == [1, 3, 3]


def test_an_older_evaluation_has_no_histograms() -> None:
    assert evaluation_charts({"trained": {"fvu": 0.1}}) == []
    assert evaluation_charts({}) == []


@pytest.fixture
def swept(tmp_path: Path) -> Path:
    for k, fvu in ((8, 0.3), (32, 0.1)):
        write(tmp_path / "dictionaries" / f"topk-k{k}", architecture="topk", l0=k, fvu=fvu)
    return tmp_path


def test_the_frontier_marks_controls_by_shape_and_says_the_best(swept: Path) -> None:
    table = frontier(sweep_folders(swept))
    chart = frontier_chart(table)
    assert chart is not None
    assert "2 dictionaries of 1 architectures, L0 from 8 to 32" in chart.description
    assert "10.0% (topk-k32, L0 32)" in chart.description
    lines, bars, dots = frontier_figure(table).to_dict()["layer"]
    assert dots["encoding"]["shape"]["scale"] == {
        "domain": ["trained", "random"],
        "range": ["circle", "diamond"],
    }
    assert "trained" in json.dumps(lines["transform"])
    assert bars["encoding"]["y2"]["field"] == "fvu_high"
    for fidelity in ("ce_recovered_frac", "kl_recovered_frac"):
        assert frontier_figure(table, fidelity=fidelity).to_dict()


def test_one_dictionary_is_no_frontier(swept: Path) -> None:
    table: pd.DataFrame = frontier(sweep_folders(swept)[:1])
    assert frontier_chart(table) is None


def test_the_report_of_a_swept_run_has_the_chart(swept: Path) -> None:
    run = read_run(swept)
    names = [chart.name for chart in dictionary_section(run).charts]
    assert names == ["frontier"]
    assert "Sparsity against fidelity" in report_html(run)


def test_the_mean_stands_where_there_is_no_k(tmp_path: Path) -> None:
    folder = write(tmp_path / "dictionary", architecture="relu", l0=31.26, fvu=0.3)
    assert folder.exists()
    assert "as a sum of 31.3 (on average) directions" in dictionary_section(read_run(tmp_path)).text
