"""The feature card: what makes one feature fire, how often, and what it writes.

Live, the browser changes `feature`, Python answers by setting `card` and `packed` together, and the browser
draws them if they are still the feature that it wants (newest wins). Frozen, `cards` holds every feature
that the page may show and `offered` lists them: the same `panel.js` looks there first.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import traitlets

from workbench.features.store import FeatureStore
from workbench.panels.base import Panel
from workbench.panels.packing import pack_card


class FeatureCard(Panel):
    """One feature of a feature store: heat text by activation range, histogram, logit effects, neighbours.

    Args:
        store: The opened features/ folder of a run.
        feature: The feature to show first.
        subtitle: A line under the number, for instance the hook and the dictionary.
    """

    panel: ClassVar[str] = "feature_card"

    feature = traitlets.Int(0).tag(sync=True)
    n_features = traitlets.Int(0).tag(sync=True)
    subtitle = traitlets.Unicode("").tag(sync=True)
    card = traitlets.Dict().tag(sync=True)
    packed = traitlets.Bytes(b"").tag(sync=True)
    offered = traitlets.List(traitlets.Int()).tag(sync=True)
    cards = traitlets.Dict().tag(sync=True)

    def __init__(self, store: FeatureStore, *, feature: int = 0, subtitle: str = "", **traits: Any) -> None:
        self._store = store
        super().__init__(feature=feature, subtitle=subtitle, n_features=store.n_features, **traits)
        self._answer()
        self.observe(self._answer, names="feature")

    @traitlets.validate("feature")
    def _known_feature(self, proposal: Any) -> int:
        return self._store.check_feature(proposal["value"])

    def _answer(self, _change: Any = None) -> None:
        packed = pack_card(self._store, self.feature)
        with self.hold_sync():
            self.card, self.packed = packed.card, packed.packed

    def freeze(self, features: Iterable[int] = ()) -> dict[str, Any]:
        """The state of this card for a page without Python, with `features` to leaf through."""
        offered = list(dict.fromkeys([self.feature, *features]))
        return {
            **super().freeze(),
            "card": {},
            "packed": b"",
            "offered": offered,
            "cards": self.pool(offered),
        }

    def pool(self, features: Iterable[int]) -> dict[str, Any]:
        """`cards` for these features: feature number as text -> {card, packed}."""
        packed = {str(feature): pack_card(self._store, feature) for feature in features}
        return {name: {"card": p.card, "packed": p.packed} for name, p in packed.items()}
