"""Features of a user's own array: a feature's top examples carry the label that was planted in the array."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.arrays import CONCEPTS, PlantedArray, plant_array
from workbench.errors import UserError
from workbench.features import FeatureStore, build_features
from workbench.panels.packing import pack_card
from workbench.training import train

TRAINING = {"d_sae": 16, "k": 1, "batch_size": 250, "n_tokens": 60_000, "lr": 5e-3}
OPTIONS = {"n_examples": 10, "n_quantile_examples": 3, "control_tokens": 2000}


def made_from(planted: PlantedArray) -> FeatureStore:
    train(planted.run, **TRAINING)
    return build_features(planted.run, **OPTIONS)


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> PlantedArray:
    return plant_array(tmp_path_factory.mktemp("array"))


@pytest.fixture(scope="module")
def features(planted: PlantedArray) -> FeatureStore:
    return made_from(planted)


@pytest.fixture(scope="module")
def shuffled(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """The control: the same rows, their labels dealt to other rows."""
    return made_from(plant_array(tmp_path_factory.mktemp("shuffled"), shuffled=True))


def alive(store: FeatureStore) -> list[int]:
    return [int(f) for f in store.table["feature"][store.table["n_fired"] > 10]]


def purity(store: FeatureStore) -> np.ndarray:
    """Share of each feature's top examples that have their commonest label."""
    tops = [[e.tokens[e.peak] for e in store.examples(f) if e.quantile == 0] for f in alive(store)]
    return np.array([max(map(top.count, top)) / len(top) for top in tops])


def test_top_examples_carry_the_planted_label(features: FeatureStore) -> None:
    assert purity(features).mean() > 0.95
    shown = features.table.set_index("feature").loc[alive(features), "peak_token"]
    assert set(shown) == set(CONCEPTS)
    assert len(features.search_token("tuba")) >= 1


def test_shuffled_labels_do_not(features: FeatureStore, shuffled: FeatureStore) -> None:
    assert alive(features) == alive(shuffled)  # the same rows give the same features
    assert purity(shuffled).mean() < 0.5


def test_the_control_tells_planted_labels_from_shuffled_ones(
    features: FeatureStore, shuffled: FeatureStore
) -> None:
    found, nothing = (store.meta["control"] for store in (features, shuffled))
    assert found["trained_minus_random"]["low_frac"] > 0.1
    assert found["trained"]["low_frac"] > found["positions"]["high_frac"]
    assert nothing["trained_minus_random"]["low_frac"] < 0.1
    assert found["n_blocks"] == 2000


def test_an_example_is_one_row_and_says_which(planted: PlantedArray, features: FeatureStore) -> None:
    dictionary = torch.from_numpy(planted.rows)
    for feature in alive(features):
        for example in features.examples(feature):
            assert (len(example.tokens), example.pos, example.peak) == (1, 0, 0)
            assert example.tokens == (planted.label[example.block],)
            assert example.activations == (example.value,)
            found = planted.store.locate([example.block])
            assert planted.store.labels[found["token"][0]] == example.tokens[0]
            assert torch.equal(planted.store.take([example.block])[0], dictionary[example.block])


def test_the_table_equals_the_dense_values(planted: PlantedArray, features: FeatureStore) -> None:
    from workbench.dictionaries import load_dictionary

    dictionary = load_dictionary(planted.run / "dictionary")
    indices, values = dictionary.encode(torch.from_numpy(planted.rows))
    full = torch.zeros(len(indices), dictionary.d_sae).scatter_(1, indices, values).double().numpy()
    assert (features.table["n_fired"] == (full > 0).sum(0)).all()
    np.testing.assert_allclose(features.table["density_frac"], (full > 0).mean(0))
    for feature in alive(features):
        top = np.sort(full[:, feature])[::-1][: OPTIONS["n_examples"]]
        shown = [e.value for e in features.examples(feature) if e.quantile == 0]
        np.testing.assert_allclose(shown, top, rtol=1e-4)
        assert features.histogram(feature)[1].sum() == (full[:, feature] > 0).sum()


def test_what_needs_a_model_is_absent(features: FeatureStore) -> None:
    meta = features.meta
    assert meta["model"] is meta["model_hash"] is meta["tokenizer_hash"] is meta["final_norm"] is None
    assert meta["parameters"]["logit_effects"] is False
    with pytest.raises(UserError, match="has no logit effects: its activations come from an array"):
        features.logits(0)
    card = pack_card(features, alive(features)[0]).card
    assert (card["up"], card["down"]) == ([], [])
    assert len(card["neighbours"]) == 10


def test_without_labels_there_is_no_control_and_a_reason(tmp_path) -> None:
    planted = plant_array(tmp_path, n_rows=600, labels=False)
    train(planted.run, **{**TRAINING, "n_tokens": 1000})
    store = build_features(planted.run, **OPTIONS)
    assert store.meta["control"] is None
    assert store.meta["no_control"] == "the rows have no labels to compare top examples by"
    assert store.examples(alive(store)[0])[0].tokens == ("(no label)",)
