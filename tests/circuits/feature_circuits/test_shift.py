"""SHIFT on a planted set-up: a probe that learnt the wrong thing, repaired by removing one feature (CHECK A1.5)."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.circuits.feature_circuits.beds import coordinates
from tests.models_on_disk import native_model
from workbench.anatomy import open_anatomy
from workbench.circuits.feature_circuits import (
    FeatureSites,
    Labelled,
    NodeRef,
    ShiftTexts,
    list_features,
    open_sites,
    run_shift,
    train_original,
)
from workbench.circuits.feature_circuits.probe import pooled_activations, train_probe
from workbench.circuits.feature_circuits.shift import removing
from workbench.circuits.feature_circuits.shift_baselines import ShiftResult
from workbench.errors import UserError

D, N_POS, DEPTH = 32, 9, 6
WORDS = {"intended": ((1, 2), (3, 4)), "spurious": ((5, 6), (7, 8))}  # tokens of label 0 and of label 1
DIRECTIONS = {"intended": (0, 1), "spurious": (2, 3)}  # a coordinate for each label
TRAINING: dict[str, Any] = {"n_epochs": 100, "learning_rate": 0.05}


@pytest.fixture(scope="module")
def sites() -> FeatureSites:
    """A random model without norms whose words lie along coordinates, the spurious ones half as long again."""
    model = native_model(normalization_type=None)
    table = next(p for name, p in model.original_model.named_parameters() if name.startswith("tok_embed"))
    table[:, :4] = 0
    for kind, size in (("intended", 1.0), ("spurious", 1.5)):
        for tokens, coordinate in zip(WORDS[kind], DIRECTIONS[kind], strict=True):
            table[list(tokens)] = 0.05 * torch.randn(
                2, D, generator=torch.Generator().manual_seed(coordinate)
            )
            table[list(tokens), :4] = 0
            table[list(tokens), coordinate] = size
    return open_sites(open_anatomy(model), [coordinates("hook_embed", D)])


def texts(n: int, *, agree: bool, seed: int) -> Labelled:
    """A word of each kind at random places among other tokens."""
    generator = torch.Generator().manual_seed(seed)

    def draw(high: int, *shape: int) -> torch.Tensor:
        return torch.randint(0, high, shape, generator=generator)

    ids = 10 + draw(50, n, N_POS)
    ids[:, 0] = 0
    intended = torch.arange(n) % 2
    spurious = intended.clone() if agree else torch.arange(n) // 2 % 2
    places = torch.rand(n, N_POS - 1, generator=generator).argsort(1)[:, :2] + 1
    for column, (kind, label) in enumerate((("intended", intended), ("spurious", spurious))):
        choice = torch.tensor(WORDS[kind])[label, draw(2, n)]
        ids[torch.arange(n), places[:, column]] = choice
    return Labelled(ids, torch.ones_like(ids, dtype=torch.bool), intended, spurious)


@pytest.fixture(scope="module")
def given() -> ShiftTexts:
    """The experiment's texts."""
    return ShiftTexts(
        texts(400, agree=True, seed=0), texts(400, agree=False, seed=1), texts(400, agree=False, seed=2),
        torch.tensor([5, 6, 7, 8]), [[1], [2], [3], [4], [10], [11]],
    )  # fmt: skip


@pytest.fixture(scope="module")
def marked() -> list[NodeRef]:
    """What a judge who knows the plant marks."""
    return [NodeRef(0, coordinate) for coordinate in DIRECTIONS["spurious"]]


@pytest.fixture(scope="module")
def result(sites: FeatureSites, given: ShiftTexts, marked: list[NodeRef]) -> ShiftResult:
    """SHIFT and all its baselines."""
    return run_shift(sites, given, DEPTH, marked, **TRAINING)


def test_removing_the_spurious_features_repairs_the_probe(result: ShiftResult) -> None:
    """CHECK A1.5: balanced accuracy from about chance to above .95, spurious accuracy to .5 +- .05."""
    assert 0.45 < result.accuracy("original") < 0.7
    assert result.accuracy("original", "spurious") > 0.9
    assert result.accuracy("shift, retrained") > 0.95
    assert abs(result.accuracy("shift, retrained", "spurious") - 0.5) <= 0.05
    assert result.accuracy("shift") > 0.95
    assert abs(result.accuracy("shift", "spurious") - 0.5) <= 0.05


def test_every_baseline_is_in_the_table(result: ShiftResult) -> None:
    assert result.table["condition"].tolist() == [
        "original", "shift", "shift, retrained", "random features", "token deletion", "token deletion, retrained",
        "concept words", "neuron skyline", "oracle",
    ]  # fmt: skip
    assert result.accuracy("random features") < 0.7  # removing something else repairs nothing
    assert result.accuracy("oracle") > 0.95
    assert result.accuracy("token deletion, retrained") > 0.95  # as good as SHIFT here, and cheaper
    table = result.table.set_index("condition")
    assert (
        table.loc["shift", "worst_group_accuracy_frac"]
        > 0.9
        > table.loc["original", "worst_group_accuracy_frac"]
    )
    assert bool((table["intended_accuracy_frac_low"] <= table["intended_accuracy_frac"]).all())
    assert table.loc["random features", "n_ablated"] == 2


