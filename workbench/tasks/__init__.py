"""Tasks with known answers: seeded prompt pairs, checked against the tokenizer when they are made."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from workbench.errors import UserError, nearest
from workbench.tasks import code, english, sequence
from workbench.tasks.base import Batch, PromptPair, Task, TokenizerLike
from workbench.tasks.from_csv import is_table, task_from_table

__all__ = ["TASKS", "Batch", "PromptPair", "Task", "TokenizerLike", "make_task", "task_name"]

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


def task_name(task: str) -> str:
    """What folders of a task are called: its name, or the stem of its table."""
    return Path(task).stem if is_table(task) else task


def make_task(name: str, tokenizer: TokenizerLike, *, n_pairs: int, seed: int) -> Task:
    """`n_pairs` different prompt pairs of a task, in combinations that the embedded model was not trained on.

    Args:
        name: One of `TASKS`, or the path of a `.csv` or `.parquet` table of pairs (`workbench.tasks.from_csv`).
        tokenizer: The model's; every answer is checked to be one of its tokens.
        n_pairs: Number of pairs, at least 1.
        seed: The same seed gives the same pairs.

    Raises:
        UserError: unknown task, a table that is none or too short, or an answer or a pair that does not fit the
            tokenizer.
    """
    if n_pairs < 1:
        raise UserError(f"n_pairs {n_pairs} is less than 1: a task has at least one pair")
    if is_table(name):
        return task_from_table(Path(name).expanduser(), tokenizer, n_pairs=n_pairs, seed=seed)
    if name not in TASKS:
        raise UserError(f"task {name!r} is not known; {nearest(name, TASKS)}")
    title, make = TASKS[name]
    rng = random.Random(f"{name}-{seed}")
    pairs: dict[tuple[int, ...], PromptPair] = {}
    while len(pairs) < n_pairs:
        pair = make(rng, tokenizer)
        pairs.setdefault((*pair.clean_ids, pair.answer_id, pair.counterfactual_answer_id), pair)
    description = (make.__doc__ or "").split("\n")[0]
    return Task(name, title, description, tuple(pairs.values()))
