"""Logits and logit differences under interventions, the baseline and n columns side by side.

outcome = intervene(anatomy, pairs, {"ablate": ablate("a1.h3"), "patch": patch("a1.h3")})
outcome.table()

Each column is one edited run of the same prompts; the first is always the baseline, run under the same freezing.
A run starts at the first block that its interventions touch. Status: exact; with `freeze`, exact for the model
whose frozen parts do not answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from workbench.anatomy import Anatomy, Edit
from workbench.circuits.metric import logit_difference
from workbench.errors import UserError
from workbench.interventions.edits import Placed, edits_of, place
from workbench.interventions.freeze import frozen_edits
from workbench.interventions.intervention import Intervention
from workbench.interventions.outcome import BASELINE, Outcome
from workbench.tasks import Batch

Prompts = Batch | Int[Tensor, "prompt pos"] | str | Sequence[str]
Columns = Intervention | Sequence[Intervention] | Mapping[str, Intervention | Sequence[Intervention]]


@torch.no_grad()
def intervene(
    anatomy: Anatomy,
    prompts: Prompts,
    columns: Columns,
    *,
    freeze: Sequence[str] = (),
    freeze_to: Int[Tensor, "other_prompt other_pos"] | None = None,
) -> Outcome:
    """Logits at the last position of every prompt in every column, and logit differences where answers are known.

    Args:
        anatomy: The model.
        prompts: Texts or token ids of one length; or pairs, of which the clean prompts are edited, the
            counterfactual ones give patches their values, and the answers make logit differences.
        columns: One intervention, several that act together, or several such sets by name.
        freeze: "attention" and "norms": parts that are held at their values in an unedited run.
        freeze_to: The prompts of that run; the same prompts by default.

    Raises:
        UserError: what `named_columns`, `place` and `frozen_edits` refuse.

    Status: exact.
    """
    ids, counterfactual = clean_ids(anatomy, prompts)
    named = named_columns(columns)
    placed = {name: place(anatomy, group, ids, counterfactual) for name, group in named.items()}
    frozen = frozen_edits(anatomy, freeze, ids, ids if freeze_to is None else freeze_to.to(ids.device))
    streams = _streams(anatomy, ids, frozen)
    logits = [_last_logits(anatomy, streams, group, frozen) for group in ([], *placed.values())]
    found = torch.stack(logits)
    return Outcome(
        columns=(BASELINE, *placed),
        logits=found,
        difference_logits=logit_difference(found, prompts.to(ids.device))
        if isinstance(prompts, Batch)
        else None,
        interventions=tuple(", ".join(map(str, group)) or "none" for group in ([], *named.values())),
        freeze=tuple(freeze),
    )


def clean_ids(
    anatomy: Anatomy, prompts: Prompts
) -> tuple[Int[Tensor, "prompt pos"], Int[Tensor, "prompt pos"] | None]:
    """Prompts that are edited, and those that patches take values from by default.

    Raises:
        UserError: texts of different lengths in tokens.
    """
    if isinstance(prompts, Batch):
        return prompts.clean.to(anatomy.device), prompts.counterfactual.to(anatomy.device)
    if isinstance(prompts, Tensor):
        return prompts.to(anatomy.device), None
    texts = [prompts] if isinstance(prompts, str) else list(prompts)
    rows = [anatomy.model.to_tokens(text)[0] for text in texts]
    other = next((i for i, row in enumerate(rows) if len(row) != len(rows[0])), None)
    if other is not None:
        raise UserError(
            f"prompts {texts[0]!r} and {texts[other]!r} have {len(rows[0])} and {len(rows[other])} tokens: give texts "
            "of one length, or one call each"
        )
    return torch.stack(rows).to(anatomy.device), None


def named_columns(columns: Columns) -> dict[str, list[Intervention]]:
    """Sets of interventions by column name.

    Raises:
        UserError: a column called baseline.
    """
    sets = columns if isinstance(columns, Mapping) else {"edited": columns}
    if BASELINE in sets:
        raise UserError(
            f"columns must not contain {BASELINE!r}: the unedited run is there anyway under that name"
        )
    return {name: [group] if isinstance(group, Intervention) else list(group) for name, group in sets.items()}


def _streams(anatomy: Anatomy, ids: Tensor, frozen: Mapping[str, Edit]) -> list[Tensor]:
    """The baseline's stream before every block and at the end."""
    streams = [anatomy.embed(ids)]
    for layer in range(anatomy.n_layers):
        streams.append(anatomy.run(streams[-1], start=2 * layer, stop=2 * layer + 2, edits=frozen))
    return streams


def _last_logits(
    anatomy: Anatomy, streams: Sequence[Tensor], placed: Sequence[Placed], frozen: Mapping[str, Edit]
) -> Tensor:
    first = min((one.target.layer for one in placed), default=anatomy.n_layers)
    edits = edits_of(anatomy, placed, first=0, length=streams[0].shape[1], frozen=frozen)
    x = anatomy.run(streams[first], start=2 * first, edits=edits)[:, -1:]
    held = edits.get("ln_final.hook_scale")
    last = {} if held is None else {"ln_final.hook_scale": lambda scale: held(scale)[:, -1:]}
    return anatomy.logits(x, last)[:, 0]
