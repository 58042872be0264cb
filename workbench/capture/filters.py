"""Which tokens get a row: by kind of token, position, role, and length of the activation.

The first three are decided from the tokens alone, before the model runs. The last leaves out massive
activations (Sun et al. 2024, arXiv:2402.17762): rows longer than a multiple of the median length, at any of
the captured hooks, so that the rows of all hooks stay aligned. Everything left out is counted by reason.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int32, Int64, UInt8
from torch import Tensor

from workbench.errors import UserError, nearest

KINDS = ("bos", "special")
BOS, SPECIAL, POSITION, ROLE, LONG = (
    "beginning-of-text tokens",
    "special tokens",
    "tokens at other positions",
    "tokens of other roles",
    "activations above the norm limit",
)


@dataclass(frozen=True)
class TokenFilter:
    """Decides from tokens alone.

    Attributes:
        kinds: `"bos"` leaves out a beginning-of-text token at the start of a sequence, `"special"` every
            special token of the tokenizer.
        positions: Which positions of a sequence to keep, as a Python slice; all of them by default.
        roles: Which speakers to keep; all of them by default.
        first_ids: Ids that count as beginning of text.
        special_ids: Ids that count as special.
        role_names: Names that the role numbers stand for.
    """

    kinds: tuple[str, ...]
    positions: slice
    roles: tuple[str, ...] | None
    first_ids: tuple[int, ...]
    special_ids: tuple[int, ...]
    role_names: tuple[str, ...]

    def __call__(
        self,
        tokens: Int32[np.ndarray, " token"],
        offsets: Int64[np.ndarray, " edge"],
        role: UInt8[np.ndarray, " token"] | None,
    ) -> tuple[Bool[np.ndarray, " token"], dict[str, int]]:
        """(which tokens get a row, how many do not by reason; the first reason that applies counts)."""
        reasons = {BOS: self._bos(tokens, offsets), SPECIAL: self._special(tokens)}
        reasons[POSITION] = ~self._at_position(offsets)
        if self.roles is not None and role is not None:
            wanted = [number for number, name in enumerate(self.role_names) if name in self.roles]
            reasons[ROLE] = ~np.isin(role, wanted)
        kept, counted = np.ones(len(tokens), bool), {}
        for reason, out in reasons.items():
            if n := int((kept & out).sum()):
                counted[reason] = n
            kept &= ~out
        return kept, counted

    def _bos(self, tokens: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        out = np.zeros(len(tokens), bool)
        if "bos" in self.kinds:
            starts = offsets[:-1][np.diff(offsets) > 0]
            out[starts] = np.isin(tokens[starts], self.first_ids)
        return out

    def _special(self, tokens: np.ndarray) -> np.ndarray:
        return np.isin(tokens, self.special_ids) if "special" in self.kinds else np.zeros(len(tokens), bool)

    def _at_position(self, offsets: np.ndarray) -> np.ndarray:
        wanted = np.zeros(int(offsets[-1]), bool)
        for start, stop in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
            wanted[start:stop][self.positions] = True
        return wanted


def parse_positions(text: str | None) -> slice:
    """`"1:"`, `":128"`, `"::4"`, `"-1"` as a slice; None keeps every position.

    Raises:
        UserError: it is none of these.
    """
    if text is None:
        return slice(None)
    number = r"(-?\d+)?"
    if match := re.fullmatch(rf"{number}:{number}(?::([1-9]\d*)?)?", text):
        return slice(*(int(part) if part else None for part in match.groups()))
    if re.fullmatch(r"-?\d+", text):
        return slice(int(text), int(text) + 1 or None)
    raise UserError(f"positions {text!r} is not a slice: give for instance '1:', ':128', '::4' or '-1'")


def token_filter(
    tokenizer: Any, *, leave_out: Sequence[str], positions: str | None, roles: Sequence[str] | None,
    role_names: Sequence[str],
) -> TokenFilter:  # fmt: skip
    """The filter of a capture.

    Raises:
        UserError: an unknown kind or role, a bad slice, or roles where the text has none.
    """
    for kind in leave_out:
        if kind not in KINDS:
            raise UserError(f"leave_out {kind!r} is not a kind of token; {nearest(kind, KINDS)}")
    for role in roles or ():
        if role not in role_names:
            hint = nearest(role, role_names) if role_names else "this text has none: use layout 'chat'"
            raise UserError(f"role {role!r} is not in the text; {hint}")
    ids = (getattr(tokenizer, f"{name}_token_id", None) for name in ("bos", "cls", "eos"))
    first = tuple(sorted({int(i) for i in ids if i is not None}))
    special = tuple(sorted(int(i) for i in getattr(tokenizer, "all_special_ids", ())))
    return TokenFilter(
        tuple(sorted(set(leave_out))),
        parse_positions(positions),
        tuple(sorted(set(roles))) if roles is not None else None,
        first,
        special,
        tuple(role_names),
    )


def row_norms(rows: Tensor) -> Tensor:
    """Length of each row (row)."""
    return rows.float().norm(dim=1)


@dataclass(frozen=True)
class NormFilter:
    """Leaves out rows that are longer than `limits[hook]` at any hook."""

    limits: Mapping[str, float]

    def keep(self, activations: Mapping[str, Tensor]) -> Bool[np.ndarray, " row"]:
        """Which rows to keep."""
        longer = [row_norms(activations[name]) > limit for name, limit in self.limits.items()]
        return (~torch.stack(longer).any(0)).numpy()
