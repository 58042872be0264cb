"""The frontier: what is missing is drawn, names do not overlap, and who spends far more than asked is said."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.reports.comparison_charts import RANDOM, TRAINED
from workbench.reports.frontier_chart import _outside, frontier_figure, missing, name_places, spread, within


@pytest.fixture
def shown() -> pd.DataFrame:
    rows = [
        {"learner": name, "k": k, "kind": kind, "l0": k * factor, "value": value / k}
        for name, factor, value in (("topk", 1.0, 0.9), ("relu", 1.1, 0.92), ("far", 9.0, 0.5))
        for k in (8, 16)
        for kind in (TRAINED, RANDOM)
    ]
    table = pd.DataFrame(rows)
    ends = {f"{name}_{end}": table[name] for name in ("value", "l0") for end in ("low", "high")}
    return table.assign(**ends)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=25), st.floats(0.01, 1))
def test_names_stand_apart_in_their_order_about_their_middle(values: list[float], gap: float) -> None:
    own = np.sort(np.array(values))
    found = spread(own, gap)
    assert (np.diff(found) >= gap - 1e-9).all()
    assert found.mean() == pytest.approx(own.mean(), abs=1e-9)
    if (np.diff(own) >= gap).all():
        np.testing.assert_allclose(found, own, atol=1e-9)


def test_what_is_missing_is_one_less_a_share_that_should_be_high(shown: pd.DataFrame) -> None:
    table = shown.assign(value=0.9, value_low=0.8, value_high=0.95)
    found = missing(table, "ce_recovered_frac").iloc[0]
    assert [found["value_low"], found["value"], found["value_high"]] == pytest.approx([0.05, 0.1, 0.2])
    assert missing(table, "fvu").iloc[0]["value"] == 0.9


def test_who_spends_far_more_is_named_and_not_drawn(shown: pd.DataFrame) -> None:
    assert set(shown[within(shown)]["learner"]) == {"topk", "relu"}
    assert "far (L0 72 to 144: 0.031 to 0.062)" in _outside(shown[shown["kind"] == TRAINED])
    drawn = str(frontier_figure(shown, "fvu").to_dict(validate=True))
    assert "'far'" not in drawn
    assert "'topk'" in drawn


def test_a_name_is_tied_to_the_densest_dictionary(shown: pd.DataFrame) -> None:
    places = name_places(shown[within(shown)]).set_index("learner")
    assert places.loc["topk", "l0"] == 16
    assert places.loc["topk", "name_l0"] > 16 * 1.1
