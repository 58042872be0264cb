"""The Python half of the feature card, with `set_state` playing the browser."""

from __future__ import annotations

import pytest

from workbench.errors import UserError
from workbench.features import FeatureStore
from workbench.panels import FeatureCard
from workbench.panels.packing import pack_card


def test_the_browser_asks_by_setting_the_feature_and_gets_that_card(store: FeatureStore):
    card = FeatureCard(store, feature=3)
    assert card.card["feature"] == 3
    card.set_state({"feature": 8})
    assert (card.feature, card.card["feature"]) == (8, 8)
    assert card.packed == pack_card(store, 8).packed != pack_card(store, 3).packed


def test_a_feature_that_is_not_there_is_refused_and_the_card_stays(store: FeatureStore):
    card = FeatureCard(store, feature=3)
    with pytest.raises(UserError, match=r"feature 9999 does not exist: this store has features 0 to 95"):
        card.feature = 9999
    assert (card.feature, card.card["feature"]) == (3, 3)
    with pytest.raises(UserError, match=r"feature -1 does not exist"):
        FeatureCard(store, feature=-1)


def test_unknown_trait_is_refused(store: FeatureStore):
    with pytest.raises(UserError, match=r"FeatureCard has no trait 'subtitel'"):
        FeatureCard(store, subtitel="x")


def test_frozen_card_carries_every_offered_feature_and_no_other(store: FeatureStore):
    state = FeatureCard(store, feature=3, subtitle="hook").freeze([7, 3, 9])
    assert state["offered"] == [3, 7, 9]
    assert sorted(state["cards"]) == ["3", "7", "9"]
    assert state["cards"]["7"]["packed"] == pack_card(store, 7).packed
    assert (state["subtitle"], state["n_features"]) == ("hook", store.n_features)
