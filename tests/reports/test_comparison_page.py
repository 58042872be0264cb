"""The page of a comparison: three sentences from the numbers, every row, no request, hostile text escaped."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pandas as pd
import pytest

from workbench.analyses.comparison.figures import FIGURES
from workbench.analyses.comparison.plan import make_plan
from workbench.analyses.comparison.reading import Compared, read_comparison
from workbench.analyses.comparison.results import Results, figure_row, refused_row
from workbench.analyses.comparison.rows import METHODS
from workbench.analyses.comparison.sizes import SIZES
from workbench.artifacts import write_json
from workbench.errors import UserError
from workbench.reports.comparison_charts import CONTROL, RANDOM, TRAINED, dots_chart, points
from workbench.reports.comparison_headline import comparison_headline
from workbench.reports.comparison_page import comparison_html, write_comparison
from workbench.reports.frontier_chart import frontier_points

SITES = ["planted.zipf", "planted.zipf.shuffled", "planted.absorbed", "model.resid", "random.resid"]
HOSTILE = "<script>alert(1)</script>"
GOOD = {"relu": 0.6, "topk": 0.9, "batch_topk": 0.8}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished comparison with invented figures: topk is the best everywhere, one learner was refused."""
    plan = make_plan(SIZES["smoke"], learners=[*GOOD, "gated"], sites=SITES)
    skipped = [{"learner": "fast", "row": 6, "sites": ["model.resid"], "reason": HOSTILE}]
    write_json(
        tmp_path / "comparison.json",
        {"size": "smoke", "seeds": [0, 1], "check_seeds": [], "skipped": skipped},
    )
    rows = []
    for member in plan.members:
        name = member.learner.name
        if name == "gated":
            rows.append(refused_row(member, "the loss is not finite"))
            continue
        value = GOOD[name] + 0.01 * member.seed
        lower = {figure: 1 - value if about.better < 0 else value for figure, about in FIGURES.items()}
        chance = {figure: 0.9 if about.better < 0 else 0.1 for figure, about in FIGURES.items()}
        near = {"l0": 8.0 if member.site.kind != "planted" else 3.0}
        rows += [figure_row(member, "trained", lower | near), figure_row(member, "random", chance | near)]
    Results(tmp_path).add(rows)
    return tmp_path


@pytest.fixture
def compared(run: Path) -> Compared:
    return read_comparison(run)


def test_the_answer_is_three_sentences_with_the_figures(compared: Compared) -> None:
    head = comparison_headline(compared)
    assert re.match(
        r"Of planted features topk recovers most \(90\.5% \[84\.1, 96\.9\] over 2 settings\)", head.answer
    )
    assert "and relu least (60.5%), 10.0% at most for random directions." in head.answer
    assert (
        "Of the 3 learners that spend about 8 latents per row in the residual stream topk recovers most"
        in head.answer
    )
    assert head.answer.endswith("No check of a method has a figure at this size.")
    assert head.verdict == "3 of 3 learners beat their random dictionary on every figure"
    assert "(matched cosine 0.905, 0.905 where the model's weights are random)" in head.answer
    assert head.tiles[2].control.endswith("; 0.905, trained where the model's weights are random")
    assert [tile.value for tile in head.tiles] == ["90.5%", "90.5%", "0.905"]


def test_a_learner_that_loses_is_named(run: Path) -> None:
    results = Results(run)
    where = (results.table["learner"] == "relu") & (results.table["set"] == "trained")
    results.table.loc[where, "fvu"] = 2.0
    results.write()
    head = comparison_headline(read_comparison(run))
    assert head.verdict.startswith("2 of 3 learners")
    assert "relu (3)" in head.verdict_detail


def test_the_page_has_every_method_and_says_what_is_left_out(compared: Compared) -> None:
    html = comparison_html(compared)
    assert all(f"{row}. {name}" in html for row, name in METHODS.items())
    assert html.count("– not run") == 18
    assert "the loss is not finite" in html
    assert HOSTILE not in html
    assert "&lt;script&gt;alert(1)" in html


def test_the_page_asks_for_nothing(run: Path) -> None:
    html = write_comparison(run).read_text(encoding="utf-8")
    assert "default-src &#39;none&#39;" in html
    body = re.sub(r"<script>.*?</script>", "", html, flags=re.S)
    assert not re.search(r"(?:src|href)\s*=\s*[\"']https?://", body)
    assert str(run.parent) not in html.replace(f"--run {run}", "")


def test_points_have_their_controls_and_the_best_is_first(compared: Compared) -> None:
    shown = points(compared, "planted.zipf", "recovered_frac")
    assert set(shown["kind"]) == {TRAINED, RANDOM, CONTROL}
    assert list(dict.fromkeys(shown["learner"])) == ["topk", "batch_topk", "relu"]
    assert list(dict.fromkeys(points(compared, "model.resid", "fvu")["learner"])) == [
        "topk",
        "batch_topk",
        "relu",
    ]
    chart = dots_chart(compared, "planted.zipf", "recovered_frac")
    assert chart is not None
    assert "topk is first with 0.905 of 3 learners" in chart.description


def test_a_figure_that_was_not_measured_has_no_chart(run: Path) -> None:
    results = Results(run)
    results.table["stability_cosine"] = math.nan
    results.write()
    compared = read_comparison(run)
    assert dots_chart(compared, "model.resid", "stability_cosine") is None
    assert frontier_points(compared, "model.resid", "stability_cosine").empty
    assert isinstance(comparison_html(compared), str)


def test_a_run_without_a_comparison_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no comparison"):
        write_comparison(tmp_path)


def test_an_empty_comparison_has_a_page(run: Path) -> None:
    results = Results(run)
    results.table = results.table.iloc[:0]
    results.write()
    found = comparison_html(read_comparison(run))
    assert "No planted setting was compared." in found
    assert isinstance(read_comparison(run).summary, pd.DataFrame)
