"""CPR and CMD on curves whose integrals are known, their intervals, and the axis that every result carries."""

from __future__ import annotations

import json

import numpy as np
import pytest

from workbench.circuits.scoring import MIB_SIZES, SizeAxis, area, cmd, cpr
from workbench.errors import UserError

MIB = SizeAxis("edges_frac", MIB_SIZES)
UNIT = SizeAxis("nodes_frac", (0.0, 0.5, 1.0))


def measured(curve: list[float], n_prompts: int, *, noise: float = 0.0) -> dict[str, np.ndarray]:
    """m of each size and prompt so that f is `curve` on average; full is 3 above empty."""
    rng = np.random.default_rng(0)
    empty = rng.normal(size=n_prompts)
    full = empty + 3 + 0.1 * rng.normal(size=n_prompts)
    f = np.array(curve)[:, None] + noise * rng.normal(size=(len(curve), n_prompts))
    return {"metric": empty + f * (full - empty), "full": full, "empty": empty}


def test_integrals_known_by_hand() -> None:
    """f = 1 from 0.001 on leaves 0.999; a triangle; f of 1.5 counts 0.5 in CMD; trapezoids of |1 - f|."""
    assert area([1.0] * 10, MIB, measure="CPR") == pytest.approx(0.999)
    assert area([1.0] * 10, MIB, measure="CMD") == pytest.approx(0.0)
    assert area([0.0, 0.5, 1.0], UNIT, measure="CPR") == pytest.approx(0.5)
    assert area([1.5] * 3, UNIT, measure="CMD") == pytest.approx(0.5)
    assert area([0.0, 2.0, 1.0], UNIT, measure="CMD") == pytest.approx((1 + 1) / 4 + 1 / 4)


def test_the_ends_of_the_axis_are_not_made_up() -> None:
    assert area([1.0, 1.0], SizeAxis("edges_frac", (0.2, 0.5)), measure="CPR") == pytest.approx(0.3)


def test_from_metrics_f_is_the_ratio_of_means() -> None:
    curve = [0.1, 0.9, 1.0]
    parts = measured(curve, 40)
    found = cpr(**parts, axis=UNIT, n_resamples=200)
    np.testing.assert_allclose(found.faithfulness, curve, atol=1e-12)
    assert found.area.value == pytest.approx(area(curve, UNIT, measure="CPR"))
    assert cmd(**parts, axis=UNIT, n_resamples=200).area.value == pytest.approx(
        area(curve, UNIT, measure="CMD")
    )
    assert (found.ranking, cmd(**parts, axis=UNIT).ranking) == ("signed", "absolute")


def test_the_interval_is_that_of_resampled_prompts() -> None:
    parts = measured([0.2, 0.8, 1.0], 25, noise=0.5)
    found = cmd(**parts, axis=UNIT, n_resamples=300, seed=5)
    drawn = []
    for rows in np.random.default_rng(5).integers(25, size=(300, 25)):
        top = (parts["metric"] - parts["empty"])[:, rows].mean(1)
        f = top / (parts["full"] - parts["empty"])[rows].mean()
        drawn.append(np.trapezoid(np.abs(1 - f), UNIT.sizes))
    np.testing.assert_allclose(
        [found.area.low, found.area.high], np.quantile(drawn, [0.025, 0.975]), atol=1e-12
    )
    assert found.area.low < found.area.value < found.area.high


def test_without_a_behaviour_there_is_no_area() -> None:
    """Full no higher than empty: the ratio means nothing."""
    parts = measured([0.2, 0.8, 1.0], 25)
    found = cpr(parts["metric"], full=parts["empty"], empty=parts["full"], axis=UNIT)
    assert np.isnan(found.area.value)
    assert np.isnan(found.faithfulness).all()


def test_every_result_states_its_axis() -> None:
    found = cpr(**measured([0.5] * 10, 8), axis=MIB, n_resamples=50)
    record = json.loads(json.dumps(found.as_dict()))
    assert record["axis"] == "edges_frac"
    assert record["sizes"] == list(MIB_SIZES)
    assert record["axis_statement"] == (
        "trapezoids over 10 sizes from 0.001 to 1, size being the share of all edges (edges_frac); "
        "nothing is added outside that range"
    )
    assert {"cpr", "cpr_low", "cpr_high", "n_prompts", "ranking"} <= record.keys()
    assert "cmd" not in record


@pytest.mark.parametrize("sizes", [(0.5,), (0.5, 0.1), (0.1, 0.1), (-0.1, 1.0), (0.5, 1.5), ()])
def test_sizes_that_are_no_axis_are_refused(sizes: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match="are no axis: give at least 2 rising shares between 0 and 1"):
        SizeAxis("edges_frac", sizes)


def test_bad_input_is_refused() -> None:
    parts = measured([0.5, 1.0], 8)
    with pytest.raises(UserError, match="axis kind 'edge_frac' is not known; the nearest: edges_frac"):
        SizeAxis("edge_frac", (0.0, 1.0))
    with pytest.raises(UserError, match="metric has 2 rows for 3 sizes"):
        cpr(**parts, axis=UNIT)
    with pytest.raises(UserError, match="faithfulness has 2 rows for 3 sizes"):
        area([0.5, 1.0], UNIT, measure="CPR")
    with pytest.raises(UserError, match=r"measure 'cpr' is not known; (the nearest|known)"):
        area([0.5, 1.0, 1.0], UNIT, measure="cpr")
    with pytest.raises(UserError, match="ranking 'sign' is not known; the nearest: signed"):
        cpr(**parts, axis=SizeAxis("nodes_frac", (0.5, 1.0)), ranking="sign")
