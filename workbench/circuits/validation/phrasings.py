"""The pairs of a task by the wording of their prompts, to see whether a circuit depends on it."""

from __future__ import annotations

import re
from dataclasses import replace

from workbench.errors import UserError
from workbench.tasks import Task, frames

FRAMES: dict[str, tuple[str, ...]] = {
    "ioi": frames.IOI_FRAMES,
    "greater_than": frames.YEAR_FRAMES,
    "agreement": frames.AGREEMENT_FRAMES,
}
_HOLE = re.compile(r"\\\{\w+\\\}")
_FILLED = {"\\{cc\\}": r"\d\d", "\\{yy\\}": r"\d\d"}


def phrasings(task: Task) -> dict[str, Task]:
    """The task's pairs by sentence frame, in the order of the frames; frames without a pair are left out.

    Raises:
        UserError: the task has one wording only.
    """
    if task.name not in FRAMES:
        known = ", ".join(FRAMES)
        raise UserError(
            f"task {task.name!r} has one wording: compare pairs of two seeds instead, or use one of {known}"
        )
    found: dict[str, Task] = {}
    for frame in FRAMES[task.name]:
        wording = re.compile(_HOLE.sub(lambda hole: _FILLED.get(hole[0], r"\w+"), re.escape(frame)))
        pairs = tuple(pair for pair in task.pairs if wording.fullmatch(pair.clean_text))
        if pairs:
            found[frame] = replace(task, pairs=pairs)
    return found
