"""The control that is trained too: a dictionary of a random-weight model of the same configuration.

What a dictionary finds in activations is in part the text's and the architecture's doing: dictionaries of
random-weight transformers reach similar FVU and similarly coherent latents (Heap et al. 2025,
arXiv:2501.17727). So the same text is captured through a seeded re-initialised model at the same hooks, a
dictionary is trained on it with the same options, and it is measured on that model. Where its figures are as
good, they are no evidence of anything that the trained model learned.

The activations go through a scratch folder of the run (as many bytes as they have at the run's hooks), so that
every layout, filter and precision takes the very path of the run; it is removed afterwards. A random-weight
model predicts nothing, so there is no loss to recover: that share is left out, the share of its predictions (KL)
is not.
"""

from __future__ import annotations

import inspect
import tempfile
from pathlib import Path
from typing import Any

from workbench.capture import capture
from workbench.errors import UserError
from workbench.evaluation.assess import Extent, Subject, assess
from workbench.models import load_random_model
from workbench.training import train
from workbench.training.source import open_source


def random_model_control(run: Path, subject: Subject, extent: Extent, *, n_tokens: int = 0) -> dict[str, Any]:
    """Figures of a dictionary trained as the subject's, on a random-weight model of the same configuration.

    Args:
        run: Where the scratch folder is made.
        subject: The run's own dictionary and activations.
        extent: How much is measured.
        n_tokens: Training tokens; 0 for as many as the subject's dictionary had.

    Returns:
        The figures of a set of `evaluation.json`, with `n_training_tokens` and, as `random`, those of the random
        dictionary beside it.

    Raises:
        UserError: the run has no model behind it, or its dictionary was not trained here.

    Status: exact for one seed of weights; seeds differ.
    """
    made, options = capture_options(subject), training_options(run, subject)
    options["n_tokens"] = n_tokens or options["n_tokens"]
    with tempfile.TemporaryDirectory(prefix=".random-model-", dir=run) as name:
        scratch = Path(name)
        bridge = load_random_model(made["model"], seed=extent.seed)
        capture(scratch, bridge=bridge, **made)
        train(scratch, **options)
        found = assess(Subject.open(scratch, scratch / "dictionary"), extent, model=bridge)
    for one in (found["trained"], found["random"]):
        one.update({f"ce_recovered_frac{end}": None for end in ("", "_low", "_high")})
    figures = {"n_training_tokens": options["n_tokens"], "model_hash": found["model_hash"]}
    return {**found["trained"], **figures, "random": found["random"]}


def capture_options(subject: Subject) -> dict[str, Any]:
    """The options of `capture` that make the stores of a subject.

    Raises:
        UserError: the activations are of an array, or of two models.
    """
    if subject.ends.two_models:
        raise UserError("a crosscoder of two models has no random_model control: leave random_model out")
    about = subject.store.description
    if about["model"] is None:
        raise UserError(
            f"store {str(subject.store.folder)!r} was made from an array, so there is no model to randomise: leave "
            "random_model out"
        )
    text, limit = about["text"], about["max_norm"]
    reading = {
        name: text[name] for name in ("layout", "column", "split", "seed") if text.get(name) is not None
    }
    return {
        "model": about["model"], "text": about["source"], "hooks": list(subject.ends.hooks), **reading,
        "n_tokens": subject.store.n_rows, "n_ctx": about["n_ctx"], "leave_out": about["leave_out"],
        "positions": about["positions"], "roles": about["kept_roles"], "dtype": about["dtype"],
        "precision": about["precision"], "max_norm_multiple": limit and limit["multiple_of_median"],
    }  # fmt: skip


def training_options(run: Path, subject: Subject) -> dict[str, Any]:
    """The options of `train` that made a subject's dictionary.

    Raises:
        UserError: they are not in its metadata, or not all of them (those of a layout or of end-to-end training).
    """
    identity = subject.dictionary.metadata.get("identity")
    if not identity:
        raise UserError(
            f"the dictionary of {subject.dictionary.hook_name!r} does not say how it was trained: leave "
            "random_model out, or train one here"
        )
    known, ends = inspect.signature(train).parameters, subject.ends
    given = {name: value for name, value in identity.items() if name in known and name != "store"}
    hooks = [site.name for site in ends.inputs]
    hook_out = None if ends.same else [site.name for site in ends.targets]
    layout = str(given.get("layout", "autoencoder"))
    if open_source(run, layout=layout, hook=hooks, hook_out=hook_out).hash != identity["store"]:
        raise UserError(
            "the dictionary was trained on other activations than the run's, or with layout_options or end_to_end, "
            "which it does not keep: leave random_model out"
        )
    return {**given, "hook": hooks, "hook_out": hook_out}
