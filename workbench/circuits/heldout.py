"""Held-out prompts: a circuit is chosen on some pairs and judged on others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from workbench.circuits.metric import task_batches
from workbench.circuits.observation import Activations, activations
from workbench.circuits.setting import Setting
from workbench.errors import UserError
from workbench.tasks import Batch, Task, make_task


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
    drawn = make_task(task, tokenizer, n_pairs=n_reference + len(seen), seed=traced_seed + seed + 1)
    fresh = tuple(p for p in drawn.pairs if p.clean_ids not in seen)[:n_reference]
    if len(fresh) < n_reference:
        raise UserError(
            f"task {task!r} has only {len(fresh)} pairs that were not traced: lower n_reference to that"
        )
    return _observe(setting, replace(drawn, pairs=fresh[:n_pairs]), replace(drawn, pairs=fresh))


def _observe(setting: Setting, judged: Task, reference: Task) -> list[HeldOut]:
    anatomy = setting.anatomy
    others = {b.clean.shape[1]: b for b in task_batches(reference, anatomy.device)}
    held = []
    for batch in task_batches(judged, anatomy.device):
        other = others[batch.clean.shape[1]]
        seen = activations(anatomy, batch.clean), activations(anatomy, other.counterfactual)
        held.append(HeldOut(batch, *seen, other))
    return held
