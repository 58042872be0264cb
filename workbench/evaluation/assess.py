"""All figures of one dictionary folder of a run, beside those of its random control."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.capture import check_captured_model, load_captured_model
from workbench.capture.options import PRECISIONS
from workbench.dictionaries import Dictionary, load_dictionary
from workbench.errors import UserError
from workbench.evaluation.control import random_control
from workbench.evaluation.ends import Ends, ends_of
from workbench.evaluation.geometry import cosine_structure
from workbench.evaluation.material import (
    Stores,
    choose_passages,
    choose_rows,
    drawn_batches,
    open_stores,
    take_columns,
)
from workbench.evaluation.measure import measure_quality, measure_rows
from workbench.evaluation.quality import Quality
from workbench.evaluation.usage import measure_usage
from workbench.store import ActivationStore

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

USAGE_ROWS = 4096


@dataclass(frozen=True, kw_only=True)
class Extent:
    """How much is measured, as the arguments of `evaluate`."""

    n_blocks: int = 96
    n_dead_tokens: int = 100_000
    batch_blocks: int = 8
    seed: int = 0

    def __post_init__(self) -> None:
        if self.n_blocks < 2 or self.n_dead_tokens < 1 or self.batch_blocks < 1:
            raise UserError(
                f"n_blocks {self.n_blocks} must be at least 2, n_dead_tokens and batch_blocks at least 1"
            )


@dataclass(frozen=True)
class Subject:
    """A dictionary and the activations that it was made for.

    Attributes:
        dictionary: The trained one.
        ends: Where it reads and writes.
        stores: Activations by hook, the first input's first.
    """

    dictionary: Dictionary
    ends: Ends
    stores: Stores

    @classmethod
    def open(cls, run: Path, folder: Path, *, other_run: Path | None = None) -> Subject:
        """The dictionary of a folder and the stores of a run, or of two for a crosscoder of two models.

        Raises:
            UserError: the folder has no dictionary, or the run no activations of that width.
        """
        dictionary = load_dictionary(folder)
        ends = ends_of(dictionary)
        stores = open_stores(run, ends, other_run=other_run)
        dictionary.check_width(sum(stores[site.name].d_model for site in ends.inputs))
        return cls(dictionary, ends, stores)

    @property
    def store(self) -> ActivationStore:
        """The store of the first input."""
        return next(iter(self.stores.values()))

    @property
    def hashes(self) -> Any:
        """Of the store, or by hook of several."""
        found = {name: store.hash for name, store in self.stores.items()}
        return self.store.hash if len(found) == 1 else found


def assess(subject: Subject, extent: Extent, *, model: TransformerBridge | None = None) -> dict[str, Any]:
    """Quality, use of latents and decoder geometry of the dictionary and of its random control.

    Args:
        subject: What is measured.
        extent: How much.
        model: The model, if it is loaded already.

    Returns:
        `{"trained": {...}, "random": {...}, hook_name, hook_name_out, model_hash, text}`.

    Raises:
        UserError: the model is another than the one captured, or its activations do not fit.
        StoreError: a file of a store is damaged.
    """
    pair = {"trained": subject.dictionary, "random": random_control(subject, seed=extent.seed)}
    store = subject.store
    if store.description["model"] is None or subject.ends.two_models:
        measured, text = _on_rows(subject, pair, extent, model)
    else:
        bridge = _model(store, model)
        passages, text = choose_passages(subject.stores, bridge, n_blocks=extent.n_blocks, seed=extent.seed)
        _, mixed = PRECISIONS[store.description["precision"]]
        measured = measure_quality(
            bridge, pair, passages, batch_blocks=extent.batch_blocks, mixed=mixed, seed=extent.seed
        )
    about = {"hook_name": subject.dictionary.hook_name, "hook_name_out": subject.dictionary.hook_name_out}
    return {
        **{name: {**measured[name].to_json(), **_inner(subject, pair[name], extent)} for name in pair},
        **about, "model_hash": store.description["model_hash"], "text": text,
    }  # fmt: skip


def _inner(subject: Subject, dictionary: Dictionary, extent: Extent) -> dict[str, Any]:
    """What concerns the latents themselves."""
    batches = drawn_batches(
        subject.stores, subject.ends.inputs,
        n_rows=extent.n_dead_tokens, batch_rows=USAGE_ROWS, seed=extent.seed,
    )  # fmt: skip
    usage = measure_usage(dictionary, batches)
    return {
        "dead_frac": usage.dead_frac,
        "dense_frac": usage.dense_frac,
        "density": usage.histogram(),
        "decoder_cosine": cosine_structure(dictionary),
    }


def _on_rows(
    subject: Subject, pair: dict[str, Dictionary], extent: Extent, model: TransformerBridge | None
) -> tuple[dict[str, Quality], dict[str, Any]]:
    """Measured on rows, of an array or of two models, without losses.

    Raises:
        UserError: a model was given, or what is reconstructed was not stored.
    """
    store, ends = subject.store, subject.ends
    if model is not None and ends.two_models:
        raise UserError("a crosscoder of two models has no one model to be spliced into: leave model out")
    if model is not None:
        raise UserError(
            f"store {str(store.folder)!r} was made from an array, so a model has nothing to be compared with: leave "
            "model out"
        )
    for site in ends.targets:
        if site.name not in subject.stores:
            raise UserError(
                f"the array {site.name!r}, which the dictionary reconstructs, is not in the run: import it"
            )
    rows, group, text = choose_rows(store, n_blocks=extent.n_blocks, seed=extent.seed)
    x = take_columns(subject.stores, ends.inputs, rows)
    y = None if ends.same else take_columns(subject.stores, ends.targets, rows)
    return measure_rows(pair, x, group, y=y, seed=extent.seed), text


def _model(store: ActivationStore, model: TransformerBridge | None) -> TransformerBridge:
    """The model that the store was captured from."""
    if model is None:
        return load_captured_model(store)
    check_captured_model(store, model)
    return model
