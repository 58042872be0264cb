"""The stage `features`: from a run's activations and dictionary to its feature store.

One pass reads the activations, encodes them and feeds three accumulators that hold all latents at once
(`FeatureStatistics`, `ExampleSketch`, and the scratch file of codes); everything else is computed from those and
from the weights. Memory does not grow with the amount of text; scratch disk does (`codes.py`).

A store made from an array has no text and no model behind it. Its rows are blocks of one token, the row's
label, so an example is one row, found by its `block`. There are no logit effects, and no control where the
rows have no labels.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import torch

from workbench.artifacts import atomic_folder, sha256_file, write_json
from workbench.capture import load_captured_model, open_store
from workbench.dictionaries import Dictionary, load_dictionary
from workbench.errors import UserError
from workbench.evaluation.control import random_like
from workbench.features import tables
from workbench.features.codes import CodeScratch
from workbench.features.control import measure_control
from workbench.features.effects import (
    TopEffects,
    decoder_neighbours,
    final_norm,
    residual_directions,
    top_effects,
)
from workbench.features.examples import ExampleSketch, quantile_cuts, range_edges
from workbench.features.firings import candidates, firings_from_code
from workbench.features.reading import block_batches, encode, rows_per_batch
from workbench.features.statistics import FeatureStatistics
from workbench.features.store import FORMAT, FeatureStore
from workbench.features.vocabulary import label_strings, token_strings, tokenizer_hash
from workbench.models import default_device
from workbench.progress import Progress
from workbench.store import ActivationStore

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

LEAST = {
    "n_examples": 1,
    "n_quantiles": 2,
    "n_quantile_examples": 0,
    "context": 1,
    "n_effects": 1,
    "n_neighbours": 0,
    "control_tokens": 0,
}
CONTROL_TOP = 10
"""Top examples per feature in the control: fewer than in the store, because it uses a part of the text."""
NORM_BLOCKS = 16
"""Blocks of full length over whose tokens the final norm's scale is averaged."""
NO_LABELS = "the rows have no labels to compare top examples by"


@dataclass(frozen=True)
class _Options:
    n_examples: int
    n_quantiles: int
    n_quantile_examples: int
    context: int
    n_effects: int
    n_neighbours: int
    logit_effects: bool
    control_tokens: int
    seed: int


def build_features(
    run: Path,
    *,
    n_examples: int = 20,
    n_quantiles: int = 5,
    n_quantile_examples: int = 5,
    context: int = 32,
    n_effects: int = 10,
    n_neighbours: int = 10,
    logit_effects: bool = True,
    control_tokens: int = 65_000,
    seed: int = 0,
    device: str | None = None,
) -> FeatureStore:
    """Statistics, examples, logit effects and neighbours of every latent, written to `run/features/`.

    Args:
        run: Run folder with `activations/<hook>/` and `dictionary/`.
        n_examples: Top examples per feature (quantile 0).
        n_quantiles: Top examples plus `n_quantiles − 1` ranges of near-equal numbers of firings (`examples.py`).
        n_quantile_examples: Examples per range, drawn uniformly from its firings.
        context: Tokens per example.
        n_effects: Tokens per direction of the logit effects.
        n_neighbours: Decoder neighbours per feature.
        logit_effects: False for a hook that does not write to the residual stream; a store made from an array has
            none in any case.
        control_tokens: Positions for the comparison with a random dictionary (`control.py`); 0 leaves it out.
        seed: Draws of examples, and the control.
        device: Torch device of the encoder; by default CUDA where there is one, else the CPU.

    Returns:
        The opened store. Status of its parts: statistics, examples and neighbours exact on this text; logit
        effects first-order.

    Raises:
        UserError: a missing stage, a store that the dictionary does not fit, a model that has changed since the
            capture, or an option out of range.
    """
    options = _Options(
        n_examples=n_examples,
        n_quantiles=n_quantiles,
        n_quantile_examples=n_quantile_examples,
        context=context,
        n_effects=n_effects,
        n_neighbours=n_neighbours,
        logit_effects=logit_effects,
        control_tokens=control_tokens,
        seed=seed,
    )
    _check_options(options)
    dictionary = _open_dictionary(run, device or default_device())
    store = open_store(run, dictionary.hook_name)
    _check_fits(store, dictionary)
    model = load_captured_model(store) if store.description["model"] is not None else None
    if model is None:
        options = replace(options, logit_effects=False)
    with atomic_folder(run / "features") as folder:
        _build(folder, store, dictionary, model, options)
    return FeatureStore.open(run / "features")


def _check_options(options: _Options) -> None:
    for name, least in LEAST.items():
        value = getattr(options, name)
        if value < least:
            raise UserError(f"{name} {value} is too small: give at least {least}")


def _open_dictionary(run: Path, device: str) -> Dictionary:
    if not (run / "dictionary").is_dir():
        raise UserError(f"run {str(run)!r} has no dictionary: train one first")
    dictionary = load_dictionary(run / "dictionary")
    return replace(dictionary, **{name: tensor.to(device) for name, tensor in dictionary.tensors.items()})


def _check_fits(store: ActivationStore, dictionary: Dictionary) -> None:
    """Refuse a dictionary of another width or of another model than the store's."""
    if dictionary.d_in != store.d_model:
        raise UserError(
            f"dictionary reads vectors of {dictionary.d_in} numbers, the store of {store.description['hook']!r} holds "
            f"{store.d_model}: train a dictionary on this store"
        )
    trained_on, captured = dictionary.metadata.get("model_hash"), store.description["model_hash"]
    if trained_on not in (None, captured):
        there = "come from an array" if captured is None else f"in the run are of model {captured[:12]}"
        raise UserError(
            f"dictionary was trained on model {str(trained_on)[:12]}, the activations {there}: train again on this "
            "store"
        )


