"""Tasks with known answers: seeded prompt pairs, checked against the tokenizer when they are made."""

from __future__ import annotations

import random
from collections.abc import Callable

from workbench.errors import UserError, nearest
from workbench.tasks import code, english, sequence
from workbench.tasks.base import Batch, PromptPair, Task, TokenizerLike

__all__ = ["TASKS", "Batch", "PromptPair", "Task", "TokenizerLike", "make_task"]

TASKS: dict[str, tuple[str, Callable[[random.Random, TokenizerLike], PromptPair]]] = {
    "ioi": ("Indirect object", english.indirect_object),
    "greater_than": ("Greater-than (two-digit years)", english.greater_than),
    "agreement": ("Subject-verb agreement across a distractor", english.agreement),
    "induction": ("Induction (repeated random tokens)", sequence.induction),
    "brackets": ("Closing the right bracket", code.brackets),
    "quotes": ("Closing the right quote", code.quotes),
    "attribute": ("Copying an __init__ argument into its attribute", code.attribute),
    "docstring": ("Next :param of a docstring", code.docstring),
}


def make_task(name: str, tokenizer: TokenizerLike, *, n_pairs: int, seed: int) -> Task:
    """`n_pairs` different prompt pairs of a task, in combinations that the embedded model was not trained on.

    Args:
        name: One of `TASKS`.
        tokenizer: The model's; every answer is checked to be one of its tokens.
        n_pairs: Number of pairs, at least 1.
        seed: The same seed gives the same pairs.

    Raises:
        UserError: unknown task, or an answer or a pair that does not fit the tokenizer.
    """
    if name not in TASKS:
        raise UserError(f"task {name!r} is not known; {nearest(name, TASKS)}")
    if n_pairs < 1:
        raise UserError(f"n_pairs {n_pairs} is less than 1: a task has at least one pair")
    title, make = TASKS[name]
    rng = random.Random(f"{name}-{seed}")
    pairs: dict[tuple[int, ...], PromptPair] = {}
    while len(pairs) < n_pairs:
        pair = make(rng, tokenizer)
        pairs.setdefault((*pair.clean_ids, pair.answer_id, pair.counterfactual_answer_id), pair)
    description = (make.__doc__ or "").split("\n")[0]
    return Task(name, title, description, tuple(pairs.values()))
