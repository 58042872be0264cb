"""Errors that a user can act on: one sentence naming the argument, its value, the rule and the next step.

The command line prints them without a traceback and leaves with status 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A bad input: the message is the whole story, a traceback would add nothing."""


def nearest(name: str, options: Iterable[str], *, n: int = 3) -> str:
    """The end of an error sentence: the options nearest to `name`, or the first few if none is near."""
    known = list(options)
    close = difflib.get_close_matches(name, known, n=n, cutoff=0.4)
    if close:
        return "the nearest: " + ", ".join(close)
    shown = ", ".join(known[:8]) + (", ..." if len(known) > 8 else "")
    return f"known: {shown}" if shown else "none is known"
