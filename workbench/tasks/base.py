"""Prompt pairs with known answers: what a circuit is traced on and scored by.

A pair holds a clean prompt, a counterfactual prompt of the same number of tokens, and one-token answers to
each. The metric everywhere is the logit difference: logit(answer) - logit(counterfactual answer) at the
last position. A pair is checked against the tokenizer when it is made; a word that is not one token is
refused with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from workbench.errors import UserError


@runtime_checkable
class TokenizerLike(Protocol):
    """The part of a Hugging Face tokenizer that tasks need."""

    bos_token_id: Any

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...

    def decode(self, ids: list[int]) -> str: ...


@dataclass(frozen=True)
class PromptPair:
    """A clean and a counterfactual prompt with their answers; ids start with the beginning-of-text token, if any."""

    clean_ids: tuple[int, ...]
    counterfactual_ids: tuple[int, ...]
    answer_id: int
    counterfactual_answer_id: int
    clean_text: str
    counterfactual_text: str
    answer: str
    counterfactual_answer: str

    def __post_init__(self) -> None:
        if len(self.clean_ids) != len(self.counterfactual_ids):
            raise UserError(
                f"prompts {self.clean_text!r} and {self.counterfactual_text!r} have {len(self.clean_ids)} and "
                f"{len(self.counterfactual_ids)} tokens; a pair has equal lengths: change a word"
            )
        if self.answer_id == self.counterfactual_answer_id:
            raise UserError(f"answer {self.answer!r} equals the counterfactual answer: they must differ")


@dataclass(frozen=True)
class Batch:
    """Pairs of one length as tensors."""

    clean: Int[Tensor, "pair pos"]
    counterfactual: Int[Tensor, "pair pos"]
    answer: Int[Tensor, " pair"]
    counterfactual_answer: Int[Tensor, " pair"]

    def map(self, change: Callable[[Tensor], Tensor]) -> Batch:
        """The same change of all four tensors."""
        return Batch(*(change(getattr(self, f.name)) for f in fields(self)))

    def to(self, device: torch.device) -> Batch:
        """The pairs on another device."""
        return self.map(lambda values: values.to(device))

    def take(self, rows: slice | Bool[Tensor, " pair"] | Int[Tensor, " row"]) -> Batch:
        """Some pairs, by a slice, a mask or their numbers."""
        rows = rows.to(self.answer.device) if isinstance(rows, Tensor) else rows
        return self.map(lambda values: values[rows])


@dataclass(frozen=True)
class Task:
    """A named set of prompt pairs."""

    name: str
    title: str
    description: str
    pairs: tuple[PromptPair, ...]

    def batches(self) -> list[Batch]:
        """The pairs grouped by prompt length, shortest first, in their order within a group."""
        lengths = sorted({len(p.clean_ids) for p in self.pairs})
        return [_batch([p for p in self.pairs if len(p.clean_ids) == n]) for n in lengths]


def _batch(pairs: Sequence[PromptPair]) -> Batch:
    return Batch(
        torch.tensor([p.clean_ids for p in pairs]),
        torch.tensor([p.counterfactual_ids for p in pairs]),
        torch.tensor([p.answer_id for p in pairs]),
        torch.tensor([p.counterfactual_answer_id for p in pairs]),
    )


def token_id(tokenizer: TokenizerLike, text: str) -> int:
    """The id of a text that must be one token.

    Raises:
        UserError: it is not; the message lists its tokens.
    """
    ids = tokenizer.encode(text, add_special_tokens=False)
    if len(ids) != 1:
        tokens = ", ".join(f"{i} {tokenizer.decode([i])!r}" for i in ids)
        raise UserError(
            f"answer {text!r} is {len(ids)} tokens (ids {tokens}); an answer is one token, with its space before it: "
            f"its first is {tokenizer.decode(ids[:1])!r}"
        )
    return ids[0]


def text_pair(
    tokenizer: TokenizerLike, *, clean: str, counterfactual: str, answer: str, counterfactual_answer: str
) -> PromptPair:
    """A pair from texts; the beginning-of-text token, where the tokenizer has one, is put before each.

    Raises:
        UserError: unequal lengths in tokens, or an answer that is not one token.
    """
    bos = () if tokenizer.bos_token_id is None else (int(tokenizer.bos_token_id),)
    return PromptPair(
        (*bos, *tokenizer.encode(clean, add_special_tokens=False)),
        (*bos, *tokenizer.encode(counterfactual, add_special_tokens=False)),
        token_id(tokenizer, answer),
        token_id(tokenizer, counterfactual_answer),
        clean,
        counterfactual,
        answer,
        counterfactual_answer,
    )
