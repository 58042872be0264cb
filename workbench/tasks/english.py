"""The English tasks: indirect object, greater-than, agreement across a distractor.

All words are drawn from combinations that the embedded model's training never showed
(`workbench.tasks.words.held_out`).
"""

from __future__ import annotations

import random

from workbench.tasks import frames
from workbench.tasks.base import PromptPair, TokenizerLike, text_pair


def indirect_object(rng: random.Random, tokenizer: TokenizerLike) -> PromptPair:
    """`When Mary and John went to the store, John gave a drink to` -> ` Mary`; the counterfactual has Mary give.

    Source: Wang et al. 2022, arXiv:2211.00593.
    """
    words = frames.draw_ioi(rng, evaluation=True)
    giver, receiver = words["S"], words["A"] if words["S"] == words["B"] else words["B"]
    return text_pair(
        tokenizer,
        clean=words["frame"].format(**words),
        counterfactual=words["frame"].format(**(words | {"S": receiver})),
        answer=f" {receiver}",
        counterfactual_answer=f" {giver}",
    )


def greater_than(rng: random.Random, tokenizer: TokenizerLike) -> PromptPair:
    """`The war lasted from the year 1732 to the year 17` -> a larger year rather than a smaller one.

    The answer is larger than the clean start year and the counterfactual answer smaller; the counterfactual
    prompt starts before both, so there neither is wrong.

    Source: Hanna et al. 2023, arXiv:2305.00586.
    """
    words = frames.draw_years(rng, evaluation=True, low=12, high=95)
    start = int(words["yy"])
    larger, smaller = rng.randint(start + 1, 99), rng.randint(7, start - 1)
    early = f"{rng.randint(2, smaller - 1):02d}"
    return text_pair(
        tokenizer,
        clean=words["frame"].format(**words),
        counterfactual=words["frame"].format(**(words | {"yy": early})),
        answer=f"{larger:02d}",
        counterfactual_answer=f"{smaller:02d}",
    )


def agreement(rng: random.Random, tokenizer: TokenizerLike) -> PromptPair:
    """`The keys near the cabinet` -> ` are`: the verb agrees with the subject, not with the nearer noun.

    The distractor has the other number; the counterfactual flips the subject's number.

    Source: Linzen et al. 2016, arXiv:1611.01368.
    """
    words = frames.draw_agreement(rng, evaluation=True)
    singular, plural = words["subject"], words["subject"] + "s"
    is_plural = rng.random() < 0.5
    filled = words | {"distractor": words["distractor"] + ("" if is_plural else "s")}
    verbs = (words["plural"], words["singular"]) if is_plural else (words["singular"], words["plural"])
    return text_pair(
        tokenizer,
        clean=filled["frame"].format(**(filled | {"subject": plural if is_plural else singular})),
        counterfactual=filled["frame"].format(**(filled | {"subject": singular if is_plural else plural})),
        answer=f" {verbs[0]}",
        counterfactual_answer=f" {verbs[1]}",
    )
