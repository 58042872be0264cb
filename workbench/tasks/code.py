"""The Python tasks: closing brackets and quotes, copying an argument into its attribute, the next `:param`."""

from __future__ import annotations

import random

from workbench.tasks import frames, words
from workbench.tasks.base import PromptPair, TokenizerLike, text_pair

CLOSERS = {"(": ")", "[": "]", "{": "}"}


def _inner(rng: random.Random) -> str:
    """A closed bracketed expression, a distractor."""
    opener = rng.choice("([{")
    return f"{opener}{', '.join(rng.sample(words.ARGUMENTS, 2))}{CLOSERS[opener]}"


def brackets(rng: random.Random, tokenizer: TokenizerLike) -> PromptPair:
    """`size = {name, [(a, b), depth` -> `]`: the innermost open bracket is the one to close.

    The counterfactual opens that place with another bracket; half the prompts hold a closed distractor after it.
    """
    first, second, outer = *rng.sample("([{", 2), rng.choice("([{")
    before, target, *items = rng.sample(words.ARGUMENTS, 5)
    middle = [_inner(rng)] if rng.random() < 0.5 else []
    body = ", ".join([items[0], *middle, items[1]])
    return text_pair(
        tokenizer,
        clean=f"{target} = {outer}{before}, {first}{body}",
        counterfactual=f"{target} = {outer}{before}, {second}{body}",
        answer=CLOSERS[first],
        counterfactual_answer=CLOSERS[second],
    )


def quotes(rng: random.Random, tokenizer: TokenizerLike) -> PromptPair:
    """`send(name, "old red value` -> `"`: the quote that opened the string closes it."""
    first, second = rng.sample("'\"", 2)
    text = " ".join(rng.sample([*words.ARGUMENTS, *words.ADJECTIVES], rng.randint(2, 4)))
    argument, function = rng.choice(words.ARGUMENTS), rng.choice(words.FUNCTIONS)
    head = rng.choice((f"{argument} = ", f"{function}({argument}, ", f"{function}("))
    return text_pair(
        tokenizer,
        clean=f"{head}{first}{text}",
        counterfactual=f"{head}{second}{text}",
        answer=first,
        counterfactual_answer=second,
    )


def _equally_long(tokenizer: TokenizerLike, a: str, b: str) -> bool:
    """Whether two texts have the same number of tokens (`.size` may be one token and `.depth` two)."""
    return len({len(tokenizer.encode(text, add_special_tokens=False)) for text in (a, b)}) == 1


def attribute(rng: random.Random, tokenizer: TokenizerLike) -> PromptPair:
    """A class whose `__init__` has reached `self.size =` -> ` size`; the counterfactual assigns another attribute."""
    while True:
        arguments = frames.draw_arguments(rng, 4, evaluation=True)
        clean, counterfactual = rng.sample(arguments[-2:], 2)
        if _equally_long(tokenizer, f".{clean}", f".{counterfactual}"):
            break
    head = frames.class_text(rng.choice(words.CLASSES), rng.sample(arguments, 4), arguments[:1])
    return text_pair(
        tokenizer,
        clean=f"{head}\n        self.{clean} =",
        counterfactual=f"{head}\n        self.{counterfactual} =",
        answer=f" {clean}",
        counterfactual_answer=f" {counterfactual}",
    )


def docstring(rng: random.Random, tokenizer: TokenizerLike) -> PromptPair:
    """A docstring that describes two of four arguments -> the third; the counterfactual swaps the last two.

    Source: Heimersheim and Janiak 2023, "A circuit for Python docstrings in a 4-layer attention-only transformer".
    """
    *first, third, fourth = frames.draw_arguments(rng, 4, evaluation=True)
    described = [(a, rng.choice(words.DESCRIPTIONS)) for a in first]
    function, noun = rng.choice(words.FUNCTIONS), rng.choice(words.NOUNS)
    return text_pair(
        tokenizer,
        clean=frames.docstring_text(function, [*first, third, fourth], described, noun) + "\n    :param",
        counterfactual=frames.docstring_text(function, [*first, fourth, third], described, noun)
        + "\n    :param",
        answer=f" {third}",
        counterfactual_answer=f" {fourth}",
    )
