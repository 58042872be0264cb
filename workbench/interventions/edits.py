"""Interventions as edits of a model's forward pass.

An edit is a function from the live value to the value that goes on. The same edits serve whole prompts and, in
generation, the last positions alone: `first` says which position the value begins with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

import torch
from jaxtyping import Int
from torch import Tensor

from workbench.anatomy import Anatomy, Edit, Edits, recorder
from workbench.errors import UserError
from workbench.interventions.intervention import Intervention
from workbench.interventions.target import Target, checked


@dataclass(frozen=True, eq=False)
class Placed:
    """An intervention that was checked against a model and a prompt length.

    Attributes:
        about: The intervention.
        target: Its target as the model has it.
        source: Coordinates of the source run (prompt, pos, width), for a patch.
        span: First position at which it may act, and the one after the last (None: no end).
    """

    about: Intervention
    target: Target
    source: Tensor | None = None
    span: tuple[int, int | None] = (0, None)

    def acts_at(self, first: int, length: int) -> list[int]:
        """Positions from `first` to below `length` at which it acts, counted from `first`."""
        start = 1 if self.target.kind == "feature" else 0
        wanted = range(start, length) if self.about.positions is None else self.about.positions
        stop = length if self.span[1] is None else min(length, self.span[1])
        return [p - first for p in wanted if max(first, self.span[0]) <= p < stop]


def place(
    anatomy: Anatomy,
    interventions: Sequence[Intervention],
    prompts: Int[Tensor, "prompt pos"],
    counterfactual: Int[Tensor, "prompt pos"] | None = None,
) -> list[Placed]:
    """The interventions checked, with the values that patches need. Status: exact.

    Raises:
        UserError: a node or position that is not there; a patch without source, or one of other prompts' length or
            number.
    """
    placed = []
    for one in interventions:
        wanted = checked(anatomy, one.target)
        _check_positions(one, prompts.shape[1])
        _check_value(one, wanted.width(anatomy))
        source = None
        if one.action == "patch":
            ids = counterfactual if one.source is None else one.source
            source = _source(anatomy, one, wanted, _checked_source(one, ids, prompts))
        placed.append(Placed(one, wanted, source))
    return placed


def _check_positions(one: Intervention, length: int) -> None:
    beyond = [p for p in one.positions or () if not 0 <= p < length]
    if beyond:
        raise UserError(
            f"position {beyond[0]} of '{one}' is beyond the prompt of {length} tokens: give 0 to {length - 1}"
        )


def _check_value(one: Intervention, width: int) -> None:
    if not isinstance(one.value, Tensor) or one.value.ndim == 0:
        return
    n_positions = None if one.positions is None else len(one.positions)
    fits = one.value.shape[-1] in (1, width) and one.value.shape[:-1] in ((), (n_positions,))
    if not fits:
        raise UserError(
            f"value of '{one}' has shape {tuple(one.value.shape)}: give a number, {width} entries, or (with positions) "
            f"so many rows of {width} entries"
        )


def _checked_source(one: Intervention, ids: Tensor | None, prompts: Tensor) -> Tensor:
    if ids is None:
        raise UserError(
            f"'{one}' has no prompts to take values from: give source=, or pairs instead of prompts"
        )
    if ids.shape[1] != prompts.shape[1] or ids.shape[0] not in (1, prompts.shape[0]):
        raise UserError(
            f"source of '{one}' has shape {tuple(ids.shape)} and the prompts {tuple(prompts.shape)}: a patch takes "
            "values position by position, from one prompt or from as many, of the same length"
        )
    return ids.to(prompts.device)


@torch.no_grad()
def _source(anatomy: Anatomy, one: Intervention, wanted: Target, ids: Tensor) -> Tensor:
    seen, keep = recorder()
    names = {wanted.hook, *([] if wanted.reading is None else [wanted.reading.source])}
    anatomy.run(anatomy.embed(ids), stop=2 * wanted.layer + 2, edits={name: keep(name) for name in names})
    return wanted.read(seen[wanted.hook], 0, wanted.given(anatomy, seen, {}))


def edits_of(
    anatomy: Anatomy, placed: Sequence[Placed], *, first: int, length: int, frozen: Edits | None = None
) -> dict[str, Edit]:
    """Edits by TransformerLens name for values at positions `first` to `length` - 1, on top of frozen parts."""
    by_hook: dict[str, list[Placed]] = {}
    for one in placed:
        by_hook.setdefault(one.target.hook, []).append(one)
    run = _Run(anatomy, first, length, dict(frozen or {}))
    edits = {hook: run.edit(_together(group)) for hook, group in by_hook.items()}
    for one in placed:  # what transcoders read is recorded after whatever else is done there
        if one.target.reading is not None and one.target.reading.reads != "own":
            name = one.target.reading.source
            edits[name] = _after(edits.get(name), run.keep(name))
    return {**run.frozen, **edits}


def _together(placed: Sequence[Placed]) -> list[list[Placed]]:
    """Features of one dictionary in a row form one group; everything else stands alone."""
    groups = groupby(enumerate(placed), key=lambda p: _group_key(p[0], p[1].about.target))
    return [[one for _, one in group] for _, group in groups]


def _group_key(index: int, about: Target) -> tuple[str, int]:
    return ("alone", index) if about.dictionary is None else ("dictionary", id(about.dictionary))


def _after(one: Edit | None, other: Edit) -> Edit:
    return other if one is None else lambda value: other(one(value))


class _Run:
    """One edited run: where its values begin, what is frozen, what was recorded on the way."""

    def __init__(self, anatomy: Anatomy, first: int, length: int, frozen: dict[str, Edit]) -> None:
        self.anatomy, self.first, self.length, self.frozen = anatomy, first, length, frozen
        self.seen, self.keep = recorder()

    def edit(self, groups: list[list[Placed]]) -> Edit:
        """All groups at one hook, in order."""

        def edit(value: Tensor) -> Tensor:
            for group in groups:
                value = self.changed(group, value)
            return value

        return edit

    def changed(self, group: list[Placed], value: Tensor) -> Tensor:
        """The value after one group, whose coordinates are read once and then changed in order."""
        acting = {one: where for one in group if (where := one.acts_at(self.first, self.length))}
        if not acting:
            return value
        units = tuple(dict.fromkeys(unit for one in group for unit in one.target.units))
        joint = replace(group[0].target, units=units)
        old = joint.read(value, self.first, joint.given(self.anatomy, self.seen, self.frozen))
        new = old.clone()
        for one, where in acting.items():
            own = [units.index(u) for u in one.target.units] if joint.kind == "feature" else slice(None)
            part = new[..., where, :]
            part[..., own] = self.acted(one, where, part[..., own], value)
            new[..., where, :] = part
        return joint.write(value, old, new)

    def acted(self, one: Placed, where: list[int], c: Tensor, value: Tensor) -> Tensor:
        """New coordinates of one intervention at the positions `where` of the value."""
        positions = [self.first + p for p in where]
        source = None if one.source is None else one.source[..., positions, :]
        size = value[..., where, :].norm(dim=-1, keepdim=True) if one.about.action == "steer" else None
        return one.about.rows(positions).apply(c, size=size, source=source)
