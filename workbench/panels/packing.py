"""One feature as the browser receives it: a small JSON card and one block of 16-bit numbers.

Heat text is most of a card: for every example its tokens and their activations. Tokens repeat, so they go
as indices into a table of strings; activations go as 16-bit fractions of the feature's largest one, which
keeps 4 significant digits. Both are little-endian `uint16`, all token indices first:

    packed = [token index] * n + [round(65535 * activation / scale)] * n

`unpack` in `widgets/feature_card/panel.js` is the inverse (`panel.test.js` reads a card written here).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from workbench.features.store import Example, FeatureStore

STEPS = 65535
STATISTICS = ("density_frac", "n_fired", "mean", "std", "max", "dead")


@dataclass(frozen=True)
class PackedCard:
    """A feature card: the JSON half and the binary half (little-endian uint16)."""

    card: dict[str, Any]
    packed: bytes


def _plain(value: Any) -> Any:
    """A numpy scalar as the Python one; a number that JSON cannot hold as None."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not np.isfinite(value) else value


def pack_examples(examples: Sequence[Example]) -> tuple[dict[str, Any], bytes]:
    """The JSON and binary halves of a list of examples; the binary half is described above.

    Status: lossy; an activation comes back within scale / 131070.
    """
    table: dict[str, int] = {}
    indices = [table.setdefault(token, len(table)) for e in examples for token in e.tokens]
    values = np.asarray([a for e in examples for a in e.activations], dtype=np.float64).clip(min=0)
    scale = float(values.max(initial=0.0)) or 1.0
    levels = np.rint(values / scale * STEPS).astype("<u2")
    rows, start = [], 0
    for e in examples:
        rows.append([int(e.quantile), start, len(e.tokens), int(e.peak), float(e.value), str(e.document)])
        start += len(e.tokens)
    body = {"strings": list(table), "scale": scale, "examples": rows}
    return body, np.asarray(indices, dtype="<u2").tobytes() + levels.tobytes()


def trimmed_histogram(edges: np.ndarray, counts: np.ndarray, *, maximum: float) -> dict[str, list[Any]]:
    """The bins from the first to the last that holds a firing; the last edge is the maximum at most."""
    used = np.flatnonzero(counts)
    if not len(used):
        return {"edges": [], "counts": []}
    first, last = int(used[0]), int(used[-1]) + 1
    ends = np.minimum(edges[first : last + 1], maximum)
    return {"edges": [float(edge) for edge in ends], "counts": [int(count) for count in counts[first:last]]}


def logit_effects(store: FeatureStore, feature: int) -> tuple[list[list[Any]], list[list[Any]]]:
    """Tokens raised and lowered, as [token, logits]; empty for a store that was built without them."""
    if "logits.parquet" not in store.meta["files"]:
        return [], []
    effects = store.logits(feature)
    up, down = ([[str(token), float(value)] for token, value in side] for side in (effects.up, effects.down))
    return up, down


def pack_card(store: FeatureStore, feature: int) -> PackedCard:
    """Everything that a feature card shows about one feature of a feature store."""
    row = store.table.iloc[store.check_feature(feature)]
    up, down = logit_effects(store, feature)
    body, packed = pack_examples(store.examples(feature))
    card = {
        "feature": int(feature),
        "statistics": {name: _plain(row[name]) for name in STATISTICS if name in row},
        "ranges": [float(edge) for edge in row["quantile_edges"]],
        "histogram": trimmed_histogram(*store.histogram(feature), maximum=float(row["max"])),
        "up": up,
        "down": down,
        "neighbours": [[int(other), float(cosine)] for other, cosine in store.neighbours(feature)],
        **body,
    }
    return PackedCard(card=card, packed=packed)
