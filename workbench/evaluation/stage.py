"""The evaluation stage: a run's dictionary and its controls, measured alike, into `dictionary/evaluation.json`.

    {"trained": {fvu, l0, dead_frac, ce_nats, ...}, "random": {the same}, "inputs": {what it was made from}}

With `random_model` there is a third set of figures, `random_model`: of a dictionary that was trained with the
same options on a random-weight model of the same configuration, measured on that model (`random_model.py`).

The text is the held-out part of the default corpus where the dictionary was trained on the other part;
for a corpus of the user's it is the corpus itself, and `held_out` is false. A store made from an array has
no model: the rows are a sample of the array itself, `held_out` is false, and what needs losses is null.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.artifacts import read_json, write_json
from workbench.errors import UserError
from workbench.evaluation.assess import Extent, Subject, assess
from workbench.evaluation.random_model import random_model_control
from workbench.store import StoreError

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

FORMAT = 3
EVALUATION = "evaluation.json"


def evaluate(
    run: Path,
    *,
    model: TransformerBridge | None = None,
    n_blocks: int = 96,
    n_dead_tokens: int = 100_000,
    batch_blocks: int = 8,
    random_model: bool = False,
    random_model_tokens: int | None = None,
    other_run: Path | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure the run's dictionary and its controls, and write `run/dictionary/evaluation.json`.

    Args:
        run: Run folder with activations and a dictionary.
        model: The model, if it is loaded already; by default the one that the activations came from.
        n_blocks: Blocks of text for reconstruction and losses; of an array groups of 256 rows.
        n_dead_tokens: Captured activations on which a latent must fire once not to count as dead.
        batch_blocks: Blocks per forward.
        random_model: Whether to train a dictionary on a random-weight model too; costs another capture and training.
        random_model_tokens: Training tokens of that dictionary; by default those of the run's.
        other_run: Run folder of the second model of a crosscoder of two.
        seed: Decides the text, the random controls, and the bootstrap resamples.

    Returns:
        The content of the file; one made from the same inputs is returned as it is.

    Raises:
        UserError: the run has no dictionary or activations, the model is another than the one captured, or
            its activations do not fit, or a file of the store is damaged.

    Status: exact for these tokens; intervals are 95% bootstrap over blocks of text.
    """
    extent = Extent(n_blocks=n_blocks, n_dead_tokens=n_dead_tokens, batch_blocks=batch_blocks, seed=seed)
    tokens = (random_model_tokens or 0) if random_model else None
    return evaluate_folder(
        run, run / "dictionary", extent, model=model, random_model_tokens=tokens, other_run=other_run
    )


def evaluate_folder(
    run: Path,
    folder: Path,
    extent: Extent,
    *,
    model: TransformerBridge | None = None,
    random_model_tokens: int | None = None,
    other_run: Path | None = None,
) -> dict[str, Any]:
    """Measure the dictionary in any folder of a run, one of a sweep for instance, and write `evaluation.json` there.

    Args:
        run: Run folder with activations.
        folder: Of the dictionary.
        extent: How much is measured.
        model: The model, if it is loaded already.
        random_model_tokens: Training tokens of a dictionary of a random-weight model; 0 for as many as this one's,
            None for no such control.
        other_run: Run folder of the second model of a crosscoder of two.

    Raises:
        UserError: as `evaluate`.
    """
    subject = Subject.open(run, folder, other_run=other_run)
    inputs = {
        "format": FORMAT, "dictionary": subject.dictionary.hash, "store": subject.hashes,
        **asdict(extent), "random_model_tokens": random_model_tokens,
    }  # fmt: skip
    del inputs["batch_blocks"]
    path = folder / EVALUATION
    if path.exists() and (found := read_json(path)).get("inputs") == inputs:
        return found
    try:
        result = assess(subject, extent, model=model)
        if random_model_tokens is not None:
            result["random_model"] = random_model_control(run, subject, extent, n_tokens=random_model_tokens)
    except StoreError as error:
        raise UserError(str(error)) from error
    write_json(path, {**result, "inputs": inputs})
    return read_json(path)
