"""Random circuits keep the size and the kinds and do nothing; shuffled answers and random weights recover nothing."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.causal.conftest import native_model
from tests.circuits.validation.beds import EXACT, bed, judge, true_edges, true_nodes, wiring
from workbench.anatomy import open_anatomy
from workbench.circuits.validation.judge import open_judge
from workbench.circuits.validation.nulls import (
    compare,
    random_circuits,
    random_masks,
    recovered_logits,
    wilson,
)
from workbench.circuits.validation.pairs import shuffled_answers, two_halves
from workbench.circuits.validation.protocol import RESAMPLE
from workbench.circuits.wiring.catalogue import Wiring
from workbench.errors import UserError
from workbench.intervals import Estimate

OPTIONS = {"n_resamples": 200}


@pytest.mark.parametrize("name", EXACT)
def test_random_circuits_of_the_true_size_are_never_as_good(name: str) -> None:
    found = random_circuits(judge(name), true_edges(name), n_circuits=60, matched="none", **OPTIONS)
    assert found.faithfulness_frac == pytest.approx(1, abs=1e-9)
    assert found.as_good_frac.value == 0
    assert 0.03 < found.as_good_frac.high < 0.1
    assert abs(float(np.median(found.random_frac))) < 1e-9
    assert found.beats_control


def test_a_random_circuit_among_random_ones_is_nothing_special() -> None:
    mask = random_masks(true_edges("chain"), wiring("chain"), n_circuits=1, matched="kind", seed=9)[0]
    found = random_circuits(judge("chain"), mask, n_circuits=60, **OPTIONS)
    assert found.as_good_frac.value > 0.5
    assert not found.beats_control


@pytest.mark.parametrize("true", [true_edges, true_nodes], ids=["edges", "nodes"])
@pytest.mark.parametrize("matched", ["none", "kind", "kind+layer"])
def test_random_masks_keep_what_is_matched(true, matched: str) -> None:
    model, mask = wiring("xor_and"), true("xor_and")
    drawn = random_masks(mask, model, n_circuits=20, matched=matched, seed=0)
    assert (drawn.flatten(1).sum(1) == mask.sum()).all()
    assert not (drawn & ~judge("xor_and").whole(mask)).any()
    assert len({m.numpy().tobytes() for m in drawn}) > 3

    def census(one: torch.Tensor) -> Counter:
        ends = [
            (model.writers[p[0]], *([model.readers[p[1]]] if mask.ndim == 2 else []))
            for p in one.nonzero().tolist()
        ]
        return Counter(tuple(label(name) for name in pair) for pair in ends)

    def label(name: str) -> str:
        kind = name if name in ("embed", "logit") else name[0] + (name[-1] if name[-1] in "qkv" else "")
        layer = "" if name in ("embed", "logit") else name[1]
        return {"none": "", "kind": kind, "kind+layer": kind + layer}[matched]

    assert all(census(one) == census(mask) for one in drawn)
    again = random_masks(mask, model, n_circuits=20, matched=matched, seed=0)
    assert torch.equal(drawn, again)


def test_the_true_circuit_beats_shuffled_answers_and_another_circuit_does_not() -> None:
    one = judge("chain", n_pairs=64)
    shuffled = replace(one, batches=tuple(shuffled_answers(one.batches, seed=0)))

    def measure_of(mask: torch.Tensor):
        return lambda at: recovered_logits(at, mask, **OPTIONS)

    found = compare("shuffled-answers", measure_of(true_edges("chain")), one, shuffled)
    assert found.circuit.low > 4
    assert found.control.high < 2
    assert found.beats_control
    rest = wiring("chain").allowed & ~true_edges("chain")
    assert not compare("shuffled-answers", measure_of(rest), one, shuffled).beats_control
    assert not compare(
        "nothing", lambda at: Estimate(math.nan, math.nan, math.nan), one, shuffled
    ).beats_control


def test_a_model_of_random_weights_recovers_nothing() -> None:
    pairs, mask = bed("chain"), true_edges("chain")
    cfg = {
        k: getattr(pairs.model.cfg, k)
        for k in ("d_model", "n_layers", "n_heads", "d_head", "n_ctx", "d_vocab")
    }
    blank = native_model(**cfg, d_mlp=8, act_fn="relu", normalization_type=None, seed=1)
    random_judge = open_judge(Wiring(open_anatomy(blank)), RESAMPLE, judge("chain").batches)
    found = compare(
        "random-weights", lambda at: recovered_logits(at, mask, **OPTIONS), judge("chain"), random_judge
    )
    assert found.beats_control
    assert abs(found.control.value) < 0.05 < found.circuit.low


def test_wilson_intervals() -> None:
    """Against the closed form by hand for 0 of 20 and 10 of 20."""
    z2 = 1.959963984540054**2
    assert wilson(0, 20).low == 0
    assert wilson(0, 20).high == pytest.approx(z2 / (20 + z2))
    half = wilson(10, 20)
    assert half.value == 0.5
    assert half.high - 0.5 == pytest.approx(0.5 - half.low)
    assert half.high == pytest.approx(0.5 + (z2 / 80 + z2**2 / 1600) ** 0.5 / (1 + z2 / 20))


def test_pairs_are_split_and_shuffled_whole() -> None:
    batches = [bed("chain").batch(n, 3) for n in (9, 1)]
    halves = two_halves(batches, seed=0)
    sizes = [sum(len(b.answer) for b in half) for half in halves]
    assert sizes == [5, 5]
    rows = sorted(row for half in halves for b in half for row in b.clean.tolist())
    assert rows == sorted(row for b in batches for row in b.clean.tolist())
    shuffled = shuffled_answers(batches, seed=0)
    before, after = (torch.cat([b.answer for b in some]) for some in (batches, shuffled))
    assert sorted(before.tolist()) == sorted(after.tolist())
    assert not torch.equal(before, after)
    assert torch.equal(shuffled[0].clean, batches[0].clean)
    with pytest.raises(UserError, match="1 pairs make no two halves"):
        two_halves(batches[1:], seed=0)


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(UserError, match="matched 'layer' is not known"):
        random_circuits(judge("chain"), true_edges("chain"), matched="layer")
    with pytest.raises(UserError, match="n_circuits 0 is less than 1"):
        random_circuits(judge("chain"), true_edges("chain"), n_circuits=0)
