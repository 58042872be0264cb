"""The layered engine against autograd, sums, thinning, chunking."""

from __future__ import annotations

import os
import signal

import pytest
import torch

from tests.circuits.attribution_graph.beds import (
    SHAPES,
    bed,
    bed_anatomy,
    make_transcoders,
    prompt,
    slow_effects,
)
from workbench.circuits.attribution_graph import frozen as frozen_module
from workbench.circuits.attribution_graph.engine import direct_effects
from workbench.circuits.attribution_graph.logits import logit_targets
from workbench.circuits.attribution_graph.replacement import Replacement, open_replacement
from workbench.circuits.attribution_graph.targets import feature_targets
from workbench.errors import UserError
from workbench.progress import Progress

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}
CASES = [(a, {}) for a in SHAPES] + [
    ("gpt2", {"cross": True}), ("gemma2", {"cross": True}), ("llama", {"skip": True}), ("neox", {"skip": True}),
    ("gemma2", {"writes": "blocks.{}.mlp.hook_out", "skip": True}),
    ("gpt2", {"reads": "blocks.{}.hook_resid_mid"}), ("llama", {"reads": "blocks.{}.ln2.hook_normalized"}),
]  # fmt: skip


def chosen(model: Replacement) -> list[int]:
    """A few features of every layer."""
    return list(range(2, model.sources.n_features, 17))


def largest_gap(model: Replacement, **options: object) -> float:
    """Largest difference to autograd, as a share of the largest effect."""
    features = chosen(model)
    wanted, top = slow_effects(model, features)
    rows = torch.tensor(features)
    found = direct_effects(model, feature_targets(model, rows), **options).dense(len(model.sources))
    logits = logit_targets(model, top.tolist()).targets
    last = direct_effects(model, logits).dense(len(model.sources))
    return float((torch.cat([found, last]) - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("architecture", "options"), CASES, ids=lambda v: str(v).replace("blocks.{}.", ""))
def test_effects_equal_autograd(architecture: str, options: dict[str, object], dtype: torch.dtype) -> None:
    model = bed(architecture, dtype, **options)
    if "reads" in options or "writes" in options:  # the slow definition reads normalised inputs
        check_sums(model, TOLERANCE[dtype])
    else:
        assert largest_gap(model) <= TOLERANCE[dtype]
        check_sums(model, TOLERANCE[dtype])


def check_sums(model: Replacement, tolerance: float) -> None:
    """All effects on a node and its constant make its activation; of logits the same."""
    targets = feature_targets(model)
    effects = direct_effects(model, targets)
    assert (effects.abs_total > 0).all()
    constant = targets.take(torch.arange(len(targets))).constant
    value = model.sources.active.value.to(constant)
    assert float((effects.total + constant - value).abs().max() / value.abs().max()) <= tolerance
    logits = logit_targets(model)
    read = model.anatomy.readout.uncapped(model.anatomy.ln_final(model.frozen.final_stream[-1]))
    wanted = read[logits.token_ids] - read.mean()
    found = direct_effects(model, logits.targets).total + logits.targets.constant
    assert float((found - wanted).abs().max() / wanted.abs().max()) <= tolerance


def test_a_forgotten_scale_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison with autograd finds a mixing matrix without the scale of the norm before attention."""
    model = bed("gpt2")
    wrong = property(lambda self: self.pattern / self.scales["ln1_post"])
    monkeypatch.setattr(frozen_module.FrozenLayer, "mixing", wrong)
    assert largest_gap(model) > 1e-2


def test_chunks_of_any_size_give_the_same_rows() -> None:
    model = bed("llama")
    whole = direct_effects(model, feature_targets(model))
    small = direct_effects(model, feature_targets(model), chunk_bytes=1)
    torch.testing.assert_close(
        small.dense(len(model.sources)), whole.dense(len(model.sources)), rtol=1e-4, atol=1e-6
    )


def test_long_prompts_mix_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen_module, "CAUSAL_BLOCK", 4)
    assert largest_gap(bed("gemma2", torch.float64)) <= 1e-9


def test_thinned_rows_are_the_largest_of_the_whole() -> None:
    model = bed("gpt2")
    targets = feature_targets(model)
    whole, few = direct_effects(model, targets), direct_effects(model, targets, edges_per_target=7)
    for target in (0, 50, len(targets) - 1):
        source, weight = few.row(target)
        all_source, all_weight = whole.row(target)
        best = all_weight.abs().topk(min(7, len(all_weight))).indices.sort().values
        assert torch.equal(source, all_source[best])
        assert torch.equal(weight, all_weight[best])
    assert torch.equal(few.abs_total, whole.abs_total)
    assert float(whole.kept_frac.min()) == pytest.approx(1.0, abs=1e-5)
    assert 0.1 < float(few.kept_frac.min()) < 1.0
    above = direct_effects(model, targets, threshold=0.05)
    assert torch.equal(above.weight, whole.weight[whole.weight.abs() >= 0.05])


def test_effects_are_causal() -> None:
    model = bed("gpt2")
    effects, sources = direct_effects(model, feature_targets(model)), model.sources
    layer, pos = sources.layer, sources.pos
    s, t = effects.source.long(), effects.target
    assert (layer[s] < layer[t]).all()
    assert (pos[s] <= pos[t]).all()
    assert (pos[s][layer[s] >= 0] >= 1).all()  # the first position has a token only


def test_a_run_is_bit_for_bit_the_same() -> None:
    model = bed("gpt2")
    one, two = (direct_effects(model, feature_targets(model)) for _ in range(2))
    assert torch.equal(one.weight, two.weight)
    assert torch.equal(one.source, two.source)


def test_a_position_more_changes_nothing_before_it() -> None:
    anatomy = bed_anatomy("gpt2")
    given = make_transcoders(anatomy)
    ids = prompt(10)
    short, long = (open_replacement(anatomy, part, given) for part in (ids[:8], ids))
    inside = (long.sources.active.pos < 8).nonzero()[:, 0]
    a = direct_effects(short, feature_targets(short)).total
    b = direct_effects(long, feature_targets(long, inside)).total
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{"edges_per_target": 0}, {"threshold": -1.0}])
def test_options_that_keep_nothing_are_refused(options: dict[str, object]) -> None:
    model = bed("gpt2")
    with pytest.raises(UserError, match="keep no edges"):
        direct_effects(model, feature_targets(model), **options)


def test_ctrl_c_stops_after_the_chunk_in_hand() -> None:
    model, chunks = bed("gpt2"), []

    class Pressed(Progress):
        def advance(self, n: int = 1, note: str = "") -> None:
            chunks.append(n)
            os.kill(os.getpid(), signal.SIGINT)

    targets = feature_targets(model)
    with pytest.raises(KeyboardInterrupt, match="no graph is kept, start the trace again"):
        direct_effects(model, targets, chunk_bytes=1, progress=Pressed(len(targets), "tracing", "targets"))
    assert chunks == [1]
