"""Held-out prompts: a circuit is chosen on some pairs and judged on others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from workbench.circuits.metric import task_batches
from workbench.circuits.observation import Activations, activations
from workbench.circuits.setting import Setting
from workbench.errors import UserError
from workbench.tasks import Batch, Task, make_task
from workbench.tasks.from_csv import is_table, read_rows


@dataclass(frozen=True)
class HeldOut:
    """Held-out pairs of one length.

    Attributes:
        batch: What is judged.
        clean: Activations of its clean prompts.
        reference: Activations of the reference counterfactual prompts of that length, which give the means.
        reference_batch: Those pairs.
    """

    batch: Batch
    clean: Activations
    reference: Activations
    reference_batch: Batch


def held_out(
    setting: Setting, task: str, meta: dict[str, Any], *, n_pairs: int, n_reference: int, seed: int
) -> list[HeldOut]:
    """Pairs that were not traced, by length, with the activations that the ablations need."""
    tokenizer, traced_seed = setting.model.tokenizer, int(meta["seed"])
    seen = {
        p.clean_ids for p in make_task(task, tokenizer, n_pairs=meta["n_prompts"], seed=traced_seed).pairs
    }
    if is_table(task):
        n_reference = min(n_reference, _untraced_rows(task, len(seen)))
    drawn = make_task(task, tokenizer, n_pairs=n_reference + len(seen), seed=traced_seed + seed + 1)
    fresh = tuple(p for p in drawn.pairs if p.clean_ids not in seen)[:n_reference]
    if len(fresh) < n_reference:
        raise UserError(
            f"task {task!r} has only {len(fresh)} pairs that were not traced: lower n_reference to that"
        )
    return _observe(setting, replace(drawn, pairs=fresh[:n_pairs]), replace(drawn, pairs=fresh))


def _untraced_rows(table: str, n_traced: int) -> int:
    """Rows of a user's table that were not traced."""
    rows = {tuple(row.values()) for row in read_rows(Path(table).expanduser())}
    if len(rows) - n_traced < 2:
        raise UserError(
            f"task {table!r} has {len(rows)} different rows and {n_traced} were traced: add rows, or trace with a "
            "smaller n_pairs, so that at least 2 are left to judge on"
        )
    return len(rows) - n_traced


def _observe(setting: Setting, judged: Task, reference: Task) -> list[HeldOut]:
    anatomy = setting.anatomy
    others = {b.clean.shape[1]: b for b in task_batches(reference, anatomy.device)}
    held = []
    for batch in task_batches(judged, anatomy.device):
        other = others[batch.clean.shape[1]]
        seen = activations(anatomy, batch.clean), activations(anatomy, other.counterfactual)
        held.append(HeldOut(batch, *seen, other))
    return held
