"""Planted settings: groups that fire together, children that imply their parent, values without spread."""

from __future__ import annotations

import pytest
import torch

from workbench.errors import UserError
from workbench.testbeds.planted import SETTINGS, PlantedFeatures, planted_features, planted_setting


def active(features: PlantedFeatures, n_rows: int = 20_000) -> torch.Tensor:
    block = features.block(0, n_rows)
    return torch.zeros(n_rows, len(features.directions)).scatter_add(1, block.indices, block.values) > 0


@pytest.mark.parametrize("size", ["small", "full"])
@pytest.mark.parametrize("name", SETTINGS)
def test_frequencies_and_l0_are_as_said(name: str, size: str) -> None:
    features = planted_setting(name, size=size)
    found = active(features, 6000).float()
    assert float(found.sum(1).mean()) == pytest.approx(SETTINGS[name][size]["mean_l0"], rel=0.06)
    assert torch.allclose(found.mean(0), features.frequency_frac, atol=0.03)
    assert torch.allclose(features.directions.norm(dim=1), torch.ones(len(features.directions)), atol=1e-5)


def test_features_of_a_group_fire_together_and_others_do_not() -> None:
    features = planted_features(
        n_features=24, d=16, mean_l0=4.8, support="correlated", exponent=0.0, group_size=4, shared_frac=0.8
    )
    found = active(features).float().T.corrcoef()
    same = torch.arange(24)[:, None] // 4 == torch.arange(24) // 4
    off = ~torch.eye(24, dtype=torch.bool)
    assert torch.allclose(found[same & off], torch.tensor(0.64), atol=0.05)
    assert float(found[~same].abs().max()) < 0.05


def test_a_child_implies_its_parent_and_excludes_its_siblings() -> None:
    features = planted_setting("hierarchical")
    found, parent = active(features), features.parent
    children = (parent >= 0).nonzero()[:, 0]
    assert len(children) == 32
    assert bool((found[:, parent[children]] | ~found[:, children]).all())
    for one in parent[children].unique():
        own = found[:, parent == one].sum(1)
        assert int(own.max()) == 1
        assert float(own[found[:, one]].float().mean()) == pytest.approx(0.6, abs=0.05)
    gram = features.directions @ features.directions.T
    assert torch.allclose(gram, torch.eye(40), atol=1e-5)


def test_values_without_spread_are_1() -> None:
    block = planted_setting("absorbed", size="small").block(0, 100)
    assert set(block.values.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("shuffled", [False, True])
def test_features_on_neurons_have_few_positive_entries_and_make_no_negative_number(shuffled: bool) -> None:
    features = planted_setting("neurons")
    assert set((features.directions != 0).sum(1).tolist()) == {4}
    assert float(features.directions.min()) == 0
    assert float(features.block(0, 4000, shuffled=shuffled).x.min()) >= 0
    assert float(planted_setting("zipf").block(0, 100).x.min()) < 0


def test_flat_features_have_no_parents() -> None:
    assert set(planted_setting("zipf", size="small").parent.tolist()) == {-1}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"support": "hierarchical", "n_children": 4}, r"n_features 24 .* not a multiple of 5"),
        ({"orthonormal": True}, "n_features 24 of the planted features is not at most d 16"),
        ({"spread": 3.0}, "spread 3.0 of the planted features is not between 0 and 2"),
        ({"shared_frac": 1.5}, "shared_frac 1.5"),
        ({"group_size": 0}, "group_size 0"),
        ({"support": "hierarchical", "n_children": 3, "child_frac": 0.0}, "child_frac 0.0"),
        ({"neurons": 17}, "neurons 17 of the planted features is not between 0 and d 16"),
        ({"neurons": 2, "offset_norm": 1.0}, "features on 2 neurons each are never negative"),
        (
            {"support": "hierarchical", "n_children": 3, "mean_l0": 9.0},
            "mean_l0 9.0 does not fit 24 features",
        ),
    ],
)
def test_bad_structure_is_refused(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        planted_features(**{"n_features": 24, "d": 16, "mean_l0": 2.0, **options})


@pytest.mark.parametrize(
    ("name", "size", "message"), [("zip", "full", "the nearest: zipf"), ("zipf", "tiny", "size 'tiny'")]
)
def test_unknown_settings_are_refused(name: str, size: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        planted_setting(name, size=size)
