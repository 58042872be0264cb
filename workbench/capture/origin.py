"""The model that a store came from, loaded again and recognised by its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.capture.options import PRECISIONS
from workbench.errors import UserError
from workbench.models import load_model, model_hash
from workbench.store import ActivationStore

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge


def load_captured_model(store: ActivationStore, *, device: str | None = None) -> TransformerBridge:
    """The model behind a store, in the precision of its weights then.

    Raises:
        UserError: the store was made from an array, or the model has other weights now.
    """
    source = store.description.get("model")
    if source is None:
        raise UserError(
            f"store {str(store.folder)!r} was made from an array: there is no model behind it to run"
        )
    weights, _ = PRECISIONS[store.description["precision"]]
    bridge = load_model(str(source), device=device, dtype=weights)
    check_captured_model(store, bridge)
    return bridge


def check_captured_model(store: ActivationStore, bridge: TransformerBridge) -> None:
    """Refuse a model that is not the one behind a store.

    Raises:
        UserError: its weights are others.
    """
    if model_hash(bridge) != store.description["model_hash"]:
        raise UserError(
            f"model {store.description['model']!r} has other weights now than those the activations came from: "
            "capture and train again"
        )
