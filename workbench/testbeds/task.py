"""The eight tasks of the embedded model as beds without a known truth.

A bed gives pairs of one prompt length, the one that is commonest among the task's pairs, so that a batch is
one tensor; `workbench.tasks.make_task` has them all.
"""

from __future__ import annotations

from collections import Counter
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from workbench.errors import UserError
from workbench.models import EMBEDDED, load_model
from workbench.tasks import TASKS, Batch, make_task
from workbench.testbeds.truth import Builder, TestBed

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge

NOTE = "No truth is known: what a circuit says here is checked by intervening, not against a list of edges."
SURVEY_PAIRS = 64
MOST_DRAWS = 16


def _builder(name: str) -> Builder:
    def make(*, model: TransformerBridge | None = None) -> TestBed:
        """The task on `model`, by default the embedded model."""
        bridge: Any = load_model(EMBEDDED) if model is None else model
        title = TASKS[name][0]
        return TestBed(
            name=f"task.{name}",
            title=title,
            description=make_task(name, bridge.tokenizer, n_pairs=1, seed=0).description,
            model=bridge,
            sampler=partial(_sample, name, bridge.tokenizer),
            note=NOTE,
        )

    return make


def _sample(name: str, tokenizer: Any, n_pairs: int, seed: int) -> Batch:
    """The first `n_pairs` pairs of the commonest length among those of a seed.

    Raises:
        UserError: there are not enough of that length.
    """
    length = _commonest_length(name, tokenizer)
    drawn = n_pairs
    while drawn <= n_pairs * MOST_DRAWS:
        task = make_task(name, tokenizer, n_pairs=drawn, seed=seed)
        for batch in task.batches():
            if batch.clean.shape[1] == length and len(batch.clean) >= n_pairs:
                return batch.take(slice(n_pairs))
        drawn *= 2
    raise UserError(
        f"n_pairs {n_pairs} is more than task {name!r} has at {length} tokens a prompt: give fewer pairs"
    )


@cache
def _commonest_length(name: str, tokenizer: Any) -> int:
    pairs = make_task(name, tokenizer, n_pairs=SURVEY_PAIRS, seed=0).pairs
    return Counter(len(p.clean_ids) for p in pairs).most_common(1)[0][0]


BEDS = {name: _builder(name) for name in TASKS}
