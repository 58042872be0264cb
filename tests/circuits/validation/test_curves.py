"""Where the circuit is known: true circuits score 1, their complements 0, ends exactly 1 and 0; areas by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.circuits.validation.beds import EXACT, bed, judge, true_edges, true_nodes, wiring
from workbench.circuits.validation.curves import faithfulness_curve, judge_circuit
from workbench.circuits.validation.judge import open_judge
from workbench.circuits.validation.protocol import DENOISE, MEAN, POSITION_MEAN, RESAMPLE, ZERO, Protocol
from workbench.circuits.validation.ranking import Ranking
from workbench.errors import UserError
from workbench.intervals import ratio_estimate

OPTIONS = {"n_resamples": 200}


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("true", [true_edges, true_nodes], ids=["edges", "nodes"])
def test_the_true_circuit_is_faithful_and_complete(name: str, true) -> None:
    found = judge_circuit(judge(name), true(name), **OPTIONS)
    assert found.faithfulness_frac.value == pytest.approx(1, abs=1e-9)
    assert found.completeness_frac.value == pytest.approx(0, abs=1e-9)
    assert found.faithfulness_frac.high - found.faithfulness_frac.low < 1e-9


@pytest.mark.parametrize("name", EXACT)
def test_a_circuit_without_one_true_edge_is_not(name: str) -> None:
    """The test above can fail: each true edge is needed."""
    whole = true_edges(name)
    for writer, reader in whole.nonzero().tolist():
        broken = whole.clone()
        broken[writer, reader] = False
        assert judge_circuit(judge(name), broken, **OPTIONS).faithfulness_frac.value < 0.99


@pytest.mark.parametrize(
    "protocol", [MEAN, POSITION_MEAN, ZERO, DENOISE], ids=lambda p: f"{p.kind}-{p.direction}"
)
def test_other_protocols_agree_on_a_bed_without_leaks(protocol: Protocol) -> None:
    found = judge_circuit(judge("chain", protocol), true_nodes("chain"), **OPTIONS)
    assert found.faithfulness_frac.value == pytest.approx(1, abs=1e-9)
    assert found.protocol["description"] == protocol.describe()


def test_ends_are_exactly_one_and_nothing() -> None:
    for mask in (true_edges("chain", 0.05), true_nodes("chain", 0.05)):
        noisy = judge("chain", leak=0.05)
        whole = judge_circuit(noisy, noisy.whole(mask), **OPTIONS)
        assert (whole.faithfulness_frac.value, whole.completeness_frac.value) == (1.0, 0.0)
        nothing = judge_circuit(noisy, torch.zeros_like(mask), **OPTIONS)
        assert (nothing.faithfulness_frac.value, nothing.completeness_frac.value) == (0.0, 1.0)


def test_completeness_is_the_faithfulness_of_the_rest() -> None:
    mask, noisy = true_edges("chain", 0.05), judge("chain", leak=0.05)
    rest = wiring("chain", 0.05).allowed & ~mask
    one, other = (judge_circuit(noisy, m, **OPTIONS) for m in (mask, rest))
    assert one.completeness_frac == other.faithfulness_frac
    assert one.faithfulness_frac == other.completeness_frac
    assert 0.8 < one.faithfulness_frac.value < 1.2


def oracle(name: str, leak: float = 0.05) -> Ranking:
    """True edges first, in an order that is kept."""
    scores = true_edges(name, leak).double() - 1e-3 * torch.rand(
        true_edges(name, leak).shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64
    )
    return Ranking(wiring(name, leak), scores, "signed")


def test_the_curve_of_the_truth_jumps_at_its_size_and_its_areas_are_trapezoids() -> None:
    n_true = int(true_edges("chain", 0.05).sum())
    noisy, ranking = judge("chain", leak=0.05), oracle("chain")
    sizes = [1, n_true - 1, n_true, 2 * n_true, ranking.n_total]
    curve = faithfulness_curve(noisy, ranking, sizes=sizes, **OPTIONS)
    f = curve.table["faithfulness_frac"].to_numpy()
    assert (f[:2] < 0.1).all()
    assert (np.abs(f[2:] - 1) < 0.1).all()
    assert f[-1] == 1.0
    assert curve.table["completeness_frac"].iloc[2] < 0.1
    x = np.array(sizes) / ranking.n_total
    assert curve.cpr.area.value == pytest.approx(float(((f[1:] + f[:-1]) / 2 * np.diff(x)).sum()))
    gap = np.abs(1 - f)
    assert curve.cmd.area.value == pytest.approx(float(((gap[1:] + gap[:-1]) / 2 * np.diff(x)).sum()))
    assert "share of all edges" in curve.cpr.axis.statement
    assert curve.n_runs_per_pair == 2 * len(sizes) + 3


def test_the_default_sizes_stay_within_thirty_runs_a_pair() -> None:
    curve = faithfulness_curve(judge("chain", leak=0.05), oracle("chain"), **OPTIONS)
    assert curve.n_runs_per_pair <= 30
    assert curve.table["kept_frac"].iloc[-1] == 1.0


def test_the_curve_is_that_of_single_circuits() -> None:
    """One batched call against one circuit at a time, value and interval."""
    noisy, ranking = judge("two_hop", leak=0.05), oracle("two_hop")
    curve = faithfulness_curve(noisy, ranking, sizes=[2, 3, 20], **OPTIONS)
    for row, mask in zip(curve.table.to_dict("records"), ranking.top([2, 3, 20]), strict=True):
        one = judge_circuit(noisy, mask, **OPTIONS)
        assert row["faithfulness_frac"] == pytest.approx(one.faithfulness_frac.value, abs=1e-12)
        assert row["completeness_frac_high"] == pytest.approx(one.completeness_frac.high, abs=1e-12)


def test_the_interval_covers_the_value_of_many_pairs() -> None:
    """f of 8 pairs, 60 draws, against f of 600 pairs; a 95% interval of few units holds it in about 90 of 100."""
    name, leak, mask = "parallel", 0.2, true_edges("parallel", 0.2)
    large = open_judge(wiring(name, leak), RESAMPLE, [bed(name, leak).batch(600, 99)])
    masks = torch.stack([mask, wiring(name, leak).allowed, torch.zeros_like(mask)])
    circuit, full, empty = large.metrics(masks)
    truth = (circuit - empty).mean() / (full - empty).mean()
    held = 0
    for draw in range(60):
        rows = np.random.default_rng(draw).integers(600, size=12)
        found = ratio_estimate((circuit - empty)[rows], (full - empty)[rows], n_resamples=300, seed=0)
        held += found.low <= truth <= found.high
    assert 45 <= held < 60


def test_a_model_without_the_behaviour_has_no_faithfulness() -> None:
    """Counterfactual prompts in place of clean ones: nothing separates the whole model from the empty circuit."""
    batch = bed("two_hop").batch(16, 0)
    batch.clean[:] = batch.counterfactual
    found = judge_circuit(open_judge(wiring("two_hop"), RESAMPLE, [batch]), true_edges("two_hop"), **OPTIONS)
    assert np.isnan(found.faithfulness_frac.value)
    assert found.full_logits.value == pytest.approx(found.empty_logits.value)


def test_sizes_that_make_no_curve_are_refused() -> None:
    for sizes in ([3], [3, 3], [4, 2]):
        with pytest.raises(UserError, match="make no curve: give at least 2 numbers"):
            faithfulness_curve(judge("chain"), oracle("chain", 0.0), sizes=sizes)
    with pytest.raises(UserError, match="size 9999 is not between 0 and the 262 edges"):
        faithfulness_curve(judge("chain"), oracle("chain", 0.0), sizes=[1, 9999])