def _build(
    folder: Path,
    store: ActivationStore,
    dictionary: Dictionary,
    model: TransformerBridge | None,
    options: _Options,
) -> None:
    """Write every file of the feature store into `folder`, `meta.json` last."""
    with CodeScratch(folder / "scratch") as scratch:
        statistics, sketch = _collect(store, dictionary, scratch, options)
    strings, norm, effects = _words(store, model, dictionary, scratch, options)
    if effects is not None:
        tables.write_logits(folder, effects, strings)
    _write_examples(folder, store, statistics, sketch, scratch, effects, strings, options)
    shutil.rmtree(scratch.folder)
    tables.write_histograms(folder, statistics.histogram)
    neighbour, cosine = decoder_neighbours(dictionary.W_dec, n=options.n_neighbours)
    tables.write_neighbours(folder, neighbour.numpy(), cosine.numpy())
    meta = {
        **_origin(store, dictionary, model),
        "n_dead": int((statistics.n_fired == 0).sum()),
        "parameters": asdict(options),
        "final_norm": norm,
        **_control(store, dictionary, options),
        "files": {path.name: sha256_file(path) for path in sorted(folder.iterdir())},
    }
    write_json(folder / tables.META_FILE, meta)


def _collect(
    store: ActivationStore, dictionary: Dictionary, scratch: CodeScratch, options: _Options
) -> tuple[FeatureStatistics, ExampleSketch]:
    """The pass over the activations."""
    n, n_ctx = dictionary.d_sae, store.n_ctx
    unit = "tokens" if n_ctx > 1 else "rows"
    statistics = FeatureStatistics(n)
    sketch = ExampleSketch(n, n_examples=options.n_examples, n_quantile_examples=options.n_quantile_examples)
    with Progress(store.n_rows, "features", unit) as progress:
        for batch in block_batches(store, rows_per_batch(n)):
            indices, values = encode(dictionary, batch)
            firings = firings_from_code(indices, values, batch.store_block, batch.pos)
            statistics.update(firings.feature, firings.value)
            sketch.add(candidates(firings, n_features=n, n_ctx=n_ctx, seed=options.seed))
            scratch.append(batch, indices, values)
            progress.advance(len(batch.block))
    return statistics, sketch


def _words(
    store: ActivationStore,
    model: TransformerBridge | None,
    dictionary: Dictionary,
    scratch: CodeScratch,
    options: _Options,
) -> tuple[pa.Array, dict[str, Any] | None, TopEffects | None]:
    """Text of each token id, what `meta.json` says of the final norm, and the effects; None where not wanted."""
    if model is None:
        return label_strings(store), None, None
    strings = token_strings(model.tokenizer, int(model.cfg.d_vocab))
    if not options.logit_effects:
        return strings, None, None
    device = model.W_U.device
    directions = residual_directions(model, dictionary.hook_name, dictionary.W_dec.to(device))
    text = scratch.first_blocks(NORM_BLOCKS * store.n_ctx)
    norm = final_norm(model, [torch.from_numpy(ids).long().to(device) for ids in text])
    effects = top_effects(directions, model.W_U, norm, n=min(options.n_effects, int(model.cfg.d_vocab)))
    described = {
        "centred": norm.centred,
        "mean_inverse_scale": norm.mean_inverse_scale,
        "n_positions": norm.n_positions,
    }
    return strings, described, effects


def _write_examples(
    folder: Path,
    store: ActivationStore,
    statistics: FeatureStatistics,
    sketch: ExampleSketch,
    scratch: CodeScratch,
    effects: TopEffects | None,
    strings: pa.Array,
    options: _Options,
) -> None:
    """examples.arrow, and features.parquet which names their peak tokens."""
    n = statistics.n_features
    cuts = quantile_cuts(statistics.histogram, n_quantiles=options.n_quantiles)
    examples = sketch.finish(cuts)
    tables.write_examples(
        folder,
        examples,
        scratch,
        n_features=n,
        context=options.context,
        strings=strings,
        documents=store.documents,
    )
    tables.write_features(
        folder,
        statistics,
        n_rows=store.n_rows,
        peaks=tables.top_peaks(examples, scratch, n_features=n),
        edges=range_edges(cuts, statistics.max),
        effects=effects,
        strings=strings,
    )


def _control(store: ActivationStore, dictionary: Dictionary, options: _Options) -> dict[str, Any]:
    """The control, or None and the reason why there is none."""
    if options.control_tokens == 0:
        return {"control": None, "no_control": "control_tokens is 0"}
    if store.labels is not None and len(store.labels) < 2:
        return {"control": None, "no_control": NO_LABELS}
    control = random_like(dictionary, {dictionary.hook_name: store}, seed=options.seed)
    pair = {"trained": dictionary, "random": control}
    measured = measure_control(
        store, pair, n_tokens=options.control_tokens, n_top=CONTROL_TOP, seed=options.seed
    )
    return {"control": measured, "no_control": None}


def _origin(
    store: ActivationStore, dictionary: Dictionary, model: TransformerBridge | None
) -> dict[str, Any]:
    """What the features were made from."""
    return {
        "format": FORMAT,
        "hook": store.description["hook"],
        "model": store.description["model"],
        "model_hash": store.description["model_hash"],
        "tokenizer_hash": None if model is None else tokenizer_hash(model.tokenizer),
        "store_hash": store.hash,
        "dictionary_hash": dictionary.hash,
        "n_rows": store.n_rows,
        "n_ctx": store.n_ctx,
        "d_sae": dictionary.d_sae,
        "k": dictionary.settings.get("k"),
    }
