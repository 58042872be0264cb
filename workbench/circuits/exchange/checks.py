"""Small checks of JSON values, each refusing with a sentence that says where the value stands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from workbench.errors import UserError


def need(part: Any, keys: Sequence[str], what: str) -> None:
    """Refuse what is no object or lacks one of the keys."""
    if not isinstance(part, dict):
        raise UserError(
            f"{what} is {shown(part)}, not an object: give one with {', '.join(keys) or 'names as keys'}"
        )
    missing = [key for key in keys if key not in part]
    if missing:
        raise UserError(f"{what} lacks {', '.join(missing)}: the exchange schema requires {', '.join(keys)}")


def need_list(value: Any, what: str) -> list[Any]:
    """Refuse what is no list."""
    if not isinstance(value, list):
        raise UserError(f"{what} is {shown(value)}: give a list")
    return value


def need_text(value: Any, what: str) -> str:
    """Refuse what is no string."""
    if not isinstance(value, str):
        raise UserError(f"{what} is {shown(value)}: give a string")
    return value


def is_whole(value: Any) -> bool:
    """Whether it is an integer and no truth value."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether it is a finite number and no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def shown(value: Any) -> str:
    """A value for a sentence, at most 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
