"""The parts of the report: numbers, charts, embedded JSON, chosen features, versions that must agree."""

from __future__ import annotations

import json
import re
from pathlib import Path

import altair as alt
import numpy as np
import pandas as pd
import pytest
import vl_convert
from hypothesis import given
from hypothesis import strategies as st

from workbench.intervals import Estimate
from workbench.reports.charts import density_chart, thin, training_charts
from workbench.reports.features import chosen_features, first_cards
from workbench.reports.format import correlation_text, estimate_text, number_text
from workbench.reports.html import PAGE, checked_script, embedded_json, page_scripts
from workbench.reports.read import read_run

PACKAGE = Path(PAGE).parents[1]


def test_numbers_are_short_and_carry_their_unit():
    assert estimate_text(Estimate(0.8412, 0.801, 0.88), "fraction") == "84.1% [80.1, 88.0]"
    assert estimate_text(Estimate(0.9, float("nan"), float("nan")), "r") == "0.90"
    assert (correlation_text(0.99985), correlation_text(-0.001), correlation_text(1.0)) == (
        "0.9999",
        "0.00",
        "1.00",
    )
    assert estimate_text(Estimate(2.3249, 2.0, 2.57), "logits") == "2.325 logits [2, 2.57]"
    assert (number_text(1234567), number_text(None), number_text(float("nan"))) == ("1,234,567", "–", "–")


@given(st.recursive(st.none() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=12))
def test_embedded_json_is_json_and_cannot_end_its_element(value: object):
    text = embedded_json(value)
    assert not set("<>&\u2028\u2029") & set(text)
    back = json.loads(text)
    assert back == json.loads(text)
    if isinstance(value, str):
        assert back == value


def test_bytes_and_missing_numbers_are_written_as_the_host_reads_them():
    assert (
        embedded_json({"b": b"\x00\x01", "n": float("nan"), "i": np.int64(3)})
        == '{"b":{"$bytes":"AAE="},"n":null,"i":3}'
    )


@pytest.mark.parametrize("bad", ["a </script> b", "a </SCRIPT", "<!-- x", "a\rb", "a\x00b"])
def test_a_script_that_would_break_its_element_is_refused(bad: str):
    with pytest.raises(ValueError, match=r"script 'x' holds"):
        checked_script(bad, "x")


def test_own_scripts_build_no_markup_from_text():
    for script in page_scripts()[1:]:
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|https?://", script)


def test_vega_versions_of_altair_and_of_the_bundle_agree():
    """The bundle that draws must be the one the specifications were written for; else pin both anew."""
    schema = alt.Chart().mark_point().to_dict(validate=False)["$schema"]
    minor = re.search(r"/v(\d+\.\d+)\.\d+\.json$", schema)
    assert minor is not None
    assert alt.VEGALITE_VERSION.startswith(f"{minor[1]}.")
    assert minor[1] == vl_convert.get_vegalite_versions()[-1]
    assert vl_convert.get_vega_version().split(".")[0] == alt.VEGA_VERSION
    assert vl_convert.get_vega_embed_version().split(".")[0] == alt.VEGAEMBED_VERSION


def test_the_mimetype_renderer_is_used_nowhere():
    pattern = re.compile(r"""renderers\.enable\(\s*["']mimetype""")
    assert pattern.search('alt.renderers.enable("mimetype")')
    files = [*PACKAGE.rglob("*.py"), *(PACKAGE.parent / "notebooks").glob("*.ipynb")]
    assert not [path.name for path in files if pattern.search(path.read_text(encoding="utf-8"))]


def test_thinning_keeps_both_ends():
    table = pd.DataFrame({"x": range(1000)})
    kept = thin(table, 25)["x"].tolist()
    assert (len(kept), kept[0], kept[-1]) == (25, 0, 999)
    assert thin(table.head(3), 25)["x"].tolist() == [0, 1, 2]


def test_training_curves_leave_a_constant_l0_out_and_say_their_ends():
    metrics = pd.DataFrame(
        {"tokens": [0, 10, 20], "fvu": [1.0, 0.5, 0.25], "l0": [8.0, 8.0, 8.0], "dead_frac": [0.0] * 3}
    )
    charts = {chart.name: chart for chart in training_charts(metrics)}
    assert sorted(charts) == ["training-dead_frac", "training-fvu"]
    assert "from 1 to 0.25" in charts["training-fvu"].description
    metrics["l0"] = [4.0, 6.0, 8.0]
    assert len(training_charts(metrics)) == 3


def test_density_counts_every_feature_once():
    chart = density_chart(pd.DataFrame({"density_frac": [0.0, 0.1, 0.01, 0.01]}))
    assert "3 of 4 features fired" in chart.description
    assert "1 are dead" in chart.description
    assert sum(int(row[2]) for row in chart.table.rows) <= 3
    assert "0 of 2 features fired" in density_chart(pd.DataFrame({"density_frac": [0.0, 0.0]})).description


def test_features_are_chosen_by_rule(whole_run: Path):
    run = read_run(whole_run)
    chosen = chosen_features(run, n=20, from_circuits=8)
    assert len(chosen) == len(set(chosen)) == 20
    traced = {
        int(f)
        for task in run.tasks
        for f in task.nodes.loc[(task.nodes["kind"] == "feature") & task.nodes["in_circuit"], "feature"]
    }
    assert set(chosen[:8]) <= traced
    assert run.features is not None
    dead = set(run.features.table.loc[run.features.table["dead"], "feature"])
    assert not dead & set(chosen[8:])
    assert chosen == chosen_features(run, n=20, from_circuits=8)
    assert first_cards(chosen, n=4)[0] == chosen[0]
    assert (first_cards([1], n=4), first_cards([], n=4)) == ([1], [])


def test_the_tour_has_no_outputs_and_short_cells():
    tour = json.loads((PACKAGE.parent / "notebooks" / "00-explore.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in tour["cells"] if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    assert max(sum(bool(line.strip()) for line in cell["source"]) for cell in cells) <= 9
    assert tour["cells"][0]["source"][0].rstrip().endswith("?")
