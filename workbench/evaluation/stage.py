"""The evaluation stage: a run's dictionary and a random one, measured alike, into `dictionary/evaluation.json`.

    {"trained": {fvu, l0, dead_frac, ce_nats, ...}, "random": {the same}, "inputs": {what it was made from}}

The text is the held-out part of the default corpus where the dictionary was trained on the other part;
for a corpus of the user's it is the corpus itself, and `held_out` is false. A store made from an array has
no model: the rows are a sample of the array itself, `held_out` is false, and what needs losses is null.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.artifacts import read_json, write_json
from workbench.capture import check_captured_model, load_captured_model, open_store
from workbench.capture.options import PRECISIONS
from workbench.dictionaries import Dictionary, load_dictionary, random_dictionary
from workbench.errors import UserError
from workbench.evaluation.fidelity import dead_frac
from workbench.evaluation.material import choose_passages, choose_rows
from workbench.evaluation.measure import measure_quality, measure_rows
from workbench.store import ActivationStore, StoreError

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

ROWS = 4096
FORMAT = 2


def evaluate(
    run: Path,
    *,
    model: TransformerBridge | None = None,
    n_blocks: int = 96,
    n_dead_tokens: int = 100_000,
    batch_blocks: int = 8,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure the run's dictionary and its random control, and write `run/dictionary/evaluation.json`.

    Args:
        run: Run folder with activations and a dictionary.
        model: The model, if it is loaded already; by default the one that the activations came from.
        n_blocks: Blocks of text for reconstruction and losses; of an array groups of 256 rows.
        n_dead_tokens: Captured activations on which a latent must fire once not to count as dead.
        batch_blocks: Blocks per forward.
        seed: Decides the text, the random control, and the bootstrap resamples.

    Returns:
        The content of the file; one made from the same inputs is returned as it is.

    Raises:
        UserError: the run has no dictionary or activations, the model is another than the one captured, or
            its activations do not fit, or a file of the store is damaged.

    Status: exact for these tokens; intervals are 95% bootstrap over blocks of text.
    """
    if n_blocks < 2 or n_dead_tokens < 1 or batch_blocks < 1:
        raise UserError(f"n_blocks {n_blocks} must be at least 2, n_dead_tokens and batch_blocks at least 1")
    trained = load_dictionary(run / "dictionary")
    store = open_store(run, trained.hook_name)
    trained.check_width(store.d_model)
    inputs = {
        "format": FORMAT, "dictionary": trained.hash, "store": store.hash,
        "n_blocks": n_blocks, "n_dead_tokens": n_dead_tokens, "seed": seed,
    }  # fmt: skip
    path = run / "dictionary" / "evaluation.json"
    if path.exists() and (found := read_json(path)).get("inputs") == inputs:
        return found
    try:
        result = _measure(store, trained, model, n_blocks, n_dead_tokens, batch_blocks, seed)
    except StoreError as error:
        raise UserError(str(error)) from error
    write_json(path, {**result, "inputs": inputs})
    return read_json(path)


def _measure(
    store: ActivationStore,
    trained: Dictionary,
    model: TransformerBridge | None,
    n_blocks: int,
    n_dead_tokens: int,
    batch_blocks: int,
    seed: int,
) -> dict[str, Any]:
    dictionaries = {"trained": trained, "random": random_dictionary(like=trained, seed=seed)}
    if store.description["model"] is None:
        _refuse_model(store, model)
        rows, group, text = choose_rows(store, n_blocks=n_blocks, seed=seed)
        measured = measure_rows(dictionaries, rows, group, seed=seed)
    else:
        bridge = _model(store, model)
        passages, text = choose_passages(store, bridge, n_blocks=n_blocks, seed=seed)
        _, mixed = PRECISIONS[store.description["precision"]]
        measured = measure_quality(
            bridge, dictionaries, passages, batch_blocks=batch_blocks, mixed=mixed, seed=seed
        )
    result: dict[str, Any] = {name: quality.to_json() for name, quality in measured.items()}
    for name, dictionary in dictionaries.items():
        result[name]["dead_frac"] = _dead_frac(store, dictionary, n_dead_tokens, seed)
    model_hash = store.description["model_hash"]
    return {**result, "hook_name": trained.hook_name, "model_hash": model_hash, "text": text}


def _model(store: ActivationStore, model: TransformerBridge | None) -> TransformerBridge:
    """The model that the store was captured from."""
    if model is None:
        return load_captured_model(store)
    check_captured_model(store, model)
    return model


def _refuse_model(store: ActivationStore, model: TransformerBridge | None) -> None:
    if model is not None:
        raise UserError(
            f"store {str(store.folder)!r} was made from an array, so a model has nothing to be compared with: leave "
            "model out"
        )


def _dead_frac(store: ActivationStore, dictionary: Dictionary, n_tokens: int, seed: int) -> float:
    """Share of latents silent on `n_tokens` shuffled rows of the store (all of them if it holds fewer)."""
    rows = min(ROWS, n_tokens, store.n_rows)
    n_batches = max(1, min(n_tokens, store.n_rows) // rows)
    return dead_frac(dictionary, islice(store.batches(rows, seed=seed), n_batches))
