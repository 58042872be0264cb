"""Induction: a repeated sequence of random tokens, continued from its first copy."""

from __future__ import annotations

import random

from workbench.tasks.base import PromptPair, TokenizerLike

PERIOD = 24


def repeated_sequence(rng: random.Random, n_vocab: int, *, period: int, length: int) -> list[int]:
    """`length` ids that repeat `period` random ids; id 0 (end of text in the embedded model) is not drawn."""
    once = [rng.randrange(1, n_vocab) for _ in range(period)]
    return [once[i % period] for i in range(length)]


def induction(rng: random.Random, tokenizer: TokenizerLike) -> PromptPair:
    """`A B C ... A` -> `B`: what followed the last token the first time; the counterfactual had another follower.

    Source: Olsson et al. 2022, arXiv:2209.11895.
    """
    bos, n_vocab = int(tokenizer.bos_token_id), len(tokenizer)  # type: ignore[arg-type]
    once = rng.sample(range(1, n_vocab), PERIOD + 1)
    other = once.pop()
    seen = rng.randrange(4, PERIOD - 4)
    changed = [*once[: seen + 1], other, *once[seen + 2 :]]
    clean, counterfactual = ((bos, *copy, *once[: seen + 1]) for copy in (once, changed))
    answer, other_answer = once[seen + 1], other
    return PromptPair(
        clean,
        counterfactual,
        answer,
        other_answer,
        *(tokenizer.decode(list(ids)) for ids in (clean[1:], counterfactual[1:], (answer,), (other_answer,))),
    )