def test_the_list_shows_what_the_probe_uses(
    sites: FeatureSites, given: ShiftTexts, result: ShiftResult
) -> None:
    """The spurious features come first, then the intended ones."""
    found = list_features(sites, result.probe, given.ambiguous, DEPTH)
    assert {ref.feature for ref in found.features[:2]} == set(DIRECTIONS["spurious"])
    assert set(DIRECTIONS["intended"]) <= {ref.feature for ref in found.features[2:6]}
    assert found.table["node_id"].tolist()[0] in ("embed.f2", "embed.f3")
    assert found.table["effect_logits"].is_monotonic_decreasing
    assert found.table["n_texts"].tolist()[:2] == [200, 200]
    some = list_features(
        sites, result.probe, given.ambiguous, DEPTH, min_effect_logits=float(found.effect_logits[1])
    )
    assert len(some.features) == 1


def test_effects_are_complete(sites: FeatureSites, given: ShiftTexts, result: ShiftResult) -> None:
    """Effects of all features and errors add up to what replacing the embedding does to the probe's logit."""
    from workbench.circuits.feature_circuits import completeness_gap, node_effects, observe
    from workbench.circuits.feature_circuits.shift import prompts_of

    rows = torch.arange(40)
    seen = observe(sites, prompts_of(sites, result.probe, given.ambiguous, DEPTH, "intended", rows))
    assert completeness_gap(list(node_effects(sites, seen, n_steps=50))) < 0.1


def test_removal_is_decode_without_the_features_plus_error(
    sites: FeatureSites, marked: list[NodeRef]
) -> None:
    """x' = decode(f') + error: marked coordinates lose their positive part at every position after the first."""
    x = torch.randn(3, 5, D)
    offset = sites.position_part(5)
    changed = removing(sites, marked)["embed"](x + offset) - offset
    wanted = x.clone()
    wanted[:, 1:, [2, 3]] = wanted[:, 1:, [2, 3]].clamp_max(0)
    assert torch.allclose(changed, wanted, atol=1e-6)


def test_deleted_tokens_leave_shorter_texts(sites: FeatureSites) -> None:
    """What follows moves up, the mask ends earlier, and padding changes nothing."""
    ids = torch.tensor([[0, 5, 11, 12, 5], [0, 13, 14, 15, 16]])
    label = torch.tensor([0, 1])
    whole = Labelled(ids, torch.ones_like(ids, dtype=torch.bool), label, label)
    less = whole.without(torch.tensor([5]))
    assert less.ids.tolist() == [[0, 11, 12, 0, 0], [0, 13, 14, 15, 16]]
    assert less.mask.sum(1).tolist() == [3, 5]
    short = Labelled(ids[:1, [0, 2, 3]], torch.ones(1, 3, dtype=torch.bool), label[:1], label[:1])
    pooled = [pooled_activations(sites.anatomy, t, DEPTH) for t in (less, short)]
    assert torch.allclose(pooled[0][0], pooled[1][0], atol=1e-5)


def test_a_probe_is_seeded(sites: FeatureSites, given: ShiftTexts) -> None:
    first, again = (train_original(sites, given, DEPTH, **TRAINING) for _ in range(2))
    assert torch.equal(first.weight, again.weight)
    x = torch.cat([torch.randn(50, 4) - 1, torch.randn(50, 4) + 1])
    labels = torch.arange(100) // 50
    probe = train_probe(x, labels, n_epochs=60, batch_texts=10)
    assert float(((probe(x) > 0).long() == labels).float().mean()) > 0.95


def test_bad_input(sites: FeatureSites, given: ShiftTexts, marked: list[NodeRef]) -> None:
    with pytest.raises(UserError, match="200 ambiguous texts have different labels"):
        ShiftTexts(given.balanced, given.balanced, given.test, given.spurious_tokens, [[1]])
    with pytest.raises(UserError, match="the baselines are always run"):
        ShiftTexts(given.ambiguous, given.balanced, given.test, torch.tensor([], dtype=torch.long), [[1]])
    with pytest.raises(UserError, match="marked is empty"):
        run_shift(sites, given, DEPTH, [])
    with pytest.raises(UserError, match="feature 99 of embed cannot be removed"):
        removing(sites, [NodeRef(0, 99)])
    with pytest.raises(UserError, match="all labels of the training texts are equal"):
        train_probe(torch.randn(4, 2), torch.ones(4, dtype=torch.long))
    with pytest.raises(UserError, match=r"intended labels are \[0, 2\]"):
        Labelled(
            torch.zeros(2, 3, dtype=torch.long),
            torch.ones(2, 3, dtype=torch.bool),
            torch.tensor([0, 2]),
            torch.tensor([0, 1]),
        )
    late = open_sites(sites.anatomy, [coordinates("blocks.2.hook_resid_post", D)])
    with pytest.raises(UserError, match="lies after depth 2, where the metric is read"):
        run_shift(late, given, 2, [NodeRef(0, 1)], **TRAINING)
